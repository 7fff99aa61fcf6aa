"""A cluster of its own name leaves nothing behind, whatever killed it, and may have more than one node."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devcluster.machine.paths import ClusterPaths
from devcluster.sources.choice import DevclusterSource, choose_source
from tests.support.busybox import busybox_archive
from tests.support.cluster import Namespace, open_cluster, pod, run_devcluster, service
from tests.support.fences import OPEN, PORTS, REFUSED, fetch, policy, serving_pod, verdict
from tests.support.machine import Machine
from tests.support.polling import poll

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

_NAME = "contain"


@pytest.fixture
def before() -> Iterator[Machine]:
    """Give the machine as it is without the cluster; whatever the test did, the cluster is down afterwards."""
    if not isinstance(choose_source(_NAME), DevclusterSource):
        pytest.skip("looks at what a devcluster leaves on the machine")
    run_devcluster("down", "--name", _NAME)
    try:
        yield _look()
    finally:
        run_devcluster("down", "--name", _NAME)


def _look() -> Machine:
    return Machine.look(_NAME, ClusterPaths(_NAME).home)


def _nothing_is_left(before: Machine) -> None:
    run_devcluster("down", "--name", _NAME)

    def same() -> bool:
        now = _look()
        assert now.more_than(before) == {}, "left behind"
        lost = before.more_than(now)
        assert not {"mounts", "firewall"} & set(lost), lost
        return True

    # The kernel takes an ended process's namespaces apart a moment later.
    poll(same, what="the machine is as it was")


def test_down_leaves_nothing_of_a_running_cluster(before: Machine) -> None:
    run_devcluster("up", "--name", _NAME)
    while_up = _look().more_than(before)
    # What is looked at does change: otherwise an empty difference would prove nothing.
    assert {"processes", "network_namespaces", "links", "cgroups", "folders"} <= set(while_up)
    assert not {"mounts", "firewall"} & set(while_up), "the machine's own mounts and rules are not touched"
    _nothing_is_left(before)


def test_down_leaves_nothing_after_components_were_killed(before: Machine) -> None:
    run_devcluster("up", "--name", _NAME)
    processes = open_cluster(_NAME).status()["processes"]
    for component in ("containerd-1", "kubelet-1", "node-1", "etcd", "fabric"):
        os.kill(processes[component], signal.SIGKILL)
    _nothing_is_left(before)


def test_down_leaves_nothing_after_the_driver_was_killed_in_the_middle_and_up_works_again(before: Machine) -> None:
    command = [str(Path(sys.executable).with_name("devcluster")), "up", "--name", _NAME]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        record = ClusterPaths(_NAME).run / "kube-apiserver.json"
        poll(record.exists, what="the API server is started", seconds=1200)
        descriptor = os.pidfd_open(driver.pid)
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        assert select.select([descriptor], [], [], 10)[0]
        os.close(descriptor)
    _nothing_is_left(before)
    run_devcluster("up", "--name", _NAME)
    assert open_cluster(_NAME).status()["ready"]
    _nothing_is_left(before)


def test_pods_on_two_nodes_reach_each_other_by_address_and_by_name(before: Machine) -> None:
    run_devcluster("up", "--name", _NAME, "--nodes", "2")
    run_devcluster("load", str(busybox_archive()), "--name", _NAME)
    kube = open_cluster(_NAME)
    namespace = Namespace(kube, "default").settled()
    for number in (1, 2):
        web = f"mkdir /www && echo 'node {number}' > /www/index.html && exec httpd -f -p 8000 -h /www"
        placed = pod(f"web-{number}", web, nodeSelector={"kubernetes.io/hostname": f"node-{number}"})
        namespace.apply(placed, service(f"web-{number}", 8000))
    for number in (1, 2):
        namespace.wait("condition=Ready", f"pod/web-{number}")
    for here, there in ((1, 2), (2, 1)):
        status = namespace.json("get", "pod", f"web-{there}")
        assert status["spec"]["nodeName"] == f"node-{there}"
        for target in (status["status"]["podIP"], f"web-{there}"):
            fetch = ["exec", f"web-{here}", "--", "wget", "-q", "-O", "-", f"http://{target}:8000/"]
            assert namespace.do(*fetch) == f"node {there}\n"
    _nothing_is_left(before)


def test_policies_hold_between_two_nodes(before: Machine) -> None:
    run_devcluster("up", "--name", _NAME, "--nodes", "2")
    run_devcluster("load", str(busybox_archive()), "--name", _NAME)
    kube = open_cluster(_NAME)
    if (state := kube.status()["network_policies"]) != "enforced":
        pytest.skip(f"network policies: {state}")
    namespace = Namespace(kube, "default").settled()
    for name, number in {"asked": 1, "guest": 2, "stranger": 2}.items():
        placed = serving_pod(name)
        placed["spec"]["nodeSelector"] = {"kubernetes.io/hostname": f"node-{number}"}
        namespace.apply(placed)
    addresses = {}
    for name in ("asked", "guest", "stranger"):
        namespace.wait("condition=Ready", f"pod/{name}")
        addresses[name] = namespace.json("get", "pod", name)["status"]["podIP"]

    def expect(expected: dict[tuple[str, str], str]) -> None:
        def same() -> bool:
            for (source, target), wanted in expected.items():
                script = f"{fetch(addresses[target], PORTS[0])} || true"
                said = verdict(namespace.do("exec", source, "--", "/bin/sh", "-c", script), wanted=target)
                assert said == wanted, f"{source} asks {target}: {said}"
            return True

        poll(same, what="packets fare as the policies say")

    expect({("guest", "asked"): OPEN, ("stranger", "asked"): OPEN, ("asked", "guest"): OPEN})
    # The asked pod's node judges who comes, by the address that a pod of the other node keeps on its way.
    _apply_policy(namespace, policy(_app("asked"), ingress=[{"from": [{"podSelector": _app("guest")}]}]))
    expect({("guest", "asked"): OPEN, ("stranger", "asked"): REFUSED, ("asked", "stranger"): OPEN})
    # The asking pod's node judges where it goes.
    _apply_policy(namespace, policy(_app("guest"), policyTypes=["Egress"]))
    expect({("guest", "asked"): REFUSED, ("asked", "guest"): OPEN})
    _nothing_is_left(before)


def _app(name: str) -> dict[str, dict[str, str]]:
    return {"matchLabels": {"app": name}}


def _apply_policy(namespace: Namespace, spec: dict[str, Any]) -> None:
    manifest = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "only"},
        "spec": spec,
    }
    namespace.apply(manifest)
