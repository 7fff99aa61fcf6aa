"""A sustained rate on simulated nodes against the same Jobs posted raw, and what a replica weighs afterwards.

The real node takes no pods meanwhile and the simulated ones lose their taint, so that the product's own Jobs land on
them. Their pods succeed at once and have no container that could report.
"""

from __future__ import annotations

import asyncio
import functools
import statistics
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import orjson

from bench.parts.lab import PASSWORD, wait_until
from bench.parts.orders import post_raw, prepare_raw
from bench.parts.table import Row
from bench.parts.watching import watching
from controlplane.domain.attempt import attempt_token
from devcluster.kubernetes.fake_nodes import LABELS, TAINT
from tests.support import wishes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from bench.parts.lab import Lab, Plane, Tables
    from bench.parts.watching import Watch
    from controlplane.domain.observation import PodView

__all__ = ["memory_rows", "sustained_rows"]

_CONNECTIONS: Final = 16
"""As many as the dispatcher creates at once."""
_OPERATIONS: Final = 1000
_REPORTERS: Final = 4
_IDLE_SECONDS: Final = 5.0
_AFTER_SECONDS: Final = 30.0
_MERGE: Final = "application/merge-patch+json"


@asynccontextmanager
async def _simulated(lab: Lab) -> AsyncIterator[None]:
    """Let every new pod go to a simulated node."""
    await _nodes(lab, is_simulated=True)
    try:
        yield
    finally:
        await _nodes(lab, is_simulated=False)


async def _nodes(lab: Lab, *, is_simulated: bool) -> None:
    for node in orjson.loads(await lab.kube.read("GET", "/api/v1/nodes"))["items"]:
        labels = node["metadata"]["labels"]
        is_fake = all(labels.get(key) == value for key, value in LABELS.items())
        spec: dict[str, Any] = (
            {"taints": [] if is_simulated else [TAINT]} if is_fake else {"unschedulable": is_simulated}
        )
        path = f"/api/v1/nodes/{node['metadata']['name']}"
        await lab.kube.read("PATCH", path, body=orjson.dumps({"spec": spec}), content_type=_MERGE)


@dataclass(frozen=True)
class _Rates:
    """Jobs a second from a full queue: until the last exists, and until the last is Complete."""

    created: float
    complete: float


async def sustained_rows(lab: Lab, count: int, rounds: int) -> list[Row]:
    """Measure how fast a full queue becomes Jobs, and how fast those end; ours and raw in turn."""

    async def measure() -> tuple[_Rates, _Rates]:
        return await _ours(lab, count), await _raw(lab, count)

    async with _simulated(lab):
        found, noise, taken = await lab.machine.samples(f"{count} Jobs on simulated nodes", measure, rounds)
    ours, raw = zip(*found, strict=True)

    def row(what: str, of: Callable[[_Rates], float]) -> Row:
        ratios = [of(one) / of(other) for one, other in found]
        middle = [statistics.median(of(each) for each in side) for side in (ours, raw)]
        detail = f"ours {middle[0]:.0f}/s, raw {middle[1]:.0f}/s, {count} Jobs; rounds "
        detail += ", ".join(f"{value:.2f}" for value in ratios) + f" of {taken}"
        return Row(what, statistics.median(ratios), "x", 0.9, is_floor=True, detail=detail, noise=noise)

    return [
        row("Jobs on simulated nodes to Complete, ours / raw", lambda each: each.complete),
        row("Jobs on simulated nodes created, ours / raw", lambda each: each.created),
    ]


async def _ours(lab: Lab, count: int) -> _Rates:
    async with lab.plane() as plane, watching(lab.kube, plane.namespace, with_pods=True) as seen:
        users = await plane.users(_CONNECTIONS)
        await plane.budget(in_flight=0)
        await asyncio.gather(*(_order(plane, user, count // _CONNECTIONS) for user in users))
        await asyncio.sleep(1)

        async def go() -> None:
            await plane.budget(in_flight=100_000)
            await plane.ledger.execute("SELECT pg_notify('storeplane_work', '')")

        return await _rates(plane, seen, count // _CONNECTIONS * _CONNECTIONS, go)


async def _order(plane: Plane, user: Any, count: int) -> None:
    for _ in range(count):
        await plane.order(user)


async def _raw(lab: Lab, count: int) -> _Rates:
    async with lab.tables() as tables, watching(lab.kube, tables.namespace, with_pods=True) as seen:
        total = count // _CONNECTIONS * _CONNECTIONS
        bodies = await prepare_raw(tables, total, _CONNECTIONS)
        await asyncio.sleep(1)
        return await _rates(tables, seen, total, lambda: post_raw(tables, bodies, _CONNECTIONS))


async def _rates(tables: Tables, seen: Watch, total: int, go: Callable[[], Awaitable[None]]) -> _Rates:
    async with _reporting(tables, seen):
        began = time.perf_counter()
        await go()
        await seen.until(lambda: len(seen.ended) >= total)
    return _Rates(*(total / (max(moments.values()) - began) for moments in (seen.created, seen.ended)))


@asynccontextmanager
async def _reporting(tables: Tables, seen: Watch) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Report what pods without a container cannot."""
    pods: asyncio.Queue[PodView] = asyncio.Queue()
    seen.on_pod = pods.put_nowait
    reporters = [asyncio.create_task(_report(tables, seen, pods)) for _ in range(_REPORTERS)]
    try:
        yield reporters
        failed = [each.exception() for each in reporters if each.done()]
        assert not failed, failed[0]
    finally:
        for task in reporters:
            task.cancel()
        await asyncio.wait(reporters)


async def memory_rows(lab: Lab, count: int = _OPERATIONS) -> list[Row]:
    """Weigh a replica at rest, and after operations that ended; what their pods would report is reported for them."""
    async with _simulated(lab), lab.plane() as plane, watching(lab.kube, plane.namespace, with_pods=True) as seen:
        await asyncio.sleep(_IDLE_SECONDS)
        idle = plane.memory()
        users = await plane.users(_CONNECTIONS)
        await plane.budget(in_flight=100_000)
        async with _reporting(plane, seen) as reporters:
            began = time.perf_counter()
            await asyncio.gather(*(_order(plane, user, count // _CONNECTIONS) for user in users))

            async def is_done() -> bool:
                return any(each.done() for each in reporters) or await plane.is_done()

            await wait_until(is_done, "all are done", seconds=600, every=1)
            done = time.perf_counter() - began
        await plane.last_finished()
        # A simulated node has no logs to give; what matters is that the lists and the tries for logs came by.
        await asyncio.sleep(_AFTER_SECONDS)
        after = plane.memory()
        total = count // _CONNECTIONS * _CONNECTIONS
    return [
        Row("start of a replica until it answers", 1000 * plane.started_seconds, "ms"),
        Row("memory of a replica at rest (RSS)", idle["rss"], "MiB", detail=f"PSS {idle['pss']:.0f} MiB"),
        Row(
            f"memory after {total} operations (RSS)",
            after["rss"],
            "MiB",
            detail=f"PSS {after['pss']:.0f} MiB; all done after {done:.0f} s, {total / done:.0f}/s",
        ),
    ]


async def _report(tables: Tables, seen: Watch, pods: asyncio.Queue[PodView]) -> None:
    """Do in place of pods what they do with the database."""
    address, name = tables.lab.postgres, tables.url.rpartition("/")[2]
    connection: Any = await asyncpg.connect(
        f"postgresql://storeplane_provisioner:{PASSWORD}@{address.host}:{address.port}/{name}"
    )
    try:
        while True:
            pod = await pods.get()
            await seen.until(functools.partial(seen.jobs.__contains__, pod.job_uid))
            job = seen.jobs[str(pod.job_uid)]
            operation, number, key = job.operation_id, job.attempt, f"session-of-{job.uid}"
            assert operation is not None
            assert number is not None
            token = attempt_token(wishes.KEY.encode(), operation, number)
            await connection.fetchval(
                "SELECT storeplane.start_attempt($1, $2, $3, $4, $5, $6)",
                operation,
                number,
                token,
                job.uid,
                pod.uid,
                key,
            )
            done = await connection.fetchval(
                "SELECT storeplane.finish_attempt($1, $2, $3, 'succeeded', '{}'::jsonb, NULL)", operation, number, key
            )
            assert done, f"the report of {job.name} was refused"
    finally:
        await connection.close()
