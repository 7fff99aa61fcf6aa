from __future__ import annotations

import pytest

from controlplane.dispatcher.pause import WAIT_SECONDS, no_answer, pause_for
from controlplane.kube.errors import error_from_response
from tests.support.faulty_cluster import refusal

pytestmark = pytest.mark.unit

NO_RIGHT = (
    'jobs.batch is forbidden: User "x" cannot create resource "jobs" in API group "batch" in the namespace "jobs"'
)
QUOTA = 'jobs.batch "a" is forbidden: exceeded quota: jobs, requested: count/jobs.batch=1'
ENDING = 'jobs.batch "a" is forbidden: unable to create new content in namespace jobs because it is being terminated'


@pytest.mark.parametrize(
    ("status", "said", "reason", "seconds", "needs_person"),
    [
        (401, "Unauthorized", "does not accept our credentials", None, True),
        (403, NO_RIGHT, "the right to create jobs in jobs", None, True),
        (403, QUOTA, "the quota of the namespace jobs is used up", WAIT_SECONDS, False),
        (403, ENDING, "the namespace jobs is being deleted", None, True),
        (403, "a webhook does not like it", "refuses Jobs in jobs", None, True),
        (404, 'namespaces "jobs" not found', "has no namespace jobs", None, True),
        (429, "too many requests", "is busy", WAIT_SECONDS, False),
        (500, "etcd", "does not answer", None, False),
    ],
)
def test_each_refusal_has_its_sentence_and_its_time(
    status: int, said: str, reason: str, seconds: float | None, *, needs_person: bool
) -> None:
    pause = pause_for(error_from_response("POST /jobs", status, refusal("", said), None), "jobs")
    assert reason in pause.reason
    # Without a time of its own the pause grows with every failure.
    assert (pause.seconds, pause.needs_person) == (seconds, needs_person)
    assert (pause == no_answer()) is (status == 500)


@pytest.mark.parametrize(("status", "said"), [(401, ""), (403, NO_RIGHT), (403, ENDING), (404, ""), (500, "")])
def test_what_waiting_will_not_mend_names_who_does(status: int, said: str) -> None:
    pause = pause_for(error_from_response("POST /jobs", status, refusal("", said), None), "jobs")
    assert "an operator" in pause.reason


def test_sentence_does_not_change_from_one_try_to_the_next() -> None:
    """An operation that waits for the same reason has waited since the first time."""
    quotas = [
        f'jobs.batch "{name}" is forbidden: exceeded quota: jobs, used: {used}' for name, used in (("a", 1), ("b", 2))
    ]
    told = {pause_for(error_from_response("POST /jobs", 403, refusal("", said), None), "jobs") for said in quotas}
    assert len(told) == 1


@pytest.mark.parametrize(("asked", "seconds"), [("7", 7), ("100000", 60), (None, WAIT_SECONDS)])
def test_cluster_that_names_a_time_gets_it_within_limits(asked: str | None, seconds: float) -> None:
    assert pause_for(error_from_response("POST /jobs", 429, None, asked), "jobs").seconds == seconds
