from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from controlplane.db.attempts import AttemptRows
from controlplane.db.claims import ClaimRows, MadeJob
from controlplane.db.migrate import apply_migrations, read_migrations, set_role_password
from controlplane.db.operations import OperationRows
from controlplane.db.stores import StoreRows
from tests.support import wishes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.db.pool import Database
    from controlplane.domain.attempt import ClaimedAttempt
    from controlplane.domain.store import Caller
    from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.db

START = "SELECT storeplane.start_attempt($1, $2, $3, $4, $5, $6)"
PASSWORD = "provisioner-password"


class Pod:
    """A pod's connection, as the role it has."""

    def __init__(self, connection: Any, claimed: ClaimedAttempt) -> None:
        self.connection = connection
        self.claimed = claimed

    async def start(self, *, token: str | None = None, job: str = "job", pod: str = "pod", key: str = "key") -> Any:
        answer = await self.connection.fetchval(
            START,
            self.claimed.operation_id,
            self.claimed.number,
            token or wishes.token_of(self.claimed),
            job,
            pod,
            key,
        )
        return json.loads(answer)

    async def phase(self, name: str, *ago: float | None, is_end: bool, key: str = "key") -> Any:
        return await self.call("report_event", key, name, is_end, '{"duration_seconds": 1}', *ago)

    async def call(self, name: str, *arguments: object) -> Any:
        places = ", ".join(f"${number}" for number in range(1, len(arguments) + 3))
        return await self.connection.fetchval(
            f"SELECT storeplane.{name}({places})",
            self.claimed.operation_id,
            self.claimed.number,
            *arguments,
        )


@pytest.fixture
async def database_url(empty_database: str) -> str:
    """Migrated, not copied: a copy has the template's tables and not its database's rights."""
    await apply_migrations(empty_database, read_migrations())
    return empty_database


@pytest.fixture
async def owner(database: Database) -> Caller:
    caller, _ = await wishes.add_user(database)
    return caller


@pytest.fixture
async def pod(database: Database, database_url: str, postgres: PostgresServer, owner: Caller) -> AsyncIterator[Pod]:
    await StoreRows(database).submit_create(wishes.new_store(owner))
    claimed = await wishes.claim(database)
    await set_role_password(database_url, "storeplane_provisioner", PASSWORD)
    name = database_url.split("@/")[1].split("?", maxsplit=1)[0]
    connection = await asyncpg.connect(postgres.url(name, user="storeplane_provisioner", password=PASSWORD))
    try:
        yield Pod(connection, claimed)
    finally:
        await connection.close()


async def _states(database: Database, pod: Pod, owner: Caller) -> tuple[str, str]:
    operation = await OperationRows(database).get_operation(pod.claimed.operation_id, owner)
    store = await StoreRows(database).get_store(pod.claimed.store_id, owner)
    assert operation is not None
    assert store is not None
    return operation.state.value, store.state.value


async def test_same_pod_and_key_get_the_same_answer_twice(pod: Pod) -> None:
    first, second = await pod.start(), await pod.start()
    assert first["answer"] == second["answer"] == "start"
    assert first["spec"] == second["spec"]
    assert 0 < first["seconds_left"] <= 600


@pytest.mark.parametrize("other", [{"pod": "other"}, {"key": "other"}])
async def test_second_process_of_the_job_is_turned_away(pod: Pod, other: dict[str, str]) -> None:
    await pod.start()
    assert (await pod.start(**other))["answer"] == "other_pod"


async def test_wrong_token_is_refused_and_changes_nothing(pod: Pod, database: Database, owner: Caller) -> None:
    assert (await pod.start(token="0" * 64))["answer"] == "refused"
    assert await _states(database, pod, owner) == ("queued", "provisioning")


async def test_other_job_is_refused(pod: Pod, database: Database) -> None:
    await ClaimRows(database, "default").record_job(MadeJob(pod.claimed.operation_id, pod.claimed.number, "job"))
    assert (await pod.start(job="other"))["answer"] == "refused"
    assert (await pod.start(job="job"))["answer"] == "start"


async def test_handshake_before_the_record_is_no_conflict(pod: Pod, database: Database) -> None:
    assert (await pod.start(job="job"))["answer"] == "start"
    await ClaimRows(database, "default").record_job(MadeJob(pod.claimed.operation_id, pod.claimed.number, "job"))


async def test_whole_run_ends_with_a_ready_store_and_its_history(pod: Pod, database: Database, owner: Caller) -> None:
    await pod.start()
    for phase in ("namespace", "release", "verify"):
        assert await pod.phase(phase, is_end=False)
        # A lost answer makes the pod say it again.
        assert await pod.phase(phase, is_end=True)
        assert await pod.phase(phase, is_end=True)
    assert json.loads(await pod.call("heartbeat", "key"))["go_on"]
    assert await pod.call("finish_attempt", "key", "succeeded", '{"product_count": 4}', None)
    assert await pod.call("finish_attempt", "key", "succeeded", '{"product_count": 4}', None)
    assert await _states(database, pod, owner) == ("succeeded", "ready")
    events = await StoreRows(database).list_events(pod.claimed.store_id, owner, after=0, limit=100)
    assert [event.event_type for event in events] == [
        "created",
        "provisioning_started",
        "phase_started",
        "phase_completed",
        "namespace_created",
        "phase_started",
        "phase_completed",
        "helm_installed",
        "phase_started",
        "phase_completed",
        "store_ready",
        "provisioning_completed",
    ]


async def test_phase_is_recorded_when_it_was_by_the_databases_clock(pod: Pod, database: Database) -> None:
    await pod.start()
    async with database.transaction() as session:
        # As if the handshake were a minute old.
        await session._connection.execute(  # noqa: SLF001 -- time is the one thing a test has to bend
            "UPDATE storeplane.attempts SET started_at = started_at - interval '1 minute'"
        )
    async with pod.connection.transaction():
        now = await pod.connection.fetchval("SELECT now()")
        assert await pod.phase("release", 30, is_end=False)
        assert await pod.phase("release", 20.5, is_end=True)
        assert await pod.phase("verify", 20.5, is_end=False)
        # Repeated, as after an answer that was lost: the first word stands.
        assert await pod.phase("release", 10, is_end=True)
    async with database.transaction() as session:
        phases = await session._connection.fetch(  # noqa: SLF001 -- as above
            "SELECT phase, started_at, finished_at FROM storeplane.phases ORDER BY started_at"
        )
        events = await session._connection.fetch(  # noqa: SLF001 -- as above
            "SELECT event_type, created_at FROM storeplane.store_events WHERE operation_id = $1 ORDER BY id DESC"
            " LIMIT 4",
            pod.claimed.operation_id,
        )
    begun, ended = now - timedelta(seconds=30), now - timedelta(seconds=20.5)
    assert [tuple(row) for row in phases] == [("release", begun, ended), ("verify", ended, None)]
    assert [tuple(row) for row in reversed(events)] == [
        ("phase_started", begun),
        ("phase_completed", ended),
        ("helm_installed", ended),
        ("phase_started", ended),
    ]


async def test_phase_is_never_recorded_before_what_was_before_it(pod: Pod, database: Database) -> None:
    await pod.start()
    assert await pod.phase("release", 3600, is_end=False)
    assert await pod.phase("release", 0, is_end=True)
    assert await pod.phase("verify", 3600, is_end=False)
    assert await pod.phase("verify", 3600, is_end=True)
    async with database.transaction() as session:
        started_at = await session._connection.fetchval("SELECT started_at FROM storeplane.attempts")  # noqa: SLF001
        release, verify = await session._connection.fetch(  # noqa: SLF001 -- the times are not in any view
            "SELECT started_at, finished_at FROM storeplane.phases ORDER BY phase"
        )
    assert started_at == release["started_at"] < release["finished_at"]
    assert tuple(verify) == (release["finished_at"], release["finished_at"])


@pytest.mark.parametrize("ago", [-0.001, 3600.1, float("inf"), float("nan"), None], ids=str)
async def test_age_of_a_report_that_is_none_is_refused(pod: Pod, ago: float | None) -> None:
    await pod.start()
    with pytest.raises(asyncpg.InvalidParameterValueError, match="0 to 3600 seconds"):
        await pod.phase("release", ago, is_end=False)


async def test_stale_session_changes_nothing(pod: Pod, database: Database, owner: Caller) -> None:
    await pod.start()
    assert not await pod.phase("namespace", is_end=False, key="wrong")
    assert not json.loads(await pod.call("heartbeat", "wrong"))["go_on"]
    assert not await pod.call("finish_attempt", "wrong", "succeeded", "{}", None)
    assert await _states(database, pod, owner) == ("running", "provisioning")


async def test_failure_waits_for_the_reconciler(pod: Pod, database: Database, owner: Caller) -> None:
    await pod.start()
    problem = {"code": "SETUP_FAILED", "title": "The store's setup failed", "detail": "migrate: exit code 1"}
    assert await pod.call("finish_attempt", "key", "permanent", "{}", json.dumps(problem))
    assert await _states(database, pod, owner) == ("running", "provisioning")
    rows = AttemptRows(database, "default")
    (ended,) = await rows.list_to_conclude(10)
    assert ended.problem == problem
    assert await rows.fail_operation(ended, problem)
    assert not await rows.fail_operation(ended, problem)
    assert await _states(database, pod, owner) == ("failed", "failed")


async def test_late_report_is_audited_only(pod: Pod, database: Database, owner: Caller) -> None:
    await pod.start()
    async with database.transaction() as session:
        await session._connection.execute(  # noqa: SLF001 -- time is the one thing a test has to bend
            "UPDATE storeplane.operations SET deadline_at = now() - interval '1 second'"
        )
    rows = AttemptRows(database, "default")
    (overdue,) = await rows.list_overdue(3600, 10)
    assert overdue.operation_id == pod.claimed.operation_id
    assert await rows.expire(overdue, {"code": "OPERATION_TIMEOUT", "title": "too late", "detail": "late"}, uuid7())
    assert await rows.list_overdue(3600, 10) == []
    assert not await pod.call("finish_attempt", "key", "succeeded", "{}", None)
    assert await _states(database, pod, owner) == ("failed", "failed")
    async with database.transaction() as session:
        actions = await session._connection.fetch("SELECT action FROM storeplane.audit_log ORDER BY id")  # noqa: SLF001
    assert [row["action"] for row in actions] == ["store.create", "attempt.late_report"]


async def test_provisioner_may_do_nothing_but_call_its_functions(pod: Pod) -> None:
    tables = await pod.connection.fetch("SELECT relname FROM pg_class WHERE relnamespace = 'storeplane'::regnamespace")
    assert len(tables) > 10
    for statement in (
        "SELECT * FROM storeplane.operations",
        "SELECT * FROM storeplane.users",
        "UPDATE storeplane.stores SET state = 'ready'",
        "INSERT INTO storeplane.audit_log (action) VALUES ('x')",
        "DELETE FROM storeplane.store_events",
        "CREATE TABLE storeplane.mine (id int)",
        "CREATE TABLE public.mine (id int)",
        "CREATE TEMPORARY TABLE mine (id int)",
        "CREATE SCHEMA mine",
        "SELECT storeplane.session_is_current(gen_random_uuid(), 1, 'key')",
        "SELECT * FROM storeplane.schema_migrations",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await pod.connection.execute(statement)
    granted = await pod.connection.fetch(
        """SELECT p.proname FROM pg_proc AS p
            WHERE p.pronamespace = 'storeplane'::regnamespace AND has_function_privilege(p.oid, 'EXECUTE')"""
    )
    assert {row["proname"] for row in granted} == {"start_attempt", "report_event", "heartbeat", "finish_attempt"}


async def test_pod_that_begins_before_its_job_is_recorded_spends_the_users_turn(
    pod: Pod, database: Database, owner: Caller
) -> None:
    quick, waiting = owner, (await wishes.add_user(database))[0]
    assert (await pod.start())["answer"] == "start"
    for user in (quick, waiting):
        await StoreRows(database).submit_create(wishes.new_store(user))
    assert (await wishes.claim(database)).owner_id == waiting.user_id
