"""Every route, on one screen."""

from typing import Final

from aiohttp import web

from controlplane.api import health, operations, stores

__all__ = ["OPEN_PATHS", "ROUTES"]

OPEN_PATHS: Final = frozenset({"/livez", "/readyz"})
"""Answered without a token."""

ROUTES: Final = (
    web.get("/livez", health.livez),
    web.get("/readyz", health.readyz),
    web.post("/api/stores", stores.create_store),
    web.get("/api/stores/{id}", stores.get_store),
    web.get("/api/stores/{id}/events", stores.list_events),
    web.get("/api/operations/{id}", operations.get_operation),
    web.get("/api/operations/{id}/logs", operations.get_logs),
)
