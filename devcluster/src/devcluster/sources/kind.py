"""A cluster by kind, on machines where a Docker engine runs: command lines and the reading of their answers.

Clusters carry a prefix, so that one a person made by the same name is never touched.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devcluster.machine.errors import DevclusterError
from devcluster.machine.paths import check_name, state_root
from devcluster.machine.progress import step

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["API_NODE_PORT", "SHOPS_NODE_PORT", "KindCluster", "kind_config", "parse_clusters"]

API_NODE_PORT = 30080
"""The NodePort behind 127.0.0.1:8080."""
SHOPS_NODE_PORT = 30081
"""The NodePort behind 127.0.0.1:8081."""

_PREFIX = "storeplane-"
_QUERY_SECONDS = 60
_CREATE_SECONDS = 600
"""The first time kind fetches its node image, about a gigabyte."""
_LOAD_SECONDS = 300
_REMEDY = "mend what the message names, or choose another cluster: `CLUSTER=devcluster`"


def parse_clusters(text: str) -> set[str]:
    """Return the names in what ``kind get clusters`` prints; that there are none it says on stderr."""
    return {line.strip() for line in text.splitlines() if line.strip()}


def kind_config(name: str) -> dict[str, Any]:
    """Return kind's configuration: one node, with the two ports of this machine that lead into it.

    The ports are fixed for the name ``dev``; other clusters get free ones from Docker, so that they live side by side.
    """
    ports = {API_NODE_PORT: 8080, SHOPS_NODE_PORT: 8081}
    mappings = [
        {"containerPort": inside, "hostPort": outside if name == "dev" else 0, "listenAddress": "127.0.0.1"}
        for inside, outside in ports.items()
    ]
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "nodes": [{"role": "control-plane", "extraPortMappings": mappings}],
    }


@dataclass(frozen=True)
class KindCluster:
    """One cluster made by kind."""

    name: str

    def __post_init__(self) -> None:
        """Refuse a name that cannot be a cluster's."""
        check_name(self.name)

    @property
    def full_name(self) -> str:
        """The cluster's name as kind knows it."""
        return _PREFIX + self.name

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return state_root() / f"kind-{self.name}" / "kubeconfig"

    @staticmethod
    def names() -> list[str]:
        """Return the clusters that ``up`` has made and ``down`` has not removed."""
        return sorted(file.parent.name.removeprefix("kind-") for file in state_root().glob("kind-*/kubeconfig"))

    def exists(self) -> bool:
        """Ask kind whether the cluster is there."""
        return self.full_name in parse_clusters(_kind(["get", "clusters"], _QUERY_SECONDS))

    def up(self) -> None:
        """Make the cluster unless it is there, and write its kubeconfig either way."""
        self.kubeconfig.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        where = ["--name", self.full_name, "--kubeconfig", str(self.kubeconfig)]
        if self.exists():
            _kind(["export", "kubeconfig", *where], _QUERY_SECONDS)
            return
        config = self.kubeconfig.with_name("kind.json")  # JSON is YAML
        config.write_text(json.dumps(kind_config(self.name), indent=1))
        with step(f"kind create cluster {self.full_name}"):
            _kind(["create", "cluster", *where, "--config", str(config), "--wait", "180s"], _CREATE_SECONDS)

    def down(self) -> bool:
        """Remove the cluster and its folder; return whether there was one."""
        existed = self.exists()
        if existed:
            where = ["--name", self.full_name, "--kubeconfig", str(self.kubeconfig)]
            _kind(["delete", "cluster", *where], _QUERY_SECONDS)
        shutil.rmtree(self.kubeconfig.parent, ignore_errors=True)
        return existed

    def load(self, archives: Sequence[Path]) -> None:
        """Load image archives into the node."""
        for archive in archives:
            with step(f"load {archive.name}"):
                _kind(["load", "image-archive", str(archive), "--name", self.full_name], _LOAD_SECONDS)


def _kind(words: list[str], seconds: int) -> str:
    command = ["kind", *words]
    try:
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
            # kind would otherwise write into the kubeconfig a person uses.
            env={key: value for key, value in os.environ.items() if key != "KUBECONFIG"},
        )
    except FileNotFoundError as error:
        raise DevclusterError("kind is not on PATH", remedy=_REMEDY) from error
    except subprocess.TimeoutExpired as error:
        raise DevclusterError(f"`{' '.join(command)}` did not end within {seconds} s", remedy=_REMEDY) from error
    if ended.returncode != 0:
        said = ended.stderr.strip()[-2000:]
        raise DevclusterError(f"`{' '.join(command)}` failed: {said}", remedy=_REMEDY)
    return ended.stdout
