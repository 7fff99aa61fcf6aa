"""The benchmark's own watch on Jobs and pods: when they were created and when they ended."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import orjson

from controlplane.kube.client import KubeClient, lines
from controlplane.kube.views import JOBS, PODS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from controlplane.domain.observation import JobView, PodView

__all__ = ["Watch", "watching"]

_SECONDS: Final = "3000"
_SILENCE: Final = 600.0


class Watch:
    """What was seen of one namespace, on the perf counter's clock, by the operation's id."""

    def __init__(self) -> None:
        self.created: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        self.job_lines: list[bytes] = []
        self.pod_lines: list[bytes] = []
        """As they came, for the measurement of what an event costs."""
        self.jobs: dict[str, JobView] = {}
        """By uid."""
        self.on_pod: Callable[[PodView], None] | None = None
        """Called once for every pod."""
        self._pods: set[str] = set()
        self._changed = asyncio.Event()

    async def until(self, is_so: Callable[[], bool], *, seconds: float = 300.0) -> None:
        """Wait, woken by news, until something is so."""
        async with asyncio.timeout(seconds):
            while not is_so():
                self._changed.clear()
                await self._changed.wait()

    def see(self, line: bytes) -> None:
        """Take up one line of the Jobs' watch."""
        now = time.perf_counter()
        self.job_lines.append(line)
        job = JOBS.change(line).view
        if job is None or job.operation_id is None:
            return
        key = str(job.operation_id)
        if key not in self.created:
            self.created[key] = now
            self.jobs[job.uid] = job
        if job.end is not None and key not in self.ended:
            assert job.end == "Complete", f"Job {job.name} failed: {job.reason}"
            self.ended[key] = now
        self._changed.set()

    def see_pod(self, line: bytes) -> None:
        """Take up one line of the pods' watch."""
        self.pod_lines.append(line)
        pod = PODS.change(line).view
        if pod is not None and pod.uid not in self._pods:
            self._pods.add(pod.uid)
            if self.on_pod is not None:
                self.on_pod(pod)


@asynccontextmanager
async def watching(client: KubeClient, namespace: str, *, with_pods: bool = False) -> AsyncIterator[Watch]:
    """Watch a namespace from now on."""
    seen = Watch()
    kinds = [(JOBS.path, seen.see), (PODS.path, seen.see_pod)][: 2 if with_pods else 1]
    tasks = [asyncio.create_task(_follow(client, path.format(namespace), take)) for path, take in kinds]
    await asyncio.sleep(0.3)  # the streams open; nothing is ordered before
    try:
        yield seen
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


async def _follow(client: KubeClient, path: str, take: Callable[[bytes], None]) -> None:
    version = orjson.loads(await client.read("GET", path, query={"limit": "1"}))["metadata"]["resourceVersion"]
    query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": _SECONDS}
    async with client.stream(path, query=query, silence_seconds=_SILENCE) as pieces:
        async for line in lines(pieces):
            take(line)
