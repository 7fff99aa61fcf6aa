"""Asking the shop for its products: a store is ready when it answers with data, not when its pods are up.

The HTTP client is imported with the first question: it brings the whole of `email`, which the start of every store
would pay for before the handshake.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from provisioner_job.errors import RetryableError
from provisioner_job.journal import Journal
from provisioner_job.store_secrets import filled

__all__ = ["OFFICIAL", "Answer", "Question", "ask_for_products", "products_in", "question_of"]

OFFICIAL: Final = "official"
"""The flavour of a shop that says nothing of it: a stand-in has to."""
_FLAVOUR_HEADER: Final = "X-Storeplane-Flavour"
_FLAVOUR_LIMIT: Final = 32
_POLL_SECONDS: Final = 0.1
"""The last thing a whole order waits for; while the shop is not there, a refusal on the spot."""
_ANSWER_SECONDS: Final = 10.0
_BODY_LIMIT_BYTES: Final = 4 * 2**20
_OK: Final = 200
_SHOWN_CHARACTERS: Final = 200


class Question(NamedTuple):
    """A request for products, and where the answer has them."""

    address: str
    """Of the shop's Service, as the cluster names it."""
    port: int
    path: str
    headers: Mapping[str, str]
    items: str
    """Name of the list in the answer; empty when the answer is the list."""


class Answer(NamedTuple):
    """What a shop with products says."""

    products: int
    flavour: str
    """`official`, or what a stand-in calls itself."""


def question_of(spec: Mapping[str, Any], namespace: str, texts: Mapping[str, str]) -> Question:
    """Return the question that proves the store of this spec, as a browser's would arrive: with the shop's own host."""
    proof, public = spec["proof"], urlsplit(spec["public_url"])
    headers = {name: filled(template, texts) for name, template in proof["headers"].items()}
    usual = {"Host": public.netloc, "X-Forwarded-Proto": public.scheme, "Accept": "application/json"}
    address = f"{proof['service']}.{namespace}.svc.cluster.local"
    return Question(address, proof["port"], proof["path"], usual | headers, proof["items"])


async def ask_for_products(question: Question, journal: Journal) -> Answer:
    """Ask until the shop answers with at least one product.

    The caller's time limit ends the asking; the last answer is in the log by then.
    """
    import http.client  # noqa: PLC0415 -- see the module's docstring

    told = ""
    while True:
        try:
            return await asyncio.to_thread(_ask, question)
        except (OSError, http.client.HTTPException, RetryableError) as error:
            said = error.detail if isinstance(error, RetryableError) else f"{type(error).__name__}: {error}"
        if said != told:
            told = said
            journal.say("the shop does not answer yet", phase="verify", cause=said)
        await asyncio.sleep(_POLL_SECONDS)


def _ask(question: Question) -> Answer:
    import http.client  # noqa: PLC0415 -- see the module's docstring

    # The standard library's client goes straight to the Service, whatever proxy the environment names.
    connection = http.client.HTTPConnection(question.address, question.port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", question.path, headers=dict(question.headers))
        response = connection.getresponse()
        count = products_in(response.status, response.read(_BODY_LIMIT_BYTES), question.items)
        return Answer(count, (response.getheader(_FLAVOUR_HEADER) or OFFICIAL)[:_FLAVOUR_LIMIT])
    finally:
        connection.close()


def products_in(status: int, body: bytes, items: str) -> int:
    """Return the number of products in an answer; `items` names their list, empty for the answer itself.

    Raises
    ------
    RetryableError
        It is not the answer of a shop with products.
    """
    if status == _OK:
        try:
            answer = json.loads(body)
            listed = answer[items] if items else answer
        except (ValueError, KeyError, TypeError, RecursionError):
            listed = None
        if isinstance(listed, list) and listed:
            return len(listed)
    shown = body[:_SHOWN_CHARACTERS].decode("utf-8", "replace")
    raise RetryableError("NO_PRODUCTS", "The shop has no products to show", f"HTTP {status}: {shown}")
