"""What comes with a request, checked: ids in the path, the query string, the body, headers."""

import asyncio
import base64
import binascii
import hashlib
import json
import re
import secrets
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, TypeVar
from uuid import UUID

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from controlplane.api.problems import invalid_fields
from controlplane.db.idempotency import IdempotencyKey
from controlplane.db.stores import Page
from controlplane.domain.errors import FieldProblem, InvalidInputError, NotFoundError
from controlplane.domain.store import Caller

__all__ = ["cursor_of", "idempotency_key", "page_in", "path_id", "read_body", "read_query", "traceparent"]

_YEARS: Final = (1970, 9998)
"""Of a cursor's moment: Postgres and Python differ at the ends of time."""
_BODY_SECONDS: Final = 10.0
"""For the whole body: the largest is a few hundred bytes."""
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_Model = TypeVar("_Model", bound=BaseModel)


def path_id(request: web.Request) -> UUID:
    """Return the id in the path; `NotFoundError` when it is none, since nothing can have it."""
    raw = request.match_info["id"]
    if _ID.fullmatch(raw) is None:
        message = "There is nothing with this id"
        raise NotFoundError(message)
    return UUID(raw)


def read_query(request: web.Request, model: type[_Model]) -> _Model:
    """Return the query string as `model`; `InvalidInputError` names every parameter that is wrong or unknown."""
    _check_once_each(request.query.items(), "The query string")
    try:
        return model.model_validate(dict(request.query))
    except ValidationError as error:
        raise invalid_fields(error, "The query string") from None


async def read_body(request: web.Request, model: type[_Model]) -> _Model:
    """Return the body as `model`.

    Raises
    ------
    InvalidJsonError, InvalidInputError
        It is no JSON, or a field is missing, wrong or unknown.
    web.HTTPRequestTimeout
        It did not arrive in ten seconds; whoever sends a byte a second holds nothing for long.
    """
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            raw = await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(headers={"Connection": "close"}) from None
    except ConnectionResetError:
        # The client has left. Nobody reads the answer, but the log shall not call it a failure of ours.
        raise web.HTTPBadRequest from None
    raw = raw or b"{}"
    try:
        found = model.model_validate_json(raw)
    except ValidationError as error:
        raise invalid_fields(error, "The body") from None
    # Parsers differ in which of two fields of one name counts. The name alone is the pointer: our bodies are flat.
    json.loads(raw, object_pairs_hook=lambda pairs: _check_once_each(pairs, "The body"))
    return found


def _check_once_each(pairs: Iterable[tuple[str, object]], what: str) -> None:
    counted = Counter(name for name, _ in pairs)
    twice = [FieldProblem(f"#/{name}", "give it once") for name, count in counted.items() if count > 1]
    if twice:
        raise InvalidInputError(f"{what} does not match the schema", *twice)


def idempotency_key(request: web.Request, caller: Caller, route: str, body: BaseModel) -> IdempotencyKey | None:
    """Return the key that came with the request, or None; `InvalidInputError` when it is empty or too long."""
    raw = request.headers.get("Idempotency-Key")
    if raw is None:
        return None
    if _KEY.fullmatch(raw) is None:
        message = "1 to 255 printable ASCII characters without spaces"
        raise InvalidInputError("The Idempotency-Key is not valid", FieldProblem("#/Idempotency-Key", message))
    # What was understood, not what was written: order and spaces of the JSON make no other wish, nor do fields that are
    # left out, which only a newer version of us may know.
    canonical = orjson.dumps(body.model_dump(mode="json", exclude_none=True), option=orjson.OPT_SORT_KEYS)
    return IdempotencyKey(caller.user_id, route, raw, hashlib.sha256(canonical).digest())


def traceparent(request: web.Request) -> str:
    """Return the request's W3C trace context, or a new one when it has none that is valid."""
    given = request.headers.get("traceparent", "")
    if _TRACEPARENT.fullmatch(given):
        return given
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def cursor_of(created_at: datetime, row_id: UUID) -> str:
    """Return the cursor of the page behind a row; opaque to clients."""
    return base64.urlsafe_b64encode(f"{created_at.isoformat()} {row_id}".encode()).decode().rstrip("=")


def page_in(cursor: str | None, limit: int) -> Page:
    """Return the page behind a cursor; `InvalidInputError` for one that no answer gave."""
    if cursor is None:
        return Page(None, limit)
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
        moment, _, row_id = text.partition(" ")
        after = datetime.fromisoformat(moment), UUID(row_id)
    except (binascii.Error, ValueError):
        after = None
    # Written back it must be the same: nothing half understood is used.
    if (
        after is None
        or after[0].tzinfo != UTC
        or not _YEARS[0] <= after[0].year <= _YEARS[1]
        or cursor_of(*after) != cursor
    ):
        raise InvalidInputError(
            "The query string does not match the schema",
            FieldProblem("#/cursor", "take it from `next` of the page before"),
        )
    return Page(after, limit)
