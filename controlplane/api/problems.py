"""Domain errors as RFC 9457 problems: one table, the only place with status codes.

Clients switch on `type` and `code`; `title` is constant per type, `detail` tells this occurrence. A class that is not
in the table is answered like its nearest base.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import orjson
from aiohttp import web
from pydantic import ValidationError

from controlplane.domain import errors

__all__ = ["MAPPING", "Problem", "body_problem", "from_domain_error", "from_http_error", "internal_error"]

MAPPING: Final[Mapping[type[errors.ControlPlaneError], tuple[int, str]]] = MappingProxyType(
    {
        errors.UnauthorizedError: (401, "Authentication required"),
        errors.InvalidTokenError: (401, "The token is not valid"),
        errors.NotFoundError: (404, "Not found"),
        errors.StoreNotFoundError: (404, "Store not found"),
        errors.OperationNotFoundError: (404, "Operation not found"),
        errors.LogNotAvailableError: (404, "Log not available"),
        errors.ConflictError: (409, "Conflict"),
        errors.NameTakenError: (409, "Name taken"),
        errors.OperationInProgressError: (409, "Operation in progress"),
        errors.StaleLeaseError: (409, "Changed meanwhile"),
        errors.JobConflictError: (409, "Foreign Job"),
        errors.InvalidJsonError: (400, "Invalid JSON"),
        errors.InvalidInputError: (422, "Invalid input"),
        errors.NameTooLongError: (422, "Name too long"),
        errors.NameReservedError: (422, "Name reserved"),
        errors.EngineUnsupportedError: (422, "Engine not supported"),
        errors.EnginePlannedError: (422, "Engine planned"),
        errors.DependencyUnavailableError: (503, "Dependency unavailable"),
        errors.DatabaseUnavailableError: (503, "Database unavailable"),
        errors.SchemaMissingError: (503, "Database not migrated"),
        errors.DatabaseRightMissingError: (503, "Database right missing"),
        errors.ConfigurationError: (500, "Internal error"),
        errors.MigrationError: (500, "Internal error"),
        errors.DatabaseFaultError: (500, "Internal error"),
        errors.ControlPlaneError: (500, "Internal error"),
    }
)

_HTTP_CODES: Final = MappingProxyType(
    {
        400: ("BAD_REQUEST", "Bad request"),
        404: ("ROUTE_NOT_FOUND", "No such resource"),
        405: ("METHOD_NOT_ALLOWED", "Method not allowed"),
        413: ("BODY_TOO_LARGE", "Body too large"),
        415: ("UNSUPPORTED_MEDIA_TYPE", "Unsupported media type"),
    }
)
_RETRY_SECONDS: Final = 5
_UNAUTHORIZED: Final = 401
_INTERNAL: Final = 500
_UNAVAILABLE: Final = 503


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as a client sees it."""

    status: int
    code: str
    """UPPER_SNAKE; `type` is the same in kebab case below `/problems/`."""
    title: str
    """Constant per code."""
    detail: str
    """This occurrence; no secret, no internals."""
    fields: tuple[errors.FieldProblem, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self, request_id: str) -> web.Response:
        """Return the problem as an answer to a request."""
        body: dict[str, Any] = {
            "type": "/problems/" + self.code.lower().replace("_", "-"),
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        }
        if self.fields:
            body["errors"] = [{"pointer": each.pointer, "detail": each.detail} for each in self.fields]
        return web.Response(
            status=self.status,
            body=orjson.dumps(body),
            content_type="application/problem+json",
            headers=self.headers,
        )


def from_domain_error(error: errors.ControlPlaneError, request_id: str) -> web.Response:
    """Return the problem for a domain error; an internal one tells nothing of its cause."""
    status, title = next(MAPPING[kind] for kind in type(error).__mro__ if kind in MAPPING)
    if status == _INTERNAL:
        return internal_error(request_id)
    headers = {}
    if status == _UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if status == _UNAVAILABLE:
        headers["Retry-After"] = str(_RETRY_SECONDS)
    fields = error.problems if isinstance(error, errors.InvalidInputError) else ()
    return Problem(status, error.code, title, error.detail, fields, headers).response(request_id)


def from_http_error(error: web.HTTPException, request_id: str) -> web.Response:
    """Return the problem for an error of the web framework, keeping headers such as Allow."""
    code, title = _HTTP_CODES.get(error.status, (f"HTTP_{error.status}", error.reason))
    headers = {name: value for name, value in error.headers.items() if name.lower() != "content-type"}
    headers.pop("Content-Length", None)
    return Problem(error.status, code, title, error.reason, headers=headers).response(request_id)


def internal_error(request_id: str) -> web.Response:
    """Return the problem for what nobody foresaw."""
    detail = "Something went wrong on our side; the request id finds it in the log"
    return Problem(_INTERNAL, "INTERNAL", "Internal error", detail).response(request_id)


def body_problem(error: ValidationError) -> errors.ControlPlaneError:
    """Return the domain error for a body that does not match its model; what was sent is not repeated."""
    if any(problem["type"] == "json_invalid" for problem in error.errors(include_input=False)):
        return errors.InvalidJsonError()
    listed = [
        errors.FieldProblem("#/" + "/".join(_escaped(part) for part in problem["loc"]), problem["msg"])
        for problem in error.errors(include_input=False, include_url=False)
    ]
    return errors.InvalidInputError("The body does not match the schema", *listed)


def _escaped(part: str | int) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")
