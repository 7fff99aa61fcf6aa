"""Handlers of probes; the only ones without authentication."""

from aiohttp import web

from controlplane.api.context import SERVICES

__all__ = ["livez", "readyz"]


async def livez(_request: web.Request) -> web.Response:
    """Say that the event loop turns."""
    return web.Response(text="ok\n")


async def readyz(request: web.Request) -> web.Response:
    """Say that requests can be served: the database answers and has the schema."""
    await request.app[SERVICES].health.check()
    return web.Response(text="ok\n")
