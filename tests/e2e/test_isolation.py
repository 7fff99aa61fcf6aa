"""What a pod in one store can reach of the rest: packets are sent, and refused by word where a fence stands.

Every refusal stands beside a pod for which the same address is open, so that no fence is believed because nobody was
at home.
"""

from __future__ import annotations

import json
import subprocess
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from demo.platform import kubectl_of
from demo.release import NAMESPACE
from tests.support.busybox import busybox_archive
from tests.support.cluster import Namespace, open_cluster, pod, run_devcluster
from tests.support.fences import OPEN, REFUSED, verdict
from tests.support.polling import poll

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from demo.order import Order
    from demo.platform import Platform
    from tests.support.cluster import Kube

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

_METADATA = "169.254.169.254"
_SECONDS = 10
_DATABASES = {"medusa": ("postgres", 5432), "woocommerce": ("mariadb", 3306)}
_COMPONENT = "app.kubernetes.io/component"


@pytest.fixture(scope="module")
def kube(platform: Platform) -> Kube:
    kube = open_cluster(platform.name)
    fences = kube.status()["network_policies"]
    if fences != "enforced":
        pytest.skip(f"network policies: {fences}")
    run_devcluster("load", str(busybox_archive()), "--name", platform.name)
    return kube


def _probe(kube: Kube, namespace: str, **labels: str) -> Namespace:
    """Run a pod to ask from in a namespace, as the strictest Pod Security wants it."""
    made = pod("probe", "exec sleep 3600")
    made["metadata"]["labels"] = {"app": "probe", **labels}
    made["spec"]["securityContext"] = {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    (container,) = made["spec"]["containers"]
    container["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    small = {"cpu": "50m", "memory": "32Mi"}
    container["resources"] = {"requests": small, "limits": small}
    inside = Namespace(kube, namespace)
    inside.apply(made)
    inside.wait("condition=Ready", "pod/probe")
    return inside


@pytest.fixture(scope="module")
def probes(kube: Kube, orders: dict[str, Order]) -> Iterator[dict[str, Namespace]]:
    """Give a pod in each store, with the label that opens most to it, and one where nothing is fenced."""
    unfenced = f"test-{uuid.uuid4().hex[:8]}"
    kube.do("create", "namespace", unfenced)
    Namespace(kube, unfenced).settled()
    made = {engine: _probe(kube, order.store["namespace"], **{_COMPONENT: "cron"}) for engine, order in orders.items()}
    yield made | {"unfenced": _probe(kube, unfenced)}
    for each in made.values():
        each.do("delete", "pod", "probe", "--wait=false")
    kube.do("delete", "namespace", unfenced, "--wait=false")


def _ask(source: Namespace, address: str, port: int) -> str:
    script = f"busybox nc -w {_SECONDS} {address} {port} < /dev/null 2>&1 > /dev/null && echo connected; true"
    said = source.do("exec", "probe", "--", "/bin/sh", "-c", script)
    return OPEN if "connected" in said.split() else verdict(said, wanted="")


def _expect(source: Namespace, targets: Mapping[str, tuple[str, int]], expected: str) -> None:
    def same() -> bool:
        seen = {what: _ask(source, *target) for what, target in targets.items()}
        assert seen == dict.fromkeys(targets, expected), seen
        return True

    poll(same, what=f"packets from {source.name} are {expected}", seconds=30)


def _database(kube: Kube, order: Order) -> dict[str, tuple[str, int]]:
    """Return a store's database as others could ask for it: by its Service and by its pod."""
    name, port = _DATABASES[order.store["engine"]]
    inside = Namespace(kube, order.store["namespace"])
    service = inside.json("get", "service", name)["spec"]["clusterIP"]
    (found,) = inside.json("get", "pods", f"--selector={_COMPONENT}={name}")["items"]
    return {f"{name} by its Service": (service, port), f"{name} by its pod": (found["status"]["podIP"], port)}


@pytest.mark.parametrize(("own", "other"), [("medusa", "woocommerce"), ("woocommerce", "medusa")])
def test_a_store_reaches_its_own_database_and_no_other(
    kube: Kube, orders: dict[str, Order], probes: dict[str, Namespace], own: str, other: str
) -> None:
    _expect(probes[own], _database(kube, orders[own]), OPEN)
    _expect(probes[other], _database(kube, orders[own]), REFUSED)
    _expect(probes["unfenced"], _database(kube, orders[own]), REFUSED)


def test_a_store_does_not_reach_another_ones_shop_but_by_the_ingress(
    kube: Kube, orders: dict[str, Order], probes: dict[str, Namespace]
) -> None:
    inside = Namespace(kube, orders["woocommerce"].store["namespace"])
    shop = {"its shop": (inside.json("get", "service", "woocommerce")["spec"]["clusterIP"], 8080)}
    _expect(probes["woocommerce"], shop, OPEN)
    _expect(probes["medusa"], shop, REFUSED)


def test_no_store_reaches_the_platform(kube: Kube, probes: dict[str, Namespace]) -> None:
    platform = Namespace(kube, NAMESPACE)
    database = platform.json("get", "service", "storeplane-postgres")["spec"]["clusterIP"]
    # Who may speak to the database does: the fence is not a server that is down.
    connect = f"import socket; socket.create_connection(('{database}', 5432), 10); print('connected')"
    assert "connected" in platform.do("exec", "deployment/storeplane", "--", "python3", "-c", connect)
    service = platform.json("get", "service", "storeplane")["spec"]
    api = {"the API": (service["clusterIP"], service["ports"][0]["port"])}
    _expect(probes["unfenced"], api, OPEN)
    for engine in _DATABASES:
        _expect(probes[engine], {"the database": (database, 5432)} | api, REFUSED)


def test_no_store_reaches_the_clusters_api_server(kube: Kube, probes: dict[str, Namespace]) -> None:
    service = kube.json("-n", "default", "get", "service", "kubernetes")["spec"]["clusterIP"]
    node = kube.status()["nodes"]["node-1"]
    api_server = {"by its Service": (service, 443), "by its address": (node, 6443), "its kubelet": (node, 10250)}
    _expect(probes["unfenced"], api_server, OPEN)
    for engine in _DATABASES:
        _expect(probes[engine], api_server, REFUSED)


@contextmanager
def _metadata_server(kube: Kube) -> Iterator[None]:
    """Serve the address of every cloud's metadata on the node, as a cloud's hypervisor would."""
    inside = ["nsenter", f"--net=/proc/{kube.status()['processes']['node-1']}/ns/net"]
    serve = f"import http.server as h; h.HTTPServer(('{_METADATA}', 80), h.SimpleHTTPRequestHandler).serve_forever()"
    subprocess.run([*inside, "ip", "addr", "add", f"{_METADATA}/32", "dev", "lo"], check=True, timeout=_SECONDS)
    server = subprocess.Popen([*inside, "python3", "-c", serve], cwd="/", stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        server.kill()
        server.wait(timeout=_SECONDS)
        subprocess.run([*inside, "ip", "addr", "del", f"{_METADATA}/32", "dev", "lo"], check=True, timeout=_SECONDS)


def test_no_store_reaches_the_metadata_of_a_cloud(kube: Kube, probes: dict[str, Namespace]) -> None:
    metadata = {"metadata": (_METADATA, 80)}
    with _metadata_server(kube):
        _expect(probes["unfenced"], metadata, OPEN)
        for engine in _DATABASES:
            _expect(probes[engine], metadata, REFUSED)


def test_no_pod_of_a_store_carries_a_token_of_the_cluster(platform: Platform, shop: Order) -> None:
    kubectl, namespace = kubectl_of(platform.name), shop.store["namespace"]
    found = json.loads(kubectl.do("get", "pods", f"--namespace={namespace}", "--output=json"))["items"]
    assert found
    for each in found:
        assert each["spec"]["automountServiceAccountToken"] is False, each["metadata"]["name"]
        assert not _token_volumes(each), each["metadata"]["name"]


def _token_volumes(each: dict[str, Any]) -> list[str]:
    sources = [(volume["name"], source) for volume in each["spec"].get("volumes") or () for source in volume]
    return [name for name, source in sources if source in {"projected", "secret"}]
