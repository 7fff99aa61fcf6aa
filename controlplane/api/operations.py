"""Handlers of operations."""

from aiohttp import web

from controlplane.api.context import SERVICES, caller_of, path_id
from controlplane.api.schemas import OperationBody
from controlplane.api.stores import json_response

__all__ = ["get_logs", "get_operation"]


async def get_operation(request: web.Request) -> web.Response:
    """Show an operation; a failed one is a 200 with its `error`."""
    operation = await request.app[SERVICES].operations.get(path_id(request), caller_of(request))
    return json_response(OperationBody.from_domain(operation))


async def get_logs(request: web.Request) -> web.Response:
    """Return the provisioner's log as text: the living pod's, or the stored one."""
    text = await request.app[SERVICES].operations.logs(path_id(request), caller_of(request))
    return web.Response(text=text, content_type="text/plain")
