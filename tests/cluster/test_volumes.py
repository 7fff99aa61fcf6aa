"""Storage: what a shop's database is kept on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.polling import poll

if TYPE_CHECKING:
    from tests.support.cluster import Kube, Namespace

pytestmark = pytest.mark.cluster

_CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}
_UNPRIVILEGED: dict[str, Any] = {
    "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000, "runAsNonRoot": True},
    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    "container": {
        "securityContext": {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    },
}


def test_one_storage_class_is_the_default(cluster: Kube) -> None:
    key = "storageclass.kubernetes.io/is-default-class"
    classes = cluster.json("get", "storageclasses")["items"]
    assert [each["metadata"]["annotations"].get(key) for each in classes].count("true") == 1


def test_unprivileged_pod_writes_to_its_claim_and_the_next_one_reads_it(namespace: Namespace) -> None:
    namespace.apply(_CLAIM)
    written = namespace.run_pod(
        "! touch /root-is-read-only && echo kept > /data/file && id -G", name="writes", **_UNPRIVILEGED
    )
    assert "2000" in written.split()
    read = namespace.run_pod("cat /data/file && stat -c %g /data/file", name="reads", **_UNPRIVILEGED)
    assert read.split() == ["kept", "2000"]


def test_volume_and_its_directory_go_with_the_claim(devcluster: Kube, namespace: Namespace) -> None:
    namespace.apply(_CLAIM)
    namespace.run_pod("echo kept > /data/file", name="writes", **_UNPRIVILEGED)
    volume = namespace.json("get", "pvc", "data")["spec"]["volumeName"]
    directory = Path(devcluster.json("get", "pv", volume)["spec"]["local"]["path"])
    assert (directory / "file").read_text() == "kept\n"
    namespace.do("delete", "pod/writes", "pvc/data")
    poll(lambda: not directory.exists(), what="the directory is gone")
    poll(lambda: devcluster.run("get", "pv", volume).returncode != 0, what="the volume is gone")
