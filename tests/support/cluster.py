"""One real cluster for a layer of the tests, and a thin way to speak to it: kubectl, with JSON in and out.

The layer's ``conftest.py`` names it. It is kept between runs, because a start costs seconds and images are loaded.
``STOREPLANE_TEST_CLUSTER=fresh`` makes a new one and removes it at the end. ``CLUSTER`` chooses where it comes from, as
everywhere; what only a devcluster can show is skipped on others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devcluster.machine.paths import ClusterPaths
from devcluster.sources.choice import DevclusterSource, choose_source, refuse_foreign_for_tests
from tests.support.busybox import busybox_archive, busybox_reference
from tests.support.polling import poll

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "RUN_LABEL",
    "Kube",
    "Namespace",
    "cluster",
    "devcluster",
    "job",
    "namespace",
    "open_cluster",
    "pod",
    "run_devcluster",
    "service",
]

RUN_LABEL = "storeplane.dev/test-run"
"""On everything a test leaves outside its namespace, and on the namespace: the process id of the run."""
_UP_SECONDS = 1500
"""A first run builds Kubernetes from source."""
_CALL_SECONDS = 60
_CONTROLLER_QPS = "200"


@dataclass(frozen=True)
class Kube:
    """A cluster, seen through kubectl as its administrator."""

    name: str
    kubeconfig: Path
    program: str
    is_devcluster: bool

    def command(self, *words: str) -> list[str]:
        return [self.program, f"--kubeconfig={self.kubeconfig}", "--request-timeout=30s", *words]

    def run(self, *words: str, stdin: str = "", seconds: float = _CALL_SECONDS) -> subprocess.CompletedProcess[str]:
        """Run kubectl and return how it ended, whatever that was."""
        return subprocess.run(
            self.command(*words), input=stdin, capture_output=True, text=True, timeout=seconds, check=False
        )

    def do(self, *words: str, stdin: str = "") -> str:
        """Run kubectl, which must succeed, and return what it printed."""
        ended = self.run(*words, stdin=stdin)
        assert ended.returncode == 0, f"kubectl {' '.join(words)}: {ended.stderr}"
        return ended.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.do(*words, "-o", "json"))

    def apply(self, *manifests: dict[str, Any]) -> None:
        self.do("apply", "-f", "-", stdin=_list(manifests))

    def refusal(self, manifest: dict[str, Any]) -> str:
        """Ask the server to create an object, which it must refuse, and return its words."""
        ended = self.run("create", "-f", "-", "--dry-run=server", stdin=json.dumps(manifest))
        assert ended.returncode != 0, f"the server took {manifest['kind']} {manifest['metadata']['name']}"
        return ended.stderr

    def status(self) -> Any:
        """Return ``devcluster status``; only of a devcluster."""
        return json.loads(run_devcluster("status", "--name", self.name, "--json").stdout)


@dataclass(frozen=True)
class Namespace:
    """A namespace of one test."""

    kube: Kube
    name: str

    def do(self, *words: str, stdin: str = "") -> str:
        return self.kube.do("-n", self.name, *words, stdin=stdin)

    def json(self, *words: str) -> Any:
        return self.kube.json("-n", self.name, *words)

    def apply(self, *manifests: dict[str, Any]) -> None:
        self.kube.apply(*(self.own(manifest) for manifest in manifests))

    def refusal(self, manifest: dict[str, Any]) -> str:
        return self.kube.refusal(self.own(manifest))

    def own(self, manifest: dict[str, Any]) -> dict[str, Any]:
        return {**manifest, "metadata": {**manifest["metadata"], "namespace": self.name}}

    def settled(self) -> Namespace:
        """Wait until pods can be created: a controller makes their service account a moment after the namespace."""
        poll(
            lambda: self.kube.run("-n", self.name, "get", "serviceaccount", "default").returncode == 0,
            what=f"the default service account of {self.name}",
        )
        return self

    def wait(self, condition: str, what: str, *, seconds: int = 60) -> None:
        """Wait for a condition, such as ``condition=Ready``; on failure show what the cluster says about it."""
        waiting = ["wait", f"--for={condition}", f"--timeout={seconds}s", what]
        ended = self.kube.run("-n", self.name, *waiting, seconds=seconds + _CALL_SECONDS)
        if ended.returncode != 0:
            raise AssertionError(f"{what} is not {condition}: {ended.stderr}\n{self.do('events')}")

    def run_web(self, text: str, **service_spec: Any) -> None:
        """Run a pod and a Service ``web`` that answer port 8000 with a text, and wait until they do."""
        script = f"mkdir /www && echo '{text}' > /www/index.html && exec httpd -f -p 8000 -h /www"
        self.apply(pod("web", script), service("web", 8000, **service_spec))
        self.wait("condition=Ready", "pod/web")

    def run_pod(self, script: str, *, name: str = "task", **spec: Any) -> str:
        """Run a script as a pod to its successful end and return what it printed."""
        self.apply(pod(name, script, restartPolicy="Never", **spec))
        ended = time.monotonic() + _CALL_SECONDS
        while (phase := self.json("get", "pod", name)["status"]["phase"]) not in {"Succeeded", "Failed"}:
            assert time.monotonic() < ended, f"{name} is {phase}:\n{self.do('events')}"
            time.sleep(0.1)
        output = self.do("logs", name)
        assert phase == "Succeeded", f"{name} failed: {output}"
        return output


def pod(name: str, script: str, **spec: Any) -> dict[str, Any]:
    """Return a pod that runs one shell script; keywords are fields of its spec, ``container`` of its container."""
    own = spec.pop("container", {})
    container = {"name": "main", "image": busybox_reference(), "imagePullPolicy": "IfNotPresent", **own}
    container.setdefault("command", ["/bin/sh", "-ec", script])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [container],
            **spec,
        },
    }


def job(name: str, script: str, **spec: Any) -> dict[str, Any]:
    """Return a Job of one pod that runs one shell script; keywords are fields of the Job's spec."""
    template = pod(name, script, restartPolicy="Never")
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"spec": template["spec"]}, **spec},
    }


def service(name: str, port: int, **spec: Any) -> dict[str, Any]:
    """Return a Service in front of the pod of the same name."""
    ports = [{"port": port, "targetPort": port}]
    spec = {"selector": {"app": name}, "ports": ports, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def run_devcluster(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the ``devcluster`` command of this environment, as a person would."""
    program = Path(sys.executable).with_name("devcluster")
    ended = subprocess.run([str(program), *words], capture_output=True, text=True, timeout=_UP_SECONDS, check=False)
    assert not check or ended.returncode == 0, f"devcluster {' '.join(words)}:\n{ended.stdout}{ended.stderr}"
    return ended


def open_cluster(name: str) -> Kube:
    """Return a devcluster that is up."""
    home = ClusterPaths(name).home
    return Kube(name, ClusterPaths(name).kubeconfig, str(home / "bin/kubectl"), is_devcluster=True)


@pytest.fixture(scope="session")
def cluster(cluster_name: str) -> Iterator[Kube]:
    """Give the layer's cluster, with the test pods' image loaded."""
    source = choose_source(cluster_name)
    refuse_foreign_for_tests(source)
    fresh = os.environ.get("STOREPLANE_TEST_CLUSTER") == "fresh"
    if fresh:
        source.down()
    archive = busybox_archive()
    if isinstance(source, DevclusterSource):
        run_devcluster("up", "--name", source.name, "--controller-qps", _CONTROLLER_QPS)
        run_devcluster("load", str(archive), "--name", source.name)
        kube = open_cluster(source.name)
    else:
        source.up()
        source.load([archive])
        kube = Kube(source.name, source.kubeconfig(), "kubectl", is_devcluster=False)
    _sweep(kube)
    yield kube
    if fresh:
        source.down()


def _sweep(kube: Kube) -> None:
    """Remove what runs left that were killed; those of a run that still lives stay."""
    kinds = "namespaces,validatingadmissionpolicybindings,validatingadmissionpolicies"
    for left in kube.json("get", kinds, "-l", RUN_LABEL)["items"]:
        metadata = left["metadata"]
        if "deletionTimestamp" not in metadata and not Path(f"/proc/{metadata['labels'][RUN_LABEL]}").exists():
            kube.do("delete", left["kind"], metadata["name"], "--wait=false", "--ignore-not-found")


@pytest.fixture
def devcluster(cluster: Kube) -> Kube:
    """Give the layer's cluster where the test needs what only a devcluster has."""
    if not cluster.is_devcluster:
        pytest.skip("looks at the processes and addresses of a devcluster")
    return cluster


@pytest.fixture
def namespace(cluster: Kube) -> Iterator[Namespace]:
    """Give a namespace of the test's own, removed in the background afterwards."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    labels = {RUN_LABEL: str(os.getpid())}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    try:
        yield Namespace(cluster, name).settled()
    finally:
        cluster.do("delete", "namespace", name, "--wait=false")


def _list(manifests: Sequence[dict[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
