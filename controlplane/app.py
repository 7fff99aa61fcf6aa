"""The composition root: makes every part and puts them together, in one place."""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from aiohttp import web

from controlplane.api.application import make_application
from controlplane.api.context import Services
from controlplane.api.server import Runner
from controlplane.background import Background
from controlplane.config import Settings
from controlplane.db.attempts import AttemptRows
from controlplane.db.claims import ClaimRows
from controlplane.db.notifications import Notifier
from controlplane.db.pool import Database
from controlplane.db.stores import StoreRows
from controlplane.dispatcher import Dispatcher
from controlplane.domain.errors import ConfigurationError
from controlplane.kube.client import KubeClient
from controlplane.kube.jobs import JobGateway
from controlplane.reconciler import Reconciler
from controlplane.reconciler.conclude import Conclusions
from controlplane.reconciler.harvest import Harvester
from controlplane.reconciler.observer import Observer
from controlplane.reconciler.sweep import Sweep
from controlplane.telemetry import get_logger

__all__ = ["Parts", "parts", "serve"]

_SHUTDOWN_SECONDS: Final = 10.0
_KEEPALIVE_SECONDS: Final = 75.0
"""Above the usual idle time of a proxy, so that it is the proxy that closes."""
_LINGERING_SECONDS: Final = 2.0
"""For the rest of a body whose request was answered already."""

_log = get_logger(__name__)


class Parts:
    """The running parts of one process."""

    def __init__(self, settings: Settings, database: Database, kube: KubeClient) -> None:
        self.claims = ClaimRows(database, settings.cluster_id)
        self.attempts = AttemptRows(database, settings.cluster_id)
        self.stores = StoreRows(database)
        self.jobs = JobGateway(kube, settings.jobs_namespace)
        name = f"{socket.gethostname()}-{os.getpid()}"
        self.dispatcher = Dispatcher(self.claims, self.jobs, settings, name=name)
        self.observer = Observer(kube, self.jobs, settings.jobs_namespace)
        self.harvester = Harvester(self.attempts, self.jobs, settings)
        self.reconciler = Reconciler(
            self.attempts,
            self.jobs,
            self.observer,
            claims=self.claims,
            conclusions=Conclusions(self.attempts, queue_limit_seconds=settings.queue_limit_seconds),
            harvester=self.harvester,
        )
        self.sweep = Sweep(self.attempts, self.jobs, self.observer, settings)
        self.background = Background(
            settings,
            dispatcher=self.dispatcher,
            reconciler=self.reconciler,
            observer=self.observer,
            harvester=self.harvester,
            sweep=self.sweep,
        )
        notifier = Notifier(database)

        def wake() -> None:
            # This process at once, the others by a hint.
            self.background.wake()
            notifier.notify()

        self.services = Services.on(database, self.jobs, settings, wake=wake, look=self.background.look)


@asynccontextmanager
async def parts(settings: Settings) -> AsyncIterator[Parts]:
    """Open the database and the cluster's session, and close them at the end.

    Raises
    ------
    DatabaseUnavailableError
        Postgres does not answer at the start. The cluster may be away: accepting works without it.
    """
    async with AsyncExitStack() as stack:
        database = await Database.connect(settings.database_url.get_secret_value(), size=settings.db_pool_size)
        stack.push_async_callback(database.close)
        kube = await KubeClient.connect(settings.kubeconfig)
        stack.push_async_callback(kube.close)
        yield Parts(settings, database, kube)


async def serve(settings: Settings, *, host: str, port: int, ready_file: Path | None) -> None:
    """Serve the API and run the loops until SIGTERM or SIGINT.

    `port` 0 takes a free one. `ready_file` gets the URL once requests are answered.

    Raises
    ------
    ConfigurationError
        The address cannot be listened on, or `ready_file` cannot be written.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with parts(settings) as made:
        runner = Runner(
            make_application(made.services),
            access_log=None,
            shutdown_timeout=_SHUTDOWN_SECONDS,
            keepalive_timeout=_KEEPALIVE_SECONDS,
            lingering_time=_LINGERING_SECONDS,
        )
        await runner.setup()
        try:
            await _listen(runner, host, port)
            # What was made so far stays for good: a collection that looks through it holds up everything for 40 ms.
            gc.collect()
            gc.freeze()
            made.background.start()
            url = _url(host, runner)
            _log.info("serving", url=url)
            if ready_file is not None:
                _write_whole(ready_file, url + "\n")
            await stopped.wait()
            _log.info("stopping")
        finally:
            # The API first: what it still accepts needs no loop of ours.
            await runner.cleanup()
            await made.background.stop()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        message = f"cannot listen on {host}:{port}: {error.strerror or error}"
        raise ConfigurationError(message) from error


def _url(host: str, runner: web.AppRunner) -> str:
    port = runner.addresses[0][1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that whoever waits for it never reads half of it."""
    beside = path.with_name(path.name + ".new")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        message = f"cannot write {path}: {error.strerror or error}"
        raise ConfigurationError(message) from error
