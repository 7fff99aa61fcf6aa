"""Jobs: what the product stands on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.cluster import job, pod
from tests.support.polling import poll

if TYPE_CHECKING:
    from tests.support.cluster import Namespace

pytestmark = pytest.mark.cluster


def test_job_completes_and_its_log_is_read_by_the_jobs_name(namespace: Namespace) -> None:
    namespace.apply(job("greet", "echo first line; echo second line"))
    namespace.wait("condition=Complete", "job/greet")
    assert namespace.do("logs", "job/greet") == "first line\nsecond line\n"


def test_job_with_a_failing_pod_is_failed_once_and_keeps_its_log(namespace: Namespace) -> None:
    namespace.apply(job("break", "echo reason; exit 20"))
    namespace.wait("condition=Failed", "job/break")
    pods = namespace.json("get", "pods", "-l", "job-name=break")["items"]
    assert [each["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] for each in pods] == [20]
    assert namespace.do("logs", "job/break") == "reason\n"


def test_finished_job_and_its_pod_go_by_the_time_to_live(namespace: Namespace) -> None:
    namespace.apply(job("brief", "true", ttlSecondsAfterFinished=1))
    poll(lambda: not namespace.json("get", "jobs,pods")["items"], what="the Job and its pod are gone")


def test_repeated_events_are_one_event_with_a_count(namespace: Namespace) -> None:
    missing = {"image": "storeplane.local/missing:1", "imagePullPolicy": "Never"}
    namespace.apply(pod("hungry", "true", container=missing))

    def repeated() -> bool:
        events = namespace.json(
            "get", "events", "--field-selector", "involvedObject.name=hungry,reason=ErrImageNeverPull"
        )
        counts = [event.get("count") or event.get("series", {}).get("count", 1) for event in events["items"]]
        assert len(counts) == 1, counts
        return bool(counts[0] > 1)

    poll(repeated, what="one event that counts")
    assert "ErrImageNeverPull" in namespace.do("events", "--for", "pod/hungry")
