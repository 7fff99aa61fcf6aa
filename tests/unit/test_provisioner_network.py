"""The fences of a store, judged as the NetworkPolicy documentation says: what no policy allows is denied."""

from __future__ import annotations

import ipaddress
from typing import Any
from uuid import UUID

import pytest

from provisioner_job.network import address_of_api_server, network_policies

pytestmark = pytest.mark.unit

STORE = UUID("0198c2a0-0000-7000-8000-000000000002")
WANTED = {"ingress_namespace": "ingress-nginx", "dns_cidr": "10.96.0.10/32", "denied_cidrs": ["203.0.113.0/24"]}
SERVER = {"app.kubernetes.io/component": "server"}
DATABASE = {"app.kubernetes.io/component": "postgres"}


def made(**changes: Any) -> list[dict[str, Any]]:
    given = {"wanted": WANTED, "jobs_namespace": "storeplane-jobs", "api_server": "198.51.100.1"} | changes
    return network_policies("store-shop", STORE, given.pop("wanted"), **given)


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    fixed = selector.get("matchLabels", {}).items() <= labels.items()
    return fixed and all(labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", ()))


def _is_peer(peer: dict[str, Any], namespace: str, labels: dict[str, str], address: str) -> bool:
    if "ipBlock" in peer:
        block, place = peer["ipBlock"], ipaddress.ip_address(address)
        inside = place in ipaddress.ip_network(block["cidr"])
        return inside and not any(place in ipaddress.ip_network(each) for each in block.get("except", ()))
    names = {"kubernetes.io/metadata.name": namespace}
    if "namespaceSelector" in peer and not _selects(peer["namespaceSelector"], names):
        return False
    if "namespaceSelector" not in peer and namespace != "store-shop":
        return False
    return _selects(peer.get("podSelector", {}), labels)


def may(  # noqa: PLR0913 -- the packet, whole
    direction: str,
    pod: dict[str, str],
    *,
    namespace: str = "",
    labels: dict[str, str] | None = None,
    address: str = "10.0.0.9",
    port: tuple[str, int] = ("TCP", 9000),
    policies: list[dict[str, Any]] | None = None,
) -> bool:
    """Return whether some policy lets the packet pass."""
    key = {"Ingress": "from", "Egress": "to"}[direction]
    concerned = [
        policy["spec"]
        for policy in policies or made()
        if direction in policy["spec"]["policyTypes"] and _selects(policy["spec"]["podSelector"], pod)
    ]
    assert concerned, "no policy fences this pod"
    return any(
        any(_is_peer(peer, namespace, labels or {}, address) for peer in rule[key])
        and ("ports" not in rule or {"protocol": port[0], "port": port[1]} in rule["ports"])
        for spec in concerned
        for rule in spec.get(direction.lower(), ())
    )


def test_denial_comes_first_and_concerns_every_pod() -> None:
    first, *others = made()
    assert first["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert len({policy["metadata"]["name"] for policy in (first, *others)}) == 6
    assert all(policy["metadata"]["labels"]["storeplane.dev/store-id"] == str(STORE) for policy in (first, *others))


def test_pods_of_the_store_reach_each_other_and_nobody_elses_do() -> None:
    for direction in ("Ingress", "Egress"):
        assert may(direction, DATABASE, namespace="store-shop", labels=SERVER)
        assert not may(direction, DATABASE, namespace="store-other", labels=SERVER)
        assert not may(direction, SERVER, namespace="store-other", labels=SERVER)


@pytest.mark.parametrize(
    ("namespace", "labels", "reaches"),
    [
        ("ingress-nginx", {}, True),
        ("storeplane-jobs", {"app": "store-provisioner"}, True),
        ("storeplane-jobs", {"app": "other"}, False),
        ("storeplane", {}, False),
        ("default", {"app": "store-provisioner"}, False),
    ],
)
def test_only_ingress_and_provisioner_come_in_and_only_to_what_serves(
    namespace: str, labels: dict[str, str], *, reaches: bool
) -> None:
    assert may("Ingress", SERVER, namespace=namespace, labels=labels) is reaches
    assert not may("Ingress", DATABASE, namespace=namespace, labels=labels)


@pytest.mark.parametrize(
    ("address", "port", "reaches"),
    [
        ("93.184.216.34", ("TCP", 443), True),
        ("93.184.216.34", ("TCP", 587), True),
        ("2606:2800:220:1::1", ("TCP", 443), True),
        ("93.184.216.34", ("TCP", 80), False),
        ("93.184.216.34", ("UDP", 443), False),
        ("169.254.169.254", ("TCP", 443), False),
        ("10.96.0.1", ("TCP", 443), False),
        ("192.168.1.1", ("TCP", 443), False),
        ("172.31.0.1", ("TCP", 443), False),
        ("100.64.0.1", ("TCP", 443), False),
        ("198.51.100.1", ("TCP", 443), False),
        ("203.0.113.9", ("TCP", 443), False),
        ("fd00:ec2::254", ("TCP", 443), False),
        ("64:ff9b::10.0.0.1", ("TCP", 443), False),
        ("64:ff9b:1::10.0.0.1", ("TCP", 443), False),
        ("::10.0.0.1", ("TCP", 443), False),
        ("2001::1", ("TCP", 443), False),
        ("127.0.0.1", ("TCP", 443), False),
    ],
)
def test_what_serves_reaches_the_internet_alone(address: str, port: tuple[str, int], *, reaches: bool) -> None:
    assert may("Egress", SERVER, address=address, port=port) is reaches
    assert not may("Egress", DATABASE, address=address, port=port)


def test_names_are_asked_for_in_the_cluster_alone() -> None:
    for protocol in ("UDP", "TCP"):
        assert may("Egress", DATABASE, namespace="kube-system", port=(protocol, 53))
        assert may("Egress", DATABASE, address="10.96.0.10", port=(protocol, 53))
        assert not may("Egress", SERVER, address="8.8.8.8", port=(protocol, 53))
    assert not may("Egress", DATABASE, namespace="kube-system", port=("TCP", 443))


def test_ingress_on_the_network_of_nodes_comes_in_by_its_addresses() -> None:
    policies = made(wanted={"ingress_cidrs": ["10.1.0.0/24"]})
    assert may("Ingress", SERVER, address="10.1.0.7", namespace="none", policies=policies)
    assert not may("Ingress", SERVER, address="10.2.0.7", namespace="none", policies=policies)
    assert not may("Ingress", DATABASE, address="10.1.0.7", namespace="none", policies=policies)


def test_what_the_platform_does_not_name_is_closed() -> None:
    bare = made(wanted={}, jobs_namespace="", api_server="")
    assert not may("Ingress", SERVER, namespace="ingress-nginx", policies=bare)
    assert not may("Egress", SERVER, address="10.96.0.10", port=("UDP", 53), policies=bare)
    closed = made(wanted={"denied_cidrs": ["0.0.0.0/0", "::/0"]})
    assert not may("Egress", SERVER, address="93.184.216.34", port=("TCP", 443), policies=closed)


@pytest.mark.parametrize(("told", "found"), [("10.96.0.1", "10.96.0.1"), ("fd00::1", "fd00::1"), ("api.example", "")])
def test_address_of_the_api_server_is_one_or_nothing(told: str, found: str) -> None:
    assert address_of_api_server({"KUBERNETES_SERVICE_HOST": told}) == found
    assert not address_of_api_server({})
