"""Write down created Jobs, those that wait together in one commit.

A commit takes a disk's time, and those of one user's operations wait for one another, because they count in the user's
row: a full queue would go no faster than its commits, one by one.
"""

import asyncio
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from controlplane.db.claims import ClaimRows, MadeJob
from controlplane.domain.errors import StaleLeaseError

__all__ = ["Recorder"]

_MOST: Final = 100
"""Jobs in one commit."""

_Waiting = tuple[MadeJob, asyncio.Future[None]]


class Recorder:
    """Records Jobs for any number of tasks; the first that comes does not wait for others."""

    def __init__(self, rows: ClaimRows) -> None:
        self._rows = rows
        self._waiting: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None

    async def record(self, made: MadeJob) -> None:
        """Record a created or adopted Job and return when that is committed.

        Raises
        ------
        StaleLeaseError
            The attempt has another Job or is over.
        DatabaseUnavailableError
            Nobody knows whether it was recorded; the claim that takes over finds out.
        """
        recorded = asyncio.get_running_loop().create_future()
        self._waiting.append((made, recorded))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        await recorded

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            try:
                recorded = await self._rows.record_jobs([made for made, _ in batch])
            except Exception as error:  # noqa: BLE001 -- each of those who wait gets it
                _tell(batch, frozenset(), error)
            else:
                _tell(batch, recorded, StaleLeaseError("record Job"))
        self._writer = None


def _tell(batch: Sequence[_Waiting], recorded: AbstractSet[MadeJob], failure: Exception) -> None:
    """Give each its end: done, or why not. One that has an end already was cancelled, as its process ends."""
    for made, future in batch:
        if future.done():
            continue
        if made in recorded:
            future.set_result(None)
        else:
            future.set_exception(failure)
