"""What the product's two service accounts may do, as the API server itself decides it: roles, and admission policies.

Every refusal has a permitted twin, so that a policy that refuses everything would be seen.
"""

from __future__ import annotations

import copy
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cluster import RUN_LABEL
from tests.support.installation import Account, store_name
from tests.support.polling import poll
from tests.support.rights import (
    CONTROL_PLANE_ANYWHERE,
    CONTROL_PLANE_IN_JOBS,
    PROVISIONER_ANYWHERE,
    STORE_ADMIN,
    STORE_OBSERVER,
    granted,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.installation import Installation

pytestmark = pytest.mark.cluster


def test_policies_are_understood_by_the_server(installed: Installation) -> None:
    own = ("get", "validatingadmissionpolicies", f"--selector={RUN_LABEL}={os.getpid()}")

    def checked() -> list[dict[str, Any]] | None:
        found = [each["status"].get("typeChecking") for each in installed.kube.json(*own)["items"]]
        return found if None not in found else None

    assert poll(checked, what="the policies' types are checked") == [{}] * 3


def _everybodys(installed: Installation) -> set[str]:
    """Return what any service account may do."""
    return Account(installed.kube, "default", "default").rights("default")


def test_control_plane_has_exactly_its_rights(installed: Installation, store: str) -> None:
    rights, everybodys = installed.controlplane.rights, _everybodys(installed)
    assert rights(installed.jobs) - everybodys == granted(CONTROL_PLANE_IN_JOBS, CONTROL_PLANE_ANYWHERE)
    for elsewhere in ("default", "kube-system", installed.name):
        assert rights(elsewhere) - everybodys == granted(CONTROL_PLANE_ANYWHERE)
    observer = granted(STORE_OBSERVER, CONTROL_PLANE_ANYWHERE)
    poll(lambda: rights(store) - everybodys == observer, what="the observer's rights are seen")


def test_provisioner_has_exactly_its_rights(installed: Installation, store: str) -> None:
    rights, everybodys = installed.provisioner.rights, _everybodys(installed)
    anywhere = granted(PROVISIONER_ANYWHERE, name=installed.name)
    for elsewhere in ("default", "kube-system", installed.name, installed.jobs):
        assert rights(elsewhere) - everybodys == anywhere
    admin = anywhere | granted(STORE_ADMIN)
    poll(lambda: rights(store) - everybodys == admin, what="the admin's rights are seen")


def test_provisioner_makes_changes_and_removes_a_stores_namespace(installed: Installation, store: str) -> None:
    assert installed.provisioner.dry(installed.store_namespace()) == ""
    assert installed.provisioner.label(store, "team=x") == ""
    assert installed.provisioner.delete(store) == ""


@pytest.mark.parametrize(
    "name", ["kube-extra", "store-shop", "store-shop-ABCDEFGH", "store-shop-abcdefg1", "my-store-shop-abcdefgh"]
)
def test_provisioner_makes_no_namespace_of_another_name(installed: Installation, name: str) -> None:
    wrong = installed.store_namespace()
    wrong["metadata"]["name"] = name
    assert "invalid" in installed.provisioner.dry(wrong).lower()


@pytest.mark.parametrize(
    "labels",
    [
        {"pod-security.kubernetes.io__enforce": None},
        {"pod-security.kubernetes.io__enforce": "baseline"},
        {"pod-security.kubernetes.io__enforce-version": "v1.20"},
        {"storeplane.dev__store-id": None},
        {"app.kubernetes.io__managed-by": None},
        {"app.kubernetes.io__managed-by": "somebody"},
    ],
)
def test_provisioner_makes_no_namespace_without_its_fences(
    installed: Installation, labels: dict[str, str | None]
) -> None:
    refusal = installed.provisioner.dry(installed.store_namespace(**labels))
    assert "denied request" in refusal
    assert "is invalid" in refusal  # 422: trying again is no use


@pytest.mark.parametrize(
    "change",
    [
        "pod-security.kubernetes.io/enforce=privileged",
        "pod-security.kubernetes.io/enforce-",
        "storeplane.dev/store-id=00000000-0000-0000-0000-000000000008",
        "app.kubernetes.io/managed-by-",
    ],
)
def test_provisioner_loosens_no_namespace(installed: Installation, store: str, change: str) -> None:
    assert "denied request" in installed.provisioner.label(store, change)


def test_provisioner_neither_takes_nor_removes_a_namespace_of_others(installed: Installation) -> None:
    foreign = {"name": store_name(), "labels": {RUN_LABEL: str(os.getpid())}}
    installed.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": foreign})
    own = [f"{key}={text}" for key, text in installed.store_namespace()["metadata"]["labels"].items()]
    name = str(foreign["name"])
    assert "does not carry the labels of a store" in installed.provisioner.label(name, *own)
    assert "does not carry the labels of a store" in installed.provisioner.delete(name)
    assert "denied request" in installed.provisioner.delete("kube-node-lease")
    assert "denied request" in installed.provisioner.delete(installed.jobs)


def test_provisioner_binds_nothing_but_the_two_roles_to_their_own(installed: Installation, store: str) -> None:
    provisioner, controlplane = installed.provisioner, installed.controlplane
    stranger = Account(installed.kube, "default", store)
    wrong = [
        installed.binding(store, "store-admin", controlplane),
        installed.binding(store, "store-admin", stranger),
        installed.binding(store, "store-admin", provisioner, stranger),
        installed.binding(store, "store-observer", provisioner),
        installed.binding("default", "store-admin", provisioner),
        installed.binding(installed.jobs, "store-observer", controlplane),
    ]
    everybody = installed.binding(store, "store-observer", controlplane)
    everybody["subjects"] = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:authenticated"}]
    for each in [*wrong, everybody]:
        each["metadata"]["name"] = "another"
        assert "denied request" in provisioner.dry(each), each
    right = installed.binding(store, "store-observer", controlplane)
    right["metadata"]["name"] = "another"
    assert provisioner.dry(right) == ""


def test_provisioner_cannot_bind_what_it_was_not_given(installed: Installation, store: str) -> None:
    strong = installed.binding(store, "store-admin", installed.provisioner)
    strong["metadata"]["name"] = "strong"
    strong["roleRef"]["name"] = "cluster-admin"
    assert "forbidden" in installed.provisioner.dry(strong)


def _other_label(job: dict[str, Any]) -> None:
    # Not none: a Job without labels takes those of its pod.
    job["metadata"]["labels"] = {"app": "x"}


def _changed(job: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    changed = copy.deepcopy(job)
    change(changed)
    return changed


def _pod(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_other_label, "label app=store-provisioner"),
        (lambda job: job["spec"]["template"]["metadata"].update(labels={"app": "x"}), "label app=store-provisioner"),
        (lambda job: _pod(job).update(serviceAccountName="default"), "service account"),
        (lambda job: _pod(job).pop("serviceAccountName"), "service account"),
        (lambda job: _pod(job).update(restartPolicy="OnFailure"), "one try"),
        (lambda job: job["spec"].update(backoffLimit=1), "one try"),
        (lambda job: job["spec"].pop("backoffLimit"), "one try"),
        (lambda job: job["spec"].update(managedBy="example.org/somebody"), "managedBy"),
        (lambda job: _pod(job).update(hostNetwork=True), "nothing of its host"),
        (lambda job: _pod(job).update(hostPID=True), "nothing of its host"),
        (
            lambda job: _pod(job).update(volumes=[{"name": "root", "hostPath": {"path": "/"}}]),
            "nothing of its host",
        ),
    ],
)
def test_a_job_can_be_nothing_but_a_provisioners(
    installed: Installation, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    wrong = _changed(installed.job(), change)
    for refusal in (installed.controlplane.dry(wrong), installed.refusal(wrong)):
        assert said in refusal
        assert "is invalid" in refusal  # 422: trying again is no use


def test_the_control_planes_own_job_is_taken_there_and_nowhere_else(installed: Installation, store: str) -> None:
    right = installed.job()
    refused = installed.controlplane.run("create", "--filename=-", "--dry-run=server", stdin=json.dumps(right))
    assert refused.returncode == 0, refused.stderr
    right["metadata"]["namespace"] = store
    assert "forbidden" in installed.controlplane.dry(right)
