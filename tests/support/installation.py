"""The chart's rights and policies on the run's cluster, and the service accounts they are about.

They are installed under a name of the run's own, without workloads; the accounts are impersonated.
"""

from __future__ import annotations

import base64
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
from tests.support.rights import flattened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cluster import Kube

__all__ = ["STORE_ID", "Account", "Installation", "installed", "store", "store_name"]

_CLUSTER_WIDE = (
    "validatingadmissionpolicybindings,validatingadmissionpolicies,clusterrolebindings,clusterroles,namespaces"
)
_WORKLOADS = {"Deployment", "StatefulSet", "Job", "Service", "PodDisruptionBudget", "NetworkPolicy", "ResourceQuota"}
STORE_ID = uuid.UUID(int=7)
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
        made = objects.namespace(store_name(), STORE_ID)
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

    def refusal(self, manifest: dict[str, Any]) -> str:
        """Have the server decide on an administrator's creating an object, and return its refusal, empty for none."""
        return self.kube.run("create", "--filename=-", "--dry-run=server", stdin=json.dumps(manifest)).stderr

    def job(self, *, label: str = "store-provisioner") -> dict[str, Any]:
        """Return a Job as the control plane makes it, as far as the policy looks at it."""
        labels = {"app": label}
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


def store_name() -> str:
    """Return a new name of a store's namespace."""
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


@pytest.fixture(scope="session")
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
        poll(lambda: "label app=" in made.refusal(made.job(label="x")), what="the policy of Jobs")
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


@pytest.fixture(scope="session")
def store(installed: Installation) -> str:
    """Give the name of a store's namespace, made and bound by the provisioner."""
    made = installed.store_namespace()
    name: str = made["metadata"]["name"]
    assert installed.provisioner.create(made) == ""
    for role, subject in (("store-admin", installed.provisioner), ("store-observer", installed.controlplane)):
        assert installed.provisioner.create(installed.binding(name, role, subject)) == ""
    return name
