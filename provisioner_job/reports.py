"""What the pod tells Postgres while it works: phases, heartbeats, the end.

Each call connects, speaks and disconnects, so that a thousand pods hold no thousand backends. A database that is away
delays a report; how long, the caller says.
"""

import asyncio
import json
from typing import Any, Final, NamedTuple

from provisioner_job.database import Call, ServerError
from provisioner_job.errors import RefusedError
from provisioner_job.session import CALL_SECONDS, SESSION_KEY, Session, Tries

__all__ = ["PhaseReport", "Reports"]

_RESOLVING_SECONDS: Final = 10.0
"""On top of a call's own limit, for what the resolver takes to find the database's name."""


class PhaseReport(NamedTuple):
    """The start or the end of a phase."""

    phase: str
    is_end: bool
    detail: dict[str, Any]


class Reports:
    """The calls of a session that has begun. A cancelled call ends by itself, unheard, within its own limit."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def phases(self, *reports: PhaseReport, patience_seconds: float) -> None:
        """Report starts and ends of phases, in one go; `RefusedError` when the session is not current any more."""
        calls: list[Call] = [
            (
                f"SELECT storeplane.report_event(%s, %s, {SESSION_KEY}, %s, %s, %s::jsonb)",
                (each.phase, "true" if each.is_end else "false", json.dumps(each.detail)),
            )
            for each in reports
        ]
        if not all(await self._calls(*calls, patience_seconds=patience_seconds)):
            reason = "the attempt is over or superseded"
            raise RefusedError(reason)

    async def heartbeat(self, *, patience_seconds: float) -> None:
        """Renew the lease; `RefusedError` when the run has to stop."""
        call = f"SELECT storeplane.heartbeat(%s, %s, {SESSION_KEY})", ()
        (told,) = await self._calls(call, patience_seconds=patience_seconds)
        answer = told or {}
        if not answer.get("go_on"):
            raise RefusedError(answer.get("reason") or "the control plane says so")

    async def finish(
        self, outcome: str, result: dict[str, Any], problem: dict[str, Any] | None, *, patience_seconds: float
    ) -> bool:
        """Report the end; False when it came too late to count."""
        call = (
            f"SELECT storeplane.finish_attempt(%s, %s, {SESSION_KEY}, %s, %s::jsonb, %s::jsonb)",
            (outcome, json.dumps(result), None if problem is None else json.dumps(problem)),
        )
        (recorded,) = await self._calls(call, patience_seconds=patience_seconds)
        return bool(recorded)

    async def _calls(self, *calls: Call, patience_seconds: float) -> list[Any]:
        """Run functions in one transaction, trying again while the database is away.

        Raises
        ------
        RetryableError
            It was away for longer than `patience_seconds`, or refuses the login.
        PhaseError
            It refuses the call itself.
        """
        tries = Tries(self._session.journal, patience_seconds=patience_seconds)
        while True:
            try:
                async with asyncio.timeout(CALL_SECONDS + _RESOLVING_SECONDS):
                    return await asyncio.to_thread(self._session.call, *calls)
            except (ServerError, OSError) as error:
                pause = tries.pause_after(error)
            await asyncio.sleep(pause)
