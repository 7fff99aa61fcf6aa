"""The programs that make a cluster one: etcd, API server, controller manager, scheduler, DNS, volumes, router.

All run in the first node's network; each has an identity of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from devcluster.kubernetes.pki import Authority, service_account_keys, write_kubeconfig
from devcluster.machine.paths import write_if_changed
from devcluster.machine.processes import ProcessSpec

if TYPE_CHECKING:
    from pathlib import Path

    from devcluster.kubernetes.network import Network
    from devcluster.kubernetes.pki import Pair
    from devcluster.kubernetes.tools import Tools
    from devcluster.machine.paths import ClusterPaths

__all__ = ["API_NODE_PORT", "API_PORT", "ROUTER_PORT", "ControlPlane"]

API_PORT = 6443
ROUTER_PORT = 8081
API_NODE_PORT = 30080
"""The NodePort kept for the product's API: what the forwarder's first port reaches."""
_DNS_LABELS = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")


@dataclass(frozen=True)
class ControlPlane:
    """Builds the commands of the control plane's processes; starts none."""

    paths: ClusterPaths
    network: Network
    tools: Tools
    controller_qps: int
    """The controller manager's requests a second; upstream's default is 20."""

    @property
    def address(self) -> str:
        """Where the API server listens: the first node."""
        return self.network.node_address(1)

    @property
    def server(self) -> str:
        """The API server's URL, from the host and from every node."""
        return f"https://{self.address}:{API_PORT}"

    @property
    def authority(self) -> Authority:
        """Signs every identity in the cluster."""
        return Authority(self.paths.pki, f"devcluster-{self.paths.name}")

    @property
    def etcd_authority(self) -> Authority:
        """Signs etcd and its one client; no certificate of the cluster opens etcd."""
        return Authority(self.paths.pki / "etcd", f"devcluster-{self.paths.name}-etcd")

    def create_authorities(self) -> None:
        """Make both authorities unless they exist."""
        self.authority.create()
        self.etcd_authority.create()

    def kubeconfig(self, name: str, *, user: str, group: str = "") -> Path:
        """Return a component's kubeconfig, with a client certificate of its own; made once."""
        file = self.paths.config / f"{name}.kubeconfig"
        if not file.exists():
            self.paths.config.mkdir(parents=True, exist_ok=True)
            client = self.authority.issue(name, common_name=user, organization=group)
            write_kubeconfig(file, cluster=self.paths.name, server=self.server, authority=self.authority, client=client)
        return file

    def administrator(self) -> Path:
        """Return the administrator's kubeconfig, for people and tests on the host."""
        if not self.paths.kubeconfig.exists():
            write_kubeconfig(
                self.paths.kubeconfig,
                cluster=f"devcluster-{self.paths.name}",
                server=self.server,
                authority=self.authority,
                client=self.administrator_pair(),
            )
        return self.paths.kubeconfig

    def administrator_pair(self) -> Pair:
        """Return the administrator's certificate and key."""
        return self.authority.issue(
            "administrator", common_name="devcluster:administrator", organization="system:masters"
        )

    def etcd(self, holder: int) -> ProcessSpec:
        """Return etcd, on the loopback of the node and with client certificates."""
        serving = self.etcd_authority.issue("server", common_name="etcd", hosts=["127.0.0.1", "localhost"])
        flags = {
            "name": "devcluster",
            "data-dir": self.paths.home / "etcd",
            "listen-client-urls": "https://127.0.0.1:2379",
            "advertise-client-urls": "https://127.0.0.1:2379",
            "listen-peer-urls": "http://127.0.0.1:2380",
            "initial-advertise-peer-urls": "http://127.0.0.1:2380",
            "initial-cluster": "devcluster=http://127.0.0.1:2380",
            "cert-file": serving.certificate,
            "key-file": serving.key,
            "client-cert-auth": "true",
            "trusted-ca-file": self.etcd_authority.pair.certificate,
            # A crash of the machine may lose the cluster; a crash of etcd may not.
            "unsafe-no-fsync": "true",
            "log-level": "warn",
        }
        return self._program("etcd", flags, holder)

    def api_server(self, holder: int) -> ProcessSpec:
        """Return the API server: Node and RBAC authorization, default admission plugins and NodeRestriction."""
        hosts = [self.address, "127.0.0.1", "localhost", self.network.api_service_address, *_DNS_LABELS]
        serving = self.authority.issue("kube-apiserver", common_name="kube-apiserver", hosts=hosts)
        kubelet_client = self.authority.issue(
            "kube-apiserver-kubelet", common_name="kube-apiserver-kubelet", organization="system:masters"
        )
        etcd_client = self.etcd_authority.issue("client", common_name="kube-apiserver")
        private, public = service_account_keys(self.paths.pki)
        flags = {
            "advertise-address": self.address,
            "secure-port": API_PORT,
            "allow-privileged": "true",
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "client-ca-file": self.authority.pair.certificate,
            "tls-cert-file": serving.certificate,
            "tls-private-key-file": serving.key,
            "etcd-servers": "https://127.0.0.1:2379",
            "etcd-cafile": self.etcd_authority.pair.certificate,
            "etcd-certfile": etcd_client.certificate,
            "etcd-keyfile": etcd_client.key,
            "kubelet-certificate-authority": self.authority.pair.certificate,
            "kubelet-client-certificate": kubelet_client.certificate,
            "kubelet-client-key": kubelet_client.key,
            "kubelet-preferred-address-types": "InternalIP",
            "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
            "service-account-signing-key-file": private,
            "service-account-key-file": public,
            "service-cluster-ip-range": self.network.service_cidr,
        }
        return self._program("kube-apiserver", flags, holder)

    def controller_manager(self, holder: int) -> ProcessSpec:
        """Return the controller manager; pod networks are ours to give, not its."""
        private, _ = service_account_keys(self.paths.pki)
        kubeconfig = self.kubeconfig("kube-controller-manager", user="system:kube-controller-manager")
        flags = {
            "kubeconfig": kubeconfig,
            "authentication-kubeconfig": kubeconfig,
            "authorization-kubeconfig": kubeconfig,
            "bind-address": "127.0.0.1",
            "leader-elect": "false",
            "use-service-account-credentials": "true",
            "allocate-node-cidrs": "false",
            "root-ca-file": self.authority.pair.certificate,
            "service-account-private-key-file": private,
            "kube-api-qps": self.controller_qps,
            "kube-api-burst": self.controller_qps * 3 // 2,  # upstream's own proportion: 20 and 30
        }
        return self._program("kube-controller-manager", flags, holder)

    def scheduler(self, holder: int) -> ProcessSpec:
        """Return the scheduler."""
        kubeconfig = self.kubeconfig("kube-scheduler", user="system:kube-scheduler")
        flags = {
            "kubeconfig": kubeconfig,
            "authentication-kubeconfig": kubeconfig,
            "authorization-kubeconfig": kubeconfig,
            "bind-address": "127.0.0.1",
            "leader-elect": "false",
        }
        return self._program("kube-scheduler", flags, holder)

    def dns(self, holder: int) -> ProcessSpec:
        """Return CoreDNS; names outside the cluster are answered with SERVFAIL at once, for there is no outside."""
        kubeconfig = self.kubeconfig("coredns", user="devcluster:coredns")
        corefile = self.paths.config / "Corefile"
        content = write_if_changed(
            corefile,
            f""".:53 {{
    bind {self.address}
    errors
    health {self.address}:8080
    ready {self.address}:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 5
    }}
    cache 5
}}
""",
        )
        argv = [str(self.tools.devkube), "coredns", "-conf", str(corefile)]
        return ProcessSpec("coredns", argv, configuration=content, netns_of=holder, mntns_of=holder)

    def volumes(self, holder: int) -> ProcessSpec:
        """Return the volume provisioner."""
        self.paths.volumes.mkdir(parents=True, exist_ok=True)
        kubeconfig = self.kubeconfig("volumes", user="devcluster:volumes")
        return self._program("volumes", {"kubeconfig": kubeconfig, "root": self.paths.volumes}, holder)

    def router(self, holder: int) -> ProcessSpec:
        """Return the development Ingress router."""
        kubeconfig = self.kubeconfig("router", user="devcluster:router")
        return self._program("router", {"kubeconfig": kubeconfig, "listen": f"{self.address}:{ROUTER_PORT}"}, holder)

    def forwarder(self, *, api_port: int, api_target: str, shops_port: int) -> ProcessSpec:
        """Return the forwarder, on the host's network: the product's API and the shops on loopback ports."""
        routes = [
            f"127.0.0.1:{api_port}={api_target or f'{self.address}:{API_NODE_PORT}'}",
            f"127.0.0.1:{shops_port}={self.address}:{ROUTER_PORT}",
        ]
        return ProcessSpec("forwarder", [str(self.tools.devkube), "forward", *routes])

    def _program(self, name: str, flags: dict[str, object], holder: int) -> ProcessSpec:
        argv = [str(self.tools.devkube), name, *(f"--{flag}={value}" for flag, value in flags.items())]
        return ProcessSpec(name, argv, netns_of=holder, mntns_of=holder)
