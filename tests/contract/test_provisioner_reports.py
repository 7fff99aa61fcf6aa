"""The provisioner's run and reports against the database's own functions: what each of the two makes of the other."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from provisioner_job import provisioner, reports
from provisioner_job.contract import ExitCode, Outcome
from provisioner_job.errors import PhaseError, RetryableError
from provisioner_job.session import Session
from provisioner_job.work import Phase
from tests.support.postgres_relay import relay
from tests.support.provisioner_run import Run, held, history, is_told, someone_waits, started, until

if TYPE_CHECKING:
    import asyncpg

    from provisioner_job.job_input import JobInput
    from provisioner_job.journal import Journal
    from provisioner_job.work import Work
    from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.contract

_NEVER = 60.0
"""Gathers for longer than any of these runs lasts: all is told with the end."""


async def test_stop_during_the_last_report_changes_nothing_of_the_result(
    given: JobInput, database_url: str, administrator: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = asyncio.Event()

    async def wait(_work: Work) -> dict[str, object]:
        await go_on.wait()
        return {}

    monkeypatch.setattr(reports, "_GATHERING_SECONDS", 0.0)
    run = Run(given, Phase("expose", 60, wait))
    ending = asyncio.create_task(run.to_its_end())
    # So that what waits for the row is the last report.
    await is_told(administrator, "expose")
    async with held(database_url, given.operation_id):
        go_on.set()
        await someone_waits(administrator)
        assert [result.outcome for result in run.left] == [Outcome.SUCCEEDED]
        run.stop.set()
    assert await ending is ExitCode.DONE
    assert [result.outcome for result in run.left] == [Outcome.SUCCEEDED]
    assert await administrator.fetchval("SELECT state FROM storeplane.operations") == "succeeded"


async def test_stop_during_a_phase_is_told_as_such_with_all_that_was_not_told(
    given: JobInput, administrator: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "_GATHERING_SECONDS", _NEVER)

    async def for_ever(_work: Work) -> dict[str, object]:
        run.stop.set()
        await asyncio.Event().wait()
        return {}

    run = Run(given, Phase("setup", 60, for_ever))
    assert await run.to_its_end() is ExitCode.RETRYABLE
    assert run.problem() == ("STOPPED", "setup")
    assert await administrator.fetchval("SELECT problem ->> 'code' FROM storeplane.attempts") == "STOPPED"
    assert await history(administrator) == [("started", "setup")]
    assert run.asked == [["report_event", "finish_attempt"]]


async def test_cancelled_operation_stops_its_phase_at_the_next_heartbeat(
    given: JobInput, administrator: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = asyncio.Event()

    async def for_ever(_work: Work) -> dict[str, object]:
        await administrator.execute("UPDATE storeplane.operations SET cancel_requested_at = now()")
        try:
            await asyncio.Event().wait()
        finally:
            # What a phase has to put away, it puts away.
            ended.set()
        return {}

    monkeypatch.setattr(provisioner, "_HEARTBEAT_SECONDS", 0.05)
    run = Run(given, Phase("setup", 60, for_ever))
    assert await run.to_its_end() is ExitCode.REFUSED
    assert ended.is_set()
    assert [result.outcome for result in run.left] == [Outcome.REFUSED]
    assert run.problem() == ("REFUSED", "setup")
    assert "cancel" in run.out.getvalue()
    # Whoever cancelled ends the attempt; the pod has no more to say.
    assert await administrator.fetchval("SELECT outcome FROM storeplane.attempts") is None


async def test_phases_are_recorded_from_start_to_end(given: JobInput, administrator: asyncpg.Connection) -> None:
    async def done(work: Work) -> dict[str, object]:
        work.result["product_count"] = 4
        return {"release": "medusa"}

    run = Run(given, Phase("release", 60, done), Phase("verify", 60, done))
    assert await run.to_its_end() is ExitCode.DONE
    assert run.kinds == ["create"]
    found = await administrator.fetch(
        "SELECT phase, finished_at IS NOT NULL AS is_done, detail ->> 'release' AS release FROM storeplane.phases"
        " ORDER BY started_at"
    )
    assert [tuple(each) for each in found] == [("release", True, "medusa"), ("verify", True, "medusa")]
    result = await administrator.fetchval("SELECT result ->> 'product_count' FROM storeplane.attempts")
    assert result == "4"


async def test_next_attempt_is_told_what_is_done(
    given: JobInput, administrator: asyncpg.Connection, journal: Journal
) -> None:
    async def done(_work: Work) -> dict[str, object]:
        return {}

    async def fail(_work: Work) -> dict[str, object]:
        raise RetryableError("CLUSTER_UNAVAILABLE", "The cluster does not answer", "for now")

    run = Run(given, Phase("namespace", 60, done), Phase("setup", 60, fail))
    assert await run.to_its_end() is ExitCode.RETRYABLE
    # A second attempt, as the control plane makes it, is not this test's matter: the first one is opened again.
    await administrator.execute(
        "UPDATE storeplane.attempts SET state = 'dispatched', outcome = NULL, problem = NULL, finished_at = NULL,"
        " pod_uid = NULL, session_hash = NULL, started_at = NULL"
    )
    assert (await started(Session(given, journal))).finished_phases == ("namespace",)


async def test_secrets_reach_neither_the_database_nor_the_message(
    given: JobInput, administrator: asyncpg.Connection
) -> None:
    async def fail(work: Work) -> dict[str, object]:
        work.journal.redactor.learn("sesame-open", "postgres://medusa:hunter-22@db/x")
        work.result["said"] = ["sesame-open"]
        raise PhaseError("SETUP_FAILED", "It failed", "login sesame-open, password hunter-22")

    run = Run(given, Phase("setup", 60, fail))
    assert await run.to_its_end() is ExitCode.PERMANENT
    stored = await administrator.fetchrow(
        "SELECT result::text AS result, problem::text AS problem FROM storeplane.attempts"
    )
    assert stored is not None
    for text in (stored["result"], stored["problem"], str(run.left)):
        assert "sesame-open" not in text
        assert "hunter-22" not in text
    assert "[redacted]" in stored["problem"]


def _lasting(administrator: asyncpg.Connection, name: str, seconds: float = 0.0) -> Phase:
    """Return a phase that lasts so long by the database's clock."""

    async def act(_work: Work) -> dict[str, object]:
        await administrator.execute("SELECT pg_sleep($1)", seconds)
        return {"of": name}

    return Phase(name, 60, act)


async def test_quick_phases_and_the_end_are_told_in_one_call_each_with_its_own_time(
    given: JobInput, administrator: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "_GATHERING_SECONDS", _NEVER)
    names = ("namespace", "release", "verify")
    run = Run(given, *(_lasting(administrator, name, 0.5) for name in names))
    assert await run.to_its_end() is ExitCode.DONE
    assert run.asked == [["report_event"] * 6 + ["finish_attempt"]]
    assert await history(administrator) == [(what, name) for name in names for what in ("started", "completed")]
    attempt = await administrator.fetchrow("SELECT started_at, finished_at FROM storeplane.attempts")
    found = await administrator.fetch(
        "SELECT p.phase, p.started_at, p.finished_at, p.detail ->> 'of' AS told,"
        " (SELECT array_agg(e.created_at ORDER BY e.id) FROM storeplane.store_events AS e"
        "   WHERE e.metadata ->> 'phase' = p.phase AND e.event_type LIKE 'phase%') AS events"
        " FROM storeplane.phases AS p ORDER BY p.started_at"
    )
    assert attempt is not None
    before = attempt["started_at"]
    for row, name in zip(found, names, strict=True):
        assert (row["phase"], row["told"]) == (name, name)
        assert before <= row["started_at"]
        # Half of what it surely lasted.
        assert (row["finished_at"] - row["started_at"]).total_seconds() > 0.25
        assert row["events"] == [row["started_at"], row["finished_at"]]
        before = row["finished_at"]
    assert before <= attempt["finished_at"]


async def test_long_phase_is_told_while_it_lasts(
    given: JobInput, administrator: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait(_work: Work) -> dict[str, object]:
        await is_told(administrator, "setup")
        return {}

    monkeypatch.setattr(reports, "_GATHERING_SECONDS", 0.0)
    run = Run(given, _lasting(administrator, "release"), Phase("setup", 60, wait))
    assert await run.to_its_end() is ExitCode.DONE
    assert await history(administrator) == [
        ("started", "release"),
        ("completed", "release"),
        ("started", "setup"),
        ("completed", "setup"),
    ]
    assert "finish_attempt" not in run.asked[0]


@pytest.mark.parametrize("lost", [b"finish_attempt", b"COMMIT"], ids=["before the commit", "after the commit"])
async def test_phases_and_end_whose_answer_was_lost_are_recorded_once(
    given: JobInput,
    administrator: asyncpg.Connection,
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    lost: bytes,
) -> None:
    monkeypatch.setattr(reports, "_GATHERING_SECONDS", _NEVER)
    with relay(postgres.socket_folder) as line:

        async def lose(_work: Work) -> dict[str, object]:
            line.cut_at = lost
            return {}

        run = Run(given._replace(db_host="127.0.0.1", db_port=line.port), Phase("release", 60, lose))
        assert await run.to_its_end() is ExitCode.DONE
        assert line.cut_at == b""
    assert run.asked == [["report_event", "report_event", "finish_attempt"]] * 2
    assert await history(administrator) == [("started", "release"), ("completed", "release")]
    assert await administrator.fetchval("SELECT state FROM storeplane.operations") == "succeeded"
    assert "too late" not in run.out.getvalue()


async def test_report_whose_answer_was_lost_is_recorded_once_and_the_rest_behind_it(
    given: JobInput, administrator: asyncpg.Connection, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "_GATHERING_SECONDS", 0.0)
    with relay(postgres.socket_folder) as line:

        async def lose(_work: Work) -> dict[str, object]:
            line.cut_at = b"COMMIT"
            return {}

        async def is_lost() -> bool:
            return not line.cut_at

        async def wait(_work: Work) -> dict[str, object]:
            await until(is_lost)
            await is_told(administrator, "setup")
            return {}

        run = Run(
            given._replace(db_host="127.0.0.1", db_port=line.port), Phase("release", 60, lose), Phase("setup", 60, wait)
        )
        assert await run.to_its_end() is ExitCode.DONE
    assert "trying again" in run.out.getvalue()
    assert await history(administrator) == [
        ("started", "release"),
        ("completed", "release"),
        ("started", "setup"),
        ("completed", "setup"),
    ]


async def test_end_beside_a_report_under_way_loses_and_doubles_nothing(
    given: JobInput, database_url: str, administrator: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_held, is_waiting = asyncio.Event(), asyncio.Event()

    async def until_held(_work: Work) -> dict[str, object]:
        await is_held.wait()
        return {}

    async def until_told(_work: Work) -> dict[str, object]:
        await is_waiting.wait()
        return {}

    monkeypatch.setattr(reports, "_GATHERING_SECONDS", 0.0)
    run = Run(given, Phase("release", 60, until_held), Phase("setup", 60, until_told))
    ending = asyncio.create_task(run.to_its_end())
    await is_told(administrator, "release")
    async with held(database_url, given.operation_id):
        is_held.set()
        await someone_waits(administrator)
        is_waiting.set()
        # The report and the end.
        await someone_waits(administrator, 2)
    assert await ending is ExitCode.DONE
    assert run.asked[1:] == [
        ["report_event", "report_event"],
        ["report_event", "report_event", "report_event", "finish_attempt"],
    ]
    assert await history(administrator) == [
        ("started", "release"),
        ("completed", "release"),
        ("started", "setup"),
        ("completed", "setup"),
    ]
    assert await administrator.fetchval("SELECT state FROM storeplane.operations") == "succeeded"


async def test_refused_report_stops_the_phase_that_lasts(
    given: JobInput, administrator: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Later than the phase's own limit: a heartbeat would be refused as well.
    monkeypatch.setattr(provisioner, "_HEARTBEAT_SECONDS", 3600.0)
    ended = asyncio.Event()

    async def lose(_work: Work) -> dict[str, object]:
        await administrator.execute(
            "SELECT storeplane.end_attempt($1, 1, NULL, 'failed', 'retried', NULL, NULL, '{}')", given.operation_id
        )
        return {}

    async def for_ever(_work: Work) -> dict[str, object]:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return {}

    # The loss comes before the first note is told.
    monkeypatch.setattr(reports, "_GATHERING_SECONDS", 2.0)
    run = Run(given, Phase("release", 60, lose), Phase("setup", 60, for_ever))
    assert await run.to_its_end() is ExitCode.REFUSED
    assert ended.is_set()
    assert [result.outcome for result in run.left] == [Outcome.REFUSED]
    assert run.problem() == ("REFUSED", "setup")
    assert "finish_attempt" not in run.asked[-1]
    assert await administrator.fetchval("SELECT outcome FROM storeplane.attempts") == "retried"


async def test_database_that_stays_away_ends_the_run_after_its_patience(
    given: JobInput, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The loss comes before the first note is told.
    monkeypatch.setattr(reports, "_GATHERING_SECONDS", 2.0)
    monkeypatch.setattr(provisioner, "_REPORT_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(provisioner, "_FINISH_PATIENCE_SECONDS", 0.0)
    ended = asyncio.Event()
    with ExitStack() as there:
        line = there.enter_context(relay(postgres.socket_folder))

        async def lose(_work: Work) -> dict[str, object]:
            await asyncio.to_thread(there.close)
            return {}

        async def for_ever(_work: Work) -> dict[str, object]:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return {}

        run = Run(
            given._replace(db_host="127.0.0.1", db_port=line.port),
            Phase("release", 60, lose),
            Phase("setup", 60, for_ever),
        )
        assert await run.to_its_end() is ExitCode.RETRYABLE
    assert ended.is_set()
    assert [result.outcome for result in run.left] == [Outcome.RETRYABLE]
    assert run.problem() == ("DATABASE_UNAVAILABLE", "setup")
    assert "the end could not be reported" in run.out.getvalue()


async def _said(_work: Work) -> dict[str, object]:
    return {"said": "no database takes a \0"}


async def test_phase_that_cannot_be_recorded_does_not_take_the_end_with_it(
    given: JobInput, administrator: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "_GATHERING_SECONDS", _NEVER)
    run = Run(given, Phase("release", 60, _said))
    assert await run.to_its_end() is ExitCode.DONE
    assert "the last phases could not be reported" in run.out.getvalue()
    assert run.asked == [["report_event", "report_event", "finish_attempt"], ["finish_attempt"]]
    assert await administrator.fetchval("SELECT state FROM storeplane.operations") == "succeeded"


async def test_phase_that_cannot_be_recorded_ends_a_run_that_lasts(
    given: JobInput, administrator: asyncpg.Connection
) -> None:
    async def for_ever(_work: Work) -> dict[str, object]:
        await asyncio.Event().wait()
        return {}

    run = Run(given, Phase("release", 60, _said), Phase("setup", 60, for_ever))
    assert await run.to_its_end() is ExitCode.PERMANENT
    assert run.problem() == ("DATABASE_REFUSED", "setup")
    assert await administrator.fetchval("SELECT problem ->> 'code' FROM storeplane.attempts") == "DATABASE_REFUSED"
