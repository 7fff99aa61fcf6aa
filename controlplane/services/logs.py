"""Logs of attempts: from the archive, or from the living pod, at once or line by line."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

from controlplane.db.operations import OperationRows
from controlplane.db.pool import Database
from controlplane.domain.errors import DependencyUnavailableError, LogNotAvailableError, OperationNotFoundError
from controlplane.domain.observation import PodView
from controlplane.domain.refusals import TooManyStreamsError
from controlplane.domain.store import Origin
from controlplane.services.access import note_unknown_id

__all__ = ["FoundLog", "LogSource", "Logs"]

_CLUSTER_SECONDS: Final = 20.0
"""For listing a Job's pods and reading a log together."""
_SILENCE_SECONDS: Final = 120.0
"""A provisioner says something more often; text has no place for a sign of life, so silence ends the stream."""
_STREAMS_PER_USER: Final = 4
"""In one process: each holds a connection to the cluster."""
_STREAMS: Final = 64
"""Of all users in one process: what follows logs must leave connections to the dispatching."""


class LogSource(Protocol):
    """Where living pods' logs come from."""

    async def list_pods(self, job_uid: str) -> list[PodView]:
        """Return a Job's pods, newest first."""

    async def logs(self, pod_name: str) -> str | None:
        """Return a pod's log, or None when there is none."""

    def follow_log(self, pod_name: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Give a pod's log from its beginning, piece by piece, until the pod ends."""


@dataclass(frozen=True, slots=True)
class FoundLog:
    """A log: its text when it is stored or was read, else the pod to follow."""

    text: str | None
    pod_name: str | None


class Logs:
    """Logs on behalf of callers."""

    def __init__(self, database: Database, living: LogSource, *, silence_seconds: float = _SILENCE_SECONDS) -> None:
        self._database = database
        self._rows = OperationRows(database)
        self._living = living
        self._silence_seconds = silence_seconds
        self._streams: Counter[UUID] = Counter()

    async def find(self, operation_id: UUID, origin: Origin, *, number: int | None, is_followed: bool) -> FoundLog:
        """Return the log of an attempt (None for the newest), or the living pod when it is to be followed.

        Raises
        ------
        OperationNotFoundError
            There is none for this caller.
        LogNotAvailableError
            Nothing was written yet, it is gone, or there is no such attempt.
        DependencyUnavailableError
            The log is only in the cluster, and the cluster does not answer.
        """
        found = await self._rows.attempt_log(operation_id, origin.caller, number)
        if found is None:
            await note_unknown_id(self._database, operation_id, origin)
            raise OperationNotFoundError(operation_id)
        if found.content is not None:
            return FoundLog(found.content, None)
        reason = ""
        if not found.is_known and number is not None:
            reason = f"the operation has no attempt {number}"
        elif found.state == "unavailable":
            reason = "the pod was gone before its log could be stored"
        elif found.state == "stored":
            reason = "it was kept for as long as logs are kept, and is removed"
        elif found.job_uid is None:
            reason = "the operation's Job has not been created yet"
        if reason or found.job_uid is None:
            raise LogNotAvailableError(reason)
        try:
            async with asyncio.timeout(_CLUSTER_SECONDS):
                return await self._of_living(found.job_uid, is_followed=is_followed)
        except (DependencyUnavailableError, TimeoutError) as error:
            message = "The log is still in the cluster, and the cluster does not answer; try again shortly"
            raise DependencyUnavailableError(message) from error

    async def _of_living(self, job_uid: str, *, is_followed: bool) -> FoundLog:
        for pod in await self._living.list_pods(job_uid):
            if (text := await self._living.logs(pod.name)) is not None:
                return FoundLog(None, pod.name) if is_followed and not pod.has_ended else FoundLog(text, None)
        message = "the pod has not started to write"
        raise LogNotAvailableError(message)

    @asynccontextmanager
    async def followed(self, pod_name: str, origin: Origin) -> AsyncIterator[AsyncIterator[bytes]]:
        """Give a pod's log piece by piece until it ends; the last line tells when it broke off or fell silent.

        Raises
        ------
        TooManyStreamsError
            The caller, or all callers together, follow as many logs as allowed.
        DependencyUnavailableError
            The cluster does not answer.
        """
        user_id = origin.caller.user_id
        if self._streams[user_id] >= _STREAMS_PER_USER:
            raise TooManyStreamsError(_STREAMS_PER_USER)
        if self._streams.total() >= _STREAMS:
            raise TooManyStreamsError(_STREAMS, are_all_counted=True)
        self._streams[user_id] += 1
        try:
            async with self._living.follow_log(pod_name) as source:
                yield self._pieces(source)
        finally:
            self._streams[user_id] -= 1
            if not self._streams[user_id]:
                del self._streams[user_id]

    async def _pieces(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(self._silence_seconds):
                    piece = await anext(source)
            except StopAsyncIteration:
                return
            except TimeoutError:
                yield f"[silent for {self._silence_seconds:.0f} s; ask again to go on]\n".encode()
                return
            except DependencyUnavailableError:
                yield b"[the cluster broke the stream off; ask again to go on]\n"
                return
            yield piece
