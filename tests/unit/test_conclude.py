"""What a failed operation tells: the words alone; that they are written, once, is shown on a real database."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import UUID

import pytest

from controlplane.db.attempts import Overdue, ToConclude
from controlplane.domain.attempt import AttemptOutcome
from controlplane.domain.decision import POD_LEASE
from controlplane.domain.operation import OperationKind
from controlplane.domain.retry_policy import GiveUp
from controlplane.domain.transitions import OperationState
from controlplane.reconciler import conclude

pytestmark = pytest.mark.unit

DB = Path(conclude.__file__).parents[1] / "db"
OPERATION = UUID("0198c2a0-0000-7000-8000-000000000001")
PROBLEM = {"code": "X", "title": "t", "detail": "the chart is broken", "remedy": "mend it"}


def sql() -> str:
    files = [*sorted((DB / "migrations").glob("*.sql")), *sorted((DB / "sql").glob("*.sql"))]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def concluded(problem: dict[str, str] | None, *outcomes: AttemptOutcome) -> ToConclude:
    return ToConclude(OPERATION, "create", len(outcomes), False, 512, 100.0, problem, outcomes)  # noqa: FBT003 -- as its row


def overdue(kind: str, state: OperationState = OperationState.RUNNING) -> dict[str, str]:
    told: dict[str, str] = conclude._timeout(Overdue(OPERATION, kind, state))  # noqa: SLF001 -- its words alone
    return told


def failure(ended: ToConclude, because: str) -> dict[str, object]:
    told: dict[str, object] = conclude._failure(ended, GiveUp(because))  # noqa: SLF001 -- its words alone
    return told


@pytest.mark.parametrize("kind", list(OperationKind))
def test_minutes_told_are_those_the_database_allows(kind: OperationKind) -> None:
    body = re.search(r"FUNCTION storeplane\.time_allowed.*?END;", sql(), re.DOTALL)
    assert body is not None
    named = dict(re.findall(r"WHEN '(\w+)' THEN interval '(\d+) minutes'", body[0]))
    otherwise = re.search(r"ELSE interval '(\d+) minutes'", body[0])
    assert otherwise is not None
    minutes = named.get(kind, otherwise[1])
    assert f"within {minutes} minutes" in overdue(kind)["detail"]
    assert overdue(kind)["title"].endswith(f"exceeded {minutes} minutes")


def test_creation_has_its_own_sentence() -> None:
    assert overdue("create")["title"] == "Provisioning timeout - exceeded 15 minutes"
    assert overdue("delete")["title"] == "Operation timeout - exceeded 15 minutes"


def test_wait_in_the_queue_is_no_timeout_of_work() -> None:
    assert overdue("create", OperationState.QUEUED)["code"] == "QUEUE_TIMEOUT"


def test_failure_is_the_newest_attempts_with_why_none_follows() -> None:
    ended = concluded(PROBLEM, AttemptOutcome.RETRYABLE, AttemptOutcome.RETRYABLE)
    assert failure(ended, "2 attempts have failed") == PROBLEM | {
        "detail": "the chart is broken; 2 attempts have failed",
        "attempt": 2,
    }
    assert failure(ended, "") == PROBLEM | {"attempt": 2}
    assert PROBLEM["detail"] == "the chart is broken", "the attempt's own problem must stay as it is"


@pytest.mark.parametrize("problem", [None, {}, {"title": "t"}])
def test_failure_without_a_cause_still_tells_the_next_step(problem: dict[str, str] | None) -> None:
    told = failure(concluded(problem, AttemptOutcome.PERMANENT), "")
    assert told["detail"] == "its attempt ended as permanent"
    assert all(told[key] for key in ("code", "title", "remedy"))


def test_lease_of_a_pod_is_the_one_the_database_gives() -> None:
    """A pod that is removed before its lease is over may still be at work."""
    seconds = f"{POD_LEASE.total_seconds():g}"
    text = sql()
    assert re.findall(r"'lease_seconds', (\d+)", text) == [seconds]
    leases = re.findall(r"(?:lease_until = now\(\)|pg_postmaster_start_time\(\)) \+ interval '(\d+) seconds'", text)
    assert len(leases) >= 3
    assert set(leases) == {seconds}
