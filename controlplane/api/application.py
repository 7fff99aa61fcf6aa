"""The HTTP application: routes, middlewares and the document about them. It owns nothing that needs closing."""

from typing import Final

from aiohttp import web

from controlplane.api.context import DOCUMENT, SERVICES, Services
from controlplane.api.middleware import authenticate, guard
from controlplane.api.openapi import document
from controlplane.api.routes import ROUTES

__all__ = ["make_application"]

_BODY_LIMIT_BYTES: Final = 64 * 1024
"""The largest body is a store's wish of a few hundred bytes."""


def make_application(services: Services) -> web.Application:
    """Return the application that serves `services`."""
    application = web.Application(middlewares=[guard, authenticate], client_max_size=_BODY_LIMIT_BYTES)
    application[SERVICES] = services
    application[DOCUMENT] = document()
    application.add_routes([route.definition() for route in ROUTES])
    return application
