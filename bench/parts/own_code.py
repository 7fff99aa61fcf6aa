"""What our own code costs, each in a fresh process set up as ``storeplane serve`` is. Prints one JSON object.

``dispatch COUNT`` dispatches what is queued: claim, render, store, POST, record, with the real database and the real
API server, whose own time does not count here. ``events FILE`` takes up recorded watch lines. ``relist TIMES`` lists
the Jobs of the namespace while something looks how long the event loop did not get round. Settings as for the service.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import override

from controlplane.app import Parts, parts
from controlplane.config import load_settings
from controlplane.dispatcher import Dispatcher
from controlplane.kube.jobs import JobGateway
from controlplane.kube.views import JOBS
from controlplane.kube.watch import Watched, WatchedPods
from controlplane.telemetry import configure_logging

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from controlplane.domain.observation import JobView

__all__ = ["main"]

_REPETITIONS: Final = 20
_DRAIN_SECONDS: Final = 60.0
_PIECE_LINES: Final = 4
"""Lines that a read of a busy watch brings at once."""
_EMPTY_LIST: Final = b'{"kind":"%sList","metadata":{"resourceVersion":"1"},"items":[]}'


class _Suspending(JobGateway):
    """Posts Jobs that nothing runs, so that no pod's start disturbs the measurement."""

    @override
    async def create(self, manifest: dict[str, Any], token_hash: bytes) -> JobView:
        manifest["spec"]["suspend"] = True
        return await super().create(manifest, token_hash)


async def _dispatch(made: Parts, count: int) -> dict[str, float]:
    settings = load_settings()
    async with parts(settings) as other:
        gateway = _Suspending(other.jobs._client, settings.jobs_namespace)  # noqa: SLF001 -- the same session
        dispatcher = Dispatcher(made.claims, gateway, settings, name="bench")
        await dispatcher.run_once()  # statements are prepared, connections are open
        await dispatcher.drain(_DRAIN_SECONDS)
        done = await _count(made)
        before, wall = os.times(), time.perf_counter()
        while await dispatcher.run_once() is not None:
            pass
        await dispatcher.drain(_DRAIN_SECONDS)
        after, wall = os.times(), time.perf_counter() - wall
        did = count - done
        user, kernel = after.user - before.user, after.system - before.system
        return {"user_us": 1e6 * user / did, "kernel_us": 1e6 * kernel / did, "rate": did / wall, "count": did}


async def _count(made: Parts) -> int:
    unsettled = (await made.attempts.list_unsettled(1000))[1]
    return sum(each.job_uid is not None for each in unsettled)


class _Recorded:
    """A cluster whose watch is a recording."""

    def __init__(self, raw: list[bytes], kind: str) -> None:
        self._pieces = [b"".join(raw[at : at + _PIECE_LINES]) for at in range(0, len(raw), _PIECE_LINES)]
        self._kind = kind

    async def read(self, _method: str, _path: str, **_more: object) -> bytes:
        return _EMPTY_LIST % self._kind.encode()

    @asynccontextmanager
    async def stream(self, _path: str, **_more: object) -> AsyncIterator[AsyncIterator[bytes]]:
        yield self._all()

    async def _all(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


async def _events(recorded: dict[str, list[str]]) -> dict[str, float]:
    jobs = [line.encode() + b"\n" for line in recorded["jobs"]]
    pods = [line.encode() + b"\n" for line in recorded["pods"]]
    news: set[UUID] = set()

    def tell(old: Any, new: Any) -> None:
        view = new or old
        if view.operation_id is not None:
            news.add(view.operation_id)

    def tell_pod(_old: Any, new: Any) -> None:
        news.add(new)

    spent = 0.0
    for _ in range(_REPETITIONS):
        client: Any = _Recorded(jobs, "Job")
        watched: Any = Watched(client, JOBS, "bench", on_change=tell)
        pod_client: Any = _Recorded(pods, "Pod")
        watched_pods = WatchedPods(pod_client, "bench", on_change=tell_pod)
        await watched.relist()
        await watched_pods.relist()
        began = time.process_time()
        await watched.follow()
        await watched_pods.follow()
        spent += time.process_time() - began
    count = _REPETITIONS * (len(jobs) + len(pods))
    sizes = [len(line) for line in (*jobs, *pods)]
    return {"microseconds": 1e6 * spent / count, "count": count, "bytes": sum(sizes) / len(sizes)}


async def _relist(made: Parts, times: int) -> dict[str, float]:
    gc.collect()
    gc.freeze()
    # Only the longest is kept: a million samples would stall the loop themselves, in the garbage collector.
    longest_wall = longest_cpu = 0.0
    is_over = False

    async def look() -> None:
        nonlocal longest_wall, longest_cpu
        wall, cpu = time.perf_counter(), time.thread_time()
        while not is_over:
            await asyncio.sleep(0)
            now, spent = time.perf_counter(), time.thread_time()
            longest_wall, longest_cpu = max(longest_wall, now - wall), max(longest_cpu, spent - cpu)
            wall, cpu = now, spent

    looking = asyncio.create_task(look())
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        await made.observer.jobs.relist()
        taken.append(time.perf_counter() - began)
    is_over = True
    await looking
    return {
        "stall_ms": 1000 * longest_wall,
        "stall_cpu_ms": 1000 * longest_cpu,
        "seconds": sorted(taken)[len(taken) // 2],
        "count": len(made.observer.jobs.snapshot()),
    }


async def _run(what: str, argument: str) -> dict[str, float]:
    settings = load_settings()
    async with parts(settings) as made:
        return await (_dispatch if what == "dispatch" else _relist)(made, int(argument))


def main() -> None:
    """Measure what the arguments say; logs go where the service's go, the result to standard error."""
    configure_logging("info")
    what, argument = sys.argv[1:3]
    if what == "events":
        result = asyncio.run(_events(json.loads(Path(argument).read_text(encoding="utf-8"))))
    else:
        result = asyncio.run(_run(what, argument))
    print(json.dumps(result), file=sys.stderr)


if __name__ == "__main__":
    main()
