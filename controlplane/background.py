"""The loops beside the API: dispatcher and reconciler.

A loop is a trivial forever around a tested single pass. It never ends by an error: it logs, waits and goes on.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from controlplane.dispatcher import Dispatcher
from controlplane.domain.errors import ControlPlaneError
from controlplane.reconciler import Reconciler
from controlplane.telemetry import bound, get_logger

__all__ = ["Background"]

_FAILURE_PAUSE_SECONDS: Final = 2.0
"""After a failed pass: long enough not to burden what is down, short enough to be back at once."""
_PASS_LIMIT_SECONDS: Final = 120.0
"""A pass that takes longer hangs somewhere; every single wait inside it has a shorter limit."""
_STOP_SECONDS: Final = 10.0

_log = get_logger(__name__)


class Background:
    """Starts and stops the loops."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        reconciler: Reconciler,
        *,
        dispatch_interval_seconds: float,
        reconcile_interval_seconds: float,
    ) -> None:
        self._dispatcher = dispatcher
        self._reconciler = reconciler
        self._intervals = dispatch_interval_seconds, reconcile_interval_seconds
        self._woken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the loops in the running event loop."""
        dispatch_interval, reconcile_interval = self._intervals
        self._tasks = [
            asyncio.create_task(self._loop("dispatcher", self._dispatch, dispatch_interval, self._woken)),
            asyncio.create_task(self._loop("reconciler", self._reconcile, reconcile_interval, None)),
        ]

    def wake(self) -> None:
        """Say that something may be due; a hint that saves the rest of a pause, never the guarantee."""
        self._woken.set()

    async def stop(self) -> None:
        """End the loops. Whatever they were doing is taken up by another process after its lease."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_STOP_SECONDS)

    async def _dispatch(self) -> bool:
        return await self._dispatcher.run_once()

    async def _reconcile(self) -> bool:
        await self._reconciler.run_once()
        return False

    async def _loop(
        self, name: str, one_pass: Callable[[], Awaitable[bool]], interval: float, woken: asyncio.Event | None
    ) -> None:
        while True:
            pause = interval
            if woken is not None:
                # Cleared before the pass: what arrives during it is looked for again at once.
                woken.clear()
            try:
                async with asyncio.timeout(_PASS_LIMIT_SECONDS):
                    with bound(loop=name):
                        pause = 0 if await one_pass() else interval
            except ControlPlaneError as error:
                _log.warning("pass failed", loop=name, error=str(error), error_code=error.code)
                pause = max(interval, _FAILURE_PAUSE_SECONDS)
            except Exception:  # noqa: BLE001 -- the top of a loop that must not end; logged in full
                _log.exception("pass failed unexpectedly", loop=name)
                pause = max(interval, _FAILURE_PAUSE_SECONDS)
            await _pause(pause, woken)


async def _pause(seconds: float, woken: asyncio.Event | None) -> None:
    if woken is None or seconds == 0:
        await asyncio.sleep(seconds)
        return
    try:
        async with asyncio.timeout(seconds):
            await woken.wait()
    except TimeoutError:
        return
