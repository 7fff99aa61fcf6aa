"""What the pod tells Postgres while it works: phases, heartbeats, the end.

Each call connects, speaks and disconnects, so that a thousand pods hold no thousand backends. A phase's start and end
are noted and told beside the work, several in one call, because a connection costs more than what it brings. A database
that is away delays a report; how long, the caller says.
"""

import asyncio
import json
import time
from typing import Any, Final, NamedTuple

from provisioner_job.database import Call, ServerError
from provisioner_job.errors import PhaseError, RefusedError
from provisioner_job.session import CALL_SECONDS, SESSION_KEY, Session, Tries

__all__ = ["Reports"]

_RESOLVING_SECONDS: Final = 10.0
"""On top of a call's own limit, for what the resolver takes to find the database's name."""
_GATHERING_SECONDS: Final = 0.3
"""From the first untold note to its call: what quick phases take together, and no longer than a person waits for a
line."""


class _Note(NamedTuple):
    """The start or the end of a phase."""

    phase: str
    is_end: bool
    detail: str
    """As JSON."""
    noted_at: float
    """By the monotonic clock."""

    def call(self) -> Call:
        """Return the call that tells it; repeating it changes nothing."""
        return (
            f"SELECT storeplane.report_event(%s, %s, {SESSION_KEY}, %s, %s, %s::jsonb, %s)",
            (self.phase, "true" if self.is_end else "false", self.detail, self._seconds_ago),
        )

    def _seconds_ago(self) -> str:
        return f"{time.monotonic() - self.noted_at:.6f}"


class Reports:
    """The calls of a session that has begun. A cancelled call ends by itself, unheard, within its own limit."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._untold: list[_Note] = []
        self._has_untold = asyncio.Event()

    def note(self, phase: str, *, is_end: bool, detail: dict[str, Any]) -> None:
        """Take note of a phase's start or end; `keep_telling` or `finish` tells it. Waits for nothing."""
        self._untold.append(_Note(phase, is_end, json.dumps(detail), time.monotonic()))
        self._has_untold.set()

    async def keep_telling(self, *, patience_seconds: float) -> None:
        """Tell what is noted, in its order, for ever.

        What is under way when this is cancelled may still arrive, and `finish` tells it again: the database takes a
        phase's start and end once, and the row's lock puts one call behind the other.

        Raises
        ------
        RefusedError
            The session is not current any more: the run has to stop.
        RetryableError
            The database was away for longer than `patience_seconds`, or refuses the login.
        PhaseError
            It refuses the report itself.
        """
        while True:
            await self._has_untold.wait()
            await asyncio.sleep(self._untold[0].noted_at + _GATHERING_SECONDS - time.monotonic())
            notes = tuple(self._untold)
            if not all(await self._calls(*(note.call() for note in notes), patience_seconds=patience_seconds)):
                reason = "the attempt is over or superseded"
                raise RefusedError(reason)
            # Only now, so that the end tells what was never heard of; what came meanwhile stands behind it.
            del self._untold[: len(notes)]
            if not self._untold:
                self._has_untold.clear()

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
        """Report the end, behind what is untold of the phases and in its transaction; False when it does not count.

        It does not when it comes too late: the attempt is over or superseded.

        Raises
        ------
        RetryableError
            The database was away for longer than `patience_seconds`, or refuses the login.
        PhaseError
            It refuses the call itself.
        """
        give_up_at = time.monotonic() + patience_seconds
        end: Call = (
            f"SELECT storeplane.finish_attempt(%s, %s, {SESSION_KEY}, %s, %s::jsonb, %s::jsonb)",
            (outcome, json.dumps(result), None if problem is None else json.dumps(problem)),
        )
        calls = [note.call() for note in self._untold]
        try:
            # What it says to the notes before the end does not count: an answer that was lost makes them late.
            *_, recorded = await self._calls(*calls, end, patience_seconds=patience_seconds)
        except PhaseError as error:
            if not calls:
                raise
            # A note it will never take must not take the end with it.
            self._session.journal.say("the last phases could not be reported", level="warning", cause=error.detail)
            (recorded,) = await self._calls(end, patience_seconds=give_up_at - time.monotonic())
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
