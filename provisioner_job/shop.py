"""Asking the shop for its products: a store is ready when it answers with data, not when its pods are up.

The HTTP client is imported with the first question: it brings the whole of `email`, which the start of every store
would pay for before the handshake.
"""

import asyncio
import json
from typing import Final

from provisioner_job import medusa
from provisioner_job.errors import RetryableError
from provisioner_job.journal import Journal

__all__ = ["ask_for_products", "products_in"]

_POLL_SECONDS: Final = 0.1
"""The last thing a whole order waits for; while the shop is not there, a refusal on the spot."""
_ANSWER_SECONDS: Final = 10.0
_BODY_LIMIT_BYTES: Final = 4 * 2**20
_OK: Final = 200
_SHOWN_CHARACTERS: Final = 200


async def ask_for_products(host: str, port: int, key: str, journal: Journal) -> int:
    """Ask until the shop answers with at least one product and return their number.

    The caller's time limit ends the asking; the last answer is in the log by then.
    """
    import http.client  # noqa: PLC0415 -- see the module's docstring

    told = ""
    while True:
        try:
            return await asyncio.to_thread(_ask, host, port, key)
        except (OSError, http.client.HTTPException, RetryableError) as error:
            said = error.detail if isinstance(error, RetryableError) else f"{type(error).__name__}: {error}"
        if said != told:
            told = said
            journal.say("the shop does not answer yet", phase="verify", cause=said)
        await asyncio.sleep(_POLL_SECONDS)


def _ask(host: str, port: int, key: str) -> int:
    import http.client  # noqa: PLC0415 -- see the module's docstring

    # The standard library's client goes straight to the Service, whatever proxy the environment names.
    connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", medusa.PRODUCTS_PATH, headers={medusa.KEY_HEADER: key, "Accept": "application/json"})
        response = connection.getresponse()
        return products_in(response.status, response.read(_BODY_LIMIT_BYTES))
    finally:
        connection.close()


def products_in(status: int, body: bytes) -> int:
    """Return the number of products in an answer.

    Raises
    ------
    RetryableError
        It is not the answer of a shop with products.
    """
    if status == _OK:
        try:
            count = len(json.loads(body)["products"])
        except (ValueError, KeyError, TypeError):
            count = 0
        if count:
            return count
    shown = body[:_SHOWN_CHARACTERS].decode("utf-8", "replace")
    raise RetryableError("NO_PRODUCTS", "The shop has no products to show", f"HTTP {status}: {shown}")
