"""One node: the process that holds its namespaces, its containerd and its kubelet.

A node has a network and a mount namespace. In the latter /run and /var/log are its own and kubelet's and the CNI's
folders are bound to the cluster's; every mount that a pod causes exists there only, and goes with it.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devcluster.kubernetes import policies
from devcluster.machine.cgroups import Cgroup
from devcluster.machine.errors import DevclusterError
from devcluster.machine.paths import cache_dir, write_if_changed
from devcluster.machine.processes import ProcessSpec

if TYPE_CHECKING:
    from pathlib import Path

    from devcluster.kubernetes.network import Network
    from devcluster.kubernetes.pki import Authority, Pair
    from devcluster.kubernetes.tools import Tools
    from devcluster.machine.paths import ClusterPaths

__all__ = ["MOUNT_POINTS", "Node"]

MOUNT_POINTS = ("/var/lib/kubelet", "/var/lib/cni")
"""Folders of the host that a node binds its own over, because kubelet and the CNI know no other place."""
_COMMAND_SECONDS = 30
_PAUSE_IMAGE = "storeplane.local/pause:1"


@dataclass(frozen=True)
class Node:
    """One node of one cluster; nodes count from 1."""

    number: int
    paths: ClusterPaths
    network: Network
    tools: Tools

    @property
    def name(self) -> str:
        """The node's name in the cluster, and its host name."""
        return f"node-{self.number}"

    @property
    def home(self) -> Path:
        """The node's folder."""
        return self.paths.node(self.number)

    @property
    def cgroup(self) -> Cgroup:
        """Everything the node runs: killing it is losing the node."""
        return Cgroup(self.paths.name, self.name)

    @property
    def address(self) -> str:
        """The node's address."""
        return self.network.node_address(self.number)

    @property
    def containerd_root(self) -> Path:
        """Images and snapshots: a cache, which outlives ``down`` so that a new cluster need not import them again."""
        return cache_dir("containerd", f"{self.paths.name}-{self.number}")

    def holder(self) -> ProcessSpec:
        """Return the process whose life is the life of the node's namespaces."""
        entry = ["unshare", "--net", "--mount", "--propagation", "private", "--"]
        return ProcessSpec(self.name, [*entry, str(self.tools.pause)])

    def prepare_mounts(self, holder: int) -> None:
        """Lay out the node's mount namespace; done once in a holder's life.

        The last mount makes everything shared, which kubelet needs to hand volumes into running containers. It is
        shared among the node's own namespaces only, because the namespace was made private first.
        """
        commands = ["mount -t tmpfs -o mode=755 tmpfs /run", "mount -t tmpfs -o mode=755 tmpfs /var/log"]
        for mount_point in MOUNT_POINTS:
            folder = self.home / mount_point.rpartition("/")[2]
            folder.mkdir(parents=True, exist_ok=True)
            commands.append(f"mkdir -p {mount_point} && mount --bind {folder} {mount_point}")
        commands.append("mount --make-rshared /")
        self.run(holder, ["sh", "-ec", "\n".join(commands)])

    def run(self, holder: int, command: list[str], *, timeout: float = _COMMAND_SECONDS) -> str:
        """Run a command inside the node and return what it printed.

        Raises
        ------
        DevclusterError
            With the command's own words, if it fails or takes longer than ``timeout`` seconds.
        """
        entry = ["nsenter", f"--net=/proc/{holder}/ns/net", f"--mount=/proc/{holder}/ns/mnt", "--"]
        try:
            finished = subprocess.run(
                [*entry, *command],
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired as error:
            raise DevclusterError(f"`{' '.join(command)}` did not end within {timeout:.0f} s") from error
        if finished.returncode != 0:
            said = (finished.stderr or finished.stdout).strip()
            raise DevclusterError(f"`{' '.join(command)}` failed on {self.name}: {said}")
        return finished.stdout

    def ctr(self, *words: str) -> list[str]:
        """Return a command for containerd's own client, in the namespace that Kubernetes uses."""
        return ["ctr", "--namespace", "k8s.io", *words]

    def policies(self, holder: int, *, kubeconfig: Path) -> ProcessSpec:
        """Return the agent that enforces network policies on this node."""
        flags = {
            "kubeconfig": kubeconfig,
            "node": self.name,
            "bridge": policies.BRIDGE,
            "pod-network": self.network.cluster_cidr,
            "socket": policies.SOCKET,
            "health": f"{self.address}:{policies.HEALTH_PORT}",
        }
        argv = [str(self.tools.devkube), "policies", *(f"--{flag}={value}" for flag, value in flags.items())]
        return ProcessSpec(f"policies-{self.number}", argv, netns_of=holder, mntns_of=holder)

    def containerd(self, holder: int, *, fenced: bool) -> ProcessSpec:
        """Return containerd; its configuration is written beside it.

        Parameters
        ----------
        fenced
            Whether a pod's start waits until the node's policies agent has seen it.
        """
        cni, plugins = self.home / "cni.d", self.home / "cni-bin"
        policies.fill_plugin_folder(plugins, self.tools.policies_plugin)
        write_if_changed(cni / "10-devcluster.conflist", json.dumps(self._cni_config(fenced=fenced), indent=1))
        config = self.home / "containerd.toml"
        content = write_if_changed(
            config,
            f"""version = 2
root = "{self.containerd_root}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{_PAUSE_IMAGE}"
  # Without CAP_SYS_RESOURCE a container's oom score cannot go below that of its parent.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{cni}"
""",
        )
        return self._component("containerd", ["containerd", "--config", str(config)], holder, content)

    def kubelet(self, holder: int, *, authority: Authority, serving: Pair, kubeconfig: Path) -> ProcessSpec:
        """Return kubelet; its configuration is written beside it."""
        config = self.home / "kubelet.json"
        content = write_if_changed(config, json.dumps(self._kubelet_config(authority, serving), indent=1))
        flags = {
            "config": config,
            "kubeconfig": kubeconfig,
            "hostname-override": self.name,
            "node-ip": self.address,
            "node-labels": f"storeplane.dev/devcluster={self.paths.name}",
        }
        argv = [str(self.tools.devkube), "kubelet", *(f"--{flag}={value}" for flag, value in flags.items())]
        return self._component("kubelet", argv, holder, content)

    def proxy(self, holder: int, *, kubeconfig: Path) -> ProcessSpec:
        """Return kube-proxy; its configuration is written beside it."""
        config = self.home / "kube-proxy.json"
        wanted = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "hostnameOverride": self.name,
            "clusterCIDR": self.network.cluster_cidr,
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            # The node's own addresses only, and no change to the machine's connection tracking.
            "nodePortAddresses": [f"{self.address}/32"],
            "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "healthzBindAddress": f"{self.address}:10256",
            "metricsBindAddress": f"{self.address}:10249",
        }
        content = write_if_changed(config, json.dumps(wanted, indent=1))
        argv = [str(self.tools.devkube), "kube-proxy", f"--config={config}"]
        return self._component("kube-proxy", argv, holder, content)

    def _component(self, name: str, argv: list[str], holder: int, configuration: str) -> ProcessSpec:
        return ProcessSpec(f"{name}-{self.number}", argv, configuration=configuration, netns_of=holder, mntns_of=holder)

    def _cni_config(self, *, fenced: bool) -> dict[str, Any]:
        return {
            "cniVersion": "0.4.0",
            "name": "devcluster",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": policies.BRIDGE,
                    "isGateway": True,
                    # By the node's own rule: this one would hide a pod's address from the other nodes' policies.
                    "ipMasq": False,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": self.network.pod_cidr(self.number)}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
                *([policies.plugin_config()] if fenced else []),
            ],
        }

    def _kubelet_config(self, authority: Authority, serving: Pair) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(authority.pair.certificate)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(serving.certificate),
            "tlsPrivateKeyFile": str(serving.key),
            "address": self.address,
            "healthzBindAddress": self.address,
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.cgroup.path,
            "failCgroupV1": False,
            "failSwapOn": False,
            # Tolerates kernel settings that a machine without every capability may not change.
            "featureGates": {"KubeletInUserNamespace": True},
            "clusterDNS": [self.network.dns_address],
            "clusterDomain": "cluster.local",
            "resolvConf": "/dev/null",
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "2%", "imagefs.available": "2%"},
            "imageGCHighThresholdPercent": 98,
            "imageGCLowThresholdPercent": 97,
            "registerNode": True,
            "maxPods": 200,
            # Image pulls never leave the machine; the queue's limits would only slow starts.
            "serializeImagePulls": False,
            "syncFrequency": "10s",
            "nodeStatusUpdateFrequency": "5s",
        }
