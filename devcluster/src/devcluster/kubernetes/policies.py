"""Network policies: the agent that enforces them, one for each node, and the network plugin that waits for it.

Both are programs of our own, see ``devkube/internal/policies`` and ``devkube/cmd/devcluster-policies``. Where the
machine cannot enforce policies the cluster runs without them, as it says at ``up``, in ``status`` and in ``doctor``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devcluster.machine.firewall import shortcoming

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["BRIDGE", "HEALTH_PORT", "RIGHTS", "SOCKET", "USER", "fill_plugin_folder", "plugin_config", "state"]

USER = "devcluster:policies"
"""The user of the agents' kubeconfig."""
RIGHTS: list[dict[str, list[str]]] = [
    {"apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": ["list", "watch"]},
    {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["list", "watch"]},
]
"""What the user may do, as rules of a ClusterRole."""
HEALTH_PORT = 10258
"""On the node's address, beside kubelet's and kube-proxy's."""
SOCKET = "/run/devcluster-policies.sock"
"""Where the network plugin finds the agent, in the node's own /run."""
BRIDGE = "cni0"
"""The bridge a node's pods are plugged into."""

_PLUGINS_OF_DEBIAN = ("bridge", "host-local", "loopback", "portmap")


def state(pids: Mapping[str, int | None], *, nodes: int) -> str:
    """Return how policies are enforced, for a person: by the agents that run, or why not.

    Parameters
    ----------
    pids
        Of the cluster's processes by name, None for one that is not running.
    """
    agents = [f"policies-{number}" for number in range(1, nodes + 1)]
    if not any(agent in pids for agent in agents):
        return f"NOT ENFORCED: {shortcoming() or 'the cluster was started without; run `up` again'}"
    dead = [agent for agent in agents if pids.get(agent) is None]
    return f"the rules of before stay, new pods do not start: {', '.join(dead)} NOT RUNNING" if dead else "enforced"


def plugin_config() -> dict[str, Any]:
    """Return the last entry of the node's network configuration: a pod's start waits for its rules."""
    return {"type": "devcluster-policies", "socket": SOCKET}


def fill_plugin_folder(folder: Path, own: Path) -> None:
    """Put every network plugin of a node into a folder, Debian's and our own; containerd knows one folder only."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {name: f"/usr/lib/cni/{name}" for name in _PLUGINS_OF_DEBIAN}
    wanted["devcluster-policies"] = str(own)
    for name, program in wanted.items():
        link = folder / name
        if link.is_symlink() and str(link.readlink()) == program:
            continue
        # In one step: a pod may be starting by the link of before.
        unfinished = folder / f".{name}"
        unfinished.unlink(missing_ok=True)
        unfinished.symlink_to(program)
        unfinished.rename(link)
