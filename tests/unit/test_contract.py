from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner_job import objects
from provisioner_job.contract import (
    ALL_PHASES,
    COMMAND,
    CREDENTIALS_SECRET,
    OBSERVER_ROLE,
    PHASES_BY_KIND,
    STORE_LABEL,
    TERMINATION_MESSAGE_LIMIT_BYTES,
    ExitCode,
    JobResult,
    Outcome,
    parse_result,
    result_text,
)
from provisioner_job.errors import PhaseError
from provisioner_job.phases import phases_of

pytestmark = pytest.mark.unit


def test_numbers_and_words_are_fixed() -> None:
    assert [code.value for code in ExitCode] == [0, 10, 20, 30, 31]
    assert COMMAND == ("storeplane-provision", "single")


def test_what_the_provisioner_makes_is_what_the_control_plane_looks_for() -> None:
    made = objects.secret("ns", UUID(int=7), CREDENTIALS_SECRET, {"username": "admin"})
    metadata = made["metadata"]
    assert (metadata["name"], metadata["labels"][STORE_LABEL]) == (CREDENTIALS_SECRET, str(UUID(int=7)))
    binding = objects.role_binding("ns", UUID(int=7), role=OBSERVER_ROLE, subject=("storeplane", "storeplane"))
    assert binding["roleRef"]["name"] == f"storeplane-{OBSERVER_ROLE}"


@pytest.mark.parametrize("kind", PHASES_BY_KIND)
def test_phases_are_the_contract_s_in_its_order(kind: str) -> None:
    assert tuple(phase.name for phase in phases_of(kind)) == PHASES_BY_KIND[kind]


def test_every_phase_is_named_once() -> None:
    assert ALL_PHASES == ("namespace", "policies", "secrets", "release", "setup", "verify", "expose", "remove")


def test_kind_of_a_later_version_is_refused_with_the_next_step() -> None:
    with pytest.raises(PhaseError, match="teleport; use the provisioner's image of the control plane's version"):
        phases_of("teleport")


@given(st.text(), st.sampled_from(Outcome))
def test_result_survives_the_termination_message(detail: str, outcome: Outcome) -> None:
    problem = {"code": "C", "title": "t", "detail": detail, "phase": "setup"}
    result = JobResult("op", 3, outcome, {"product_count": 4}, problem)
    text = result_text(result)
    assert len(text.encode()) <= TERMINATION_MESSAGE_LIMIT_BYTES
    parsed = parse_result(text)
    assert parsed is not None
    assert (parsed.operation_id, parsed.attempt, parsed.outcome) == ("op", 3, outcome)
    if len(detail) < 200:
        assert parsed == result


def test_long_detail_is_cut_and_still_read() -> None:
    problem = {"code": "C", "title": "t", "detail": "\U0001f600" * 10_000, "phase": "setup"}
    text = result_text(JobResult("op", 1, Outcome.PERMANENT, {"x": "y" * 10_000}, problem))
    assert len(text) <= TERMINATION_MESSAGE_LIMIT_BYTES
    parsed = parse_result(text)
    assert parsed is not None
    assert parsed.problem is not None
    assert parsed.problem["code"] == "C"
    assert parsed.problem["detail"].endswith("[cut]")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Killed",
        "[]",
        "null",
        "{",
        '{"version": 2}',
        '{"version": 1}',
        '{"version": 1, "operation_id": "o", "attempt": "x"}',
        '{"version": 1, "operation_id": "o", "attempt": 1, "outcome": "fine"}',
        '{"version": 1, "operation_id": "o", "attempt": 1, "outcome": "succeeded", "result": [1]}',
        pytest.param("[" * 100_000, id="deep"),
    ],
)
def test_what_is_no_result_is_none(text: str) -> None:
    assert parse_result(text) is None
