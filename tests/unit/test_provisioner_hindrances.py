"""What keeps a store's pods from coming up, read from pods and events as clusters write them."""

from __future__ import annotations

from typing import Any

import pytest

from provisioner_job.hindrances import Hindrance, Past, hindrances

pytestmark = pytest.mark.unit


NOTHING = Past()


def found_in(pods: list[dict[str, Any]], events: list[dict[str, Any]], past: Past = NOTHING) -> list[Hindrance]:
    return hindrances(pods, events, past)


def pod(name: str = "server-1", *, owner: str = "owner", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "ownerReferences": [{"uid": owner}]}, "status": status}


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    container = {"name": "server", "image": "shop:1", "state": {"waiting": {"reason": reason, "message": message}}}
    return pod(containerStatuses=[container | more])


def refusal(message: str, *, uid: str = "lacking", reason: str = "FailedCreate") -> dict[str, Any]:
    owner = {"kind": "Job", "name": "setup-1", "uid": uid}
    told = {"reason": reason, "message": message, "involvedObject": owner}
    return told | {"metadata": {"resourceVersion": "7"}}


@pytest.mark.parametrize(
    ("reason", "message", "is_final"),
    [
        ("InvalidImageName", "couldn't parse image name", True),
        ("ErrImagePull", 'failed to resolve reference "shop:1": shop:1: not found', True),
        ("ImagePullBackOff", "pull access denied, repository does not exist", True),
        ("ImagePullBackOff", 'Back-off pulling image "shop:1": dial tcp: lookup registry: no such host', False),
        ("ErrImagePull", "received unexpected HTTP status: 503 Service Unavailable", False),
    ],
)
def test_image_that_cannot_be_had_is_named(reason: str, message: str, *, is_final: bool) -> None:
    (found,) = found_in([waiting(reason, message)], [])
    assert (found.code, found.is_final) == ("IMAGE_UNAVAILABLE", is_final)
    assert found.detail == f"pod server-1, container server: {reason} of shop:1: {message}"
    assert found.seconds == (10 if is_final else 60)


def test_words_may_change_while_the_hindrance_stays() -> None:
    first, second = (found_in([waiting(reason)], [])[0] for reason in ("ErrImagePull", "ImagePullBackOff"))
    assert first.key == second.key


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing"])
def test_start_that_goes_as_usual_is_none(reason: str) -> None:
    assert found_in([waiting(reason)], []) == []


def test_crash_is_one_after_the_third_start_again_and_has_a_log() -> None:
    last = {"terminated": {"exitCode": 1, "reason": "Error"}}
    assert found_in([waiting("CrashLoopBackOff", restartCount=2, lastState=last)], []) == []
    (found,) = found_in([waiting("CrashLoopBackOff", restartCount=3, lastState=last)], [])
    assert (found.code, found.is_final, found.log_of) == ("SHOP_CRASHES", True, ("server-1", "server"))
    assert "exit code 1, 3 starts again" in found.detail


def test_pod_without_a_node_is_told_with_the_schedulers_words() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: cpu."}
    (found,) = found_in([pod(conditions=[condition])], [])
    assert (found.code, found.is_final, found.detail) == ("POD_UNSCHEDULABLE", False, "pod server-1: 0/1 nodes: cpu.")


def test_claim_without_a_volume_is_told_by_its_name() -> None:
    message = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found"
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    unbound = pod(conditions=[condition])
    unbound["spec"] = {"volumes": [{"emptyDir": {}}, {"persistentVolumeClaim": {"claimName": "data-postgres-0"}}]}
    (found,) = found_in([unbound], [])
    assert (found.code, found.is_final) == ("VOLUME_UNAVAILABLE", False)
    assert found.detail == f"pod server-1: claim data-postgres-0: {message}"


def test_what_a_timetable_starts_hinders_nothing() -> None:
    unplaced = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    run = pod("cron-29394010-abcde", conditions=[unplaced])
    run["metadata"]["labels"] = {"app.kubernetes.io/component": "cron"}
    refused = refusal("exceeded quota: store-quota")
    refused["involvedObject"]["name"] = "cron-29394010"
    assert found_in([run], [refused]) == []
    del run["metadata"]["labels"]
    assert found_in([run], []) != []


def test_pod_that_goes_hinders_nothing() -> None:
    leaving = waiting("ErrImagePull", "not found")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert found_in([leaving], []) == []


@pytest.mark.parametrize(
    ("message", "code", "is_final"),
    [
        ('pods "setup-1-x" is forbidden: exceeded quota: store-quota, requested: pods=1', "QUOTA_EXCEEDED", True),
        ('pods "setup-1-x" is forbidden: violates PodSecurity "restricted:latest"', "POD_REFUSED", True),
        ('admission webhook "w" denied the request: no', "POD_REFUSED", True),
        ("Internal error occurred: failed calling webhook", "POD_REFUSED", False),
    ],
)
def test_refused_pod_is_told_with_its_owner(message: str, code: str, *, is_final: bool) -> None:
    (found,) = found_in([], [refusal(message), refusal(message)])
    assert (found.code, found.is_final, found.detail) == (code, is_final, f"Job setup-1: {message}")


def test_refusal_is_over_once_the_owner_has_a_pod() -> None:
    refused = refusal("exceeded quota", uid="owner")
    assert found_in([pod()], [refused]) == []
    assert found_in([], [refusal("exceeded quota", reason="Killing")]) == []


def test_past_is_not_held_against_a_later_run() -> None:
    last = {"terminated": {"exitCode": 1, "reason": "Error"}}
    crashed = waiting("CrashLoopBackOff", restartCount=7, lastState=last)
    unpulled, refused = waiting("ImagePullBackOff", "not found"), refusal("exceeded quota")
    assert found_in([crashed], [refused], Past.of([crashed], [refused])) == []
    assert found_in([unpulled], [], Past.of([unpulled], [])) == []


def test_what_is_not_over_is_seen_again() -> None:
    last = {"terminated": {"exitCode": 1, "reason": "Error"}}
    crashed = waiting("CrashLoopBackOff", restartCount=7, lastState=last)
    past = Past.of([crashed], [refusal("exceeded quota")])
    (crash,) = found_in([waiting("CrashLoopBackOff", restartCount=10, lastState=last)], [], past)
    assert "3 starts again" in crash.detail
    (again,) = found_in([], [refusal("exceeded quota") | {"metadata": {"resourceVersion": "8"}}], past)
    assert again.code == "QUOTA_EXCEEDED"

    unpulled = waiting("ImagePullBackOff", "not found")
    tried = Past.of([unpulled], []).without_tried([waiting("ErrImagePull", "not found")])
    assert [each.code for each in found_in([unpulled], [], tried)] == ["IMAGE_UNAVAILABLE"]
