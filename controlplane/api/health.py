"""Handlers without authentication: probes, the OpenAPI document, the pages of problems."""

from aiohttp import web

from controlplane.api.context import DOCUMENT, SERVICES
from controlplane.api.problem_table import FAILURES, PROBLEMS
from controlplane.domain.errors import NotFoundError

__all__ = ["document", "livez", "problem_page", "readyz"]


async def livez(_request: web.Request) -> web.Response:
    """Say that the event loop turns."""
    return web.Response(text="ok\n")


async def readyz(request: web.Request) -> web.Response:
    """Say that requests can be served: the database answers and has the schema. The cluster may be away."""
    await request.app[SERVICES].health.check()
    return web.Response(text="ok\n")


async def document(request: web.Request) -> web.Response:
    """Describe this API as OpenAPI 3.1."""
    return web.Response(body=request.app[DOCUMENT], content_type="application/json")


async def problem_page(request: web.Request) -> web.Response:
    """Explain a problem's `type` to a person."""
    code = request.match_info["code"].upper().replace("-", "_")
    if (kind := PROBLEMS.get(code)) is not None:
        heading, known = f"{code}: {kind.status} {kind.title}", (kind.meaning, kind.next_step)
    elif (failure := FAILURES.get(code)) is not None:
        heading, known = f"{code}: why an operation or attempt failed", (failure.meaning, failure.next_step)
    else:
        message = "There is no problem with this code"
        raise NotFoundError(message)
    return web.Response(text=f"{heading}\n\n{known[0]}\n\nNext step: {known[1]}\n")
