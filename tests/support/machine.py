"""What a cluster could leave behind on the machine, listed so that two moments can be compared.

The machine does other things meanwhile, and other clusters come and go: what is theirs, by their control group, is not
listed. Everything else that could stem from the cluster under test is.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Machine"]

_SECONDS = 20
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Machine:
    """One listing. The sets hold lines for a person; equal lines are the same thing."""

    processes: frozenset[str]
    """Processes in the cluster's control group, with its folder in their command, or in namespaces of their own."""
    mounts: frozenset[str]
    network_namespaces: frozenset[str]
    links: frozenset[str]
    cgroups: frozenset[str]
    firewall: frozenset[str]
    folders: frozenset[str]

    @classmethod
    def look(cls, name: str, home: Path) -> Machine:
        """List the machine from the point of view of the cluster of this name and folder."""
        processes, namespaces = _processes(name, home)
        return cls(
            processes=processes,
            mounts=frozenset(line.partition(" - ")[2] + _mount_point(line) for line in _mounts()),
            network_namespaces=namespaces,
            links=frozenset(link["ifname"] for link in json.loads(_run("ip", "-json", "link"))),
            # Not by a pattern: groups of other clusters come and go while it is followed.
            cgroups=frozenset(each for each, _, _ in os.walk(_CGROUPS) if f"/devcluster-{name}/" in f"{each}/"),
            firewall=frozenset(_rules()),
            folders=frozenset(str(each) for each in (home, Path("/run/netns"), Path("/var/lib/cni")) if each.exists()),
        )

    def more_than(self, earlier: Machine) -> dict[str, set[str]]:
        """Return what is here and was not earlier, by kind; kinds with nothing new are left out."""
        more = {
            kind: set(getattr(self, kind) - getattr(earlier, kind)) for kind in sorted(Machine.__dataclass_fields__)
        }
        return {kind: things for kind, things in more.items() if things}


def _processes(name: str, home: Path) -> tuple[frozenset[str], frozenset[str]]:
    found, namespaces = set(), set()
    own = {kind: Path(f"/proc/self/ns/{kind}").readlink() for kind in ("net", "mnt")}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            groups = set(re.findall(r"/devcluster-([a-z0-9-]+)", (process / "cgroup").read_text()))
            if groups and name not in groups:
                continue
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            network = (process / "ns/net").readlink()
            apart = network != own["net"] or (process / "ns/mnt").readlink() != own["mnt"]
        except OSError:  # ended while we looked, or the kernel's own
            continue
        if name in groups or f"{home}/" in command or (apart and command):
            found.add(f"{process.name} {command}")
        namespaces.add(str(network))
    return frozenset(found), frozenset(namespaces)


def _mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def _mount_point(line: str) -> str:
    return f" on {line.split()[4]}, propagation {' '.join(re.findall('shared|master|unbindable', line)) or 'private'}"


def _rules() -> list[str]:
    """Return the host's firewall rules and sets, without counters and comments."""
    lines = (_run("iptables-save") + _run("ip6tables-save") + _run("ipset", "save")).splitlines()
    return [re.sub(r"\[\d+:\d+\]", "", line) for line in lines if not line.startswith("#")]


def _run(*command: str) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    return ended.stdout
