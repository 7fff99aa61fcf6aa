"""What the machine does beside a measurement: load, and the processor time of processes that are not ours.

A figure is worth nothing when others work on the machine at the same time, so every part is measured together with its
disturbance: the share of all processor time that went neither to the cluster, nor to Postgres, nor to the benchmark
and the control plane it started. Time stolen by the hypervisor counts as disturbance too.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["CLEAN_SHARE", "Machine", "Noise", "cgroup_seconds", "describe", "process_seconds"]

CLEAN_SHARE: Final = 0.10
"""Up to a tenth of the machine for others a figure counts as clean."""
_QUIET_SECONDS: Final = 3.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_IDLE: Final = (3, 4)
"""Columns of /proc/stat: idle and waiting for disks."""
_COUNTED: Final = 8
"""Guests' time, behind these, is in the others already."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class Noise:
    """What went on beside one measurement."""

    load_before: float
    foreign_share: float
    """Of all processors' time, 0 to 1."""

    @property
    def is_clean(self) -> bool:
        """Whether the figure says something about us."""
        return self.foreign_share <= CLEAN_SHARE


class Machine:
    """Tells our own processor time from everybody else's."""

    def __init__(self, cgroups: list[str], *, patience: float, tries: int) -> None:
        self.pids: set[int] = set()
        """Processes of ours outside the groups, beside this one."""
        self._cgroups = cgroups
        self._patience = patience
        self._tries = tries

    async def undisturbed(self, what: str, measure: Callable[[], Awaitable[_T]]) -> tuple[_T, Noise]:
        """Wait for quiet, measure; again while it was disturbed, up to the number of tries. Return the quietest."""
        best: tuple[_T, Noise] | None = None
        for attempt in range(self._tries):
            result, noise = await self._measured(what, measure)
            if best is None or noise.foreign_share < best[1].foreign_share:
                best = result, noise
            if noise.is_clean:
                break
            print(f"{what}: others took {noise.foreign_share:.0%}, try {attempt + 1}", file=sys.stderr, flush=True)
        assert best is not None
        return best

    async def samples(self, what: str, measure: Callable[[], Awaitable[_T]], count: int) -> tuple[list[_T], Noise, int]:
        """Measure until there are so many clean samples, or all tries are used up.

        Returns the clean samples, or the quietest when too few are clean, with their mean disturbance, and how many
        were taken in all.
        """
        await self._await_quiet()
        taken: list[tuple[_T, Noise]] = []
        while len(taken) < count * self._tries and sum(noise.is_clean for _, noise in taken) < count:
            taken.append(await self._once(measure))
        taken.sort(key=lambda each: each[1].foreign_share)
        kept = taken[:count]
        share = sum(noise.foreign_share for _, noise in kept) / len(kept)
        if not all(noise.is_clean for _, noise in kept):
            share = max(share, kept[-1][1].foreign_share)
        load = sum(noise.load_before for _, noise in kept) / len(kept)
        print(f"{what}: kept {len(kept)} of {len(taken)}, others took {share:.0%}", file=sys.stderr, flush=True)
        return [each for each, _ in kept], Noise(load, share), len(taken)

    def watch(self) -> Callable[[], Noise]:
        """Begin to watch; the call that is returned tells what went on beside since then."""
        load, began, before = os.getloadavg()[0], time.monotonic(), (_busy_seconds(), self._own_seconds())

        def seen() -> Noise:
            busy, own = _busy_seconds() - before[0], self._own_seconds() - before[1]
            return Noise(load, max(0.0, busy - own) / ((time.monotonic() - began) * (os.cpu_count() or 1)))

        return seen

    async def _measured(self, what: str, measure: Callable[[], Awaitable[_T]]) -> tuple[_T, Noise]:
        quiet = await self._await_quiet()
        load = os.getloadavg()[0]
        print(f"{what}: load {load:.1f}, {'quiet' if quiet else 'NOT QUIET'}", file=sys.stderr, flush=True)
        return await self._once(measure)

    async def _once(self, measure: Callable[[], Awaitable[_T]]) -> tuple[_T, Noise]:
        seen = self.watch()
        return await measure(), seen()

    async def _await_quiet(self) -> bool:
        deadline = time.monotonic() + self._patience
        while True:
            before = _busy_seconds()
            await asyncio.sleep(_QUIET_SECONDS)
            if (_busy_seconds() - before) / (_QUIET_SECONDS * (os.cpu_count() or 1)) <= 2 * CLEAN_SHARE:
                return True
            if time.monotonic() > deadline:
                return False

    def _own_seconds(self) -> float:
        # The times of a child come to its parent when it has ended; until then its own entry has them. So a child's
        # time is counted once whether it lives through a measurement, begins in it or ends in it.
        ours = sum(os.times()[:4])
        groups = sum(cgroup_seconds(name) for name in self._cgroups)
        return ours + groups + sum(map(process_seconds, self.pids))


def _busy_seconds() -> float:
    columns = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1 : 1 + _COUNTED]]
    return (sum(columns) - sum(columns[each] for each in _IDLE)) / _TICKS


def process_seconds(pid: int) -> float:
    """Return user and system time of a process, all its threads; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def cgroup_seconds(path: str) -> float:
    """Return processor time of a control group and all below it, ended processes too."""
    legacy = Path(f"/sys/fs/cgroup/cpuacct{path}/cpuacct.usage")
    if legacy.exists():
        return int(legacy.read_text()) / 1e9
    for mount in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        file = Path(f"{mount}{path}/cpu.stat")
        if file.exists():
            values = dict(line.split() for line in file.read_text().splitlines())
            return int(values["usage_usec"]) / 1e6
    message = f"there is no control group {path} that counts processor time"
    raise RuntimeError(message)


def describe() -> str:
    """Return the machine in one line."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{len(models)} x {models[0] if models else platform.machine()}, {memory:.0f} GiB, Linux {platform.release()}"
    )
