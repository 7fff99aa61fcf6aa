"""The processes of one cluster, and the order they start in.

Starting and healing are one path: each process is compared with what it should be and started if it is missing. Only
the holders of namespaces are special: what outlives its holder cannot be joined by what replaces it, so then the
whole node begins anew.
"""

from __future__ import annotations

import http
import http.client
import time
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster.images.archive import write_archive
from devcluster.kubernetes import fake_nodes, policies
from devcluster.kubernetes import network as net
from devcluster.kubernetes.addons import addons, rights
from devcluster.kubernetes.api import ApiServer
from devcluster.kubernetes.control_plane import ROUTER_PORT, ControlPlane
from devcluster.kubernetes.node import Node
from devcluster.machine import processes
from devcluster.machine.errors import DevclusterError
from devcluster.machine.firewall import shortcoming
from devcluster.machine.paths import cache_dir, write_if_changed
from devcluster.machine.ports import is_free
from devcluster.machine.processes import ProcessSpec
from devcluster.machine.progress import note, step
from devcluster.postgres import server as postgres

if TYPE_CHECKING:
    from collections.abc import Callable

    from devcluster.kubernetes.settings import Settings
    from devcluster.kubernetes.tools import Tools
    from devcluster.machine.cgroups import Cgroup
    from devcluster.machine.paths import ClusterPaths

__all__ = ["Startup"]

_READY_SECONDS = 90
_POLL_SECONDS = 0.05
_POSTGRES_PORT = 5432
"""Where pods find the development Postgres, at the host's end of the cable."""


class Startup:
    """One pass over a cluster's processes."""

    def __init__(
        self, paths: ClusterPaths, settings: Settings, network: net.Network, cgroup: Cgroup, tools: Tools
    ) -> None:
        self.paths = paths
        self.settings = settings
        self.cgroup = cgroup
        self.tools = tools
        self.network = network
        self._started: list[str] = []
        self.nodes = [Node(number, paths, self.network, tools) for number in range(1, settings.nodes + 1)]
        self.plane = ControlPlane(paths, self.network, tools, settings.controller_qps)

    @cached_property
    def api(self) -> ApiServer:
        """The API server, as the administrator."""
        return ApiServer(self.plane.server, self.plane.authority.pair.certificate, self.plane.administrator_pair())

    @cached_property
    def fenced(self) -> bool:
        """Whether this machine can enforce network policies; where not, that is said."""
        missing = shortcoming()
        if missing:
            note(f"cluster {self.paths.name}: network policies are NOT ENFORCED: {missing}")
        return not missing

    def holder(self, name: str) -> int:
        """Return the pid that holds a node's (or the fabric's) namespaces.

        Raises
        ------
        DevclusterError
            If it is not running.
        """
        pid = processes.running_pid(name, run=self.paths.run)
        if pid is None:
            raise DevclusterError(f"{name} is not running", remedy=f"run `devcluster up --name {self.paths.name}`")
        return pid

    def start(self) -> None:
        """Start what is missing, in order, and return when all of it is ready."""
        self.plane.create_authorities()
        self.plane.administrator()
        self._write_kubectl()
        with step(f"cluster {self.paths.name}: network and namespaces"):
            self._start_namespaces()
        with step(f"cluster {self.paths.name}: API server"):
            self._start_api_server()
        with step(f"cluster {self.paths.name}: controllers and nodes"):
            self._start_controllers()
            # Before the nodes: no pod starts before the policies agent has the right to look at it.
            for manifest in addons(self.network):
                self.api.apply(manifest)
            self._start_nodes()
            self.share_postgres()
            self._await_ready()
        if self.settings.fake_nodes:
            self._start_fake_nodes()

    def forward(self) -> None:
        """Lead the loopback ports of API and shops to where they are served.

        Raises
        ------
        DevclusterError
            If another program has one of the ports.
        """
        settings = self.settings
        if not processes.is_running("forwarder", run=self.paths.run):
            for port in (settings.api_port, settings.shops_port):
                if not is_free(port):
                    raise DevclusterError(
                        f"port {port} of 127.0.0.1 is taken by another program",
                        remedy=f"`ss -ltnp sport = :{port}` shows which; end it, then run the command again",
                    )
        forwarder = self.plane.forwarder(
            api_port=settings.api_port, api_target=settings.api_target, shops_port=settings.shops_port
        )
        self._ensure(forwarder, self.cgroup)

    def share_postgres(self) -> None:
        """Let pods reach the development Postgres of this cluster's name, if there is one."""
        if self.paths.name not in postgres.names():
            return
        listen = f"{self.network.host_address}:{_POSTGRES_PORT}"
        route = f"{listen}=127.0.0.1:{postgres.port(self.paths.name)}"
        self._ensure(ProcessSpec("forwarder-postgres", [str(self.tools.devkube), "forward", route]), self.cgroup)

    def _start_fake_nodes(self) -> None:
        binary = fake_nodes.kwok_binary()
        with step(f"cluster {self.paths.name}: {self.settings.fake_nodes} simulated nodes"):
            for manifest in rights(fake_nodes.USER, fake_nodes.RIGHTS):
                self.api.apply(manifest)
            kubeconfig = self.plane.kubeconfig("kwok", user=fake_nodes.USER)
            self._ensure(fake_nodes.kwok_process(binary, kubeconfig=kubeconfig, holder=self.holder("node-1")))
            for manifest in fake_nodes.node_manifests(self.settings.fake_nodes):
                self.api.apply(manifest)
            self._await(self._fake_nodes_ready, "every simulated node", "kwok")

    def _fake_nodes_ready(self) -> bool:
        listed = self.api.get("/api/v1/nodes?labelSelector=type%3Dkwok")["items"]
        ready = [
            node
            for node in listed
            if any(
                each["type"] == "Ready" and each["status"] == "True" for each in node["status"].get("conditions", [])
            )
        ]
        return len(ready) >= self.settings.fake_nodes

    def _write_kubectl(self) -> None:
        kubectl = self.paths.home / "bin/kubectl"
        script = f"""#!/bin/sh
export KUBECONFIG="${{KUBECONFIG:-{self.paths.kubeconfig}}}" KUBECACHEDIR="{self.paths.home}/kubectl"
exec {self.tools.devkube} kubectl "$@"
"""
        write_if_changed(kubectl, script)
        kubectl.chmod(0o755)

    def _start_namespaces(self) -> None:
        self.cgroup.create()
        self._hold(ProcessSpec("fabric", ["unshare", "--net", "--", str(self.tools.pause)]), self.cgroup)
        fabric, fabric_is = self.holder("fabric"), self._identity("fabric")
        if not net.on_host(self.network):  # somebody has removed the cable by hand
            self._undo("fabric-cable")
        if self._once("fabric-cable", fabric_is, partial(net.connect_fabric, self.network, fabric=fabric)):
            for node in self.nodes:  # plugged into a bridge that is no more
                self._undo(f"{node.name}-cable")
        for node in self.nodes:
            if not processes.is_running(node.name, run=self.paths.run):
                # What outlived the namespaces' holder cannot be joined by what replaces it: the node begins anew.
                node.cgroup.kill()
            node.cgroup.create()
            self._hold(node.holder(), node.cgroup)
            holder, node_is = self.holder(node.name), self._identity(node.name)
            plug = partial(net.connect_node, self.network, node.number, node=holder, fabric=fabric)
            self._once(f"{node.name}-cable", f"{node_is} {fabric_is}", plug)
            net.route_to_others(self.network, node.number, node=holder, nodes=len(self.nodes))
            hide = partial(net.hide_pods, self.network, node.number, node=holder)
            self._once(f"{node.name}-masquerade", node_is, hide)
            self._once(f"{node.name}-mounts", node_is, partial(node.prepare_mounts, holder))

    def _once(self, what: str, state: str, act: Callable[[], None]) -> bool:
        """Do something unless it was done, to its end, for these very holders; an interrupted run leaves no mark."""
        file = self.paths.run / f"{what}.done"
        if file.exists() and file.read_text() == state:
            return False
        self._undo(what)
        act()
        file.write_text(state)
        return True

    def _undo(self, what: str) -> None:
        (self.paths.run / f"{what}.done").unlink(missing_ok=True)

    def _identity(self, name: str) -> str:
        return processes.identity(name, run=self.paths.run) or ""

    def _hold(self, spec: ProcessSpec, cgroup: Cgroup) -> None:
        self._ensure(spec, cgroup)
        self._await(partial(self._holds_namespace, spec.name), f"{spec.name}'s namespaces", spec.name)

    def _holds_namespace(self, name: str) -> bool:
        """Return whether a holder has left the host's network: it is still ``unshare`` for a moment."""
        pid = self.holder(name)
        return (
            Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
            and Path(f"/proc/{pid}/exe").resolve() == self.tools.pause.resolve()
        )

    def _start_api_server(self) -> None:
        first = self.holder(self.nodes[0].name)
        started = self._ensure(self.plane.etcd(first))
        # An API server whose store was replaced under it would serve from stale watches: it begins anew too.
        if started:
            processes.stop("kube-apiserver", run=self.paths.run)
        self._ensure(self.plane.api_server(first))
        for node in self.nodes:
            self._ensure(node.containerd(self.holder(node.name), fenced=self.fenced), node.cgroup)
        self._await(self.api.is_ready, "the API server", "kube-apiserver", "etcd")

    def _start_controllers(self) -> None:
        first = self.holder(self.nodes[0].name)
        self._ensure(self.plane.controller_manager(first))
        self._ensure(self.plane.scheduler(first))
        self._ensure(self.plane.dns(first))
        self._ensure(self.plane.volumes(first))
        self._ensure(self.plane.router(first))
        self.forward()

    def _start_nodes(self) -> None:
        for node in self.nodes:
            holder = self.holder(node.name)
            if not processes.is_running(f"kubelet-{node.number}", run=self.paths.run):
                self._prepare_containerd(node, holder)
            if self.fenced:
                watcher = self.plane.kubeconfig(f"policies-{node.number}", user=policies.USER)
                self._ensure(node.policies(holder, kubeconfig=watcher), node.cgroup)
            serving = self.plane.authority.issue(
                f"kubelet-{node.number}-serving",
                common_name=f"system:node:{node.name}",
                hosts=[node.name, node.address],
            )
            kubeconfig = self.plane.kubeconfig(
                f"kubelet-{node.number}", user=f"system:node:{node.name}", group="system:nodes"
            )
            kubelet = node.kubelet(holder, authority=self.plane.authority, serving=serving, kubeconfig=kubeconfig)
            self._ensure(kubelet, node.cgroup)
            proxy = self.plane.kubeconfig(f"kube-proxy-{node.number}", user="system:kube-proxy")
            self._ensure(node.proxy(holder, kubeconfig=proxy), node.cgroup)

    def _prepare_containerd(self, node: Node, holder: int) -> None:
        """Wait for containerd and give it the pause image; a new cluster forgets an earlier one's containers."""
        self._await(lambda: self._answers(node, holder), "containerd", f"containerd-{node.number}")
        archive = cache_dir("images") / f"{self.tools.pause.name}.tar"
        if not archive.exists():
            write_archive(
                archive, reference="storeplane.local/pause:1", files={"pause": self.tools.pause}, entrypoint=["/pause"]
            )
        node.run(holder, node.ctr("images", "import", str(archive)))
        born = node.home / "containers-are-ours"
        if not born.exists():
            for container in node.run(holder, node.ctr("containers", "ls", "-q")).split():
                node.run(holder, node.ctr("containers", "rm", container))
            born.touch()

    @staticmethod
    def _answers(node: Node, holder: int) -> bool:
        try:
            node.run(holder, node.ctr("version"))
        except DevclusterError:
            return False
        return True

    def _await_ready(self) -> None:
        for node in self.nodes:
            self._await(partial(self._is_ready, node), node.name, f"kubelet-{node.number}")
            if self.fenced:
                agrees = partial(_answers_http, node.address, policies.HEALTH_PORT, "/ready")
                self._await(agrees, f"{node.name}'s network policies", f"policies-{node.number}")
        # Made by a controller a moment after the namespace; until then every pod is refused.
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self._await(
            lambda: self.api.request("GET", account)[0] == http.HTTPStatus.OK,
            "the default service account",
            "kube-controller-manager",
        )
        address = self.nodes[0].address
        self._await(lambda: _answers_http(address, 8181, "/ready"), "DNS", "coredns")
        self._await(lambda: _answers_http(address, ROUTER_PORT, "/"), "the router", "router")
        # Only what this pass is answerable for: guests that others run beside it are theirs to start again.
        dead = [name for name in self._started if not processes.is_running(name, run=self.paths.run)]
        if dead:
            raise DevclusterError(
                f"{dead[0]} ended",
                log=self.paths.logs / f"{dead[0]}.log",
                remedy=f"mend what the log names, then run `devcluster up --name {self.paths.name}`",
            )

    def _is_ready(self, node: Node) -> bool:
        # kubelet itself first: the API server remembers "Ready" of a dead kubelet for 40 s.
        if not _answers_http(node.address, 10248, "/healthz"):
            return False
        status, body = self.api.request("GET", f"/api/v1/nodes/{node.name}")
        return status == http.HTTPStatus.OK and b'"type":"Ready","status":"True"' in body.replace(b" ", b"")

    def _ensure(self, spec: ProcessSpec, cgroup: Cgroup | None = None) -> bool:
        """Start a process unless it runs; what has no node of its own belongs to the first, whose network it uses."""
        self._started.append(spec.name)
        return processes.ensure(spec, run=self.paths.run, logs=self.paths.logs, cgroup=cgroup or self.nodes[0].cgroup)

    def _await(self, is_ready: Callable[[], bool], what: str, *names: str) -> None:
        """Poll until ready; the end of a named process, or too long a wait, shows that process's log."""
        deadline = time.monotonic() + _READY_SECONDS
        while not is_ready():
            for name in names:
                if not processes.is_running(name, run=self.paths.run):
                    raise DevclusterError(
                        f"{name} ended before {what} was ready",
                        log=self.paths.logs / f"{name}.log",
                        remedy=f"mend what the log names, then run `devcluster up --name {self.paths.name}`",
                    )
            if time.monotonic() > deadline:
                raise DevclusterError(
                    f"{what} is not ready after {_READY_SECONDS} s",
                    log=self.paths.logs / f"{names[0]}.log",
                    remedy=f"mend what the log names, then run `devcluster up --name {self.paths.name}`",
                )
            time.sleep(_POLL_SECONDS)


def _answers_http(host: str, port: int, path: str) -> bool:
    """Return whether an HTTP server answers with anything but a server error."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status < http.HTTPStatus.INTERNAL_SERVER_ERROR
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
