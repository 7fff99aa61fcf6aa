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
    ("status", "said", "reason"),
    [
        (401, "Unauthorized", "does not accept our credentials"),
        (403, NO_RIGHT, "the right to create jobs in jobs"),
        (403, QUOTA, "the quota of the namespace jobs is used up"),
        (403, ENDING, "the namespace jobs is being deleted"),
        (403, "a webhook does not like it", "refuses Jobs in jobs"),
        (404, 'namespaces "jobs" not found', "has no namespace jobs"),
        (429, "too many requests", "is busy"),
        (500, "etcd", "does not answer"),
    ],
)
def test_each_refusal_has_its_sentence(status: int, said: str, reason: str) -> None:
    pause = pause_for(error_from_response("POST /jobs", status, refusal("", said), None), "jobs")
    assert reason in pause.reason
    assert pause.seconds == WAIT_SECONDS
    assert (pause == no_answer()) is (status == 500)


@pytest.mark.parametrize(("asked", "seconds"), [("7", 7), ("100000", 60), (None, WAIT_SECONDS)])
def test_cluster_that_names_a_time_gets_it_within_limits(asked: str | None, seconds: float) -> None:
    assert pause_for(error_from_response("POST /jobs", 429, None, asked), "jobs").seconds == seconds
