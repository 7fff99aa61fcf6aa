"""What the API server refuses: the fences that stores are put behind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cluster import RUN_LABEL, pod
from tests.support.polling import poll

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cluster import Namespace

pytestmark = pytest.mark.cluster

_RESTRICTED: dict[str, Any] = {
    "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
    "container": {"securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}},
}


def test_restricted_namespace_refuses_a_root_pod_and_runs_a_restricted_one(namespace: Namespace) -> None:
    namespace.kube.do("label", "namespace", namespace.name, "pod-security.kubernetes.io/enforce=restricted")
    assert 'violates PodSecurity "restricted' in namespace.refusal(pod("root", "true"))
    assert namespace.run_pod("id -u", **_RESTRICTED) == "1000\n"


def test_quota_refuses_the_pod_too_many(namespace: Namespace) -> None:
    namespace.do("create", "quota", "few", "--hard=pods=1")
    # The quota counts from the moment its controller has seen it.
    poll(lambda: namespace.json("get", "quota", "few").get("status", {}).get("used"), what="the quota is counted")
    namespace.apply(pod("first", "sleep 600"))
    assert "exceeded quota: few" in namespace.refusal(pod("second", "true"))


def test_limit_range_sets_defaults_and_refuses_what_is_too_large(namespace: Namespace) -> None:
    limit = {
        "type": "Container",
        "default": {"cpu": "500m", "memory": "64Mi"},
        "defaultRequest": {"cpu": "10m", "memory": "16Mi"},
        "max": {"cpu": "1", "memory": "128Mi"},
    }
    limits = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "limits"}, "spec": {"limits": [limit]}}
    namespace.apply(limits)
    # The admission plugin reads through a cache: a pod created at once may not see the limits yet.
    large = {"resources": {"limits": {"cpu": "2", "memory": "64Mi"}}}
    poll(
        lambda: "maximum cpu usage per Container is 1" in namespace.refusal(pod("large", "true", container=large)),
        what="the limits bite",
    )
    namespace.apply(pod("plain", "sleep 600"))
    resources = namespace.json("get", "pod", "plain")["spec"]["containers"][0]["resources"]
    assert resources == {"limits": limit["default"], "requests": limit["defaultRequest"]}


@pytest.fixture
def own_images_only(namespace: Namespace) -> Iterator[Namespace]:
    """Bind a policy to the test's namespace: only images of our own registry name."""
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
            ]
        },
        "validations": [
            {
                "expression": "object.spec.containers.all(each, each.image.startsWith('storeplane.local/'))",
                "message": "only images of storeplane.local",
            }
        ],
    }
    binding = {
        "policyName": namespace.name,
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}}},
    }
    group = "admissionregistration.k8s.io/v1"
    metadata = {"name": namespace.name, "labels": {RUN_LABEL: str(os.getpid())}}
    namespace.kube.apply(
        {"apiVersion": group, "kind": "ValidatingAdmissionPolicy", "metadata": metadata, "spec": spec},
        {"apiVersion": group, "kind": "ValidatingAdmissionPolicyBinding", "metadata": metadata, "spec": binding},
    )
    yield namespace
    kinds = "validatingadmissionpolicybinding,validatingadmissionpolicy"
    namespace.kube.do("delete", kinds, namespace.name)


def test_admission_policy_refuses_a_foreign_image(own_images_only: Namespace) -> None:
    foreign = pod("foreign", "true", container={"image": "example.org/foreign:1"})
    poll(
        lambda: "only images of storeplane.local" in own_images_only.refusal(foreign),
        what="the policy is in force",
    )
    assert own_images_only.run_pod("echo ours") == "ours\n"
