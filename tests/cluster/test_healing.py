"""Any part may die at any time; ``up`` makes it whole, and a whole cluster is left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devcluster.kubernetes.cluster import Cluster
from devcluster.machine.processes import ProcessSpec, stop
from tests.support.cluster import job, run_devcluster
from tests.support.pod_processes import kill_process
from tests.support.polling import poll

if TYPE_CHECKING:
    from tests.support.cluster import Kube, Namespace

pytestmark = pytest.mark.cluster

_COMPONENTS = (
    "containerd-1",
    "coredns",
    "etcd",
    "fabric",
    "forwarder",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy-1",
    "kube-scheduler",
    "kubelet-1",
    "node-1",
    "policies-1",
    "router",
    "volumes",
)


def test_the_list_of_components_is_complete(devcluster: Kube) -> None:
    assert set(devcluster.status()["processes"]) == set(_COMPONENTS)


def test_up_of_a_healthy_cluster_changes_no_process(devcluster: Kube) -> None:
    before = devcluster.status()["processes"]
    run_devcluster("up", "--name", devcluster.name)
    assert devcluster.status()["processes"] == before


@pytest.mark.parametrize("component", _COMPONENTS)
def test_up_heals_a_killed_component_and_jobs_run_again(devcluster: Kube, namespace: Namespace, component: str) -> None:
    pid = devcluster.status()["processes"][component]
    kill_process(pid)
    assert devcluster.status()["processes"][component] is None
    run_devcluster("up", "--name", devcluster.name)
    status = devcluster.status()
    assert status["ready"]
    assert status["processes"][component] not in {None, pid}
    # The namespace outlived what was killed, and the cluster works on it.
    poll(lambda: namespace.kube.run("get", "namespace", namespace.name).returncode == 0, what="the namespace")
    namespace.apply(job("after", "echo healed"))
    namespace.wait("condition=Complete", "job/after", seconds=90)
    assert namespace.do("logs", "job/after") == "healed\n"


def test_dead_guest_does_not_keep_the_cluster_from_healing(devcluster: Kube) -> None:
    """What others run beside the cluster is theirs to start again; ``status`` shows that it is dead."""
    owner = Cluster(devcluster.name)
    owner.run_on_host(ProcessSpec("guest", ["sleep", "300"]))
    try:
        kill_process(devcluster.status()["processes"]["guest"])

        run_devcluster("up", "--name", devcluster.name)

        assert devcluster.status()["processes"]["guest"] is None
        assert not devcluster.status()["ready"]
    finally:
        stop("guest", run=owner.paths.run)
