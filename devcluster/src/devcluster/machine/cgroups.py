"""One control group for everything a cluster runs, so that ending it needs no name and misses nothing.

Children inherit the group of their parent: whatever containerd, a shim or a container forks stays inside, and
killing the group ends it all, whoever its parent was. Works with the unified hierarchy (cgroup v2, also beside
v1 controllers) and with v1 alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from devcluster.machine.errors import DevclusterError

__all__ = ["Cgroup"]

_KILL_SECONDS = 20.0
_POLL_SECONDS = 0.02


@cache
def _hierarchies() -> tuple[tuple[Path, ...], Path | None]:
    """Return the v1 hierarchies and the unified one, each by its mount point."""
    legacy: list[Path] = []
    unified: Path | None = None
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        mount_point = Path(left.split()[4])
        kind = right.split()[0]
        if kind == "cgroup" and not mount_point.is_symlink():
            legacy.append(mount_point)
        elif kind == "cgroup2" and unified is None:
            unified = mount_point
    return tuple(legacy), unified


def _mounts() -> tuple[Path, ...]:
    legacy, unified = _hierarchies()
    return (*legacy, *([unified] if unified else []))


@dataclass(frozen=True)
class Cgroup:
    """The group ``/devcluster-<name>``, or one below it, in every hierarchy; its leaf ``system`` holds our components.

    The leaf is needed because the unified hierarchy allows processes only in leaves, and kubelet puts the pods'
    groups beside it.
    """

    name: str
    part: str = ""
    """A part of the cluster that ends alone, such as a node; empty for the whole."""

    @staticmethod
    def names() -> set[str]:
        """Return the names of all groups of this kind on the machine."""
        return {folder.name.removeprefix("devcluster-") for each in _mounts() for folder in each.glob("devcluster-*/")}

    @property
    def path(self) -> str:
        """The group's path inside each hierarchy, as kubelet's ``cgroupRoot`` wants it."""
        return f"/devcluster-{self.name}" + (f"/{self.part}" if self.part else "")

    def create(self) -> None:
        """Make the group and its leaf everywhere; existing ones are kept."""
        for mount in _mounts():
            folder = mount
            for name in [*self.path.lstrip("/").split("/"), "system"]:
                folder /= name
                folder.mkdir(exist_ok=True)
                self._inherit_cpuset(folder)

    @staticmethod
    def _inherit_cpuset(folder: Path) -> None:
        """Give a v1 cpuset group its parent's processors: an empty one accepts no process."""
        for setting in ("cpuset.cpus", "cpuset.mems"):
            file = folder / setting
            if file.exists() and not file.read_text().strip():
                file.write_text((folder.parent / setting).read_text())

    def join_files(self) -> list[Path]:
        """Return the files to write ``0`` to, for a process to put itself into the leaf."""
        return [mount / self.path.lstrip("/") / "system/cgroup.procs" for mount in _mounts()]

    def pids(self) -> set[int]:
        """Return every process in the group, at any depth."""
        legacy, unified = _hierarchies()
        # With the unified hierarchy it alone is asked: it cannot be left by forking, and no container
        # runtime moves a process out of our subtree. Else any v1 hierarchy that holds processes will do.
        mounts = [unified] if unified else list(legacy)
        found: set[int] = set()
        for mount in mounts:
            for file in (mount / self.path.lstrip("/")).glob("**/cgroup.procs"):
                with contextlib.suppress(OSError):
                    found.update(int(pid) for pid in file.read_text().split())
        return found

    def kill(self) -> None:
        """End every process in the group, whatever it is, and wait until they are gone.

        Raises
        ------
        DevclusterError
            If a process is still there after 20 s (only one that hangs in the kernel can be).
        """
        _, unified = _hierarchies()
        deadline = time.monotonic() + _KILL_SECONDS
        kill_file = unified / self.path.lstrip("/") / "cgroup.kill" if unified else None
        while remaining := self.pids():
            if time.monotonic() > deadline:
                raise DevclusterError(
                    f"processes {sorted(remaining)} of {self.path} do not end",
                    remedy="look at /proc/PID/stack for what they wait on, then run the command again",
                )
            if kill_file is not None and kill_file.exists():
                kill_file.write_text("1")
            else:
                for pid in remaining:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)

    def remove(self) -> None:
        """Remove the group everywhere, deepest first; it must hold no process."""
        for mount in _mounts():
            group = mount / self.path.lstrip("/")
            folders = [folder for folder in group.glob("**/") if folder.is_dir()] if group.exists() else []
            for folder in sorted(folders, key=lambda each: len(each.parts), reverse=True):
                self._remove_folder(folder)

    @staticmethod
    def _remove_folder(folder: Path) -> None:
        deadline = time.monotonic() + _KILL_SECONDS
        while True:
            try:
                folder.rmdir()
            except FileNotFoundError:
                return
            except OSError as error:  # EBUSY while the kernel still buries the last process
                if time.monotonic() > deadline:
                    raise DevclusterError(f"cgroup {folder} cannot be removed: {error}") from error
                time.sleep(_POLL_SECONDS)
            else:
                return
