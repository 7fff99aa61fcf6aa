"""Asking the API server again while it is away.

Every write of this program may be sent twice: server-side apply says what shall be, and a create, a replace or a
delete that was done although its answer was lost is refused the second time (409, 404), which its caller looks into.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from provisioner_job.journal import Journal
from provisioner_job.refusals import away_cause, explained, refusal_in

__all__ = ["Patience"]

_T = TypeVar("_T")
_CALL_SECONDS: Final = 30.0
"""Above the client's limit for a single read, which a trickle of bytes never reaches."""
_FIRST_PAUSE_SECONDS: Final = 0.2
_LONGEST_PAUSE_SECONDS: Final = 3.0
_LONGEST_ASKED_SECONDS: Final = 10.0
"""A server may ask for a longer pause than ours; one that asks for minutes is looked at again before patience ends."""


class Patience:
    """Makes calls of one client, each again and again while the server is away.

    Parameters
    ----------
    seconds
        How long a call may wait for the server, from its beginning on; no new try begins after that.
    """

    def __init__(self, journal: Journal, *, seconds: float) -> None:
        self._journal = journal
        self._seconds = seconds
        self._told = ""
        """The cause the journal was told last; empty while the server answers."""
        self._forgives_until = 0.0

    def forgive(self, seconds: float) -> None:
        """Take what the server may not know yet for an outage: roles that were bound just now."""
        self._forgives_until = time.monotonic() + seconds

    async def ask(self, what: str, call: Callable[[], Awaitable[_T]]) -> _T:
        """Return the answer to a call, which is made anew for every try.

        Raises
        ------
        RetryableError
            The server was away for longer than the patience; `AbsentError` and `TakenError` are its 404 and 409.
        PhaseError
            It refuses the call.
        """
        give_up_at = time.monotonic() + self._seconds
        pause, was_away = _FIRST_PAUSE_SECONDS, False
        while True:
            try:
                async with asyncio.timeout(_CALL_SECONDS):
                    answer = await call()
            except Exception as error:
                is_forgiven = time.monotonic() < self._forgives_until
                cause = away_cause(error, was_away=was_away or is_forgiven)
                self._tell(cause or "")
                refusal = refusal_in(error)
                asked = 0.0 if refusal is None else min(refusal.wait_seconds, _LONGEST_ASKED_SECONDS)
                wait = max(pause, asked)
                if cause is None or time.monotonic() + wait >= give_up_at:
                    raise explained(what, error) from error
            else:
                self._tell("")
                return answer
            was_away = True
            await asyncio.sleep(wait)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _tell(self, cause: str) -> None:
        """Write a change into the journal, not every try."""
        if cause == self._told:
            return
        self._told = cause
        if cause:
            self._journal.say("the cluster does not answer, trying again", level="warning", cause=cause)
        else:
            self._journal.say("the cluster answers again")
