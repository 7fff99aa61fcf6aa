from __future__ import annotations

from typing import Any

import pytest

from provisioner_job.removal import blockers

pytestmark = pytest.mark.unit


def _namespace(*conditions: dict[str, str], finalizers: list[str] | None = None) -> dict[str, Any]:
    return {"metadata": {"finalizers": finalizers}, "status": {"conditions": list(conditions)}}


def _condition(kind: str, message: str, *, status: str = "True") -> dict[str, str]:
    return {"type": kind, "status": status, "message": message}


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("NamespaceDeletionDiscoveryFailure", "kubectl get apiservices"),
        ("NamespaceDeletionGroupVersionParsingFailure", "kubectl api-resources"),
        ("NamespaceDeletionContentFailure", "webhook or an admission policy"),
        ("NamespaceContentRemaining", "controllers must run"),
        ("NamespaceFinalizersRemaining", "take them off"),
    ],
)
def test_each_condition_that_holds_a_namespace_has_its_next_step(kind: str, step: str) -> None:
    (held,) = blockers(_namespace(_condition(kind, "what the cluster says")), [])
    assert "what the cluster says" in held
    assert step in held


def test_conditions_that_do_not_hold_are_left_out() -> None:
    found = _namespace(
        _condition("NamespaceDeletionContentFailure", "All content successfully deleted", status="False"),
        _condition("NamespaceFinalizersRemaining", "pvc-protection in 1 resource instances"),
    )
    (held,) = blockers(found, [])
    assert "pvc-protection" in held


def test_finalizer_of_a_pod_is_named_though_the_namespace_says_all_is_removed() -> None:
    found = _namespace(_condition("NamespaceContentRemaining", "All content successfully removed", status="False"))
    pods: list[dict[str, Any]] = [
        {"metadata": {"name": "setup-x", "finalizers": ["batch.kubernetes.io/job-tracking"]}},
        {"metadata": {"name": "web"}},
    ]
    (held,) = blockers(found, pods)
    assert "setup-x has the finalizers batch.kubernetes.io/job-tracking" in held


def test_finalizer_of_the_namespace_itself_is_named() -> None:
    (held,) = blockers(_namespace(finalizers=["example.com/backup"]), [])
    assert "example.com/backup" in held


def test_silence_of_the_cluster_is_told_as_such() -> None:
    assert blockers({"metadata": {}, "status": {}}, []) == [
        "the cluster names no cause; its namespace controller may be behind or away"
    ]
