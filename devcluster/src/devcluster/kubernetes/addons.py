"""The objects a fresh cluster gets: rights of our own programs, DNS service, default storage and ingress classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devcluster.kubernetes import policies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.kubernetes.network import Network

__all__ = ["addons", "rights"]

_READ = ["get", "list", "watch"]
_RIGHTS: dict[str, list[dict[str, list[str]]]] = {
    "devcluster:coredns": [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ],
    policies.USER: policies.RIGHTS,
    "devcluster:router": [
        {"apiGroups": [""], "resources": ["services"], "verbs": _READ},
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses"], "verbs": _READ},
    ],
    "devcluster:volumes": [
        {
            "apiGroups": [""],
            "resources": ["persistentvolumes"],
            "verbs": [*_READ, "create", "patch", "update", "delete"],
        },
        {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": [*_READ, "update"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": _READ},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch", "update"]},
        {"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses", "csinodes"], "verbs": _READ},
    ],
}


def addons(network: Network) -> Iterator[dict[str, Any]]:
    """Yield the objects, in the order they are to be applied."""
    for user, rules in _RIGHTS.items():
        yield from rights(user, rules)
    yield _object(
        "storage.k8s.io/v1",
        "StorageClass",
        "local",
        annotations={"storageclass.kubernetes.io/is-default-class": "true"},
        provisioner="storeplane.dev/local",
        reclaimPolicy="Delete",
        volumeBindingMode="WaitForFirstConsumer",
    )
    yield _object(
        "networking.k8s.io/v1",
        "IngressClass",
        "devcluster",
        annotations={"ingressclass.kubernetes.io/is-default-class": "true"},
        spec={"controller": "storeplane.dev/devcluster-router"},
    )
    yield from _dns(network)


def rights(user: str, rules: list[dict[str, list[str]]]) -> Iterator[dict[str, Any]]:
    """Yield a role with these rules and its binding to one of our own programs' users."""
    yield _object("rbac.authorization.k8s.io/v1", "ClusterRole", user, rules=rules)
    yield _binding(user, user)


def _dns(network: Network) -> Iterator[dict[str, Any]]:
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    service = _object("v1", "Service", "kube-dns", spec={"clusterIP": network.dns_address, "ports": ports})
    service["metadata"] |= {"namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}}
    yield service
    endpoints = _object(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        "kube-dns-devcluster",
        addressType="IPv4",
        ports=ports,
        endpoints=[{"addresses": [network.node_address(1)], "conditions": {"ready": True}}],
    )
    endpoints["metadata"] |= {"namespace": "kube-system", "labels": {"kubernetes.io/service-name": "kube-dns"}}
    yield endpoints


def _binding(user: str, role: str) -> dict[str, Any]:
    return _object(
        "rbac.authorization.k8s.io/v1",
        "ClusterRoleBinding",
        user,
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        subjects=[{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    )


def _object(
    version: str, kind: str, name: str, *, annotations: dict[str, str] | None = None, **rest: Any
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}
