"""What the pod tells Postgres, through four functions and nothing else.

Each call connects, speaks and disconnects, so that a thousand pods hold no thousand backends. A database that is away
delays a report; how long, the caller says.
"""

import asyncio
import json
import secrets
import time
from typing import Any, Final

import asyncpg

from provisioner_job.contract import StartAnswer
from provisioner_job.errors import OtherPodError, PhaseError, ProvisionerError, RefusedError, RetryableError
from provisioner_job.job_input import JobInput
from provisioner_job.journal import Journal

__all__ = ["Reports", "Started", "refusal"]

_CALL_SECONDS: Final = 10.0
_FIRST_PAUSE_SECONDS: Final = 0.2
_LONGEST_PAUSE_SECONDS: Final = 3.0
_PASSES: Final = ("08", "25006", "40", "53", "55P03", "57")
"""Beginnings of the SQLSTATEs that say "not now": no connection, a standby, a lost race, no resources, a lock not had
in time, an operator's hand (shutdown, start, a call cancelled)."""
_LOGIN: Final = "28"


def refusal(error: Exception) -> ProvisionerError | None:
    """Return what a failed call means for the run, or None when it is worth asking again."""
    if not isinstance(error, asyncpg.PostgresError):
        return None
    state = error.sqlstate or ""
    if state.startswith(_PASSES):
        return None
    if state.startswith(_LOGIN):
        # The next pod is given the password anew, and it may have been changed while this one started.
        detail = f"{error}; the Secret with the provisioner's password must hold what the database expects"
        return RetryableError("DATABASE_LOGIN_REFUSED", "The database refuses the provisioner's login", detail)
    return PhaseError("DATABASE_REFUSED", "The database refuses the report", f"{error} (SQLSTATE {state})")


class Started:
    """The answer to a handshake that lets the run begin."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.spec: dict[str, Any] = answer["spec"]
        self.seconds_left = int(answer["seconds_left"])
        self.lease_seconds = int(answer["lease_seconds"])


class Reports:
    """The pod's session with the database; its key is made here and never leaves the process but for these calls."""

    def __init__(self, given: JobInput, journal: Journal) -> None:
        self._given = given
        self._journal = journal
        self._key = secrets.token_hex(32)
        journal.redactor.learn(self._key, given.db_password, given.attempt_token)

    async def start(self, *, patience_seconds: float) -> Started:
        """Shake hands; nothing may be touched before this returns.

        Repeating it after a lost answer is safe: the same pod and key get the same answer.

        Raises
        ------
        OtherPodError, RefusedError
            The attempt is not this process's to run.
        RetryableError
            The database stayed away.
        """
        given = self._given
        answer = await self._call(
            "SELECT storeplane.start_attempt($1, $2, $3, $4, $5, $6)",
            given.attempt_token,
            given.job_uid,
            given.pod_uid,
            self._key,
            patience_seconds=patience_seconds,
        )
        found = json.loads(answer)
        if found["answer"] == StartAnswer.OTHER_POD:
            raise OtherPodError(found["reason"])
        if found["answer"] != StartAnswer.START:
            raise RefusedError(found["reason"])
        return Started(found)

    async def phase(self, phase: str, *, is_end: bool, detail: dict[str, Any], patience_seconds: float) -> None:
        """Report the start or the end of a phase; `RefusedError` when the session is not current any more."""
        is_current = await self._call(
            "SELECT storeplane.report_event($1, $2, $3, $4, $5, $6::jsonb)",
            self._key,
            phase,
            is_end,
            json.dumps(detail),
            patience_seconds=patience_seconds,
        )
        if not is_current:
            reason = "the attempt is over or superseded"
            raise RefusedError(reason)

    async def heartbeat(self, *, patience_seconds: float) -> None:
        """Renew the lease; `RefusedError` when the run has to stop."""
        answer = json.loads(
            await self._call("SELECT storeplane.heartbeat($1, $2, $3)", self._key, patience_seconds=patience_seconds)
        )
        if not answer["go_on"]:
            raise RefusedError(answer["reason"])

    async def finish(
        self, outcome: str, result: dict[str, Any], problem: dict[str, Any] | None, *, patience_seconds: float
    ) -> bool:
        """Report the end; False when it came too late to count."""
        recorded = await self._call(
            "SELECT storeplane.finish_attempt($1, $2, $3, $4, $5::jsonb, $6::jsonb)",
            self._key,
            outcome,
            json.dumps(result),
            None if problem is None else json.dumps(problem),
            patience_seconds=patience_seconds,
        )
        return bool(recorded)

    async def _call(self, statement: str, *arguments: object, patience_seconds: float) -> Any:
        """Run one function, trying again while the database is away.

        Raises
        ------
        RetryableError
            It was away for longer than `patience_seconds`, or refuses the login.
        PhaseError
            It refuses the call itself.
        """
        give_up_at = time.monotonic() + patience_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                async with asyncio.timeout(_CALL_SECONDS):
                    return await self._once(statement, *arguments)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                refused = refusal(error)
                if refused is not None:
                    raise refused from error
                cause = str(error) or type(error).__name__
                if time.monotonic() + pause >= give_up_at:
                    raise RetryableError("DATABASE_UNAVAILABLE", "The database does not answer", cause) from error
                self._journal.say("the database does not answer, trying again", level="warning", cause=cause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _once(self, statement: str, *arguments: object) -> Any:
        given = self._given
        connection = await asyncpg.connect(
            host=given.db_host,
            port=given.db_port,
            database=given.db_name,
            user=given.db_user,
            password=given.db_password,
            timeout=_CALL_SECONDS,
            command_timeout=_CALL_SECONDS,
            # One call per connection: a cache of prepared statements would only confuse a pooler in between.
            statement_cache_size=0,
            server_settings={"application_name": "storeplane-provisioner"},
        )
        try:
            return await connection.fetchval(statement, given.operation_id, given.attempt, *arguments)
        finally:
            await connection.close(timeout=_CALL_SECONDS)
