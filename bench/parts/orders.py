"""From request to Job to done: one at a time on an idle plane, and sixty at once against the same Jobs posted raw."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from bench.parts.lab import wait_until
from bench.parts.machine import cgroup_seconds, process_seconds
from bench.parts.table import Row, percentile
from bench.parts.watching import Watch, watching
from controlplane.db.claims import ClaimRows
from controlplane.domain.attempt import attempt_token
from controlplane.kube.job_manifest import with_token
from tests.support import wishes
from tests.support.ledger import renderer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.parts.lab import Lab, Plane, Tables, User
    from bench.parts.machine import Noise

__all__ = ["Burst", "burst_rows", "bursts", "post_raw", "prepare_raw", "single_rows"]

_WARM_UP: Final = 3
_POLL_SECONDS: Final = 0.01
_USERS: Final = 6
"""Of ten orders each: within the slots, the bucket and the number in flight that a new installation has."""
_BURST: Final = 60
_CONNECTIONS: Final = 8
_END_SECONDS: Final = 60.0


@dataclass(frozen=True)
class _Single:
    to_job: float
    to_done: float
    to_complete: float
    asked: float


async def single_rows(lab: Lab, count: int) -> list[Row]:
    """Measure orders one after the other, each when the one before is settled."""
    async with lab.plane() as plane, watching(lab.kube, plane.namespace) as seen:
        (user,) = await plane.users(1)
        for _ in range(_WARM_UP):
            await _single(plane, seen, user)

        async def measure() -> _Single:
            return await _single(plane, seen, user)

        found, noise, taken = await lab.machine.samples(f"{count} single orders", measure, count)
    jobs = [1000 * each.to_job for each in found]
    done = [each.to_done for each in found]
    complete = [each.to_complete for each in found]
    answers = [1000 * each.asked for each in found]
    n = f"n={count} of {taken}"
    return [
        Row("request answered -> Job created, p50", percentile(jobs, 0.5), "ms", 25, detail=n, noise=noise),
        Row(
            "request answered -> Job created, p99",
            percentile(jobs, 0.99),
            "ms",
            80,
            detail=f"{n}, {min(jobs):.1f} to {max(jobs):.1f}",
            noise=noise,
        ),
        Row(
            "request -> answered, p50",
            percentile(answers, 0.5),
            "ms",
            detail=f"p99 {percentile(answers, 0.99):.1f}",
            noise=noise,
        ),
        Row(
            "request -> done known through the API, p50",
            percentile(done, 0.5),
            "s",
            1.3,
            detail=f"{n}, p99 {percentile(done, 0.99):.2f}",
            noise=noise,
        ),
        Row(
            "request -> Job condition Complete, p50",
            percentile(complete, 0.5),
            "s",
            detail=f"p99 {percentile(complete, 0.99):.2f}",
            noise=noise,
        ),
    ]


async def _single(plane: Plane, seen: Watch, user: User) -> _Single:
    operation, asked, answered = await plane.order(user)
    await seen.until(lambda: operation in seen.created)
    state = ""

    async def is_done() -> bool:
        nonlocal state
        state = await plane.state(user, operation)
        return state not in ("queued", "running")

    await wait_until(is_done, f"operation {operation} is done", seconds=_END_SECONDS, every=_POLL_SECONDS)
    done = time.perf_counter()
    assert state == "succeeded", f"operation {operation} {state}"
    await seen.until(lambda: operation in seen.ended)
    await wait_until(plane.is_settled, "all is harvested", seconds=_END_SECONDS, every=0.1)
    return _Single(seen.created[operation] - answered, done - asked, seen.ended[operation] - asked, answered - asked)


@dataclass(frozen=True)
class Burst:
    """One round of sixty: seconds from the first request or POST."""

    created: float
    done: float
    """The last operation has ended in the database, so the API says so."""
    complete: float
    own_cpu: float
    """Milliseconds an operation: the control plane's process, from the first request until all is harvested."""
    postgres_cpu: float


async def bursts(lab: Lab, rounds: int) -> tuple[list[Row], Watch]:
    """Measure rounds of sixty at once, ours and raw in turn; return also what the watch told of ours."""
    recorded = Watch()

    async def measure() -> tuple[Burst, Burst]:
        nonlocal recorded
        ours, recorded = await _our_round(lab)
        return ours, await _raw_round(lab)

    found, noise, taken = await lab.machine.samples("60 at once, ours and raw", measure, rounds)
    ours, raw = zip(*found, strict=True)
    return burst_rows(ours, raw, noise, taken), recorded


async def _our_round(lab: Lab) -> tuple[Burst, Watch]:
    async with lab.plane() as plane, watching(lab.kube, plane.namespace, with_pods=True) as seen:
        users = await plane.users(_USERS)
        await _single(plane, seen, users[0])  # the first of everything is slower
        return await _ours(plane, seen, users), seen


async def _raw_round(lab: Lab) -> Burst:
    async with lab.tables() as tables, watching(lab.kube, tables.namespace) as seen:
        return await _raw(tables, seen)


async def _ours(plane: Plane, seen: Watch, users: Sequence[User]) -> Burst:
    before = set(seen.ended)
    own, postgres = process_seconds(plane.process.pid), cgroup_seconds(plane.lab.postgres_cgroup)
    places = asyncio.Semaphore(_CONNECTIONS)

    async def order(user: User) -> str:
        async with places:
            return (await plane.order(user))[0]

    began, began_at = time.perf_counter(), time.time()
    mine = set(await asyncio.gather(*(order(users[each % len(users)]) for each in range(_BURST))))
    await seen.until(lambda: mine <= set(seen.ended) - before)
    await wait_until(plane.is_settled, "all is harvested", seconds=_END_SECONDS, every=0.5)
    own, postgres = process_seconds(plane.process.pid) - own, cgroup_seconds(plane.lab.postgres_cgroup) - postgres
    return Burst(
        created=max(seen.created[each] for each in mine) - began,
        done=await plane.last_finished() - began_at,
        complete=max(seen.ended[each] for each in mine) - began,
        own_cpu=1000 * own / _BURST,
        postgres_cpu=1000 * postgres / _BURST,
    )


async def prepare_raw(tables: Tables, count: int, users: int) -> list[bytes]:
    """Write orders and their attempts, and return the Jobs as the dispatcher would post them."""
    owners = [await tables.ledger.user() for _ in range(users)]
    for number in range(count):
        await tables.ledger.order(owners[number % users], name="shop", spec={"provisioner_image": tables.lab.image})
    await tables.budget(in_flight=100_000)
    rows, render = ClaimRows(tables.database, "default"), renderer(tables.settings)
    bodies: list[bytes] = []
    while len(bodies) < count:
        for each in (await rows.claim("raw", 3600, 50, render)).attempts:
            assert each.manifest is not None
            token = attempt_token(wishes.KEY.encode(), each.operation_id, each.number)
            bodies.append(orjson.dumps(with_token(each.manifest, token)))
    return bodies


async def post_raw(tables: Tables, bodies: Sequence[bytes], connections: int) -> None:
    """Post Jobs as fast as the cluster takes them on so many connections."""
    waiting = iter(bodies)

    async def post() -> None:
        for body in waiting:
            await tables.lab.kube.read("POST", tables.jobs_path, body=body)

    await asyncio.gather(*(post() for _ in range(connections)))


async def _raw(tables: Tables, seen: Watch) -> Burst:
    before = set(seen.ended)
    bodies = await prepare_raw(tables, _BURST, _USERS)
    await asyncio.sleep(1)  # the preparation's commits are on the disk
    postgres = cgroup_seconds(tables.lab.postgres_cgroup)
    began, began_at = time.perf_counter(), time.time()
    await post_raw(tables, bodies, _CONNECTIONS)
    await seen.until(lambda: len(seen.ended) - len(before) == _BURST)
    mine = set(seen.ended) - before
    return Burst(
        created=max(seen.created[each] for each in mine) - began,
        done=await tables.last_finished() - began_at,
        complete=max(seen.ended[each] for each in mine) - began,
        own_cpu=0.0,
        postgres_cpu=1000 * (cgroup_seconds(tables.lab.postgres_cgroup) - postgres) / _BURST,
    )


def burst_rows(ours: Sequence[Burst], raw: Sequence[Burst], noise: Noise, taken: int) -> list[Row]:
    """Return the medians over the rounds, and of the ratios round by round."""

    def ratio(of: Any) -> tuple[float, str]:
        each = [of(one) / of(other) for one, other in zip(ours, raw, strict=True)]
        return statistics.median(each), f"rounds {', '.join(f'{value:.2f}' for value in each)} of {taken}"

    def middle(bursts_: Sequence[Burst], of: Any) -> float:
        return float(statistics.median(of(each) for each in bursts_))

    complete, complete_detail = ratio(lambda each: each.complete)
    done, done_detail = ratio(lambda each: each.done)
    known = statistics.median(one.done / other.complete for one, other in zip(ours, raw, strict=True))
    own, postgres = middle(ours, lambda each: each.own_cpu), middle(ours, lambda each: each.postgres_cpu)
    pods = middle(raw, lambda each: each.postgres_cpu)
    return [
        Row("60 at once to last Job Complete, ours / raw", complete, "x", 1.1, detail=complete_detail, noise=noise),
        Row("60 at once to last report in Postgres, ours / raw", done, "x", 1.1, detail=done_detail, noise=noise),
        Row("60 at once, done in our API / last raw Job Complete", known, "x", 1.1, noise=noise),
        Row(
            "60 at once to all done, ours",
            middle(ours, lambda each: each.done),
            "s",
            detail=f"last Job created {middle(ours, lambda each: each.created):.2f} s, "
            f"Complete {middle(ours, lambda each: each.complete):.2f} s",
            noise=noise,
        ),
        Row(
            "60 at once to all done, raw",
            middle(raw, lambda each: each.done),
            "s",
            detail=f"last Job created {middle(raw, lambda each: each.created):.2f} s, "
            f"Complete {middle(raw, lambda each: each.complete):.2f} s",
            noise=noise,
        ),
        Row(
            "CPU of an operation, all told with Postgres",
            own + postgres,
            "ms",
            20,
            detail=f"accept to harvest: process {own:.1f}, Postgres {postgres:.1f} "
            f"(of it {pods:.1f} for the pods' reports and connections)",
            noise=noise,
        ),
    ]
