"""Policies follow what changes: pods that start, labels, the policies themselves, and the agent's own death."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import pytest

from tests.support.cluster import pod, run_devcluster, service
from tests.support.fences import OPEN, PORTS, REFUSED, fetch, policy, serving_pod, stage, verdict
from tests.support.pod_processes import kill_process
from tests.support.polling import poll

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cluster import Kube
    from tests.support.fences import Stage

pytestmark = pytest.mark.cluster

_WEB = {"matchLabels": {"app": "web"}}
_PORT = PORTS[0]
_AT_ONCE = 6
_STEP_SECONDS = 20
_HELD_SECONDS = 3
"""A packet that is not held takes a thousandth of it."""


@pytest.fixture(scope="module")
def module_stage(cluster: Kube) -> Iterator[Stage]:
    """Set the stage once."""
    with stage(cluster) as ready:
        yield ready


@pytest.fixture
def pods(module_stage: Stage) -> Stage:
    """Give the stage without policies."""
    module_stage.clear()
    module_stage.expect({"friend>web:8000": OPEN, "stranger>web:8000": OPEN})
    return module_stage


def test_pod_is_fenced_before_its_first_packet_and_one_without_policy_waits_for_nothing(pods: Stage) -> None:
    pods.apply(policy({"matchLabels": {"kind": "fenced"}}, policyTypes=["Egress"]))
    ask = f"{fetch(pods.addresses['web'], _PORT)} || true"
    names = {f"{kind}-{number}": kind for number in range(_AT_ONCE) for kind in ("fenced", "free")}

    def first_words(name: str) -> str:
        asking = pod(name, ask, restartPolicy="Never")
        asking["metadata"]["labels"] = {"kind": names[name]}
        pods.here.apply(asking)
        pods.here.wait("jsonpath={.status.phase}=Succeeded", f"pod/{name}")
        return verdict(pods.here.do("logs", name), wanted="web")

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        said = dict(zip(names, threads.map(first_words, names), strict=True))

    assert said == {name: REFUSED if kind == "fenced" else OPEN for name, kind in names.items()}
    pods.here.do("delete", "pod", "-l", "kind", "--wait=false")


def test_label_of_a_pod_decides_while_it_is_there(pods: Stage) -> None:
    pods.apply(policy(_WEB, ingress=[{"from": [{"podSelector": {"matchLabels": {"guest": "yes"}}}]}]))
    pods.expect({"friend>web:8000": REFUSED})

    pods.here.do("label", "pod", "friend", "guest=yes")
    pods.expect({"friend>web:8000": OPEN})

    pods.here.do("label", "pod", "friend", "guest-")
    pods.expect({"friend>web:8000": REFUSED})


def test_label_of_a_namespace_decides_while_it_is_there(pods: Stage) -> None:
    pods.apply(policy(_WEB, ingress=[{"from": [{"namespaceSelector": {"matchLabels": {"guest": "yes"}}}]}]))
    pods.expect({"stranger>web:8000": REFUSED, "friend>web:8000": REFUSED})

    pods.there.kube.do("label", "namespace", pods.there.name, "guest=yes")
    pods.expect({"stranger>web:8000": OPEN, "friend>web:8000": REFUSED})

    pods.there.kube.do("label", "namespace", pods.there.name, "guest-")
    pods.expect({"stranger>web:8000": REFUSED})


def test_selected_pod_leaves_the_fence_with_its_label(pods: Stage) -> None:
    pods.apply(policy({"matchLabels": {"fenced": "yes"}}))
    pods.here.do("label", "pod", "web", "fenced=yes")
    pods.expect({"friend>web:8000": REFUSED})

    pods.here.do("label", "pod", "web", "fenced-")
    pods.expect({"friend>web:8000": OPEN})


def test_policy_changes_in_place(pods: Stage) -> None:
    for opens, refuses in ((8000, 8001), (8001, 8000)):
        pods.apply(policy(_WEB, ingress=[{"ports": [{"port": opens}]}]))
        pods.expect({f"friend>web:{opens}": OPEN, f"friend>web:{refuses}": REFUSED})


def test_open_connection_stands_still_while_a_policy_forbids_it(pods: Stage) -> None:
    quiet = "< /dev/null > /dev/null 2>&1 &"
    # With nothing more to say the server would hang up.
    _shell(pods, "web", f"( sleep 600 | busybox nc -l -p 9000 > /tmp/heard ) {quiet}")
    poll(lambda: ":9000 " in _shell(pods, "web", "busybox netstat -ltn"), what="the server listens")
    # The descriptor keeps the pipe, and so the connection, open between two words.
    speak = f"( busybox nc {pods.addresses['web']} 9000 < /tmp/words ) {quiet}"
    keep = f"( exec 3> /tmp/words; echo before >&3; sleep 600 ) {quiet}"
    _shell(pods, "friend", f"busybox mkfifo /tmp/words; {speak} {keep}")
    poll(lambda: _shell(pods, "web", "cat /tmp/heard") == "before\n", what="the connection carries words")

    pods.apply(policy(_WEB))
    pods.expect({"friend>web:8000": REFUSED})
    _shell(pods, "friend", "echo during > /tmp/words")

    # Sent, and sent again, without an answer: they stay in the sender's queue.
    poll(lambda: _unanswered(pods, "friend") == len("during\n"), what="the words wait")
    assert _shell(pods, "web", "cat /tmp/heard") == "before\n"
    pods.clear()
    poll(lambda: _shell(pods, "web", "cat /tmp/heard") == "before\nduring\n", what="the words arrive")
    assert _unanswered(pods, "friend") == 0


def test_probe_and_router_reach_a_pod_that_nobody_else_reaches(pods: Stage, devcluster: Kube) -> None:
    """Kubelet and the router are of the pod's own node, which no policy forbids."""
    pods.apply(policy(policyTypes=["Ingress", "Egress"]))
    pods.expect({"friend>web:8000": REFUSED})
    probed = serving_pod("probed")
    probed["spec"]["containers"][0]["readinessProbe"] = {"httpGet": {"port": _PORT, "path": "/"}, "periodSeconds": 1}
    backend = {"service": {"name": "probed", "port": {"number": _PORT}}}
    host = f"{pods.here.name}.localhost"
    rule = {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    ingress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "probed"},
        "spec": {"rules": [rule]},
    }

    pods.here.apply(probed, service("probed", _PORT), ingress)

    pods.here.wait("condition=Ready", "pod/probed")
    url = f"http://127.0.0.1:{devcluster.status()['shops_port']}/"
    poll(lambda: _read(url, host=host) == "probed\n", what="the router serves the pod")
    pods.here.do("delete", "pod", "probed", "--wait=false")


def test_node_port_is_judged_by_the_caller_on_the_host(pods: Stage) -> None:
    ports = [{"port": _PORT, "targetPort": _PORT}]
    outside = service("outside", _PORT, type="NodePort", selector={"app": "web"}, ports=ports)
    pods.here.apply(outside)
    port = pods.here.json("get", "service", "outside")["spec"]["ports"][0]["nodePort"]
    url = f"http://{pods.addresses['node']}:{port}/"
    poll(lambda: _read(url) == "web\n", what="the node port answers")

    pods.apply(policy(_WEB, policyTypes=["Ingress"]))
    poll(lambda: "No route to host" in _read(url), what="the node port refuses")

    pods.apply(policy(_WEB, ingress=[{"from": [{"ipBlock": {"cidr": "@host"}}]}]))
    poll(lambda: _read(url) == "web\n", what="the node port answers the host")
    pods.expect({"friend>web:8000": REFUSED})


def test_rules_outlive_the_agent_and_up_heals_it(pods: Stage, devcluster: Kube) -> None:
    pods.apply(policy(_WEB, ingress=[{"ports": [{"port": 8000}]}]))
    as_before = {"friend>web:8000": OPEN, "friend>web:8001": REFUSED}
    pods.expect(as_before)
    kill_process(devcluster.status()["processes"]["policies-1"])

    assert "NOT RUNNING" in devcluster.status()["network_policies"]
    assert pods.ask(*as_before) == as_before
    pods.clear()
    pods.here.apply(serving_pod("late"))
    poll(
        lambda: "the node's policies agent does not answer" in pods.here.do("get", "events"),
        what="the event of the pod that waits says why",
    )
    assert pods.ask(*as_before) == as_before, "a policy is gone for the API server only"

    run_devcluster("up", "--name", devcluster.name)

    assert devcluster.status()["network_policies"] == "enforced"
    pods.here.wait("condition=Ready", "pod/late", seconds=90)
    pods.expect(dict.fromkeys(as_before, OPEN))
    pods.here.do("delete", "pod", "late", "--wait=false")


def test_address_that_the_agent_does_not_know_is_held_until_it_does(pods: Stage, devcluster: Kube) -> None:
    processes = devcluster.status()["processes"]
    ask = f"busybox timeout {_HELD_SECONDS} wget -q -O - http://{pods.addresses['web']}:{_PORT}/ 2>&1 || true"
    os.kill(processes["policies-1"], signal.SIGSTOP)
    try:
        _run_in(processes["node-1"], "ipset", "del", "DC-POL-KNOWN", pods.addresses["friend"])
        # Neither an answer nor a refusal: the packets wait.
        assert verdict(_shell(pods, "friend", ask), wanted="web") not in {OPEN, REFUSED}
        assert pods.ask("stranger>web:8000") == {"stranger>web:8000": OPEN}
    finally:
        os.kill(processes["policies-1"], signal.SIGCONT)

    pods.expect({"friend>web:8000": OPEN})


@pytest.mark.parametrize("damage", ["-F DC-POL-FORWARD", "-I FORWARD -j ACCEPT", "-D FORWARD -j DC-POL-FORWARD"])
def test_rules_that_somebody_changed_by_hand_return(pods: Stage, devcluster: Kube, damage: str) -> None:
    pods.apply(policy(_WEB))
    pods.expect({"friend>web:8000": REFUSED})
    processes = devcluster.status()["processes"]
    iptables = functools.partial(_run_in, processes["node-1"], "iptables")

    # Stopped, the agent cannot mend what nobody has seen broken yet.
    os.kill(processes["policies-1"], signal.SIGSTOP)
    try:
        iptables(*damage.split())
        assert pods.ask("friend>web:8000") == {"friend>web:8000": OPEN}
    finally:
        os.kill(processes["policies-1"], signal.SIGCONT)
    pods.expect({"friend>web:8000": REFUSED})

    if damage.startswith("-I"):
        iptables("-D", *damage.split()[1:])


def _shell(pods: Stage, name: str, script: str) -> str:
    return pods.namespace(name).do("exec", name, "--", "/bin/sh", "-c", script)


def _unanswered(pods: Stage, name: str) -> int:
    """Return how many bytes a pod has sent to port 9000 that nobody has acknowledged."""
    lines = _shell(pods, name, "busybox netstat -tn").splitlines()
    return sum(int(line.split()[2]) for line in lines if ":9000 " in line)


def _run_in(pid: int, *words: str) -> None:
    """Run a command in the network of a node, given by the process that holds it."""
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", "--", *words]
    subprocess.run(command, check=True, timeout=_STEP_SECONDS, capture_output=True)


def _read(url: str, *, host: str = "") -> str:
    """Return what a URL answers, or why it does not."""
    asked = Request(url, headers={"Host": host} if host else {})  # noqa: S310 - an address of the cluster
    try:
        with urlopen(asked, timeout=_STEP_SECONDS) as response:  # noqa: S310 - as above
            return str(response.read().decode())
    except OSError as error:  # of urllib as well
        return str(error)
