"""What the pod tells Postgres while it works: phases, heartbeats, the end.

Each call connects, speaks and disconnects, so that a thousand pods hold no thousand backends. A database that is away
delays a report; how long, the caller says.
"""

import asyncio
import json
from typing import Any, Final, NamedTuple

from provisioner_job.errors import RefusedError
from provisioner_job.session import CALL_SECONDS, Session, Tries
from provisioner_job.wire import Call, ServerError

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
                "SELECT storeplane.report_event($1, $2, $3, $4, $5, $6::jsonb)",
                (each.phase, "true" if each.is_end else "false", json.dumps(each.detail)),
            )
            for each in reports
        ]
        if any(is_current != "t" for is_current in await self._calls(*calls, patience_seconds=patience_seconds)):
            reason = "the attempt is over or superseded"
            raise RefusedError(reason)

    async def heartbeat(self, *, patience_seconds: float) -> None:
        """Renew the lease; `RefusedError` when the run has to stop."""
        call = "SELECT storeplane.heartbeat($1, $2, $3)", ()
        (told,) = await self._calls(call, patience_seconds=patience_seconds)
        answer = json.loads(told or "{}")
        if not answer.get("go_on"):
            raise RefusedError(answer.get("reason") or "the control plane says so")

    async def finish(
        self, outcome: str, result: dict[str, Any], problem: dict[str, Any] | None, *, patience_seconds: float
    ) -> bool:
        """Report the end; False when it came too late to count."""
        call = (
            "SELECT storeplane.finish_attempt($1, $2, $3, $4, $5::jsonb, $6::jsonb)",
            (outcome, json.dumps(result), None if problem is None else json.dumps(problem)),
        )
        (recorded,) = await self._calls(call, patience_seconds=patience_seconds)
        return recorded == "t"

    async def _calls(self, *calls: Call, patience_seconds: float) -> list[str | None]:
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
