"""The cluster's own programs, built at their first use."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from devcluster.machine.build import go_binary
from devcluster.machine.paths import checkout

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KUBERNETES_VERSION", "Tools"]

KUBERNETES_VERSION = "v1.34.4"
"""As in devkube's go.mod. 1.34 on purpose: newer kubelets refuse Debian 12's containerd 1.6, and cgroup v1."""


class Tools:
    """Paths of the binaries; asking for one builds it if its sources have changed."""

    @cached_property
    def devkube(self) -> Path:
        """Every Kubernetes program, DNS, the volume provisioner, the router, the policies agent and the forwarder."""
        major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
        stamp = "-X k8s.io/component-base/version."
        flags = f"{stamp}gitVersion={KUBERNETES_VERSION} {stamp}gitMajor={major} {stamp}gitMinor={minor}"
        return go_binary(checkout() / "devcluster/devkube", "./cmd/devkube", ldflags=flags)

    @cached_property
    def policies_plugin(self) -> Path:
        """Makes a pod's start wait for its network policies."""
        return go_binary(checkout() / "devcluster/devkube", "./cmd/devcluster-policies")

    @cached_property
    def pause(self) -> Path:
        """Holds namespaces: of pods, and of the cluster's nodes."""
        return go_binary(checkout() / "devcluster/devkube", "./cmd/pause")
