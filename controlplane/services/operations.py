"""Operations: show one, and its log from the living pod or from the archive."""

import asyncio
from typing import Final, Protocol
from uuid import UUID

from controlplane.db.stores import StoreRows
from controlplane.domain.errors import DependencyUnavailableError, LogNotAvailableError, OperationNotFoundError
from controlplane.domain.observation import PodView
from controlplane.domain.operation import Operation
from controlplane.domain.store import Caller

__all__ = ["LogSource", "Operations"]


_CLUSTER_SECONDS: Final = 20.0
"""For listing a Job's pods and reading a log together."""


class LogSource(Protocol):
    """Where living pods' logs come from."""

    async def list_pods(self, job_uid: str | None = None) -> list[PodView]:
        """Return the provisioner's pods, or those of one Job, newest first."""

    async def logs(self, pod_name: str) -> str | None:
        """Return a pod's log, or None when there is none."""


class Operations:
    """What callers do with operations."""

    def __init__(self, rows: StoreRows, living: LogSource) -> None:
        self._rows = rows
        self._living = living

    async def get(self, operation_id: UUID, caller: Caller) -> Operation:
        """Return an operation; `OperationNotFoundError` when there is none for this caller."""
        operation = await self._rows.get_operation(operation_id, caller)
        if operation is None:
            raise OperationNotFoundError(operation_id)
        return operation

    async def logs(self, operation_id: UUID, caller: Caller) -> str:
        """Return the log of the newest attempt: the stored one, else what the pod has written so far.

        Raises
        ------
        OperationNotFoundError
            There is none for this caller.
        LogNotAvailableError
            Nothing was written yet, or it is gone.
        DependencyUnavailableError
            The log is only in the cluster, and the cluster does not answer.
        """
        found = await self._rows.attempt_log(operation_id, caller)
        if found is None:
            raise OperationNotFoundError(operation_id)
        if found.content is not None:
            return found.content
        if found.state == "unavailable":
            message = "the pod was gone before its log could be stored"
            raise LogNotAvailableError(message)
        if found.job_uid is None:
            message = "the operation's Job has not been created yet"
            raise LogNotAvailableError(message)
        try:
            async with asyncio.timeout(_CLUSTER_SECONDS):
                for pod in await self._living.list_pods(found.job_uid):
                    if (text := await self._living.logs(pod.name)) is not None:
                        return text
        except (DependencyUnavailableError, TimeoutError) as error:
            message = "The log is still in the cluster, and the cluster does not answer; try again shortly"
            raise DependencyUnavailableError(message) from error
        message = "the pod has not started to write"
        raise LogNotAvailableError(message)
