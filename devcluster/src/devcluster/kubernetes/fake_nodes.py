"""Simulated nodes, by KWOK: Node objects whose pods succeed at once without a container, for measuring scale.

The API server, controllers and scheduler are real; only kubelets are not. The taint keeps ordinary pods off the
simulated nodes: a pod that wants one tolerates ``TAINT`` and selects ``LABELS``.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from devcluster.machine.build import go_binary
from devcluster.machine.paths import checkout
from devcluster.machine.processes import ProcessSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["LABELS", "RIGHTS", "TAINT", "USER", "kwok_binary", "kwok_process", "node_manifests"]

USER = "devcluster:kwok"
"""The user of KWOK's kubeconfig."""
LABELS = {"type": "kwok"}
TAINT = {"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}
RIGHTS: list[dict[str, list[str]]] = [
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch", "patch", "update"]},
    {"apiGroups": [""], "resources": ["nodes/status", "pods/status"], "verbs": ["patch", "update"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "patch", "update", "delete"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch", "update"]},
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "verbs": ["get", "list", "watch", "create", "patch", "update", "delete"],
    },
]
"""What the user may do, as rules of a ClusterRole."""

_POD_NETWORK = "198.18.0.0/16"
"""Reserved for benchmarks: the addresses of pods that do not exist meet no real one."""
_LEASE_SECONDS = 40
"""As kubelet's; the controller manager's patience is made for it."""


def kwok_binary() -> Path:
    """Return KWOK's program, built on first use (a minute and a half); raises like ``go_binary``."""
    return go_binary(_folder(), "sigs.k8s.io/kwok/cmd/kwok")


def kwok_process(binary: Path, *, kubeconfig: Path, holder: int) -> ProcessSpec:
    """Return the one process that plays every simulated node.

    Parameters
    ----------
    kubeconfig
        Of ``USER``, with the API server's address inside the node's network.
    holder
        The pid that holds the network namespace of the node it runs beside.
    """
    stages = _folder() / "stages.yaml"
    selector = ",".join(f"{key}={value}" for key, value in LABELS.items())
    flags = {
        "kubeconfig": kubeconfig,
        "config": stages,
        "manage-all-nodes": "false",
        "manage-nodes-with-label-selector": selector,
        "cidr": _POD_NETWORK,
        "node-lease-duration-seconds": _LEASE_SECONDS,
    }
    return ProcessSpec(
        "kwok",
        [str(binary), *(f"--{flag}={value}" for flag, value in flags.items())],
        # Read by nobody: it makes other stages another command, so that a change restarts the process.
        environment={"STAGES": hashlib.sha256(stages.read_bytes()).hexdigest()},
        netns_of=holder,
    )


def node_manifests(count: int) -> Iterator[dict[str, Any]]:
    """Yield the Node objects ``fake-1`` to ``fake-<count>``; KWOK makes them ready."""
    for number in range(1, count + 1):
        name = f"fake-{number}"
        yield {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {**LABELS, "kubernetes.io/hostname": name}},
            "spec": {"taints": [TAINT]},
        }


def _folder() -> Path:
    return checkout() / "devcluster/kwok"
