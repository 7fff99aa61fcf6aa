"""What is made of the API server's bytes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import pytest

from controlplane.kube.errors import KubeError, KubeGoneError, KubeUnavailableError
from controlplane.kube.views import JOBS, PODS, event_page, read_job
from tests.support.cluster_states import event_views, job_view_of, pod_state, pod_view_of
from tests.support.faulty_cluster import job_object

pytestmark = pytest.mark.unit

ID = UUID("0198c2a0-0000-7000-8000-000000000001")


@pytest.mark.parametrize(
    ("state", "phase", "code", "reason", "started", "has_ended"),
    [
        ("starting", "Pending", None, "", True, False),
        ("running", "Running", None, "", True, False),
        ("image_never", "Pending", None, "", False, False),
        ("too_little_cpu", "Pending", None, "", False, False),
        ("no_secret", "Pending", None, "", False, False),
        ("exit_20_early", "Pending", 20, "Error", True, True),
        ("exit_20", "Failed", 20, "Error", True, True),
        ("out_of_memory", "Failed", 137, "OOMKilled", True, True),
        ("no_command", "Failed", 128, "StartError", False, True),
        ("deadline", "Failed", 137, "Error", True, True),
        ("deleted", "Failed", 137, "Error", True, True),
    ],
)
def test_pod_state(  # noqa: PLR0913 -- one column each
    state: str, phase: str, code: int | None, reason: str, *, started: bool, has_ended: bool
) -> None:
    view = pod_view_of(state)
    assert (view.phase, view.exit_code, view.reason) == (phase, code, reason)
    assert (view.started, view.has_ended) == (started, has_ended)


def test_moments_and_places_of_a_pod() -> None:
    view = pod_view_of("deleted_going")
    assert view.created_at == datetime(2026, 11, 22, 20, 15, 41, tzinfo=UTC)
    assert (view.is_terminating, view.node, view.finished_at) == (True, "node-1", None)
    assert pod_view_of("deleted").finished_at is not None
    waiting = pod_view_of("too_little_cpu")
    assert (waiting.node, waiting.is_terminating) == ("", False)
    assert waiting.waits.startswith("Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.")


def test_waiting_sentence_is_cut_and_empty_while_all_is_usual() -> None:
    assert pod_view_of("starting").waits == ""
    assert pod_view_of("no_secret_to_mount").waits == ""
    long = pod_state("image_never")
    long["status"]["containerStatuses"][0]["state"]["waiting"]["message"] = "x" * 5000
    assert len(pod_view_of(long).waits) == 300


def test_pods_own_reason_stands_beside_its_containers() -> None:
    view = pod_view_of("deadline")
    assert (view.reason, view.pod_reason) == ("Error", "DeadlineExceeded")
    assert view.message == "Pod was active on the node longer than the specified deadline"


@pytest.mark.parametrize("reason", ["Evicted", "NodeLost", "Shutdown", "Terminated", "Preempting", "OutOfcpu"])
def test_pod_that_a_node_gave_up_is_evicted_without_a_condition(reason: str) -> None:
    pod = pod_state("running")
    pod["status"] = {"phase": "Failed", "reason": reason, "message": "told by the node"}
    view = pod_view_of(pod)
    assert (view.is_evicted, view.disruption, view.exit_code, view.message) == (True, reason, -1, "told by the node")


def test_disruption_is_its_conditions_reason() -> None:
    assert pod_view_of("evicted_going").disruption == "EvictionByEvictionAPI"
    assert not pod_view_of("evicted_going").has_ended
    assert pod_view_of("evicted").has_ended
    assert not pod_view_of("deleted").is_evicted


def test_pod_that_failed_without_its_containers_state_has_ended() -> None:
    pod = pod_state("running")
    pod["status"]["phase"] = "Failed"
    assert (pod_view_of(pod).exit_code, pod_view_of(pod).has_ended) == (-1, True)
    pod["status"] = {"phase": "Succeeded"}
    assert (pod_view_of(pod).exit_code, pod_view_of(pod).has_ended) == (None, True)
    del pod["status"]
    assert (pod_view_of(pod).phase, pod_view_of(pod).has_ended) == ("", False)


def test_only_a_terminal_condition_ends_a_job() -> None:
    ended = job_view_of("job_deadline")
    assert (ended.end, ended.reason) == (
        "Failed",
        "DeadlineExceeded: Job was active longer than specified deadline",
    )
    assert ended.finished_at == datetime(2026, 11, 22, 20, 15, 47, tzinfo=UTC)
    interim = _job(status={"conditions": [{"type": "FailureTarget", "status": "True"}]})
    assert _read(interim).end is None
    untrue = _job(status={"conditions": [{"type": "Complete", "status": "False"}]})
    assert _read(untrue).end is None


def test_labels_are_read_as_what_they_should_be_or_not_at_all() -> None:
    good = _job()
    good["metadata"]["labels"]["store-id"] = str(ID)
    view = _read(good)
    assert (view.operation_id, view.attempt, view.ttl_seconds) == (ID, 1, None)
    foreign = _job(spec={"ttlSecondsAfterFinished": 0})
    foreign["metadata"]["labels"] = {"operation-id": "me", "attempt": "-1", "store-id": ""}
    view = _read(foreign)
    assert (view.operation_id, view.attempt, view.ttl_seconds) == (None, None, 0)
    del foreign["metadata"]["labels"]
    assert _read(foreign).operation_id is None


def _job(**parts: Any) -> dict[str, Any]:
    return job_object("job", "j", ID) | parts


def _read(job: dict[str, Any]) -> Any:
    return read_job(orjson.dumps(job))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html></html>",
        b"null",
        b"[]",
        b"{}",
        b'{"kind":"Status","metadata":{},"status":"Success"}',
        b'{"kind":"PodList","metadata":{"resourceVersion":"1"},"items":[]}',
        b'{"kind":"Job","metadata":{"name":"x"}}',
        b'{"kind":"Job","metadata":{"name":"x","uid":"u","creationTimestamp":"yesterday"}}',
    ],
)
def test_answer_that_is_no_job_is_an_error(raw: bytes) -> None:
    with pytest.raises(KubeUnavailableError):
        read_job(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"kind":"JobList","metadata":{"resourceVersion":"1"},"items":[]}',
        b'{"kind":"PodList","metadata":{},"items":[]}',
        b'{"kind":"PodList","metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"x"}}]}',
        b'{"kind":"PodList","metadata":{"resourceVersion":"1"},"items":"many"}',
    ],
)
def test_answer_that_is_no_list_of_the_kind_is_an_error(raw: bytes) -> None:
    with pytest.raises(KubeUnavailableError):
        PODS.page(raw)


def test_null_items_are_an_empty_page() -> None:
    page = JOBS.page(b'{"kind":"JobList","metadata":{"resourceVersion":"7","continue":"more"},"items":null}')
    assert (page.views, page.version, page.rest) == ([], "7", "more")


@pytest.mark.parametrize(
    ("code", "error"), [(410, KubeGoneError), (500, KubeUnavailableError), (0, KubeUnavailableError)]
)
def test_error_in_a_watch_is_the_error_it_stands_for(code: int, error: type[KubeError]) -> None:
    status = {"kind": "Status", "status": "Failure", "message": "too old", "reason": "Expired", "code": code}
    with pytest.raises(error, match="too old"):
        JOBS.change(orjson.dumps({"type": "ERROR", "object": status}))


def test_events_are_read_whoever_wrote_them() -> None:
    (quota, *_) = sorted(event_views(job_view_of("quota").uid), key=lambda event: event.last_at, reverse=True)
    assert (quota.reason, quota.object_kind, quota.object_name) == ("FailedCreate", "Job", "quota")
    assert quota.is_warning
    (scheduled, *_) = event_views(pod_view_of("no_node_matches").uid)
    # The scheduler writes eventTime and series in place of a count.
    assert scheduled.last_at is not None
    assert scheduled.count >= 1
    with pytest.raises(KubeUnavailableError):
        event_page(b"<html>")
