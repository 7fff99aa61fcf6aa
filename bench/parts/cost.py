"""What our own code costs: a dispatch, a watch event, a relist of thousands, a start, a resting process."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any, Final

import orjson

from bench.parts.orders import post_raw, prepare_raw
from bench.parts.table import Row

if TYPE_CHECKING:
    import resource

    from bench.parts.lab import Lab, Tables
    from bench.parts.watching import Watch

__all__ = ["dispatch_rows", "event_rows", "import_rows", "relist_rows"]

_CHILD_SECONDS: Final = 300.0
_STARTS: Final = 7
_LISTED: Final = 5000
_LISTS: Final = 10
_IMPORTS: Final = (
    ("import of the API and its loops", "import controlplane.app", 350.0),
    ("import of the provisioner up to its handshake", "import provisioner_job.__main__", 150.0),
)


async def _own_code(tables: Tables | None, *words: str) -> dict[str, float]:
    environment = tables.environment if tables is not None else {}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.parts.own_code",
        *words,
        env={"PATH": os.environ["PATH"], **environment},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(_CHILD_SECONDS):
        _, told = await process.communicate()
    assert process.returncode == 0, told.decode()
    result: dict[str, float] = json.loads(told.splitlines()[-1])
    return result


async def dispatch_rows(lab: Lab, count: int) -> list[Row]:
    """Measure processor time of the dispatcher alone, its queue full; the Jobs are posted suspended."""

    async def measure() -> dict[str, float]:
        async with lab.tables() as tables:
            owners = [await tables.ledger.user() for _ in range(10)]
            for number in range(count):
                await tables.ledger.order(
                    owners[number % len(owners)], name="shop", spec={"provisioner_image": lab.image}
                )
            await tables.budget(in_flight=100_000)
            return await _own_code(tables, "dispatch", str(count))

    found, noise = await lab.machine.undisturbed(f"{count} dispatches", measure)
    detail = f"claim, render, store, POST and record of {found['count']:.0f}, {found['rate']:.0f}/s; "
    detail += f"the kernel for it {found['kernel_us']:.0f} us"
    return [Row("CPU of our process for a dispatch", found["user_us"], "us", 400, detail=detail, noise=noise)]


async def event_rows(lab: Lab, recorded: Watch) -> list[Row]:
    """Measure processor time of taking up a watch event, on what the cluster told of a burst."""

    async def measure() -> dict[str, float]:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            told = {"jobs": recorded.job_lines, "pods": recorded.pod_lines}
            file.write(json.dumps({kind: [line.decode() for line in lines] for kind, lines in told.items()}))
            file.flush()
            return await _own_code(None, "events", file.name)

    found, noise = await lab.machine.undisturbed("watch events", measure)
    detail = f"{found['count']:.0f} events of Jobs and pods, {found['bytes'] / 1024:.1f} KiB each"
    return [Row("CPU of our process for a watch event", found["microseconds"], "us", 30, detail=detail, noise=noise)]


async def relist_rows(lab: Lab, count: int = _LISTED) -> list[Row]:
    """Measure the longest stall of the event loop while thousands of Jobs are listed anew."""
    async with lab.tables() as tables:
        bodies: list[bytes] = []
        for body in await prepare_raw(tables, 50, 10):
            job = orjson.loads(body)
            job["spec"]["suspend"] = True
            bodies += [orjson.dumps(_renamed(job, number)) for number in range(count // 50)]
        await post_raw(tables, bodies, 16)
        await asyncio.sleep(5)  # the Job controller has seen them
        found, noise = await lab.machine.undisturbed(
            f"relist of {count} Jobs", lambda: _own_code(tables, "relist", str(_LISTS))
        )
    assert found["count"] == count, f"{found['count']:.0f} Jobs were listed"
    detail = f"{_LISTS} relists of {found['seconds']:.2f} s each"
    name = f"relist of {count} Jobs, longest stall of the loop"
    return [
        Row(f"{name}, its own CPU", found["stall_cpu_ms"], "ms", 20, detail=detail, noise=noise),
        Row(f"{name}, by the clock", found["stall_ms"], "ms", 20, detail="preemption included", noise=noise),
    ]


def _renamed(job: dict[str, Any], number: int) -> dict[str, Any]:
    return {**job, "metadata": {**job["metadata"], "name": f"{job['metadata']['name']}-{number}"}}


async def import_rows(lab: Lab) -> list[Row]:
    """Measure what a fresh interpreter takes for each import, less what it takes for none."""
    rows = []
    for what, statement, target in _IMPORTS:

        async def measure(statement: str = statement) -> list[tuple[float, float, float]]:
            return [
                tuple(a - b for a, b in zip(_started(statement), _started("pass"), strict=True))  # type: ignore[misc]
                for _ in range(_STARTS)
            ]

        found, noise = await lab.machine.undisturbed(what, measure)
        wall, cpu, memory = (statistics.median(each) for each in zip(*found, strict=True))
        detail = f"CPU {cpu:.0f} ms, {memory:.0f} MiB; n={_STARTS}, an interpreter without it taken off"
        rows.append(Row(what, wall, "ms", target, detail=detail, noise=noise))
    return rows


def _started(statement: str) -> tuple[float, float, float]:
    """Run a fresh interpreter; return wall and CPU milliseconds and peak MiB."""
    began = time.perf_counter()
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", statement], {"PATH": os.environ["PATH"]})
    _, status, used = os.wait4(pid, 0)
    assert status == 0, statement
    usage: resource.struct_rusage = used
    return 1000 * (time.perf_counter() - began), 1000 * (usage.ru_utime + usage.ru_stime), usage.ru_maxrss / 1024
