"""What the product's two service accounts may do, as the API server itself decides it: roles, and admission policies.

The chart's rights and policies are installed under a name of the run's own, without workloads; the accounts are
impersonated. Every refusal has a permitted twin, so that a policy that refuses everything would be seen.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from devcluster.images.helm import helm_binary
from devcluster.machine.paths import checkout
from provisioner_job import objects
from tests.support.cluster import RUN_LABEL
from tests.support.polling import poll
from tests.support.rights import (
    CONTROL_PLANE_ANYWHERE,
    CONTROL_PLANE_IN_JOBS,
    PROVISIONER_ANYWHERE,
    STORE_ADMIN,
    STORE_OBSERVER,
    flattened,
    granted,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.cluster import Kube

pytestmark = pytest.mark.cluster

_CLUSTER_WIDE = (
    "validatingadmissionpolicybindings,validatingadmissionpolicies,clusterrolebindings,clusterroles,namespaces"
)
_WORKLOADS = {"Deployment", "StatefulSet", "Job", "Service", "PodDisruptionBudget", "NetworkPolicy", "ResourceQuota"}
_STORE_ID = uuid.UUID(int=7)
_RULES_REVIEW = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview"}


@dataclass(frozen=True)
class Account:
    """One service account, impersonated."""

    kube: Kube
    name: str
    namespace: str

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return self.kube.run(f"--as=system:serviceaccount:{self.namespace}:{self.name}", *words, stdin=stdin)

    def rights(self, namespace: str) -> set[str]:
        """Return what the account may do in a namespace, as ``kubectl auth can-i --list`` asks for it."""
        review = _RULES_REVIEW | {"spec": {"namespace": namespace}}
        # Not validated by kubectl, which would read the kinds of the cluster as this account.
        asked = self.run("create", "--filename=-", "--validate=false", "--output=json", stdin=json.dumps(review))
        assert asked.returncode == 0, asked.stderr
        status = json.loads(asked.stdout)["status"]
        assert not status["incomplete"]
        return flattened(status["resourceRules"])

    def create(self, manifest: dict[str, Any]) -> str:
        """Create an object and return the refusal, empty for none."""
        return self.run("create", "--filename=-", stdin=json.dumps(manifest)).stderr

    def dry(self, manifest: dict[str, Any]) -> str:
        """Have the server decide on creating an object, and return its refusal, empty for none."""
        return self.run("create", "--filename=-", "--dry-run=server", stdin=json.dumps(manifest)).stderr

    def label(self, namespace: str, *labels: str) -> str:
        """Have the server decide on changing labels, and return its refusal, empty for none."""
        return self.run("label", "namespace", namespace, "--overwrite", "--dry-run=server", *labels).stderr

    def delete(self, namespace: str) -> str:
        """Have the server decide on removing a namespace, and return its refusal, empty for none."""
        ended = self.run("delete", "namespace", namespace, "--dry-run=server", "--wait=false")
        return ended.stderr if ended.returncode else ""


@dataclass(frozen=True)
class Installation:
    """The chart's rights and policies on the run's cluster."""

    kube: Kube
    name: str

    @property
    def jobs(self) -> str:
        return f"{self.name}-jobs"

    @property
    def controlplane(self) -> Account:
        return Account(self.kube, self.name, self.name)

    @property
    def provisioner(self) -> Account:
        return Account(self.kube, f"{self.name}-provisioner", self.jobs)

    def store_namespace(self, **labels: str | None) -> dict[str, Any]:
        """Return a store's namespace as the provisioner makes it, under a new name; None takes a label away."""
        made = objects.namespace(_store_name(), _STORE_ID)
        wished = made["metadata"]["labels"] | {key.replace("__", "/"): text for key, text in labels.items()}
        made["metadata"]["labels"] = {key: text for key, text in wished.items() if text is not None}
        made["metadata"]["labels"][RUN_LABEL] = str(os.getpid())
        return made

    def binding(self, namespace: str, role: str, *subjects: Account) -> dict[str, Any]:
        return {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": role, "namespace": namespace},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": f"{self.name}-{role}",
            },
            "subjects": [
                {"kind": "ServiceAccount", "name": each.name, "namespace": each.namespace} for each in subjects
            ],
        }

    def job(self) -> dict[str, Any]:
        """Return a Job as the control plane makes it, as far as the policy looks at it."""
        labels = {"app": "store-provisioner"}
        pod = {
            "serviceAccountName": self.provisioner.name,
            "restartPolicy": "Never",
            "containers": [{"name": "provisioner", "image": "storeplane.local/provisioner:1"}],
        }
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "store-create-1", "namespace": self.jobs, "labels": labels},
            "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": pod}},
        }


def _store_name() -> str:
    random = base64.b32encode(os.urandom(5)).decode().lower()
    return f"store-rights-test-{random}"


def _chart(name: str, folder: Path) -> list[dict[str, Any]]:
    """Return the chart's objects that are neither workloads nor about them."""
    image = "storeplane.local/none:1"
    engines = {"medusa": {"server": image, "postgres": image, "redis": image}}
    images = {"controlplane": image, "provisioner": image, "postgres": image, "engines": engines}
    file = folder / "values.json"
    file.write_text(json.dumps({"name": name, "image": images, "jobs": {"namespace": f"{name}-jobs"}}))
    chart = checkout() / "charts" / "storeplane"
    rendered = subprocess.run(
        [helm_binary(), "template", "storeplane", chart, f"--namespace={name}", f"--values={file}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"HOME": str(folder), "PATH": "/nonexistent"},
    )
    kept = [each for each in yaml.safe_load_all(rendered.stdout) if each and each["kind"] not in _WORKLOADS]
    own = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    for each in [own, *kept]:
        each["metadata"].setdefault("labels", {})[RUN_LABEL] = str(os.getpid())
        if each["kind"] == "ServiceAccount":
            each["metadata"].setdefault("namespace", name)
    return [own, *kept]


@pytest.fixture(scope="module")
def installed(cluster: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Give the chart's rights and policies in force."""
    _sweep(cluster)
    made = Installation(cluster, f"rights-{os.getpid()}")
    try:
        cluster.apply(*_chart(made.name, tmp_path_factory.mktemp("chart")))
        # Each is seen by the server a moment later, and all three are bound at once.
        without_labels = made.store_namespace(storeplane__none="x")
        without_labels["metadata"]["name"] = "other"
        poll(lambda: "named store-" in made.provisioner.dry(without_labels), what="the policy of namespaces")
        poll(lambda: "label app=" in _as_admin(made, _changed(made.job(), _other_label)), what="the policy of Jobs")
        probe = made.binding("default", "store-admin", made.provisioner)
        poll(lambda: "stores only" in made.provisioner.dry(probe), what="the policy of role bindings")
        yield made
    finally:
        own = f"{RUN_LABEL}={os.getpid()}"
        cluster.do("delete", _CLUSTER_WIDE, f"--selector={own}", "--ignore-not-found", "--wait=false")


def _sweep(kube: Kube) -> None:
    """Remove the cluster-wide rights that killed runs left; the rest goes with every run."""
    for left in kube.json("get", "clusterrolebindings,clusterroles", f"--selector={RUN_LABEL}")["items"]:
        metadata = left["metadata"]
        if not Path(f"/proc/{metadata['labels'][RUN_LABEL]}").exists():
            kube.do("delete", left["kind"], metadata["name"], "--ignore-not-found")


def test_policies_are_understood_by_the_server(installed: Installation) -> None:
    own = ("get", "validatingadmissionpolicies", f"--selector={RUN_LABEL}={os.getpid()}")

    def checked() -> list[dict[str, Any]] | None:
        found = [each["status"].get("typeChecking") for each in installed.kube.json(*own)["items"]]
        return found if None not in found else None

    assert poll(checked, what="the policies' types are checked") == [{}] * 3


@pytest.fixture(scope="module")
def store(installed: Installation) -> str:
    """Give the name of a store's namespace, made and bound by the provisioner."""
    made = installed.store_namespace()
    name: str = made["metadata"]["name"]
    assert installed.provisioner.create(made) == ""
    for role, subject in (("store-admin", installed.provisioner), ("store-observer", installed.controlplane)):
        assert installed.provisioner.create(installed.binding(name, role, subject)) == ""
    return name


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
    foreign = {"name": _store_name(), "labels": {RUN_LABEL: str(os.getpid())}}
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


def _as_admin(installed: Installation, job: dict[str, Any]) -> str:
    return installed.kube.run("create", "--filename=-", "--dry-run=server", stdin=json.dumps(job)).stderr


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
    for refusal in (installed.controlplane.dry(wrong), _as_admin(installed, wrong)):
        assert said in refusal
        assert "is invalid" in refusal  # 422: trying again is no use


def test_the_control_planes_own_job_is_taken_there_and_nowhere_else(installed: Installation, store: str) -> None:
    right = installed.job()
    refused = installed.controlplane.run("create", "--filename=-", "--dry-run=server", stdin=json.dumps(right))
    assert refused.returncode == 0, refused.stderr
    right["metadata"]["namespace"] = store
    assert "forbidden" in installed.controlplane.dry(right)
