"""Around every request: its id, the caller, a time limit, one log line, errors as problems."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from uuid_utils.compat import uuid7

from controlplane.api.context import CALLER, REQUEST_ID, SERVICES, TIME_LIMIT, TRACEPARENT
from controlplane.api.inputs import traceparent
from controlplane.api.problems import Problem, from_domain_error, from_http_error
from controlplane.api.routes import OPEN_PATHS, PROBES
from controlplane.domain.errors import ControlPlaneError
from controlplane.domain.refusals import ForbiddenError
from controlplane.domain.store import Role
from controlplane.telemetry import bound, get_logger

__all__ = ["authenticate", "guard"]

_REQUEST_SECONDS: Final = 60.0
"""Above the longest handler's own limits, so that the inner one names the cause: a log costs 15 s at most for the
caller, 15 s for its row and 20 s in the cluster."""
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_ADMIN_PATHS: Final = "/api/admin/"
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = get_logger(__name__)


@web.middleware
async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Give the request its id, answer every error as a problem, write one line."""
    given = request.headers.get("X-Request-ID", "")
    request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid7())
    request[REQUEST_ID] = request_id
    trace = request[TRACEPARENT] = traceparent(request)
    began = time.monotonic()
    with bound(request_id=request_id, trace_id=trace.split("-")[1]):
        response = await _answered(request, handler, request_id)
        if not response.prepared:
            response.headers["X-Request-ID"] = request_id
            # Logs and names are what users wrote: no browser may take them for a page.
            response.headers["X-Content-Type-Options"] = "nosniff"
        # A probe that is answered as it should be is no news, every two seconds of every replica.
        say = _log.debug if request.path in PROBES and response.status == web.HTTPOk.status_code else _log.info
        say(
            "request",
            method=request.method,
            # The route, not the path: a path may hold anything.
            route=_route(request),
            status=response.status,
            duration_seconds=round(time.monotonic() - began, 4),
        )
    return response


async def _answered(request: web.Request, handler: _Handler, request_id: str) -> web.StreamResponse:
    try:
        async with asyncio.timeout(_REQUEST_SECONDS) as limit:
            request[TIME_LIMIT] = limit
            return await handler(request)
    except web.HTTPException as error:
        return from_http_error(error, request_id)
    except ControlPlaneError as error:
        response = from_domain_error(error, request_id)
        if response.status >= web.HTTPInternalServerError.status_code:
            _log.warning("request failed", error=str(error), error_code=error.code)
        return response
    except web.RequestPayloadError:
        # Such as a body that is not gzip though its header says so.
        detail = "The body is not what its headers say"
        return Problem("INVALID_BODY", detail).response(request_id)
    except TimeoutError:
        _log.warning("request timed out")
        detail = "The request took too long; try again shortly"
        return Problem("REQUEST_TIMEOUT", detail).response(request_id)
    except Exception:  # noqa: BLE001 -- the outermost place of a request; logged in full
        _log.exception("request failed unexpectedly")
        return Problem("INTERNAL", "Something went wrong on our side; the request id finds it in the log").response(
            request_id
        )


@web.middleware
async def authenticate(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Find the caller before anything else is told, unknown paths included; below /api/admin/ only admins."""
    route = _route(request)
    if route not in OPEN_PATHS:
        users = request.app[SERVICES].users
        caller = request[CALLER] = await users.authenticate(request.headers.get("Authorization"))
        if request.path.startswith(_ADMIN_PATHS) and caller.role is not Role.ADMIN:
            who_may = "an admin"
            raise ForbiddenError(who_may)
    return await handler(request)


def _route(request: web.Request) -> str:
    """Return the path as its route has it, which tells nothing of what a caller put in."""
    return getattr(request.match_info.route.resource, "canonical", "unmatched")
