"""What handlers are given: the services, under typed keys of the application, and values of the request."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from aiohttp import web

from controlplane.domain.errors import FieldProblem, InvalidInputError, NotFoundError
from controlplane.domain.store import Caller
from controlplane.services.health import Health
from controlplane.services.operations import Operations
from controlplane.services.stores import Stores
from controlplane.services.users import Users

__all__ = ["CALLER", "REQUEST_ID", "SERVICES", "Services", "caller_of", "number_in_query", "path_id"]


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a handler may call."""

    users: Users
    stores: Stores
    operations: Operations
    health: Health
    wake_dispatcher: Callable[[], None]
    """Hint that there is something to claim."""


SERVICES: Final = web.AppKey("services", Services)
CALLER: Final = web.RequestKey("caller", Caller)
REQUEST_ID: Final = web.RequestKey("request_id", str)


def path_id(request: web.Request) -> UUID:
    """Return the id in the path; `NotFoundError` when it is none, since nothing can have it."""
    raw = request.match_info["id"]
    try:
        return UUID(raw)
    except ValueError:
        message = "There is nothing with this id"
        raise NotFoundError(message) from None


def number_in_query(request: web.Request, name: str, *, default: int, most: int) -> int:
    """Return a non-negative number of the query string; `InvalidInputError` when it is none or above `most`."""
    raw = request.query.get(name)
    if raw is None:
        return default
    if not (raw.isascii() and raw.isdigit()) or len(raw) > len(str(most)) or int(raw) > most:
        message = f"{name} is a number from 0 to {most}"
        raise InvalidInputError(message, FieldProblem(f"#/{name}", message))
    return int(raw)


def caller_of(request: web.Request) -> Caller:
    """Return who is calling, as the middleware found it."""
    return request[CALLER]
