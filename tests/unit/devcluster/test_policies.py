"""What is said about network policies, and how the agent and its network plugin are put in place."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from devcluster.kubernetes import policies
from devcluster.kubernetes.network import Network
from devcluster.kubernetes.node import Node
from devcluster.machine.doctor import findings
from devcluster.machine.firewall import shortcoming
from devcluster.machine.paths import ClusterPaths

if TYPE_CHECKING:
    from devcluster.kubernetes.tools import Tools

    from .conftest import Stub

pytestmark = pytest.mark.unit

_CLOSED = "echo 'ipset v7: Kernel error received: set type not supported' >&2; echo more >&2; exit 1"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """Give a node of a cluster that is not there."""
    tools = SimpleNamespace(devkube=tmp_path / "devkube-1")
    return Node(2, ClusterPaths("some"), Network(7), cast("Tools", tools))


@pytest.mark.parametrize(("script", "said"), [("exit 0", ""), ("exit 3", "a trial ended with exit code 3")])
def test_machine_is_judged_by_a_trial(stub: Stub, script: str, said: str) -> None:
    calls = stub("unshare", script)
    assert shortcoming() == said
    # In a network of its own, so that nothing of the trial stays.
    assert calls.read_text().startswith("--net\n--\nsh\n-ec\n")


def test_kernel_that_cannot_is_told_in_its_own_words(stub: Stub) -> None:
    stub("unshare", _CLOSED)
    assert shortcoming() == "ipset v7: Kernel error received: set type not supported"
    finding = next(each for each in findings() if each.what == "network policies")
    assert not finding.good
    assert "NOT ENFORCED: ipset v7: Kernel error" in finding.line()
    assert not finding.needed, "a cluster runs without"


def test_machine_without_the_program_is_told(stub: Stub) -> None:
    stub("unrelated", "true")
    assert shortcoming().startswith("it cannot be tried: ")


def test_state_tells_of_agents_that_run_are_dead_or_were_never_started(stub: Stub) -> None:
    stub("unshare", _CLOSED)
    assert policies.state({"policies-1": 5, "policies-2": 6}, nodes=2) == "enforced"
    assert policies.state({"policies-1": 5, "policies-2": None}, nodes=2).endswith(": policies-2 NOT RUNNING")
    assert policies.state({"policies-1": 5}, nodes=2).endswith(": policies-2 NOT RUNNING")
    assert policies.state({"kubelet-1": 5}, nodes=1).startswith("NOT ENFORCED: ipset v7: Kernel error")


def test_agent_runs_in_its_nodes_network_and_knows_every_nodes_pods(node: Node) -> None:
    spec = node.policies(4711, kubeconfig=Path("/agent.kubeconfig"))
    assert spec.name == "policies-2"
    assert (spec.netns_of, spec.mntns_of) == (4711, 4711)
    assert {"--node=node-2", "--pod-network=10.107.0.0/16", "--health=10.99.7.3:10258"} <= set(spec.argv)


def test_plugins_of_debian_and_ours_are_in_one_folder_and_follow_a_new_build(tmp_path: Path) -> None:
    folder = tmp_path / "cni-bin"
    policies.fill_plugin_folder(folder, tmp_path / "plugin-1")
    assert (folder / "bridge").readlink() == Path("/usr/lib/cni/bridge")
    assert (folder / "devcluster-policies").readlink() == tmp_path / "plugin-1"

    policies.fill_plugin_folder(folder, tmp_path / "plugin-2")

    assert (folder / "devcluster-policies").readlink() == tmp_path / "plugin-2"
    assert sorted(file.name for file in folder.iterdir()) == [
        "bridge",
        "devcluster-policies",
        "host-local",
        "loopback",
        "portmap",
    ]
