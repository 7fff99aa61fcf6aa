"""The loops beside the API: dispatcher, reconciler, sweep, the watches and the listener.

A loop is a trivial forever around a tested single pass. It never ends by an error: it logs, waits and goes on.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from controlplane.config import Settings
from controlplane.db.notifications import Listener
from controlplane.dispatcher import Dispatcher
from controlplane.domain.errors import ControlPlaneError
from controlplane.reconciler import Reconciler
from controlplane.reconciler.harvest import Harvester
from controlplane.reconciler.observer import Observer
from controlplane.reconciler.sweep import Sweep
from controlplane.telemetry import bound, get_logger

__all__ = ["Background"]

_FAILURE_PAUSE_SECONDS: Final = 2.0
"""After a failed pass: long enough not to burden what is down, short enough to be back at once."""
_PASS_LIMIT_SECONDS: Final = 120.0
"""A pass that takes longer hangs somewhere; every single wait inside it has a shorter limit."""
_NEWS_PAUSE_SECONDS: Final = 0.1
"""What happens to many attempts within that time is looked at in one pass. A success needs none: its pod reports it."""
_SWEEP_SECONDS: Final = 20.0
_DRAIN_SECONDS: Final = 8.0
"""For creates and harvests under way when the process is told to end, within its grace of ten seconds."""
_STOP_SECONDS: Final = 2.0

_log = get_logger(__name__)
_Pass = Callable[[], Awaitable[float]]
"""One pass; returns the seconds to pause after it."""


class Background:
    """Starts and stops the loops."""

    def __init__(  # noqa: PLR0913 -- the composition root hands it its parts by name
        self,
        settings: Settings,
        *,
        dispatcher: Dispatcher,
        reconciler: Reconciler,
        observer: Observer,
        harvester: Harvester,
        sweep: Sweep,
    ) -> None:
        self._dispatcher = dispatcher
        self._reconciler = reconciler
        self._observer = observer
        self._harvester = harvester
        self._sweep = sweep
        self._dispatch_pause = settings.dispatch_interval_seconds
        self._reconcile_pause = settings.reconcile_interval_seconds
        self._listener = Listener(settings.database_url.get_secret_value(), self.wake)
        self._woken = asyncio.Event()
        self._asked = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the loops in the running event loop."""
        self._tasks = [
            asyncio.create_task(self._loop("dispatcher", self._dispatch, self._woken)),
            asyncio.create_task(self._loop("reconciler", self._reconcile, self._asked)),
            asyncio.create_task(self._loop("news", self._reconcile_news, self._reconciler.woken)),
            asyncio.create_task(self._loop("sweep", self._sweep_once, None)),
            asyncio.create_task(self._loop("watch", self._follow, None, limit=None)),
            asyncio.create_task(self._loop("listener", self._listen, None, limit=None)),
        ]

    def wake(self) -> None:
        """Say that something may be due; a hint that saves the rest of a pause, never the guarantee."""
        self._woken.set()

    def look(self) -> None:
        """Say that somebody changed what an operation is to come to; a hint as well."""
        self._asked.set()

    async def stop(self) -> None:
        """End the loops; creates and harvests that are under way get a moment, the rest is taken over by its lease."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_STOP_SECONDS)
        await asyncio.gather(self._dispatcher.drain(_DRAIN_SECONDS), self._harvester.drain(_DRAIN_SECONDS))

    async def _dispatch(self) -> float:
        pause = await self._dispatcher.run_once()
        return self._dispatch_pause if pause is None else min(pause, self._dispatch_pause)

    async def _reconcile(self) -> float:
        if await self._reconciler.run_all():
            self.wake()
        return self._reconcile_pause

    async def _reconcile_news(self) -> float:
        if await self._reconciler.run_news():
            self.wake()
        # Woken again, it waits no longer than this; without news, for ever.
        await asyncio.sleep(_NEWS_PAUSE_SECONDS)
        return float("inf")

    async def _sweep_once(self) -> float:
        await self._sweep.run_once()
        return _SWEEP_SECONDS

    async def _follow(self) -> float:
        await self._observer.run()
        return 0.0

    async def _listen(self) -> float:
        await self._listener.run()
        return 0.0

    async def _loop(
        self, name: str, one_pass: _Pass, woken: asyncio.Event | None, *, limit: float | None = _PASS_LIMIT_SECONDS
    ) -> None:
        while True:
            if woken is not None:
                # Cleared before the pass: what arrives during it is looked for again at once.
                woken.clear()
            try:
                async with asyncio.timeout(limit):
                    with bound(loop=name):
                        pause = await one_pass()
            except ControlPlaneError as error:
                _log.warning("pass failed", loop=name, error=str(error), error_code=error.code)
                pause = _FAILURE_PAUSE_SECONDS
            except Exception:  # noqa: BLE001 -- the top of a loop that must not end; logged in full
                _log.exception("pass failed unexpectedly", loop=name)
                pause = _FAILURE_PAUSE_SECONDS
            await _pause(pause, woken)


async def _pause(seconds: float, woken: asyncio.Event | None) -> None:
    if woken is None or seconds == 0:
        await asyncio.sleep(seconds)
        return
    try:
        async with asyncio.timeout(None if seconds == float("inf") else seconds):
            await woken.wait()
    except TimeoutError:
        return
