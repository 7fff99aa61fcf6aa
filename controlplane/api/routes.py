"""Every route, on one screen; the OpenAPI document is made from this table.

Listed are the problems of a route's subject: every one that is not open may also answer 401 and 503, and any of them
500.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from pydantic import BaseModel

from controlplane.api import answers, health, operations, schemas, stores
from controlplane.api.server import refuse_expectation

__all__ = ["OPEN_PATHS", "PROBES", "ROUTES", "Route"]

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path; summary and description are the handler's docstring."""

    method: str
    path: str
    handler: _Handler
    answer: type[BaseModel] | str
    """Model of the body, or a media type for what is not JSON of ours."""
    status: int = 200
    query: type[BaseModel] = schemas.NoQuery
    body: type[BaseModel] | None = None
    problems: tuple[str, ...] = ()
    """Codes it may answer with, beside those of every route."""
    is_open: bool = False
    """Answered without a token."""

    def definition(self) -> web.RouteDef:
        """Return the route as the framework wants it."""
        return web.route(self.method, self.path, self.handler, expect_handler=refuse_expectation)


_TEXT: Final = "text/plain"
_BODY: Final = ("INVALID_JSON", "INVALID_BODY", "BODY_TIMEOUT", "BODY_TOO_LARGE", "INVALID_INPUT")
_STORE: Final = ("NOT_FOUND", "STORE_NOT_FOUND", "INVALID_INPUT")
_OPERATION: Final = ("NOT_FOUND", "OPERATION_NOT_FOUND", "INVALID_INPUT")
_CREATE: Final = (
    *_BODY,
    "NAME_TOO_LONG",
    "NAME_RESERVED",
    "ENGINE_UNSUPPORTED",
    "ENGINE_PLANNED",
    "NAME_TAKEN",
    "HOST_TAKEN",
    "KEY_USED",
    "IDEMPOTENCY_MISMATCH",
    "STORE_LIMIT_REACHED",
    "RATE_LIMITED",
)
_CREDENTIALS: Final = (
    *_STORE,
    "FORBIDDEN",
    "STORE_DELETED",
    "CREDENTIALS_UNAVAILABLE",
    "CREDENTIALS_RIGHT_MISSING",
    "KUBERNETES",
    "DEPENDENCY_UNAVAILABLE",
)
_CANCEL: Final = (*_BODY, *_OPERATION, "FORBIDDEN", "NOT_CANCELLABLE", "OPERATION_ENDED")
_RETRY: Final = (*_BODY, *_OPERATION, "FORBIDDEN", "NOT_RETRYABLE", "RETRY_IN_PROGRESS", "OPERATION_IN_PROGRESS")
_REATTACH: Final = (*_BODY, *_OPERATION, "FORBIDDEN", "NOT_REATTACHABLE", "KUBERNETES")
_LOGS: Final = (*_OPERATION, "LOG_NOT_AVAILABLE", "DEPENDENCY_UNAVAILABLE", "TOO_MANY_STREAMS")
_a, _o, _q = answers, operations, schemas


def _get(path: str, handler: _Handler, answer: type[BaseModel] | str, query: type[BaseModel], *codes: str) -> Route:
    return Route(method="GET", path=path, handler=handler, answer=answer, query=query, problems=codes)


def _open(path: str, handler: _Handler, answer: str, *codes: str) -> Route:
    return Route(method="GET", path=path, handler=handler, answer=answer, problems=codes, is_open=True)


def _ask(
    path: str,
    handler: _Handler,
    body: type[BaseModel],
    codes: tuple[str, ...],
    answer: type[BaseModel] = answers.AcceptedBody,
) -> Route:
    return Route(method="POST", path=path, handler=handler, answer=answer, status=202, body=body, problems=codes)


_DELETE: Final = Route(
    method="DELETE",
    path="/api/stores/{id}",
    handler=stores.delete_store,
    answer=answers.AcceptedBody,
    status=202,
    problems=(*_STORE, "FORBIDDEN", "STORE_DELETED", "OPERATION_IN_PROGRESS"),
)
ROUTES: Final = (
    _open("/livez", health.livez, _TEXT),
    _open("/readyz", health.readyz, _TEXT, "SCHEMA_MISSING", "DATABASE_RIGHT_MISSING"),
    _open("/api/openapi.json", health.document, "application/json"),
    _open("/problems/{code}", health.problem_page, _TEXT, "NOT_FOUND"),
    _get("/api/engines", stores.list_engines, _a.EnginesBody, _q.NoQuery, "INVALID_INPUT"),
    _ask("/api/stores", stores.create_store, _q.CreateStoreBody, _CREATE),
    _get("/api/stores", stores.list_stores, _a.StoresBody, _q.StoresQuery, "INVALID_INPUT"),
    _get("/api/stores/{id}", stores.get_store, _a.AcceptedBody, _q.NoQuery, *_STORE),
    _DELETE,
    _get("/api/stores/{id}/events", stores.list_events, _a.EventsBody, _q.EventsQuery, *_STORE),
    _get("/api/stores/{id}/credentials", stores.get_credentials, _a.CredentialsBody, _q.NoQuery, *_CREDENTIALS),
    _get("/api/operations", _o.list_operations, _a.OperationsBody, _q.OperationsQuery, "INVALID_INPUT"),
    _get("/api/operations/{id}", _o.get_operation, _a.OperationDetailBody, _q.NoQuery, *_OPERATION),
    _get("/api/operations/{id}/logs", _o.get_logs, _TEXT, _q.LogsQuery, *_LOGS),
    _ask("/api/operations/{id}/cancel", _o.cancel_operation, _q.EmptyBody, _CANCEL),
    _ask("/api/operations/{id}/retry", _o.retry_operation, _q.RetryBody, _RETRY, _a.RetriedBody),
    _ask("/api/admin/operations/{id}/retry", _o.retry_operation, _q.RetryBody, _RETRY, _a.RetriedBody),
    _ask("/api/admin/operations/{id}/reattach", _o.reattach_operation, _q.EmptyBody, _REATTACH),
)
OPEN_PATHS: Final = frozenset(route.path for route in ROUTES if route.is_open)
PROBES: Final = frozenset({"/livez", "/readyz"})
