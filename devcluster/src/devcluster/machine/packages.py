"""The Debian packages a cluster runs on, known by the programs they bring, and their installation when root.

Only what is missing is installed, and nothing that a package would start is started: the cluster runs its own
containerd, in its own folder. Go, Node.js and Python are prerequisites of the checkout, not installed here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster.machine.errors import DevclusterError
from devcluster.machine.paths import cache_dir
from devcluster.machine.progress import note, step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "PACKAGES",
    "TEST_PACKAGES",
    "Package",
    "ensure_packages",
    "find_program",
    "install_command",
    "missing_packages",
]

_UPDATE_SECONDS = 300
_INSTALL_SECONDS = 1200
_LOCK_SECONDS = 120
"""How long apt waits for another apt: an unattended upgrade is not a reason to fail."""
_POLICY = Path("/usr/sbin/policy-rc.d")
_POLICY_TEXT = """#!/bin/sh
# Written by devcluster while it installs packages: none of them may start a service. Safe to remove.
exit 101
"""


@dataclass(frozen=True)
class Package:
    """One Debian package and the files that prove it is there, however it came."""

    name: str
    programs: tuple[str, ...] = ()
    """Programs on PATH or in the system's own folders."""
    files: tuple[str, ...] = ()
    """Absolute paths."""
    patterns: tuple[str, ...] = ()
    """Absolute paths with wildcards, of which one match each is enough."""

    def is_present(self) -> bool:
        """Return whether everything the cluster uses of it is there."""
        found = all(find_program(program) is not None for program in self.programs)
        matched = all(any(Path("/").glob(pattern.lstrip("/"))) for pattern in self.patterns)
        return found and matched and all(Path(file).exists() for file in self.files)


PACKAGES: tuple[Package, ...] = (
    Package("containerd", programs=("containerd", "containerd-shim-runc-v2", "ctr")),
    Package("runc", programs=("runc",)),
    Package(
        "containernetworking-plugins",
        files=tuple(f"/usr/lib/cni/{plugin}" for plugin in ("bridge", "host-local", "loopback", "portmap")),
    ),
    Package("iptables", programs=("iptables", "iptables-save", "iptables-restore")),
    Package("conntrack", programs=("conntrack",)),
    Package("iproute2", programs=("ip",)),
    Package("ebtables", programs=("ebtables",)),
    Package("ethtool", programs=("ethtool",)),
    Package("socat", programs=("socat",)),
    Package("kmod", programs=("modprobe",)),
    Package("ipset", programs=("ipset",)),
    Package("buildah", programs=("buildah",)),
    Package("debootstrap", programs=("debootstrap",)),
)
"""What each is for: running containers (first three), the pods' network and kubelet's checks (the next eight),
building images without Docker (the last two)."""

TEST_PACKAGES: tuple[Package, ...] = (Package("postgresql", patterns=("/usr/lib/postgresql/*/bin/postgres",)),)
"""What the tests want besides: the distribution's Postgres, which on Debian 12 is the oldest that is supported."""


def find_program(name: str) -> Path | None:
    """Return where a program is; the system folders count even when PATH lacks them, as it does for most users."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=path)
    return Path(found) if found else None


def missing_packages(packages: Sequence[Package] = PACKAGES) -> list[str]:
    """Return the names of packages that are not there."""
    return [package.name for package in packages if not package.is_present()]


def install_command(names: Sequence[str]) -> str:
    """Return what a person types to install them."""
    return f"sudo apt-get update && sudo apt-get install -y --no-install-recommends {' '.join(names)}"


def ensure_packages(packages: Sequence[Package] = PACKAGES) -> list[str]:
    """Install what is missing and return its names; with nothing missing, nothing is run.

    Raises
    ------
    DevclusterError
        If the caller is not root or there is no apt (with the command to type), or if apt fails (with its log).
    """
    missing = missing_packages(packages)
    if not missing:
        return []
    if os.geteuid() != 0 or find_program("apt-get") is None:
        raise DevclusterError(f"missing on this machine: {', '.join(missing)}", remedy=install_command(missing))
    log = cache_dir("log") / "apt.log"
    with log.open("wb"), step(f"install {', '.join(missing)}"), _no_services():
        _apt(["update"], log, _UPDATE_SECONDS)
        _apt(["install", "-y", "--no-install-recommends", *missing], log, _INSTALL_SECONDS)
    if still := missing_packages(packages):
        raise DevclusterError(
            f"apt installed without complaint, yet programs of {', '.join(still)} are missing",
            remedy=f"`dpkg -L {still[0]}` shows what it brings",
            log=log,
        )
    return missing


def _apt(words: list[str], log: Path, seconds: int) -> None:
    command = ["apt-get", "-o", f"DPkg::Lock::Timeout={_LOCK_SECONDS}", *words]
    try:
        with log.open("ab") as output:
            ended = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            )
    except subprocess.TimeoutExpired as error:
        raise DevclusterError(f"`{' '.join(command)}` did not end within {seconds} s", log=log) from error
    if ended.returncode != 0:
        raise DevclusterError(
            f"`{' '.join(command)}` failed (exit code {ended.returncode})",
            remedy="mend what the log names, then run the command again",
            log=log,
        )


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Forbid package scripts to start services meanwhile, by the file they all ask.

    A file that somebody else wrote is the machine's own policy and stays as it is; one that a killed run of ours left
    is ours to remove.
    """
    try:
        descriptor = os.open(_POLICY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
        with os.fdopen(descriptor, "w") as file:
            file.write(_POLICY_TEXT)
    except FileExistsError:
        if _POLICY.read_text(errors="replace") != _POLICY_TEXT:
            note(f"  {_POLICY} is this machine's own and decides which services packages may start")
            yield
            return
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
