"""Where state and caches live. State belongs to one cluster and goes with it; caches are keyed by content and stay."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from devcluster.machine.errors import WrongUsageError

__all__ = ["ClusterPaths", "cache_dir", "check_name", "checkout", "state_root", "write_if_changed", "write_private"]

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?")


def state_root() -> Path:
    """Return the folder that holds one folder for each cluster: ``DEVCLUSTER_HOME``, else the system's place.

    Root's is not below its home directory: Postgres runs as a user of its own and must be able to enter.
    """
    if chosen := os.environ.get("DEVCLUSTER_HOME"):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/devcluster")
    return Path.home() / ".local/state/devcluster"


def cache_dir(*parts: str) -> Path:
    """Return a folder below ``STOREPLANE_CACHE`` (default: the user's cache folder), and make it."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "storeplane"
    folder = Path(os.environ.get("STOREPLANE_CACHE", default)).absolute().joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def checkout() -> Path:
    """Return the root of the checkout this package is installed from (always editable, never a wheel)."""
    return Path(__file__).resolve().parents[4]


def check_name(name: str) -> str:
    """Return a cluster's name, or raise: it becomes part of folder, cgroup and host names."""
    # The Postgres beside a cluster has a folder and a cgroup of that name.
    if _NAME.fullmatch(name) is None or name.startswith("postgres-"):
        raise WrongUsageError(
            f"{name!r} cannot be a cluster's name",
            remedy="use 1 to 20 lower-case letters, digits and dashes, beginning with a letter but not with postgres-",
        )
    return name


def write_if_changed(file: Path, content: str) -> str:
    """Write a generated file and return its content; the same content leaves it untouched.

    Untouched matters: kube-proxy watches its configuration and ends when the file is written, changed or not.
    """
    if not file.exists() or file.read_text() != content:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f".{file.name}.new")
        unfinished.write_text(content)
        unfinished.rename(file)
    return content


def write_private(file: Path, content: str) -> None:
    """Write a file that holds secrets: for its owner alone from its first byte on, and whole or not at all."""
    unfinished = file.with_name(f".{file.name}.new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as output:
        output.write(content)
    unfinished.rename(file)


@dataclass(frozen=True)
class ClusterPaths:
    """The folder of one cluster, and what stands where in it."""

    name: str

    @property
    def home(self) -> Path:
        """Everything of the cluster; ``down`` removes it."""
        return state_root() / self.name

    @property
    def run(self) -> Path:
        """One JSON file for each process: pid, start time, digest of the command."""
        return self.home / "run"

    @property
    def logs(self) -> Path:
        """One log for each process."""
        return self.home / "log"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.home / "pki"

    @property
    def config(self) -> Path:
        """Generated configuration files of the components."""
        return self.home / "config"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, for the host."""
        return self.home / "kubeconfig"

    @property
    def volumes(self) -> Path:
        """One directory for each persistent volume."""
        return self.home / "volumes"

    def node(self, number: int) -> Path:
        """Return the folder of one node's containerd and kubelet; nodes count from 1."""
        return self.home / f"node-{number}"
