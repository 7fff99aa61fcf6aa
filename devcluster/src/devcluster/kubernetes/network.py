"""The cluster's network: addresses, cables, and why no packet leaves the machine.

Every node is a network namespace. A further namespace, the fabric, holds a bridge that the nodes and one cable to
the host are plugged into::

    host 10.99.I.1 ── dcI ═ uplink ┐
    node-1 10.99.I.2 ─ eth0 ═ node1 ┼ br0 10.99.I.254, "unreachable default"   (fabric)
    node-2 10.99.I.3 ─ eth0 ═ node2 ┘

The nodes' default route is the fabric, which answers everything else with "unreachable" at once. The host forwards
nothing, keeps its own routes and rules, and gains one interface. I is the cluster's index on this machine, so that
clusters live side by side. Namespaces live by the process that holds them and by nothing on disk: no file below
/run/netns, no mount.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from devcluster.machine.errors import DevclusterError
from devcluster.machine.paths import state_root

__all__ = [
    "Network",
    "allocate_index",
    "connect_fabric",
    "connect_node",
    "disconnect",
    "hide_pods",
    "on_host",
    "route_to_others",
]

_COMMAND_SECONDS = 20
_CLUSTERS = 60
"""Pod networks are 10.100-159.0.0/16, service networks 10.160-219.0.0/16: room for sixty side by side."""


@dataclass(frozen=True)
class Network:
    """The addresses of one cluster, all from its index (0 to 59)."""

    index: int

    @property
    def interface(self) -> str:
        """The one interface on the host."""
        return f"dc{self.index}"

    @property
    def host_address(self) -> str:
        """Where pods find servers that run on the host."""
        return f"10.99.{self.index}.1"

    @property
    def gateway_address(self) -> str:
        """The fabric, where every packet to elsewhere ends."""
        return f"10.99.{self.index}.254"

    def node_address(self, number: int) -> str:
        """Return a node's address; nodes count from 1, node 1 holds the control plane."""
        return f"10.99.{self.index}.{number + 1}"

    def pod_cidr(self, number: int) -> str:
        """Return the addresses of a node's pods."""
        return f"10.{100 + self.index}.{number}.0/24"

    @property
    def cluster_cidr(self) -> str:
        """The addresses of all pods."""
        return f"10.{100 + self.index}.0.0/16"

    @property
    def service_cidr(self) -> str:
        """The addresses of services."""
        return f"10.{160 + self.index}.0.0/16"

    @property
    def api_service_address(self) -> str:
        """The service ``kubernetes.default``, always the first of the range."""
        return f"10.{160 + self.index}.0.1"

    @property
    def dns_address(self) -> str:
        """The service ``kube-dns``, by custom the tenth of the range."""
        return f"10.{160 + self.index}.0.10"


def _hardware_address(address: str) -> str:
    """Return the hardware address that always goes with an address: neighbours' caches survive a new cable."""
    return "02:00:" + ":".join(f"{int(part):02x}" for part in address.split("."))


def allocate_index() -> int:
    """Return the smallest index that no cluster of this machine uses; the caller holds the machine's lock.

    Raises
    ------
    DevclusterError
        If all are taken.
    """
    taken = {file.read_text().strip() for file in state_root().glob("*/index")}
    for index in range(_CLUSTERS):
        # An interface of that name without a record belongs to a cluster with another DEVCLUSTER_HOME.
        if str(index) not in taken and not on_host(Network(index)):
            return index
    raise DevclusterError(f"all {_CLUSTERS} cluster networks are in use", remedy="devcluster down --name NAME")


def connect_fabric(network: Network, *, fabric: int) -> None:
    """Make the bridge and the cable to the host, in place of whatever an interrupted run has made of them.

    Parameters
    ----------
    fabric
        The pid that holds the fabric's namespace.
    """
    disconnect(network)
    _remove("br0", pid=fabric)
    hardware = _hardware_address(network.host_address)
    cable = ["type", "veth", "peer", "name", "uplink", "netns", str(fabric)]
    _ip("link", "add", network.interface, "address", hardware, *cable)
    _batch(
        f"""
        link set lo up
        link add br0 address {_hardware_address(network.gateway_address)} type bridge
        addr add {network.gateway_address}/24 dev br0
        link set br0 up
        link set uplink master br0
        link set uplink up
        route replace unreachable default
        """,
        pid=fabric,
    )
    _set("net/ipv4/ip_forward", "1", pid=fabric)  # not to forward, but to answer "unreachable" to what it would
    _ip("addr", "add", f"{network.host_address}/24", "dev", network.interface)
    _ip("link", "set", network.interface, "up")


def connect_node(network: Network, number: int, *, node: int, fabric: int) -> None:
    """Plug a node into the fabric, in place of whatever cable it has; its routes to other nodes come after.

    Parameters
    ----------
    node, fabric
        The pids that hold the two namespaces.
    """
    # Both ends by name: the kernel buries a dead namespace, and the far end of its cable, in its own time.
    _remove("eth0", pid=node)
    _remove(f"node{number}", pid=fabric)
    hardware = _hardware_address(network.node_address(number))
    _batch(f"link add node{number} type veth peer name eth0 address {hardware} netns {node}", pid=fabric)
    _batch(f"link set node{number} master br0\nlink set node{number} up", pid=fabric)
    _batch(
        f"""
        link set lo up
        addr add {network.node_address(number)}/24 dev eth0
        link set eth0 up
        route add default via {network.gateway_address}
        """,
        pid=node,
    )
    for setting in ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"):
        _set(setting, "1", pid=node)
    _set("net/ipv4/icmp_ratelimit", "0", pid=node)  # every refusal by a policy is told, not one a second


def hide_pods(network: Network, number: int, *, node: int) -> None:
    """Have a node's pods use the node's address towards the host, which has no route to theirs.

    Among themselves, on whatever node, they keep their own: by it a network policy knows them. Once in the life of
    the node's network namespace.
    """
    rules = f"""
        *nat
        -A POSTROUTING -s {network.pod_cidr(number)} ! -d {network.cluster_cidr} -j MASQUERADE
        COMMIT
        """
    lines = "".join(f"{line.strip()}\n" for line in rules.strip().splitlines())
    _run(["nsenter", f"--net=/proc/{node}/ns/net", "--", "iptables-restore", "--noflush"], lines)


def route_to_others(network: Network, number: int, *, node: int, nodes: int) -> None:
    """Give a node its routes to the pods of the cluster's other nodes."""
    for other in range(1, nodes + 1):
        if other != number:
            _batch(f"route replace {network.pod_cidr(other)} via {network.node_address(other)}", pid=node)


def disconnect(network: Network) -> None:
    """Remove the host's end of the cable, and the cable with it; absent is fine."""
    if not on_host(network):
        return
    try:
        _ip("link", "delete", network.interface)
    except DevclusterError:
        # The kernel buries a dead fabric, and this end with it, in its own time: perhaps just now.
        if on_host(network):
            raise


def on_host(network: Network) -> bool:
    """Return whether the host's end of the cable is there."""
    return Path(f"/sys/class/net/{network.interface}").exists()


def _remove(interface: str, *, pid: int) -> None:
    """Remove a cable by one of its ends; absent is fine, and so is one that the kernel buries at this very moment."""
    if not _has(interface, pid):
        return
    try:
        _batch(f"link delete {interface}", pid=pid)
    except DevclusterError:
        if _has(interface, pid):
            raise


def _has(interface: str, pid: int) -> bool:
    listed = _run(["nsenter", f"--net=/proc/{pid}/ns/net", "--", "ip", "-json", "link"])
    return any(link["ifname"] == interface for link in json.loads(listed))


def _ip(*words: str) -> None:
    _run(["ip", *words])


def _batch(commands: str, *, pid: int) -> None:
    lines = "\n".join(line.strip() for line in commands.strip().splitlines())
    _run(["nsenter", f"--net=/proc/{pid}/ns/net", "--", "ip", "-batch", "-"], lines)


def _set(setting: str, value: str, *, pid: int) -> None:
    _run(["nsenter", f"--net=/proc/{pid}/ns/net", "--", "tee", f"/proc/sys/{setting}"], value)


def _run(command: list[str], text: str = "") -> str:
    finished = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
    )
    if finished.returncode != 0:
        raise DevclusterError(
            f"`{' '.join(command)}` failed: {finished.stderr.strip()}",
            remedy="run `devcluster doctor`, then `up` again",
        )
    return finished.stdout
