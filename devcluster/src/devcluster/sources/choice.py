"""Which cluster is meant: one named by a kubeconfig, one made by kind, or one of our own.

``CLUSTER`` forces the choice. Without it a running Docker engine with kind beside it is taken, else devcluster. A
kubeconfig is used only when asked for by name: an ambient one may well be somebody's production.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from devcluster.machine.docker import docker_answers
from devcluster.machine.errors import DevclusterError, WrongUsageError
from devcluster.machine.paths import ClusterPaths, check_name
from devcluster.machine.progress import note
from devcluster.sources.kind import KindCluster

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devcluster.kubernetes.cluster import Cluster
    from devcluster.kubernetes.settings import Wish

__all__ = [
    "KINDS",
    "ClusterSource",
    "DevclusterSource",
    "KindSource",
    "KubeconfigSource",
    "choose_source",
    "refuse_foreign_for_tests",
]

KINDS = ("kubeconfig", "kind", "devcluster")
"""What ``CLUSTER`` may be."""
_QUERY_SECONDS = 20


class ClusterSource(Protocol):
    """A cluster to work with, wherever it comes from. Every method may raise ``DevclusterError``."""

    @property
    def name(self) -> str:
        """The cluster's name on this machine."""

    def up(self) -> None:
        """Make it usable; a no-op when it already is."""

    def down(self) -> bool:
        """Remove what ``up`` made; return whether there was anything."""

    def status(self) -> str:
        """Return one line: whether it answers."""

    def load(self, archives: Sequence[Path]) -> None:
        """Bring image archives (docker-archive tars) to its nodes."""

    def kubeconfig(self) -> Path:
        """Return the kubeconfig to use; it exists after ``up``."""

    def describe(self) -> str:
        """Return one line: which cluster this is, and why it was chosen."""


def choose_source(
    name: str, environment: Mapping[str, str] | None = None, *, wish: Wish | None = None
) -> ClusterSource:
    """Return the source that ``CLUSTER`` names, or the best there is.

    Parameters
    ----------
    name
        The cluster's name, where the source makes one.
    environment
        Where ``CLUSTER`` and ``KUBECONFIG`` are read; the process's own by default.
    wish
        What a devcluster is asked to be; the other sources cannot grant it and refuse.

    Raises
    ------
    DevclusterError
        If ``CLUSTER`` is none of ``KINDS``, or what it names cannot be had.
    """
    environment = os.environ if environment is None else environment
    kind = environment.get("CLUSTER", "")
    if kind and kind not in KINDS:
        raise WrongUsageError(f"CLUSTER={kind!r} is unknown", remedy=f"use one of: {', '.join(KINDS)}")
    if kind:
        reason = f"CLUSTER={kind}"
    elif shutil.which("kind") is not None and docker_answers():
        kind, reason = "kind", "Docker and kind are here"
    else:
        kind, reason = "devcluster", "no Docker engine with kind here"
    if kind == "devcluster":
        return DevclusterSource(check_name(name), reason, wish)
    if wish is not None:
        raise WrongUsageError(
            f"nodes, fake nodes and the controllers' rate cannot be set on a cluster from {kind}",
            remedy="leave them out, or use `CLUSTER=devcluster`",
        )
    if kind == "kubeconfig":
        return KubeconfigSource(_explicit_kubeconfig(environment))
    if shutil.which("kind") is None or not docker_answers():
        raise DevclusterError(
            "CLUSTER=kind needs `kind` on PATH and a Docker engine that answers `docker info`",
            remedy="start Docker, or use `CLUSTER=devcluster`, which needs neither",
        )
    return KindSource(KindCluster(name), reason)


def refuse_foreign_for_tests(source: ClusterSource, environment: Mapping[str, str] | None = None) -> None:
    """Raise if tests would run on a cluster that is not ours to break, unless ``ALLOW_DESTRUCTIVE=1`` says so."""
    environment = os.environ if environment is None else environment
    if isinstance(source, KubeconfigSource) and environment.get("ALLOW_DESTRUCTIVE") != "1":
        raise WrongUsageError(
            f"tests create and delete whatever they like in the cluster of {source.path}",
            remedy="set ALLOW_DESTRUCTIVE=1 if nothing in it matters",
        )


def _explicit_kubeconfig(environment: Mapping[str, str]) -> Path:
    given = environment.get("KUBECONFIG", "")
    if not given:
        raise WrongUsageError(
            "CLUSTER=kubeconfig needs KUBECONFIG; ~/.kube/config is never taken by itself",
            remedy="KUBECONFIG=/path/to/file CLUSTER=kubeconfig ...",
        )
    if os.pathsep in given:
        raise WrongUsageError("KUBECONFIG names several files", remedy="name the one that is meant")
    path = Path(given).absolute()
    if not path.is_file():
        raise WrongUsageError(f"KUBECONFIG={given} is not a file", remedy="name an existing kubeconfig")
    return path


@dataclass(frozen=True)
class KubeconfigSource:
    """A cluster that somebody else runs; never made, removed or changed in its nodes."""

    path: Path
    name: str = "kubeconfig"

    def up(self) -> None:
        """Check that it answers."""
        self._ready()

    def down(self) -> bool:
        """Leave it as it is, and say so."""
        note(f"the cluster of {self.path} is not ours and stays as it is")
        return False

    def status(self) -> str:
        """Return one line; raises when it does not answer."""
        self._ready()
        return f"the cluster of {self.path} answers"

    def load(self, archives: Sequence[Path]) -> None:
        """Refuse: nodes of a foreign cluster take images from a registry only."""
        raise DevclusterError(
            f"{len(archives)} image archives cannot be loaded into the cluster of {self.path}",
            remedy="push the images to a registry it can reach and set the charts' image values to that",
        )

    def kubeconfig(self) -> Path:
        """Return the given file."""
        return self.path

    def describe(self) -> str:
        """Return the one line."""
        return f"cluster: the one of {self.path} (CLUSTER=kubeconfig)"

    def _ready(self) -> None:
        command = ["kubectl", "--kubeconfig", str(self.path), "--request-timeout=10s", "get", "--raw", "/readyz"]
        try:
            asked = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=_QUERY_SECONDS,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except FileNotFoundError as error:
            raise DevclusterError("kubectl is not on PATH", remedy="install kubectl") from error
        except subprocess.TimeoutExpired as error:
            raise DevclusterError(f"the cluster of {self.path} does not answer within {_QUERY_SECONDS} s") from error
        if asked.returncode != 0:
            raise DevclusterError(
                f"the cluster of {self.path} is not ready: {asked.stderr.strip()[-500:]}",
                remedy=f"try it by hand: `{' '.join(command)}`",
            )


@dataclass(frozen=True)
class KindSource:
    """A cluster made by kind."""

    cluster: KindCluster
    reason: str

    @property
    def name(self) -> str:
        """The cluster's name, without kind's prefix."""
        return self.cluster.name

    def up(self) -> None:
        """Make it unless it is there."""
        self.cluster.up()

    def down(self) -> bool:
        """Remove it."""
        return self.cluster.down()

    def status(self) -> str:
        """Return whether kind knows it."""
        there = "is there" if self.cluster.exists() else "is not there"
        return f"kind cluster {self.cluster.full_name} {there}"

    def load(self, archives: Sequence[Path]) -> None:
        """Load image archives into its node."""
        self.cluster.load(archives)

    def kubeconfig(self) -> Path:
        """Return the kubeconfig written by ``up``."""
        return self.cluster.kubeconfig

    def describe(self) -> str:
        """Return the one line."""
        return f"cluster: kind {self.cluster.full_name} ({self.reason})"


@dataclass(frozen=True)
class DevclusterSource:
    """A cluster of our own."""

    name: str
    reason: str
    wish: Wish | None = None

    def up(self) -> None:
        """Make or heal it."""
        self._cluster().up(self.wish)

    def down(self) -> bool:
        """Remove it."""
        return self._cluster().down()

    def status(self) -> str:
        """Return whether it is ready, and what of it does not run."""
        facts = self._cluster().status()
        dead = [name for name, pid in facts["processes"].items() if pid is None]
        verdict = "is ready" if facts["ready"] else "is not ready"
        return f"devcluster {self.name} {verdict}" + (f"; not running: {', '.join(dead)}" if dead else "")

    def load(self, archives: Sequence[Path]) -> None:
        """Import image archives on every node."""
        self._cluster().load(archives)

    def kubeconfig(self) -> Path:
        """Return the administrator's kubeconfig."""
        return ClusterPaths(self.name).kubeconfig

    def describe(self) -> str:
        """Return the one line."""
        return f"cluster: devcluster {self.name} ({self.reason})"

    def _cluster(self) -> Cluster:
        # Late: everything a cluster is made of is behind it, and the other sources need none of that.
        from devcluster.kubernetes.cluster import Cluster  # noqa: PLC0415

        return Cluster(self.name)
