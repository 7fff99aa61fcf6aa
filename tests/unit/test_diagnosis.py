"""Causes and next steps, from what a real cluster said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.domain.diagnosis import Category, diagnose
from controlplane.domain.observation import EventView, PodView
from provisioner_job.contract import ExitCode
from tests.support.cluster_states import event_views, job_view_of, pod_view_of

pytestmark = pytest.mark.unit

ENDED = PodView("pod", "p", "j", "Failed", 10, "Error", "", started=True, node="node-1")
PENDING = PodView("pod", "p", "j", "Pending", None, "", "")


@pytest.mark.parametrize(
    ("state", "category", "names"),
    [
        ("image_never", Category.IMAGE_MISSING, "localhost/nosuch:1"),
        ("image_pull", Category.IMAGE_PULL, "connection refused"),
        ("image_back_off", Category.IMAGE_PULL, "connection refused"),
        ("image_name", Category.IMAGE_PULL, "must be lowercase"),
        ("too_little_cpu", Category.UNSCHEDULABLE, "Insufficient cpu"),
        ("no_node_matches", Category.UNSCHEDULABLE, "node affinity/selector"),
        ("no_secret", Category.MISSING_SECRET, 'secret "absent" not found'),
        ("no_key_in_secret", Category.MISSING_SECRET, "couldn't find key k in Secret"),
        ("no_secret_to_mount", Category.MISSING_SECRET, 'secret "absent" not found'),
        ("no_config_map", Category.MISSING_CONFIG, 'configmap "absent" not found'),
        ("runs_as_root", Category.START_ERROR, "breaks non-root policy"),
        ("no_command", Category.START_ERROR, "/bin/absent"),
        ("out_of_memory", Category.OOM_KILLED, "more memory than its limit"),
        ("deadline", Category.DEADLINE, "longer than its time limit"),
        ("evicted_going", Category.EVICTED, "from node node-1 (EvictionByEvictionAPI"),
        ("evicted", Category.EVICTED, "EvictionByEvictionAPI"),
        ("deleted_going", Category.JOB_DELETED, "is being deleted"),
        ("deleted", Category.JOB_DELETED, "exit code 137"),
        ("exit_20", Category.EXIT_CODE, "exit code 20: the provisioner gave up for good"),
        ("exit_20_early", Category.EXIT_CODE, "exit code 20"),
        ("exit_3", Category.EXIT_CODE, "exit code 3, which has no agreed meaning"),
        ("exit_127", Category.EXIT_CODE, "no such command"),
        ("running", Category.UNKNOWN, "the pod is Running"),
        ("starting", Category.UNKNOWN, "the pod is Pending"),
    ],
)
def test_pod_as_a_cluster_told_it(state: str, category: Category, names: str) -> None:
    pod = pod_view_of(state)
    found = diagnose(pod, event_views(pod.uid))
    assert (found.category, names in found.detail) == (category, True), found.detail
    assert found.remedy


@pytest.mark.parametrize(
    ("state", "category", "names"),
    [
        ("quota", Category.QUOTA, "exceeded quota: jobs"),
        ("sa", Category.MISSING_SERVICE_ACCOUNT, 'serviceaccount "absent" not found'),
        ("job_deadline", Category.DEADLINE, "longer than specified deadline"),
        ("failed", Category.LOST, "its pod is gone"),
    ],
)
def test_job_without_a_pod_as_a_cluster_told_it(state: str, category: Category, names: str) -> None:
    job = job_view_of(state)
    found = diagnose(None, event_views(job.uid), job=job)
    assert (found.category, names in found.detail) == (category, True), found.detail


@pytest.mark.parametrize("state", ["job_deadline_going", "job_deadline"])
def test_pod_that_its_jobs_time_limit_took_was_not_deleted_by_somebody(state: str) -> None:
    assert diagnose(pod_view_of(state), job=job_view_of("job_deadline")).category is Category.DEADLINE


@pytest.mark.parametrize(
    ("words", "category"),
    [
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest": privileged', Category.FORBIDDEN),
        (
            "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
            Category.FORBIDDEN,
        ),
        ('pods "x" is forbidden: exceeded quota: q, requested: pods=1', Category.QUOTA),
        ("Internal error occurred: failed calling webhook", Category.UNKNOWN),
    ],
)
def test_words_of_the_job_controller(words: str, category: Category) -> None:
    found = diagnose(None, job=job_view_of("quota"), no_pod_because=f"FailedCreate: Error creating: {words}")
    assert found.category is category
    assert words[:40] in found.detail


@pytest.mark.parametrize(
    ("disruption", "category"),
    [
        ("PreemptionByScheduler", Category.PREEMPTED),
        ("Preempting", Category.PREEMPTED),
        ("DeletionByTaintManager", Category.NODE_LOST),
        ("DeletionByPodGC", Category.NODE_LOST),
        ("NodeLost", Category.NODE_LOST),
        ("Shutdown", Category.NODE_LOST),
        ("EvictionByEvictionAPI", Category.EVICTED),
        ("TerminationByKubelet", Category.EVICTED),
        ("Evicted", Category.EVICTED),
        ("OutOfcpu", Category.EVICTED),
    ],
)
@pytest.mark.parametrize("code", [None, -1, 0, 137, 143])
def test_what_took_the_pod_away_counts_above_how_its_container_ended(
    disruption: str, category: Category, code: int | None
) -> None:
    taken = replace(ENDED, exit_code=code, disruption=disruption, phase="Failed" if code else "Running")
    found = diagnose(taken)
    assert found.category is category
    assert "node-1" in found.detail


@pytest.mark.parametrize("code", list(ExitCode))
def test_every_agreed_exit_code_has_its_meaning(code: ExitCode) -> None:
    found = diagnose(replace(ENDED, exit_code=int(code)))
    assert f"exit code {int(code)}" in found.detail
    assert "no agreed meaning" not in found.detail
    assert found.category is (Category.LOST if code is ExitCode.DONE else Category.EXIT_CODE)


def test_agreed_code_of_a_pod_that_is_deleted_is_its_own_word() -> None:
    found = diagnose(replace(ENDED, exit_code=int(ExitCode.RETRYABLE), is_terminating=True))
    assert found.category is Category.EXIT_CODE


@pytest.mark.parametrize(("code", "reason"), [(-1, ""), (137, "ContainerStatusUnknown")])
def test_end_that_nobody_saw_is_lost(code: int, reason: str) -> None:
    assert diagnose(replace(ENDED, exit_code=code, reason=reason)).category is Category.LOST


def test_nothing_at_all_is_a_deleted_job() -> None:
    found = diagnose(None)
    assert found.category is Category.JOB_DELETED
    assert "Retry the operation" in found.remedy


def test_newest_event_explains_a_wait_the_pod_does_not() -> None:
    old = _event("FailedScheduling", "0/3 nodes are available", 1)
    new = _event("FailedCreatePodSandBox", "failed to set up sandbox: no addresses left", 2)
    found = diagnose(PENDING, [old, new])
    assert (found.category, "no addresses left" in found.detail) == (Category.START_ERROR, True)
    assert diagnose(PENDING).category is Category.UNKNOWN


def test_unknown_wait_keeps_the_clusters_words_and_cuts_them() -> None:
    found = diagnose(replace(PENDING, waits="NewReason: " + "word " * 400))
    assert found.category is Category.UNKNOWN
    assert "NewReason: word word" in found.detail
    assert len(found.detail) < 350


def test_every_category_is_reached_by_some_state() -> None:
    """The set is closed: a category that nothing leads to is a promise that nothing keeps."""
    taken = [replace(ENDED, disruption=word) for word in ("Preempting", "NodeLost", "Evicted")]
    pods = [pod_view_of(state) for state in _states()]
    found = {diagnose(pod, event_views(pod.uid)).category for pod in [*pods, *taken, replace(ENDED, exit_code=0)]}
    found |= {diagnose(None, no_pod_because=words).category for words in _REFUSALS}
    assert found == set(Category)


_REFUSALS = ("exceeded quota: q", 'serviceaccount "x" not found', "pods are forbidden: x is forbidden")


def _states() -> list[str]:
    states = "image_never image_pull too_little_cpu no_secret no_config_map runs_as_root out_of_memory deadline"
    return [*states.split(), "deleted", "exit_3", "running"]


def _event(reason: str, message: str, second: int) -> EventView:
    at = pod_view_of("running").created_at.replace(second=second)
    return EventView(reason, message, "Pod", "pod", "p", is_warning=True, count=1, last_at=at)
