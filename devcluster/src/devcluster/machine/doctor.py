"""Says what this machine lacks, one line each, with the command that mends it. Changes nothing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster.machine.firewall import shortcoming
from devcluster.machine.packages import PACKAGES, find_program, install_command, missing_packages
from devcluster.machine.paths import cache_dir, state_root

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Finding", "doctor", "findings"]

_PROGRAM_SECONDS = 20
_GO = (1, 26)
"""Helm's own module asks for it; Kubernetes alone would do with 1.24."""
_NODE = (20, 19)
_MEMORY_GIB = 6
"""The cluster takes 1 GiB, a shop 2, building the images and the Go programs the rest."""
_DISK_GIB = 15
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
"""Bit numbers as in the kernel's capability.h: namespaces and mounts, and the cables between them."""
_INOTIFY = {"max_user_instances": 128, "max_user_watches": 65536}
"""kubelet, containerd and the control plane's tests watch files; below this the first to be refused is a pod's log."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    good: bool
    detail: str
    """What was found."""
    remedy: str = ""
    """What to type, or do, when it is not good."""
    needed: bool = True
    """Whether nothing works without it; otherwise it is advice."""

    def line(self) -> str:
        """Return the finding as one line."""
        verdict = "ok" if self.good else "MISSING" if self.needed else "low"
        return f"{verdict:8}{self.what}: {self.detail}" + (f"  ->  {self.remedy}" if not self.good else "")


def doctor(say: Callable[[str], None] = print) -> int:
    """Say every finding; return the exit code: 1 if something needed is missing, else 0.

    Memory, disk and inotify limits are advice: what is enough depends on what else the machine does, and a cluster that
    already runs has taken its share.
    """
    found = findings()
    for finding in found:
        say(finding.line())
    return 1 if any(finding.needed and not finding.good for finding in found) else 0


def findings() -> list[Finding]:
    """Look at everything; the order is the order in which to mend."""
    return [
        _system(),
        _rights(),
        _cgroups(),
        _overlayfs(),
        _packages(),
        _version(
            "Go", ["go", "env", "GOVERSION"], _GO, "install Go >= 1.26 from https://go.dev/dl/ into /usr/local/go"
        ),
        _version(
            "Node.js", ["node", "--version"], _NODE, "install Node.js >= 20.19 from https://nodejs.org/en/download"
        ),
        _python(),
        _memory(),
        _disk(),
        *_inotify(),
        _policies(),
    ]


def _system() -> Finding:
    system, machine = platform.system(), platform.machine()
    good = system == "Linux" and machine in {"x86_64", "aarch64"}
    return Finding("system", good, f"{system} on {machine}", "use a Linux machine, x86_64 or arm64, real or virtual")


def _rights() -> Finding:
    """Look at the effective capabilities: root in an ordinary container has the name but not the rights."""
    words = re.search(r"^CapEff:\s*([0-9a-f]+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    held = int(words[1], 16) if words else 0
    lacking = [name for name, bit in _CAPABILITIES.items() if not held >> bit & 1]
    if os.geteuid() != 0:
        return Finding("rights", good=False, detail=f"user {os.geteuid()}", remedy="run as root: `sudo -E COMMAND`")
    remedy = "in a container, start it with --privileged, or use a virtual machine"
    return Finding("rights", not lacking, f"root, {'lacks ' + ', '.join(lacking) if lacking else 'as needed'}", remedy)


def _cgroups() -> Finding:
    mounts = [line.partition(" - ")[2].split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    kinds = sorted({words[0] for words in mounts if words and words[0] in {"cgroup", "cgroup2"}})
    # Kept apart from "mounted": a container often sees its groups read-only.
    writable = any(words[0] in kinds and words[2].split(",")[0] == "rw" for words in mounts if words)
    detail = f"{', '.join(kinds) or 'none mounted'}{'' if writable or not kinds else ', read-only'}"
    return Finding("cgroups", writable, detail, "mount -t cgroup2 none /sys/fs/cgroup")


def _overlayfs() -> Finding:
    listed = any(line.split()[-1] == "overlay" for line in Path("/proc/filesystems").read_text().splitlines())
    module = Path(f"/lib/modules/{platform.release()}/kernel/fs/overlayfs/overlay.ko")
    loadable = any(module.parent.glob("overlay.ko*"))
    detail = "known to the kernel" if listed else "can be loaded" if loadable else "unknown to the kernel"
    return Finding("overlayfs", listed or loadable, detail, "modprobe overlay")


def _packages() -> Finding:
    missing = missing_packages()
    if not missing:
        return Finding("Debian packages", good=True, detail=f"all {len(PACKAGES)} are there")
    remedy = install_command(missing)
    return Finding("Debian packages", good=False, detail=f"not there: {', '.join(missing)}", remedy=remedy)


def _version(what: str, command: list[str], floor: tuple[int, int], remedy: str) -> Finding:
    wanted = ".".join(map(str, floor))
    if find_program(command[0]) is None:
        return Finding(what, good=False, detail=f"not on PATH, {wanted} or newer is needed", remedy=remedy)
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_PROGRAM_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(what, good=False, detail=f"does not run: {error}", remedy=remedy)
    numbers = re.search(r"(\d+)\.(\d+)", answer.stdout)
    if numbers is None:
        return Finding(what, good=False, detail=f"does not say its version: {answer.stdout.strip()!r}", remedy=remedy)
    good = (int(numbers[1]), int(numbers[2])) >= floor
    return Finding(what, good, f"{answer.stdout.strip()}, {wanted} or newer is needed", remedy)


def _python() -> Finding:
    remedy = "sudo apt-get install -y python3-venv   (Python >= 3.11: Debian 12, Ubuntu 24.04 or newer)"
    probe = "import ensurepip, sys; print(sys.version.split()[0]); sys.exit(sys.version_info < (3, 11))"
    try:
        answer = subprocess.run(
            ["python3", "-c", probe], capture_output=True, text=True, timeout=_PROGRAM_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("Python", good=False, detail=f"python3 does not run: {error}", remedy=remedy)
    version = answer.stdout.strip() or "cannot make environments (no ensurepip)"
    return Finding("Python", answer.returncode == 0, version, remedy)


def _memory() -> Finding:
    kibibytes = re.search(r"^MemAvailable:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    gibibytes = int(kibibytes[1]) / 2**20 if kibibytes else 0.0
    detail = f"{gibibytes:.1f} GiB available, {_MEMORY_GIB} are comfortable"
    return Finding("memory", gibibytes >= _MEMORY_GIB, detail, "end what is not needed, or add memory", needed=False)


def _disk() -> Finding:
    places = {"state": state_root(), "cache": cache_dir()}
    free = {what: shutil.disk_usage(_existing(place)).free / 2**30 for what, place in places.items()}
    detail = ", ".join(f"{gibibytes:.0f} GiB free for {what} ({places[what]})" for what, gibibytes in free.items())
    remedy = "free some, or set DEVCLUSTER_HOME and STOREPLANE_CACHE to folders on a larger disk"
    return Finding("disk", min(free.values()) >= _DISK_GIB, detail, remedy, needed=False)


def _existing(place: Path) -> Path:
    return next(folder for folder in (place, *place.parents) if folder.exists())


def _inotify() -> list[Finding]:
    found = []
    for setting, floor in _INOTIFY.items():
        value = int(Path(f"/proc/sys/fs/inotify/{setting}").read_text())
        remedy = f"sysctl -w fs.inotify.{setting}={floor * 4}"
        detail = f"{value}, {floor} are needed"
        found.append(Finding(f"inotify {setting}", value >= floor, detail, remedy, needed=False))
    return found


def _policies() -> Finding:
    """Look whether network policies can be enforced; a cluster runs without, but its fences are not there then."""
    missing = shortcoming()
    detail = f"NOT ENFORCED: {missing}" if missing else "can be enforced"
    remedy = "use a kernel with ipset, br_netfilter and xt_bpf, as distributions build it"
    return Finding("network policies", not missing, detail, remedy, needed=False)
