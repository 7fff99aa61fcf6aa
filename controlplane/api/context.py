"""What handlers are given: the services, under typed keys of the application, and values of the request."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, Self

from aiohttp import web

from controlplane.config import Settings
from controlplane.db.pool import Database
from controlplane.db.stores import StoreRows
from controlplane.db.users import UserRows
from controlplane.domain.catalogue import supported
from controlplane.domain.engines import Engine
from controlplane.domain.store import Caller, Origin
from controlplane.services.credentials import CredentialSource, StoreCredentials
from controlplane.services.health import Health
from controlplane.services.logs import Logs, LogSource
from controlplane.services.operations import Operations
from controlplane.services.reattach import JobSource, Reattach
from controlplane.services.retries import Retries
from controlplane.services.stores import Stores
from controlplane.services.users import Users

__all__ = ["CALLER", "DOCUMENT", "REQUEST_ID", "SERVICES", "TIME_LIMIT", "TRACEPARENT", "Jobs", "Services", "origin_of"]


class Jobs(JobSource, LogSource, CredentialSource, Protocol):
    """What the API asks of the cluster."""


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a handler may call."""

    users: Users
    stores: Stores
    credentials: StoreCredentials
    operations: Operations
    retries: Retries
    reattach: Reattach
    logs: Logs
    health: Health
    engines: tuple[Engine, ...]
    """What can be ordered here."""
    wake_dispatcher: Callable[[], None]
    """Hint that there is something to claim."""
    wake_reconciler: Callable[[], None]
    """Hint that somebody changed what an operation is to come to."""

    @classmethod
    def on(
        cls, database: Database, jobs: Jobs, settings: Settings, *, wake: Callable[[], None], look: Callable[[], None]
    ) -> Self:
        """Return every service on one database and cluster; `database` is made less patient, as requests need it."""
        quick = database.for_requests()
        return cls(
            users=Users(UserRows(quick)),
            stores=Stores(quick, settings),
            credentials=StoreCredentials(quick, jobs, settings),
            operations=Operations(quick),
            retries=Retries(quick, settings),
            reattach=Reattach(quick, jobs),
            logs=Logs(quick, jobs),
            health=Health(StoreRows(quick)),
            engines=supported(settings.engine_images),
            wake_dispatcher=wake,
            wake_reconciler=look,
        )


SERVICES: Final = web.AppKey("services", Services)
DOCUMENT: Final = web.AppKey("document", bytes)
"""The OpenAPI document, made once."""
CALLER: Final = web.RequestKey("caller", Caller)
REQUEST_ID: Final = web.RequestKey("request_id", str)
TRACEPARENT: Final = web.RequestKey("traceparent", str)
TIME_LIMIT: Final = web.RequestKey("time_limit", object)
"""The request's `asyncio.Timeout`; a handler that streams takes it off."""


def origin_of(request: web.Request) -> Origin:
    """Return who is calling and how the request is found again, as the middleware found it."""
    return Origin(
        caller=request[CALLER],
        request_id=request[REQUEST_ID],
        traceparent=request[TRACEPARENT],
        ip=request.remote,
    )
