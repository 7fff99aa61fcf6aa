"""The provisioner's handshake against the database's own function: what each of the two makes of the other."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provisioner_job.contract import Env, ExitCode, OptionalEnv
from provisioner_job.errors import OtherPodError, PhaseError, RefusedError, RetryableError
from provisioner_job.session import SESSION_KEY, Session
from tests.support.postgres_relay import relay
from tests.support.provisioner_run import held, someone_waits, started

if TYPE_CHECKING:
    import asyncpg

    from provisioner_job.job_input import JobInput
    from provisioner_job.journal import Journal
    from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.contract


async def test_wrong_password_may_be_right_for_the_next_pod(given: JobInput, journal: Journal) -> None:
    with pytest.raises(RetryableError, match="password") as caught:
        await started(Session(given._replace(db_password="yesterday's"), journal))
    assert caught.value.code == "DATABASE_LOGIN_REFUSED"


async def test_database_that_is_read_only_may_be_writable_later(
    given: JobInput, journal: Journal, administrator: asyncpg.Connection
) -> None:
    await administrator.execute(f"ALTER DATABASE {given.db_name} SET default_transaction_read_only = on")
    with pytest.raises(RetryableError, match="read-only"):
        await started(Session(given, journal))


async def test_missing_right_stays_missing(
    given: JobInput, journal: Journal, administrator: asyncpg.Connection
) -> None:
    await administrator.execute(
        "REVOKE EXECUTE ON FUNCTION storeplane.start_attempt(uuid, integer, text, text, text, text)"
        " FROM storeplane_provisioner"
    )
    with pytest.raises(PhaseError, match="permission denied"):
        await started(Session(given, journal))


async def test_handshake_with_a_wrong_token_is_refused(given: JobInput, journal: Journal) -> None:
    with pytest.raises(RefusedError, match="wrong token"):
        await started(Session(given._replace(attempt_token="guessed"), journal))


async def test_lost_answer_is_given_again_and_no_other_process_gets_it(given: JobInput, journal: Journal) -> None:
    session = Session(given, journal)
    first, again = await started(session), await started(session)
    assert (first.kind, first.spec, first.finished_phases) == ("create", again.spec, ())
    with pytest.raises(OtherPodError):
        await started(Session(given, journal))


async def test_answer_lost_on_its_way_is_asked_for_again(
    given: JobInput, journal: Journal, postgres: PostgresServer
) -> None:
    with relay(postgres.socket_folder) as line:
        line.cut_at = b"seconds_left"
        session = Session(given._replace(db_host="127.0.0.1", db_port=line.port), journal)
        answer = await asyncio.to_thread(session.start, patience_seconds=60)
        assert line.cut_at == b""
    assert answer.kind == "create"


async def test_server_that_goes_down_in_mid_call_is_asked_again_and_no_secret_stands_in_the_call(
    given: JobInput, journal: Journal, database_url: str, administrator: asyncpg.Connection
) -> None:
    async with held(database_url, given.operation_id):
        session = Session(given, journal)
        starting = asyncio.create_task(asyncio.to_thread(session.start, patience_seconds=60))
        await someone_waits(administrator)
        own = "FROM pg_stat_activity WHERE application_name = 'storeplane-provisioner'"
        (waiting,) = await administrator.fetch(f"SELECT pid, query {own}")
        assert "start_attempt" in waiting["query"]
        assert SESSION_KEY in waiting["query"]
        assert given.attempt_token not in waiting["query"]
        # What a shutdown does to every backend.
        assert await administrator.fetchval("SELECT pg_terminate_backend($1, 60000)", waiting["pid"])
    assert (await starting).kind == "create"


def _environment(given: JobInput) -> dict[str, str]:
    return {
        Env.STORE_ID: str(given.store_id),
        Env.STORE_NAME: given.store_name,
        Env.ENGINE: given.engine,
        Env.NAMESPACE: given.namespace,
        Env.OPERATION_ID: str(given.operation_id),
        Env.ATTEMPT: str(given.attempt),
        Env.DB_HOST: given.db_host,
        Env.DB_PORT: str(given.db_port),
        Env.DB_NAME: given.db_name,
        Env.DB_USER: given.db_user,
        Env.DB_PASSWORD: given.db_password,
        Env.ATTEMPT_TOKEN: given.attempt_token,
        Env.JOB_UID: given.job_uid,
        Env.POD_UID: given.pod_uid,
        Env.POD_NAME: given.pod_name,
        Env.LOG_FORMAT: "json",
        OptionalEnv.TRACEPARENT: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    }


async def test_stop_during_the_handshake_ends_the_process(
    given: JobInput, database_url: str, administrator: asyncpg.Connection
) -> None:
    async with held(database_url, given.operation_id):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "provisioner_job",
            "single",
            env={"PATH": os.defpath, **_environment(given)},
            cwd=Path(__file__).parents[2],
            stdout=asyncio.subprocess.PIPE,
        )
        await someone_waits(administrator)
        process.terminate()
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
    assert process.returncode == ExitCode.RETRYABLE
    lines = [json.loads(line) for line in output.decode().splitlines()]
    assert [line["event"] for line in lines] == [
        "asking whether this attempt may run",
        "The provisioner was told to stop",
    ]
    assert {line["trace_id"] for line in lines} == {"4bf92f3577b34da6a3ce929d0e0e4736"}
    assert {line["operation_id"] for line in lines} == {str(given.operation_id)}
