"""Errors as RFC 9457 problems. Statuses come from the one table; no handler names any.

Clients switch on `type` and `code`; `title` is constant per type, `detail` tells this occurrence. A class whose code is
not in the table is answered like its nearest base.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import orjson
from aiohttp import web
from pydantic import ValidationError

from controlplane.api.problem_table import PROBLEMS, type_of
from controlplane.domain import errors, refusals

__all__ = ["Problem", "code_of", "from_domain_error", "from_http_error", "invalid_fields", "problem_of"]

_HTTP_CODES: Final = MappingProxyType(
    {
        400: "BAD_REQUEST",
        404: "ROUTE_NOT_FOUND",
        405: "METHOD_NOT_ALLOWED",
        408: "BODY_TIMEOUT",
        413: "BODY_TOO_LARGE",
        417: "EXPECTATION_FAILED",
    }
)
_RETRY_SECONDS: Final = 5
_UNAUTHORIZED: Final = 401
_INTERNAL: Final = 500
_UNAVAILABLE: Final = 503
_NOT_TOLD: Final = "Something went wrong on our side; the request id finds it in the log"


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as a client sees it; status and title follow from the code."""

    code: str
    """UPPER_SNAKE; `type` is the same in kebab case below `/problems/`."""
    detail: str
    """This occurrence; no secret, no internals."""
    fields: tuple[errors.FieldProblem, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    """Extension members: `operation_id`, `retry_after_seconds`."""
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self, request_id: str) -> web.Response:
        """Return the problem as an answer to a request."""
        kind = PROBLEMS[self.code]
        body: dict[str, Any] = {
            "type": type_of(self.code),
            "title": kind.title,
            "status": kind.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
            **self.more,
        }
        if self.fields:
            body["errors"] = [{"pointer": each.pointer, "detail": each.detail} for each in self.fields]
        return web.Response(
            status=kind.status,
            body=orjson.dumps(body),
            content_type="application/problem+json",
            headers=self.headers,
        )


def code_of(error: errors.ControlPlaneError) -> str:
    """Return the code an error is answered with: its own, or its nearest base's that callers know."""
    return next(
        kind.code
        for kind in type(error).__mro__
        if issubclass(kind, errors.ControlPlaneError) and kind.code in PROBLEMS
    )


def problem_of(error: errors.ControlPlaneError) -> Problem:
    """Return the problem of a domain error; an internal one tells nothing of its cause."""
    code = code_of(error)
    status = PROBLEMS[code].status
    if status == _INTERNAL:
        return Problem(code, _NOT_TOLD)
    headers: dict[str, str] = {}
    more: dict[str, Any] = {}
    if status == _UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    seconds = error.retry_after_seconds if isinstance(error, refusals.LimitExceededError) else None
    # A right that is missing stays so until a person gives it.
    if status == _UNAVAILABLE and not isinstance(error, errors.CredentialsRightMissingError):
        seconds = _RETRY_SECONDS
    if seconds is not None:
        headers["Retry-After"] = str(seconds)
        more["retry_after_seconds"] = seconds
    if isinstance(error, refusals.RateLimitedError):
        headers |= {
            "RateLimit-Limit": str(error.per_minute),
            "RateLimit-Remaining": "0",
            "RateLimit-Reset": str(error.retry_after_seconds),
        }
    operation_id = getattr(error, "operation_id", None)
    if operation_id is not None and isinstance(error, errors.ConflictError):
        more["operation_id"] = str(operation_id)
    fields = error.problems if isinstance(error, errors.InvalidInputError) else ()
    return Problem(code, error.detail, fields, more, headers)


def from_domain_error(error: errors.ControlPlaneError, request_id: str) -> web.Response:
    """Return the answer for a domain error."""
    return problem_of(error).response(request_id)


def from_http_error(error: web.HTTPException, request_id: str) -> web.Response:
    """Return the answer for an error of the web framework, keeping headers such as Allow."""
    code = _HTTP_CODES.get(error.status, "BAD_REQUEST" if error.status < _INTERNAL else "INTERNAL")
    headers = {name: value for name, value in error.headers.items() if name.lower() != "content-type"}
    headers.pop("Content-Length", None)
    return Problem(code, PROBLEMS[code].meaning, headers=headers).response(request_id)


def invalid_fields(error: ValidationError, what: str) -> errors.ControlPlaneError:
    """Return the domain error for input that does not match its model; what was sent is not repeated."""
    if any(problem["type"] == "json_invalid" for problem in error.errors(include_input=False)):
        return errors.InvalidJsonError()
    listed = [
        errors.FieldProblem("#/" + "/".join(_escaped(part) for part in problem["loc"]), problem["msg"])
        for problem in error.errors(include_input=False, include_url=False)
    ]
    return errors.InvalidInputError(f"{what} does not match the schema", *listed)


def _escaped(part: str | int) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")
