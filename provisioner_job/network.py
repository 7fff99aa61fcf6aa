"""Who may speak to a store and whom it may speak to: NetworkPolicies of its namespace. Pure.

Everything is denied, then opened: names, the store's own pods among themselves, the ingress and the provisioner's own
request to what serves, and the open internet for web and mail. The last is the internet alone: no private range, no
metadata address, and none of what the platform denies besides, such as a public address of the cluster's API server.
A policy is judged by where a packet arrives, not by the Service it was sent to.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from provisioner_job.objects import labels

__all__ = ["address_of_api_server", "network_policies"]

_COMPONENT: Final = "app.kubernetes.io/component"
_SERVING: Final = ("server", "storefront")
"""Components, as the charts name them, that answer others than the store's own pods."""
_CALLING: Final = (*_SERVING, "cron")
"""Components that speak to payment providers, mail servers and the like."""
_ACME_SOLVER: Final = "acme.cert-manager.io/http01-solver"
"""Label of the pods by which cert-manager proves a host: they come into the namespace of the Ingress, for a moment."""
_NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"
_WEB_AND_MAIL: Final = (443, 587)
_NOT_THE_INTERNET: Final = {
    "0.0.0.0/0": (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        # Metadata of every cloud among them.
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "224.0.0.0/4",
        "240.0.0.0/4",
    ),
    # The second line are ways around to IPv4 addresses: NAT64, Teredo, 6to4. The mapped ones, ::ffff:0:0/96, never
    # leave a machine, and the API server takes them for IPv4.
    "::/0": (
        *("::/96", "fc00::/7", "fe80::/10", "ff00::/8"),
        *("64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16"),
    ),
}
_Rules = list[dict[str, Any]]


def network_policies(
    name: str, store_id: UUID, wanted: Mapping[str, Any], *, jobs_namespace: str, api_server: str
) -> list[dict[str, Any]]:
    """Return the policies of the store's namespace, the denial first.

    Parameters
    ----------
    wanted
        Of the operation's spec: `ingress_namespace`, whose pods may reach what serves; `ingress_cidrs`, which may as
        well, such as nodes on whose network an ingress runs; `dns_cidr`, where names are
        asked for beside kube-system; `denied_cidrs`, what is no part of the internet either. Each may be absent.
    jobs_namespace
        The provisioner's own, from which it asks the shop for its products; empty for none.
    api_server
        Address the provisioner has of the API server; empty when it has a name for it.
    """
    denied = list(wanted.get("denied_cidrs") or ())
    if api_server:
        denied.append(api_server + ("/128" if ":" in api_server else "/32"))
    dns: _Rules = [{"namespaceSelector": {"matchLabels": {_NAMESPACE_NAME: "kube-system"}}}]
    if wanted.get("dns_cidr"):
        dns.append({"ipBlock": {"cidr": wanted["dns_cidr"]}})
    callers: _Rules = [{"ipBlock": {"cidr": each}} for each in wanted.get("ingress_cidrs") or ()]
    if wanted.get("ingress_namespace"):
        callers.append({"namespaceSelector": {"matchLabels": {_NAMESPACE_NAME: wanted["ingress_namespace"]}}})
    if jobs_namespace:
        provisioner = {"matchLabels": {"app": "store-provisioner"}}
        callers.append(
            {
                "namespaceSelector": {"matchLabels": {_NAMESPACE_NAME: jobs_namespace}},
                "podSelector": provisioner,
            }
        )
    everything: dict[str, Any] = {}
    serving, calling = _of_components(_SERVING), _of_components(_CALLING)
    own: _Rules = [{"podSelector": {}}]
    solving = {"matchLabels": {_ACME_SOLVER: "true"}}
    specs = {
        "store-default-deny": _spec(everything, ingress=[], egress=[]),
        "store-inside": _spec(everything, ingress=[{"from": own}], egress=[{"to": own}]),
        "store-names": _spec(everything, egress=[{"to": dns, "ports": _ports(("UDP", 53), ("TCP", 53))}]),
        "store-serving": _spec(serving, ingress=[{"from": callers}] if callers else []),
        "store-certificates": _spec(solving, ingress=[{"from": callers}] if callers else []),
        "store-internet": _spec(calling, egress=_internet(denied)),
    }
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": policy, "namespace": name, "labels": labels(store_id)},
            "spec": spec,
        }
        for policy, spec in specs.items()
    ]


def _of_components(names: Sequence[str]) -> dict[str, Any]:
    return {"matchExpressions": [{"key": _COMPONENT, "operator": "In", "values": list(names)}]}


def address_of_api_server(environment: Mapping[str, str]) -> str:
    """Return the address that pods are told for the API server; empty when it is a name or none is told."""
    told = environment.get("KUBERNETES_SERVICE_HOST", "")
    return told if ":" in told or told.replace(".", "").isdigit() else ""


def _spec(pods: dict[str, Any], *, ingress: _Rules | None = None, egress: _Rules | None = None) -> dict[str, Any]:
    """Return a policy that speaks of the directions given; without a rule nothing may pass in that direction."""
    directions = {"Ingress": ingress, "Egress": egress}
    types = [direction for direction, rules in directions.items() if rules is not None]
    return {
        "podSelector": pods,
        "policyTypes": types,
        **{direction.lower(): rules for direction, rules in directions.items() if rules},
    }


def _internet(denied: Sequence[str]) -> _Rules:
    blocks = []
    for everywhere, without in _NOT_THE_INTERNET.items():
        more = [each for each in denied if (":" in each) == (":" in everywhere) and each not in without]
        # All of it denied leaves nothing to open, and an exception must be smaller than its range.
        if everywhere not in more:
            blocks.append({"ipBlock": {"cidr": everywhere, "except": [*without, *more]}})
    return [{"to": blocks, "ports": _ports(*(("TCP", port) for port in _WEB_AND_MAIL))}] if blocks else []


def _ports(*ports: tuple[str, int]) -> _Rules:
    return [{"protocol": protocol, "port": port} for protocol, port in ports]
