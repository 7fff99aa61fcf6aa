"""What a NetworkPolicy allows passes and nothing else does: packets, sent by real pods.

Every case first sends its packets without a policy, when all of them pass: what is refused afterwards is refused by
the policy. That is also the proof that a removed policy opens again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.fences import OPEN, REFUSED, policy, stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cluster import Kube
    from tests.support.fences import Stage

pytestmark = pytest.mark.cluster

_WEB = {"matchLabels": {"app": "web"}}
_FRIEND = {"matchLabels": {"app": "friend"}}
_THERE = {"matchLabels": {"side": "there"}}
_PODS_FRIEND: dict[str, Any] = {"podSelector": _FRIEND}
_KUBE_SYSTEM = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
_NAMES = [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]
_API_PORT = {"protocol": "TCP", "port": 6443}
_TCP_8000 = {"protocol": "TCP", "port": 8000}


@pytest.fixture(scope="module")
def pods(cluster: Kube) -> Iterator[Stage]:
    """Give the stage, once for all cases."""
    with stage(cluster) as ready:
        yield ready


@dataclass(frozen=True)
class _Case:
    """Policies in the namespace of ``web`` and ``friend``, and what becomes of packets."""

    name: str
    policies: list[dict[str, Any]]
    opens: str
    refuses: str


_CASES = [
    _Case(
        "a policy without rules refuses all that comes in, and nothing that goes out",
        [policy(policyTypes=["Ingress"])],
        opens="web>stranger:8000 friend>loner:8000",
        refuses="friend>web:8000 stranger>web:8000 loner>friend:8000 friend>web:udp friend>web:ping",
    ),
    _Case(
        "a policy without rules for egress refuses all that goes out; replies to who asked pass",
        [policy(policyTypes=["Egress"])],
        opens="stranger>web:8000 loner>friend:8000",
        refuses="web>stranger:8000 friend>web:8000 web>loner:udp web>loner:ping",
    ),
    _Case(
        "a policy is for the pods that it selects",
        [policy(_WEB, policyTypes=["Ingress", "Egress"])],
        opens="stranger>friend:8000 friend>stranger:8000",
        refuses="stranger>web:8000 web>stranger:8000 friend>web:8000",
    ),
    _Case(
        "types default to ingress where there is no egress rule",
        [policy(_WEB)],
        opens="web>friend:8000 web>stranger:8000",
        refuses="friend>web:8000",
    ),
    _Case(
        "types default to both where there is an egress rule",
        [policy(_WEB, egress=[{"to": [_PODS_FRIEND]}])],
        opens="web>friend:8000",
        refuses="friend>web:8000 web>stranger:8000",
    ),
    _Case(
        "a pod selector means the policy's own namespace",
        [policy(_WEB, ingress=[{"from": [_PODS_FRIEND]}])],
        opens="friend>web:8000",
        refuses="stranger>web:8000 loner>web:8000",
    ),
    _Case(
        "an empty pod selector means every pod of the policy's own namespace",
        [policy(_WEB, ingress=[{"from": [{"podSelector": {}}]}])],
        opens="friend>web:8000",
        refuses="stranger>web:8000 loner>web:8000",
    ),
    _Case(
        "a namespace selector means every pod of those namespaces",
        [policy(_WEB, ingress=[{"from": [{"namespaceSelector": _THERE}]}])],
        opens="stranger>web:8000 loner>web:8000",
        refuses="friend>web:8000",
    ),
    _Case(
        "an empty namespace selector means every pod of the cluster, with no word on egress",
        [policy(ingress=[{"from": [{"namespaceSelector": {}}]}], policyTypes=["Ingress", "Egress"])],
        opens="stranger>web:8000 loner>friend:8000",
        refuses="friend>web:8000 web>stranger:8000",
    ),
    _Case(
        "both selectors in one peer mean pods that both select",
        [policy(_WEB, ingress=[{"from": [{"namespaceSelector": _THERE, "podSelector": _FRIEND}]}])],
        opens="stranger>web:8000",
        refuses="friend>web:8000 loner>web:8000",
    ),
    _Case(
        "several peers of one rule are a union",
        [policy(_WEB, ingress=[{"from": [{"podSelector": _FRIEND}, {"ipBlock": {"cidr": "@loner"}}]}])],
        opens="friend>web:8000 loner>web:8000",
        refuses="stranger>web:8000",
    ),
    _Case(
        "several rules are a union, each with its own ports",
        [
            policy(
                _WEB,
                ingress=[
                    {"from": [_PODS_FRIEND], "ports": [_TCP_8000]},
                    {"from": [{"namespaceSelector": _THERE}], "ports": [{"port": 8001}]},
                ],
            )
        ],
        opens="friend>web:8000 stranger>web:8001",
        refuses="friend>web:8001 stranger>web:8000",
    ),
    _Case(
        "several policies are a union",
        [policy(), policy(_WEB, ingress=[{"from": [_PODS_FRIEND]}]), policy(ingress=[{"ports": [{"port": 8002}]}])],
        opens="friend>web:8000 stranger>web:8002 stranger>friend:8002",
        refuses="stranger>web:8000 stranger>friend:8000",
    ),
    _Case(
        "a rule without peers means everybody",
        [policy(_WEB, ingress=[{"ports": [_TCP_8000]}])],
        opens="friend>web:8000 stranger>web:8000",
        refuses="friend>web:8001 stranger>web:8001",
    ),
    _Case(
        "an empty rule allows everything, whatever another policy says",
        [policy(policyTypes=["Ingress", "Egress"]), policy(_WEB, ingress=[{}])],
        opens="stranger>web:8000 loner>web:udp loner>web:ping",
        refuses="loner>friend:8000 web>loner:8000",
    ),
    _Case(
        "a range of ports ends with endPort",
        [policy(_WEB, ingress=[{"ports": [{"port": 8000, "endPort": 8001}]}])],
        opens="friend>web:8000 friend>web:8001",
        refuses="friend>web:8002",
    ),
    _Case(
        "a port by name is the one that the selected pod gives it",
        [policy(ingress=[{"ports": [{"port": "shop"}]}])],
        opens="stranger>web:8000 stranger>friend:8001",
        refuses="stranger>web:8001 stranger>friend:8000",
    ),
    _Case(
        "a port by name is, for egress, the one that the asked pod gives it",
        [policy(_WEB, policyTypes=["Egress"], egress=[{"ports": [{"port": "shop"}]}])],
        opens="web>friend:8001 web>stranger:8002",
        refuses="web>friend:8000 web>stranger:8000 web>loner:8000",
    ),
    _Case(
        "a name that no container has means no port",
        [policy(_WEB, ingress=[{"ports": [{"port": "nobody"}]}])],
        opens="stranger>friend:8000",
        refuses="friend>web:8000",
    ),
    _Case(
        "UDP is not TCP",
        [policy(_WEB, ingress=[{"ports": [{"protocol": "UDP", "port": 53}]}])],
        opens="friend>web:udp",
        refuses="friend>web:8000 friend>web:ping",
    ),
    _Case(
        "a protocol without a port means all its ports",
        [policy(_WEB, ingress=[{"ports": [{"protocol": "TCP"}]}])],
        opens="friend>web:8000 friend>web:8002",
        refuses="friend>web:udp friend>web:ping",
    ),
    _Case(
        "a block of addresses, here of one",
        [policy(_WEB, ingress=[{"from": [{"ipBlock": {"cidr": "@stranger"}}]}])],
        opens="stranger>web:8000",
        refuses="friend>web:8000 loner>web:8000",
    ),
    _Case(
        "a block of all addresses but some",
        [policy(_WEB, ingress=[{"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["@stranger"]}}]}])],
        opens="friend>web:8000 loner>web:8000",
        refuses="stranger>web:8000",
    ),
    _Case(
        "an exception of one block is open by another",
        [
            policy(
                _WEB,
                policyTypes=["Egress"],
                egress=[
                    {"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["@stranger", "@loner"]}}]},
                    {"to": [{"ipBlock": {"cidr": "@loner"}}]},
                ],
            )
        ],
        opens="web>friend:8000 web>loner:8000",
        refuses="web>stranger:8000",
    ),
    _Case(
        "expressions: In, NotIn, Exists and DoesNotExist",
        [
            policy(
                {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "other"]}]},
                ingress=[
                    {"from": [{"podSelector": {"matchExpressions": [{"key": "absent", "operator": "Exists"}]}}]},
                    {
                        "from": [
                            {
                                "namespaceSelector": {
                                    "matchExpressions": [{"key": "none", "operator": "DoesNotExist"}]
                                },
                                "podSelector": {
                                    "matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["loner"]}]
                                },
                            }
                        ],
                        "ports": [_TCP_8000],
                    },
                ],
            )
        ],
        opens="stranger>web:8000 friend>web:8000 loner>friend:8000",
        refuses="loner>web:8000 friend>web:8001",
    ),
    _Case(
        "between two isolated pods both must agree",
        [
            policy(policyTypes=["Ingress", "Egress"]),
            policy(_WEB, policyTypes=["Egress"], egress=[{"to": [{"podSelector": {}}], "ports": [_TCP_8000]}]),
            policy(_FRIEND, ingress=[{"from": [{"podSelector": _WEB}]}]),
        ],
        opens="web>friend:8000",
        refuses="web>friend:8001 friend>web:8000 web>stranger:8000",
    ),
    _Case(
        "a Service's packet is judged by the pod that gets it",
        [policy(_WEB, policyTypes=["Egress"], egress=[{"to": [_PODS_FRIEND], "ports": [_TCP_8000]}])],
        opens="web>friend-service:8000 web>friend:8000",
        refuses="web>friend-service:8001",
    ),
    _Case(
        "a Service's own address opens nothing",
        [policy(_WEB, policyTypes=["Egress"], egress=[{"to": [{"ipBlock": {"cidr": "@friend-service"}}]}])],
        opens="friend>stranger:8000",
        refuses="web>friend-service:8000 web>friend:8000",
    ),
    _Case(
        "a pod reaches itself, also through its Service",
        [policy(policyTypes=["Ingress", "Egress"])],
        opens="web>web-service:8000 web>web:8000",
        refuses="friend>web-service:8000",
    ),
    _Case(
        "the node is judged as anything else: the API server is open, the kubelet beside it is not",
        [policy(_WEB, policyTypes=["Egress"], egress=[{"to": [{"ipBlock": {"cidr": "@node"}}], "ports": [_API_PORT]}])],
        opens="web>node:6443 web>api:443",
        refuses="web>node:10250 web>dns:name web>host:served web>friend:8000",
    ),
    _Case(
        "the host is judged as anything else",
        [policy(_WEB, policyTypes=["Egress"], egress=[{"to": [{"ipBlock": {"cidr": "@host"}}]}])],
        opens="web>host:served",
        refuses="web>node:6443 web>friend:8000",
    ),
    _Case(
        "names are answered by the node",
        [policy(_WEB, policyTypes=["Egress"], egress=[{"to": [{"ipBlock": {"cidr": "@node"}}], "ports": _NAMES}])],
        opens="web>dns:name web>node:name",
        refuses="web>node:6443 web>friend:8000",
    ),
    _Case(
        "names are answered by no pod of kube-system, and the address of their Service opens nothing",
        [
            policy(
                _WEB,
                policyTypes=["Egress"],
                egress=[{"to": [{"namespaceSelector": _KUBE_SYSTEM}, {"ipBlock": {"cidr": "@dns"}}], "ports": _NAMES}],
            )
        ],
        opens="friend>dns:name",
        refuses="web>dns:name",
    ),
]


@pytest.mark.parametrize("case", _CASES, ids=lambda case: case.name)
def test_packets_pass_as_the_policies_say(pods: Stage, case: _Case) -> None:
    opens, refuses = case.opens.split(), case.refuses.split()
    pods.clear()
    pods.expect(dict.fromkeys([*opens, *refuses], OPEN))
    pods.apply(*case.policies)
    pods.expect(dict.fromkeys(opens, OPEN) | dict.fromkeys(refuses, REFUSED))
