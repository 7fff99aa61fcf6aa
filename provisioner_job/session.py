"""The pod's session with the database: its key, the handshake, and what a failed call means.

The handshake is made before anything large is imported, so nothing here knows of an event loop.
"""

import os
import time
from typing import Any, Final

from provisioner_job.contract import StartAnswer
from provisioner_job.database import Call, NotTrustedError, ServerError, ask
from provisioner_job.errors import OtherPodError, PhaseError, ProvisionerError, RefusedError, RetryableError
from provisioner_job.job_input import JobInput
from provisioner_job.journal import Journal

__all__ = ["CALL_SECONDS", "SESSION_KEY", "Session", "Started", "Tries", "refusal"]

CALL_SECONDS: Final = 10.0
SESSION_KEY: Final = "current_setting('storeplane.session_key')"
"""The session's key in a statement. The driver writes arguments into a statement's text, and that text is in the
server's log of errors and in `pg_stat_activity` while the call waits: secrets are given before it, by another."""
_GIVE_SECRETS: Final = (
    "SELECT set_config('storeplane.session_key', %s, true), set_config('storeplane.attempt_token', %s, true)"
)
_START: Final = (
    f"SELECT storeplane.start_attempt(%s, %s, current_setting('storeplane.attempt_token'), %s, %s, {SESSION_KEY})"
)
_FIRST_PAUSE_SECONDS: Final = 0.2
_LONGEST_PAUSE_SECONDS: Final = 3.0
_PASSES: Final = ("08", "25006", "40", "53", "55P03", "57")
"""Beginnings of the SQLSTATEs that say "not now": no connection, a standby, a lost race, no resources, a lock not had
in time, an operator's hand (shutdown, start, a call cancelled)."""
_LOGIN: Final = "28"


def refusal(error: Exception) -> ProvisionerError | None:
    """Return what a failed call means for the run, or None when it is worth asking again."""
    if isinstance(error, NotTrustedError):
        return RetryableError("DATABASE_NOT_TRUSTED", "What answers for the database cannot be trusted", str(error))
    if not isinstance(error, ServerError) or error.sqlstate.startswith(_PASSES):
        return None
    if error.sqlstate.startswith(_LOGIN):
        # The next pod is given the password anew, and it may have been changed while this one started.
        detail = f"{error}; the Secret with the provisioner's password must hold what the database expects"
        return RetryableError("DATABASE_LOGIN_REFUSED", "The database refuses the provisioner's login", detail)
    return PhaseError("DATABASE_REFUSED", "The database refuses the report", f"{error} (SQLSTATE {error.sqlstate})")


class Started:
    """The answer to a handshake that lets the run begin."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.spec: dict[str, Any] = answer["spec"]
        self.seconds_left = int(answer["seconds_left"])
        self.lease_seconds = int(answer["lease_seconds"])
        self.finished_phases: tuple[str, ...] = tuple(answer.get("finished_phases") or ())
        # A database of the version before names no kind: it knows creates only.
        self.kind: str = answer.get("kind") or "create"
        store = answer.get("store") or {}
        self.namespace_uid: str = store.get("namespace_uid") or ""
        """The recorded one of the store's namespace; empty when none is."""


class Tries:
    """How often and for how long a call is made again while the database is away.

    Parameters
    ----------
    patience_seconds
        No new try begins after that.
    """

    def __init__(self, journal: Journal, *, patience_seconds: float) -> None:
        self._journal = journal
        self._give_up_at = time.monotonic() + patience_seconds
        self._pause = _FIRST_PAUSE_SECONDS

    def pause_after(self, error: Exception) -> float:
        """Return for how long to wait before the next try.

        Raises
        ------
        RetryableError
            The database was away for too long, or refuses the login.
        PhaseError
            It refuses the call itself.
        """
        refused = refusal(error)
        if refused is not None:
            raise refused from error
        cause = str(error) or type(error).__name__
        pause, self._pause = self._pause, min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
        if time.monotonic() + pause >= self._give_up_at:
            raise RetryableError("DATABASE_UNAVAILABLE", "The database does not answer", cause) from error
        self._journal.say("the database does not answer, trying again", level="warning", cause=cause)
        return pause


class Session:
    """One process's session; its key is made here and never leaves the process but for these calls."""

    def __init__(self, given: JobInput, journal: Journal) -> None:
        self.journal = journal
        self._given = given
        # What the module `secrets` would take it from, without what that imports.
        self._key = os.urandom(32).hex()
        journal.redactor.learn(self._key, given.db_password, given.attempt_token)

    def start(self, *, patience_seconds: float) -> Started:
        """Shake hands; nothing may be touched before this returns. Blocks.

        Repeating it after a lost answer is safe: the same pod and key get the same answer.

        Raises
        ------
        OtherPodError, RefusedError
            The attempt is not this process's to run.
        RetryableError
            The database stayed away.
        PhaseError
            It refuses the call itself.
        """
        found = self._answer_to_start(Tries(self.journal, patience_seconds=patience_seconds))
        if found.get("answer") == StartAnswer.OTHER_POD:
            raise OtherPodError(found["reason"])
        if found.get("answer") != StartAnswer.START:
            raise RefusedError(found.get("reason") or "the database says so")
        return Started(found)

    def call(self, *calls: Call) -> list[Any]:
        """Run functions with operation and attempt before their other arguments. Blocks, for 10 s at most.

        Raises
        ------
        ServerError, OSError
            As `database.ask` does.
        """
        return self._ask(*calls)

    def _answer_to_start(self, tries: Tries) -> dict[str, Any]:
        while True:
            try:
                (told,) = self._ask((_START, (self._given.job_uid, self._given.pod_uid)))
            except (ServerError, OSError) as error:
                time.sleep(tries.pause_after(error))
            else:
                answer: dict[str, Any] = told or {}
                return answer

    def _ask(self, *calls: Call) -> list[Any]:
        given = self._given
        secrets: Call = _GIVE_SECRETS, (self._key, given.attempt_token)
        own = [(text, (str(given.operation_id), str(given.attempt), *arguments)) for text, arguments in calls]
        return ask(given.database, secrets, *own, seconds=CALL_SECONDS)[1:]
