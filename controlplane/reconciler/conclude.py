"""What follows the end of an attempt, a cancel, or the end of an operation's time.

Needs Postgres alone, so that deadlines and cancels hold while Kubernetes is down. Every step is one guarded statement:
any number of processes may take it, one of them counts.
"""

import random
from collections.abc import Awaitable, Sequence
from typing import Any, Final
from uuid import UUID

from uuid_utils.compat import uuid7

from controlplane.db.attempts import AttemptRows, Overdue, ToConclude
from controlplane.domain.errors import DatabaseUnavailableError
from controlplane.domain.operation import TIMEOUT_SENTENCE
from controlplane.domain.retry_policy import GiveUp, Retry, next_step
from controlplane.domain.transitions import OperationState
from controlplane.telemetry import bound, get_logger

__all__ = ["Conclusions"]

_PAGE: Final = 500

_log = get_logger(__name__)


class Conclusions:
    """Ends operations or schedules their next attempts."""

    def __init__(self, rows: AttemptRows, *, queue_limit_seconds: float) -> None:
        self._rows = rows
        self._queue_limit_seconds = queue_limit_seconds

    async def conclude(self, operations: Sequence[UUID] | None = None) -> list[UUID]:
        """Decide what follows for every operation whose attempt has ended, or for the named ones; return which.

        Raises
        ------
        DatabaseUnavailableError
            The next pass goes on.
        """
        found = await self._rows.list_to_conclude(_PAGE, operations=operations)
        return [ended.operation_id for ended in found if await self._alone(ended.operation_id, self._conclude(ended))]

    async def expire(self) -> None:
        """Fail every operation that is out of time."""
        for overdue in await self._rows.list_overdue(self._queue_limit_seconds, _PAGE):
            error = _timeout(overdue)
            if await self._alone(overdue.operation_id, self._rows.expire(overdue, error, uuid7())):
                _log.warning("operation timed out", operation_id=str(overdue.operation_id), code=error["code"])

    @staticmethod
    async def _alone(operation_id: UUID, step: Awaitable[bool]) -> bool:
        """Take a step; whatever is wrong with one operation must not hold up the others."""
        try:
            return await step
        except DatabaseUnavailableError:
            raise
        except Exception:  # noqa: BLE001 -- logged in full; the next pass tries again
            _log.exception("operation not concluded", operation_id=str(operation_id))
            return False

    async def _conclude(self, ended: ToConclude) -> bool:
        """Take the next step; False when somebody else did, or when there is none."""
        with bound(operation_id=ended.operation_id, attempt=ended.number):
            if ended.is_cancelled:
                did = await self._rows.finish_cancel(ended.operation_id, uuid7())
                if did:
                    _log.info("operation cancelled")
                return did
            return bool(ended.outcomes) and await self._follow_up(ended)

    async def _follow_up(self, ended: ToConclude) -> bool:
        step = next_step(
            ended.outcomes,
            seconds_left=ended.seconds_left,
            memory_mib=ended.memory_mib,
            spread=random.random(),  # noqa: S311 -- spreads retries, keeps no secret
        )
        if isinstance(step, Retry):
            did = await self._rows.retry_operation(ended, step.seconds, step.reason, step.memory_mib)
            if did:
                _log.info("retry scheduled", seconds=step.seconds, reason=step.reason)
            return did
        error = _failure(ended, step)
        did = await self._rows.fail_operation(ended, error)
        if did:
            _log.warning("operation failed", error_code=error["code"], detail=error["detail"])
        return did


def _failure(ended: ToConclude, step: GiveUp) -> dict[str, Any]:
    error: dict[str, Any] = dict(ended.problem or {})
    error.setdefault("code", "ATTEMPT_FAILED")
    error.setdefault("title", "The operation failed")
    error.setdefault("detail", f"its attempt ended as {ended.outcomes[-1].value}")
    error.setdefault("remedy", "read the log of the attempt, mend what it names, then retry the operation")
    if step.because:
        error["detail"] = f"{error['detail']}; {step.because}"
    return error | {"attempt": ended.number}


def _timeout(overdue: Overdue) -> dict[str, Any]:
    if overdue.state is OperationState.QUEUED:
        return {
            "code": "QUEUE_TIMEOUT",
            "title": "The operation waited too long",
            "detail": "it was never dispatched within its time in the queue",
            "remedy": "see what the queue waits for, then retry the operation",
        }
    minutes = {"upgrade": 30, "backup": 60}.get(overdue.kind, 15)
    title = TIMEOUT_SENTENCE if overdue.kind == "create" else f"Operation timeout - exceeded {minutes} minutes"
    return {
        "code": "OPERATION_TIMEOUT",
        "title": title,
        "detail": f"the operation did not end within {minutes} minutes of its first dispatch",
        "remedy": "see in the log and the diagnosis of its attempts what took so long, then retry the operation",
    }
