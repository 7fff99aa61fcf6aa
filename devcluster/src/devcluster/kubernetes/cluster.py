"""One cluster of our own, from nothing to Ready and back.

``up`` compares and starts what is missing: the first run, a healthy cluster and one with dead components take the
same path. ``down`` needs nothing but the cgroup and the folder, whatever a crash has left of either.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devcluster.images.archive import references
from devcluster.kubernetes import network as net
from devcluster.kubernetes import policies
from devcluster.kubernetes.node import MOUNT_POINTS
from devcluster.kubernetes.settings import Settings, Wish
from devcluster.kubernetes.startup import Startup
from devcluster.kubernetes.tools import KUBERNETES_VERSION, Tools
from devcluster.machine import processes
from devcluster.machine.cgroups import Cgroup
from devcluster.machine.errors import DevclusterError
from devcluster.machine.locks import exclusive
from devcluster.machine.packages import ensure_packages
from devcluster.machine.paths import ClusterPaths, check_name, state_root, write_if_changed
from devcluster.machine.progress import step
from devcluster.postgres import server as postgres

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devcluster.machine.processes import ProcessSpec

__all__ = ["Cluster", "names"]

_IMPORT_SECONDS = 300
_CONTENT_TAG = re.compile(r":[0-9a-f]{16}$")


@dataclass(frozen=True)
class Cluster:
    """One cluster, known by its name."""

    name: str

    @cached_property
    def paths(self) -> ClusterPaths:
        """Its folders."""
        return ClusterPaths(check_name(self.name))

    @property
    def cgroup(self) -> Cgroup:
        """Everything it runs."""
        return Cgroup(self.name)

    @property
    def settings(self) -> Settings:
        """What it was asked to be.

        Raises
        ------
        DevclusterError
            If it has never been up.
        """
        settings = Settings.read(self.paths.home / "cluster.json")
        if settings is None:
            raise DevclusterError(
                f"there is no cluster {self.name!r}", remedy=f"run `devcluster up --name {self.name}`"
            )
        return settings

    @property
    def network(self) -> net.Network:
        """Its addresses, by its index among the clusters of the machine, which a file of its own keeps."""
        return net.Network(int((self.paths.home / "index").read_text()))

    @property
    def exists(self) -> bool:
        """Whether it has been up, and not down since."""
        return (self.paths.home / "index").exists()

    def up(self, wish: Wish | None = None) -> None:
        """Bring the cluster to Ready: start what is missing, replace what has changed, leave the rest alone.

        Raises
        ------
        DevclusterError
            If a component does not start or become ready, with the end of its log.
        """
        ensure_packages()
        with self._lock():
            settings = self._settle(wish or Wish())
            self._startup(settings).start()

    def down(self) -> bool:
        """End everything of the cluster and remove its folder; cached images and binaries stay.

        Returns whether there was anything of it.

        It needs only the cgroup and the folder's file ``index``, which goes last: whatever state a crash left the
        rest in, and if it is interrupted itself, it can be run again. A folder without that file is not ours.
        """
        with self._lock():
            existed = self.name in names()
            self.cgroup.kill()
            if self.exists:
                net.disconnect(self.network)
            self.cgroup.remove()
            if self.exists:
                for child in self.paths.home.iterdir():
                    if child.is_dir():
                        shutil.rmtree(child)
                    elif child.name != "index":
                        child.unlink()
                (self.paths.home / "index").unlink()
                self.paths.home.rmdir()
        for folder in map(Path, MOUNT_POINTS):
            with contextlib.suppress(OSError):  # not ours alone, or in use by another cluster
                folder.rmdir()
        return existed

    def share_postgres(self) -> None:
        """Let pods reach the development Postgres of this name at the host's end of the cable, port 5432."""
        with self._lock():
            self._startup(self.settings).share_postgres()

    def run_on_host(self, spec: ProcessSpec) -> None:
        """Run one more process as part of the cluster, on the host's network: seen by ``status``, ended by ``down``."""
        with self._lock():
            processes.ensure(spec, run=self.paths.run, logs=self.paths.logs, cgroup=self.cgroup)

    def lead_api_to(self, target: str) -> str:
        """Lead the API's port to HOST:PORT and return the URL it is then reached at."""
        with self._lock():
            settings = replace(self.settings, api_target=target)
            settings.write(self.paths.home / "cluster.json")
            self._startup(settings).forward()
        return f"http://127.0.0.1:{settings.api_port}"

    def load(self, archives: Sequence[Path]) -> None:
        """Import image archives into every node; a content-addressed image that is there already is skipped.

        Older content of the same name that no container uses is removed.
        """
        startup = self._startup(self.settings)
        contents = {archive: references(archive) for archive in archives}
        for node in startup.nodes:
            holder = startup.holder(node.name)
            present = set(node.run(holder, node.ctr("images", "ls", "-q")).split())
            for archive, images in contents.items():
                if all(_CONTENT_TAG.search(image) and image in present for image in images):
                    continue
                with step(f"load {', '.join(image.partition(':')[0] for image in images)}"):
                    importing = node.ctr("images", "import", str(archive.absolute()))
                    node.run(holder, importing, timeout=_IMPORT_SECONDS)
                used = node.run(holder, node.ctr("containers", "ls"))
                for old in _superseded(images, present):
                    if old not in used:
                        node.run(holder, node.ctr("images", "rm", old))

    def status(self) -> dict[str, Any]:
        """Return what is known of the cluster, as JSON."""
        settings = self.settings
        startup = self._startup(settings)
        network = startup.network
        names = sorted(file.stem for file in self.paths.run.glob("*.json"))
        pids = {name: processes.running_pid(name, run=self.paths.run) for name in names}
        beside = postgres.status(self.name)
        database = "running" if beside.running else "NOT RUNNING" if beside.exists else "none"
        return {
            "name": self.name,
            "kubernetes": KUBERNETES_VERSION,
            "ready": all(pids.values()) and database in {"running", "none"} and startup.api.is_ready(),
            "network_policies": policies.state(pids, nodes=settings.nodes),
            "postgres": database,
            "kubeconfig": str(self.paths.kubeconfig),
            "server": startup.plane.server,
            "api_url": f"http://127.0.0.1:{settings.api_port}",
            "shops_port": settings.shops_port,
            "host_address": network.host_address,
            "nodes": {node.name: node.address for node in startup.nodes},
            "processes": pids,
            "logs": str(self.paths.logs),
        }

    def kubectl(self) -> Path:
        """Return a ``kubectl`` for this cluster."""
        return self.paths.home / "bin/kubectl"

    def _startup(self, settings: Settings) -> Startup:
        return Startup(self.paths, settings, self.network, self.cgroup, Tools())

    def _settle(self, wish: Wish) -> Settings:
        """Return what the cluster is to be from now on; a new one gets its place among the machine's clusters."""
        if not self.exists:
            with exclusive(state_root() / ".machine.lock", "the clusters' addresses"):
                write_if_changed(self.paths.home / "index", str(net.allocate_index()))
        file = self.paths.home / "cluster.json"
        wanted = (Settings.read(file) or Settings.first(self.name)).granting(wish)
        wanted.write(file)
        return wanted

    def _lock(self) -> contextlib.AbstractContextManager[object]:
        return exclusive(state_root() / f".{check_name(self.name)}.lock", f"the cluster {self.name}")


def names() -> list[str]:
    """Return every cluster that has left something on this machine: a folder of ours, or only a cgroup."""
    folders = {file.parent.name for file in state_root().glob("*/index")}
    return sorted(folders | {name for name in Cgroup.names() if not name.startswith("postgres-")})


def _superseded(loaded: Sequence[str], present: set[str]) -> list[str]:
    """Return the content-addressed images that a newly loaded one of the same name replaces."""
    repositories = {name.rpartition(":")[0] for name in loaded if _CONTENT_TAG.search(name)}
    return [
        name
        for name in present
        if _CONTENT_TAG.search(name) and name.rpartition(":")[0] in repositories and name not in loaded
    ]
