"""List and watch against a server that fails in every way it can, on the loopback."""

from __future__ import annotations

import asyncio
import copy
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from controlplane.domain.observation import JobView, PodView
from controlplane.kube import watch
from controlplane.kube.errors import KubeError, KubeGoneError, KubeUnavailableError
from controlplane.kube.views import JOBS, PODS
from controlplane.kube.watch import Clock, Pace, Watched, WatchedPods
from tests.support.fake_apiserver import event_line, fake_apiserver, page, refuses, says
from tests.support.faulty_cluster import job_object, pod_object, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from controlplane.kube.client import KubeClient
    from tests.support.fake_apiserver import FakeApiServer

pytestmark = pytest.mark.unit

NAMESPACE = "storeplane-jobs"
GONE = refusal("Expired", "too old resource version") | {"code": 410}
FAR_PAUSE = 30.0
"""Longer pauses are the list's timer, shorter ones what follows a pass."""


class FastClock(Clock):
    """Passes short pauses at once and writes them down; the list's timer goes off when it is told to."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.passed = 0.0
        self._due = asyncio.Event()

    def now(self) -> float:
        return self.passed

    async def pause(self, seconds: float) -> None:
        if seconds > FAR_PAUSE:
            await self._due.wait()
            self._due.clear()
        else:
            self.pauses.append(seconds)
            # A turn of the loop for whoever else is ready: no pass may starve the others.
            await asyncio.sleep(0)
        self.passed += seconds

    def timer_goes_off(self) -> None:
        self._due.set()


class Told:
    """What ``on_change`` was told, in order."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, Any, Any]] = []

    def __call__(self, old: Any, new: Any) -> None:
        self.changes.append(((new or old).name, old, new))

    def of(self, name: str) -> list[tuple[Any, Any]]:
        return [(old, new) for told, old, new in self.changes if told == name]

    @property
    def removed(self) -> list[str]:
        return [name for name, _, new in self.changes if new is None]


class Bench:
    """A server, and what follows its Jobs."""

    def __init__(self, server: FakeApiServer, client: KubeClient) -> None:
        self.server = server
        self.client = client
        self.clock = FastClock()
        self.told = Told()
        self.jobs: Watched[JobView] = Watched(client, JOBS, NAMESPACE, on_change=self.told, clock=self.clock)

    @asynccontextmanager
    async def following(self, watched: Watched[Any] | None = None) -> AsyncIterator[None]:
        task = asyncio.create_task((watched or self.jobs).run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def sees(self, *names: str) -> bool:
        return {view.name for view in self.jobs.snapshot().values()} == set(names)

    async def end(self, name: str, uid: str) -> None:
        await self.server.put("jobs", ended_job(name, uid))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with fake_apiserver() as (server, client):
        yield Bench(server, client)


def living_job(name: str, uid: str) -> dict[str, Any]:
    made = job_object(name, uid, "0198c2a0-0000-7000-8000-000000000001")
    del made["kind"]
    return made


def ended_job(name: str, uid: str, end: str = "Complete") -> dict[str, Any]:
    return living_job(name, uid) | {"status": {"conditions": [{"type": end, "status": "True"}]}}


def told_job(change: str, made: dict[str, Any], version: int) -> bytes:
    made = copy.deepcopy(made)
    made["metadata"]["resourceVersion"] = str(version)
    return event_line(change, made)


async def until(probe: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 20
    while not probe():
        assert time.monotonic() < deadline, f"not in time: {what}"
        await asyncio.sleep(0.005)


async def test_refused_version_leads_to_a_list_that_tells_what_vanished(bench: Bench) -> None:
    await bench.server.put("jobs", living_job("kept", "k"))
    await bench.server.put("jobs", living_job("lost", "l"))
    await bench.jobs.relist()
    bench.server.lose("jobs", "lost")
    await bench.end("kept", "k")
    bench.server.forget()
    with pytest.raises(KubeGoneError):
        await bench.jobs.follow()
    async with bench.following():
        await until(lambda: bench.sees("kept"), "the list is read again")
    assert bench.told.removed == ["lost"]
    assert bench.jobs.snapshot()["k"].end == "Complete"


@pytest.mark.parametrize("fault", [refuses(410, "Expired"), says(event_line("ERROR", GONE))], ids=["http", "stream"])
async def test_410_in_any_place_misses_no_end(
    bench: Bench, fault: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> None:
    await bench.server.put("jobs", living_job("one", "1"))
    bench.server.fails("watch jobs", fault)
    await bench.jobs.relist()
    await bench.end("one", "1")
    async with bench.following():
        await until(lambda: bench.jobs.snapshot()["1"].end == "Complete", "the end is seen")
        await until(lambda: bench.server.calls["watch jobs"] == 2, "it is watched again")
    assert bench.server.calls["list jobs"] == 2
    assert len(bench.told.of("one")) == 2


async def test_expired_continuation_begins_the_list_anew(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_PAGE", 2)
    for name in "abcde":
        await bench.server.put("jobs", living_job(name, name))
    await bench.jobs.relist()

    async def expired(request: web.Request) -> web.StreamResponse:
        bench.server.lose("jobs", "a")
        return await refuses(410, "Expired")(request)

    bench.server.fails("continue jobs", expired)
    await bench.jobs.relist()
    assert bench.sees(*"bcde")
    assert bench.server.calls["list jobs"] == 3
    assert bench.told.removed == ["a"]


async def test_list_whose_continuation_always_expires_is_an_error_and_removes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        await bench.server.put("jobs", living_job(name, name))
    await bench.jobs.relist()
    monkeypatch.setattr(watch, "_PAGE", 2)
    bench.server.fails_until_healed("continue jobs", refuses(410, "Expired"))
    with pytest.raises(KubeGoneError):
        await bench.jobs.relist()
    assert bench.sees(*"abc")
    assert bench.told.removed == []


async def test_list_that_breaks_half_way_removes_nothing_and_stays_old(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_PAGE", 1)
    for name in "ab":
        await bench.server.put("jobs", living_job(name, name))
    await bench.jobs.relist()
    bench.clock.passed = 40.0
    await bench.end("a", "a")
    bench.server.fails("continue jobs", refuses(500, "InternalError"))
    with pytest.raises(KubeUnavailableError):
        await bench.jobs.relist()
    assert bench.sees("a", "b")
    assert bench.jobs.snapshot()["a"].end == "Complete"
    assert bench.jobs.age_seconds() == 40.0


async def test_age_counts_from_the_beginning_of_the_list(bench: Bench) -> None:
    """What it shows is of that moment, however long the rest of it took."""

    async def slow(request: web.Request) -> web.StreamResponse:
        bench.clock.passed += 8.0
        return bench.server._list(request, "jobs", NAMESPACE)  # noqa: SLF001 -- its normal answer

    bench.server.fails("list jobs", slow)
    await bench.jobs.relist()
    assert bench.jobs.age_seconds() == 8.0


async def test_nothing_is_synced_before_the_first_whole_list(bench: Bench) -> None:
    bench.server.fails("list jobs", refuses(503, "ServiceUnavailable"))
    with pytest.raises(KubeUnavailableError):
        await bench.jobs.relist()
    assert not bench.jobs.synced.is_set()
    assert bench.jobs.age_seconds() == float("inf")
    await bench.jobs.relist()
    assert bench.jobs.synced.is_set()


async def test_throttled_calls_wait_as_long_as_they_are_told(bench: Bench) -> None:
    bench.server.fails("list jobs", refuses(429, "TooManyRequests", **{"Retry-After": "7"}))
    bench.server.fails("watch jobs", refuses(429, "TooManyRequests", **{"Retry-After": "20"}))
    async with bench.following():
        await until(lambda: bench.server.calls["watch jobs"] == 2, "both were tried again")
    assert bench.clock.pauses[0] == 7.0
    assert bench.clock.pauses[1] == 20.0


FAULTS = {
    "a proxy's page with 200": page(200),
    "a proxy's page with 502": page(502),
    "a page with 503": page(503),
    "an empty answer": says(),
    "a body cut off": says(b'{"type":"ADD', then="cut"),
    "a refusal": refuses(403, "Forbidden"),
    "an error in the stream": says(event_line("ERROR", refusal("InternalError", "etcd") | {"code": 500})),
    "JSON that is no event": says(b'{"kind":"Status","code":200}\n'),
    "an object without uid": says(b'{"type":"ADDED","object":{"metadata":{"name":"x"}}}\n'),
}


@pytest.mark.parametrize("fault", list(FAULTS))
async def test_faulty_watch_is_retried_at_most_once_a_second_and_tells_nothing(bench: Bench, fault: str) -> None:
    await bench.server.put("jobs", living_job("one", "1"))
    bench.server.fails_until_healed("watch jobs", FAULTS[fault])
    async with bench.following():
        await until(lambda: bench.server.calls["watch jobs"] >= 8, "it is tried again and again")
        assert bench.sees("one")
        assert len(bench.told.changes) == 1
        assert min(bench.clock.pauses) >= 1.0
        assert bench.clock.pauses[6] >= 10.0
        assert max(bench.clock.pauses) <= 18.0
        # It goes on from where it was, and lists no more for that.
        assert set(bench.server.watched_from) == {bench.server.watched_from[0]}
        assert bench.server.calls["list jobs"] == 1
        bench.server.heal()
        await bench.end("one", "1")
        await until(lambda: bench.jobs.snapshot()["1"].end == "Complete", "what happened meanwhile is told")


@pytest.mark.parametrize("fault", ["a proxy's page with 200", "a proxy's page with 502", "an empty answer"])
async def test_faulty_list_is_never_taken_for_an_empty_one(bench: Bench, fault: str) -> None:
    await bench.server.put("jobs", living_job("one", "1"))
    await bench.jobs.relist()
    bench.server.fails("list jobs", FAULTS[fault])
    with pytest.raises(KubeUnavailableError):
        await bench.jobs.relist()
    assert bench.sees("one")


async def test_half_a_line_loses_no_event_before_and_none_after_it(bench: Bench) -> None:
    await bench.server.put("jobs", living_job("one", "1"))
    await bench.jobs.relist()
    whole, half = told_job("ADDED", living_job("two", "2"), 150), told_job("ADDED", living_job("three", "3"), 151)
    was_read = asyncio.Event()
    bench.server.fails("watch jobs", says(whole, half[:40], then="cut", after=was_read))
    watching = asyncio.create_task(bench.jobs.follow())
    await until(lambda: bench.sees("one", "two"), "the whole line is told")
    was_read.set()
    with pytest.raises(KubeUnavailableError):
        await watching
    bench.server.fails("watch jobs", says(half[:40]))
    with pytest.raises(KubeUnavailableError, match="inside a line"):
        await bench.jobs.follow()
    bench.server.fails("watch jobs", says(half))
    await bench.jobs.follow()
    assert bench.sees("one", "two", "three")
    assert bench.server.watched_from[-2:] == ["150", "150"]
    assert bench.server.calls["list jobs"] == 1


async def test_lines_are_put_together_however_they_are_cut(bench: Bench) -> None:
    await bench.jobs.relist()
    text = b"".join(told_job("ADDED", living_job(name, name), 200) for name in ("one", "two"))
    bench.server.fails("watch jobs", says(*(text[at : at + 7] for at in range(0, len(text), 7))))
    await bench.jobs.follow()
    assert bench.sees("one", "two")


async def test_bookmark_moves_on_where_the_watch_is_resumed(bench: Bench) -> None:
    await bench.jobs.relist()
    bookmark = event_line(
        "BOOKMARK", {"kind": "Job", "metadata": {"resourceVersion": "900", "creationTimestamp": None}}
    )
    bench.server.fails("watch jobs", says(bookmark), says(told_job("ADDED", living_job("one", "1"), 901)))
    await bench.jobs.follow()
    # The list is of an earlier moment than the bookmark and does not set the watch back.
    await bench.jobs.relist()
    assert bench.told.changes == []
    await bench.jobs.follow()
    assert bench.server.watched_from[-1] == "900"


async def test_watch_that_fails_after_it_brought_something_is_resumed_without_a_longer_wait(bench: Bench) -> None:
    line = told_job("ADDED", living_job("one", "1"), 200)
    bench.server.fails_until_healed("watch jobs", says(line, event_line("ERROR", refusal("InternalError", "etcd"))))
    async with bench.following():
        await until(lambda: bench.server.calls["watch jobs"] >= 6, "it is resumed again and again")
    assert max(bench.clock.pauses) < 2.0


async def test_duplicates_are_told_once(bench: Bench) -> None:
    await bench.jobs.relist()
    line = told_job("ADDED", living_job("one", "1"), 200)
    noise = living_job("one", "1") | {"spec": {"parallelism": 1}}
    bench.server.fails("watch jobs", says(line, line, told_job("MODIFIED", noise, 201)))
    await bench.jobs.follow()
    assert len(bench.told.changes) == 1


async def test_replayed_events_revive_nothing(bench: Bench) -> None:
    await bench.jobs.relist()
    alive, ended = living_job("one", "1"), ended_job("one", "1", "Failed")
    bench.server.fails(
        "watch jobs",
        says(
            told_job("ADDED", alive, 200),
            told_job("MODIFIED", ended, 201),
            told_job("MODIFIED", alive, 200),
            told_job("ADDED", living_job("two", "2"), 202),
            told_job("DELETED", living_job("two", "2"), 203),
            told_job("ADDED", living_job("two", "2"), 202),
        ),
    )
    await bench.jobs.follow()
    assert bench.jobs.snapshot()["1"].end == "Failed"
    assert bench.sees("one")
    assert bench.told.removed == ["two"]


async def test_last_state_of_a_removed_job_is_told_before_its_removal(bench: Bench) -> None:
    await bench.server.put("jobs", living_job("one", "1"))
    await bench.jobs.relist()
    bench.server.fails("watch jobs", says(told_job("DELETED", ended_job("one", "1"), 200)))
    await bench.jobs.follow()
    (_, (_, ended), (before, after)) = bench.told.of("one")
    assert (ended.end, before, after) == ("Complete", ended, None)


async def test_name_belongs_to_the_job_that_has_it_now(bench: Bench) -> None:
    await bench.server.put("jobs", living_job("one", "old"))
    await bench.jobs.relist()
    bench.server.fails(
        "watch jobs",
        says(told_job("ADDED", living_job("one", "new"), 200), told_job("DELETED", living_job("one", "old"), 201)),
    )
    await bench.jobs.follow()
    found = bench.jobs.by_name("one")
    assert found is not None
    assert found.uid == "new"
    assert "old" not in bench.jobs.snapshot()


async def test_name_is_put_right_by_a_list_after_a_replay_of_its_former_owner(bench: Bench) -> None:
    await bench.server.put("jobs", living_job("one", "old"))
    await bench.jobs.relist()
    bench.server.lose("jobs", "one")
    await bench.server.put("jobs", living_job("one", "new"))
    await bench.jobs.relist()
    bench.server.fails("watch jobs", says(told_job("MODIFIED", living_job("one", "old"), 90)))
    await bench.jobs.follow()
    await bench.jobs.relist()
    found = bench.jobs.by_name("one")
    assert found is not None
    assert found.uid == "new"


async def test_list_removes_nothing_that_the_watch_spoke_of_meanwhile(bench: Bench) -> None:
    await bench.server.put("jobs", living_job("one", "1"))
    asked, answers = asyncio.Event(), asyncio.Event()

    async def lacks_it(_request: web.Request) -> web.StreamResponse:
        asked.set()
        await answers.wait()
        return web.json_response({"kind": "JobList", "metadata": {"resourceVersion": "90"}, "items": []})

    async with bench.following():
        await until(lambda: bench.server.calls["watch jobs"] == 1, "it is watched")
        bench.server.fails("list jobs", lacks_it)
        bench.clock.timer_goes_off()
        await asked.wait()
        await bench.end("one", "1")
        await until(lambda: bench.jobs.snapshot()["1"].end == "Complete", "the watch tells its end")
        answers.set()
        bench.clock.timer_goes_off()
        await until(lambda: bench.server.calls["list jobs"] == 3, "the list was taken up")
        assert bench.told.removed == []


async def test_stale_list_takes_nothing_back_that_the_watch_told_meanwhile(bench: Bench) -> None:
    """The list's answer is from before two changes, and is read after them."""
    await bench.server.put("jobs", living_job("goes", "g"))
    await bench.jobs.relist()
    asked, answers = asyncio.Event(), asyncio.Event()

    async def late(request: web.Request) -> web.StreamResponse:
        answer = bench.server._list(request, "jobs", NAMESPACE)  # noqa: SLF001 -- its normal answer, of this moment
        asked.set()
        await answers.wait()
        return answer

    bench.server.fails("list jobs", late)
    async with bench.following():
        await until(lambda: bench.server.calls["watch jobs"] == 1, "it is watched")
        bench.clock.timer_goes_off()
        await asked.wait()
        await bench.server.put("jobs", living_job("comes", "c"))
        await bench.server.remove("jobs", "goes")
        await until(lambda: bench.sees("comes"), "the watch tells both")
        answers.set()
        # A second list comes only after the first was taken up.
        bench.clock.timer_goes_off()
        await until(lambda: bench.server.calls["list jobs"] == 3, "both lists are read")
        assert bench.sees("comes")
    assert bench.told.removed == ["goes"]
    assert len(bench.told.of("comes")) == 1


async def test_silent_watch_is_made_good_by_the_timer(bench: Bench) -> None:
    await bench.server.put("jobs", living_job("one", "1"))
    bench.server.fails_until_healed("watch jobs", says(then="stalls"))
    async with bench.following():
        await until(lambda: bench.server.calls["watch jobs"] == 1, "it is watched")
        await bench.end("one", "1")
        bench.clock.timer_goes_off()
        await until(lambda: bench.jobs.snapshot()["1"].end == "Complete", "the list tells the end")


async def test_silent_watch_is_given_up_and_taken_up_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_SILENCE_SECONDS", 0.2)
    await bench.server.put("jobs", living_job("one", "1"))
    bench.server.fails("watch jobs", says(told_job("ADDED", living_job("two", "2"), 150), then="stalls"))
    await bench.jobs.relist()
    with pytest.raises(KubeUnavailableError, match=r"(?i)timeout"):
        await bench.jobs.follow()
    assert bench.sees("one", "two")


async def test_refused_credentials_are_read_again_for_a_watch_too(bench: Bench) -> None:
    loads = 0
    configuration = bench.client._configuration  # noqa: SLF001 -- the same one again

    async def load() -> Any:
        nonlocal loads
        loads += 1
        return copy.copy(configuration)

    bench.client._load = load  # noqa: SLF001 -- only `connect` gives one
    bench.server.fails("watch jobs", refuses(401, "Unauthorized"), says(told_job("ADDED", living_job("one", "1"), 150)))
    await bench.jobs.relist()
    await bench.jobs.follow()
    assert bench.sees("one")
    assert loads == 1


async def test_thousands_of_jobs_are_taken_up_and_let_go_in_slices(bench: Bench) -> None:
    turn = 0
    told_in: dict[int, int] = {}

    async def tick() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    def count(_old: object, _new: object) -> None:
        told_in[turn] = told_in.get(turn, 0) + 1

    for number in range(2000):
        name = f"job-{number:04}"
        bench.server._objects["jobs", NAMESPACE, name] = living_job(name, name)  # noqa: SLF001 -- without their history
    watched: Watched[JobView] = Watched(bench.client, JOBS, NAMESPACE, on_change=count)
    ticker = asyncio.create_task(tick())
    await watched.relist()
    assert (len(watched.snapshot()), sum(told_in.values())) == (2000, 2000)
    assert max(told_in.values()) <= 100
    told_in.clear()
    bench.server._objects.clear()  # noqa: SLF001 -- all at once
    await watched.relist()
    assert (len(watched.snapshot()), sum(told_in.values())) == (0, 2000)
    assert max(told_in.values()) <= 100
    ticker.cancel()


async def test_ended_pod_stays_ended_and_found_by_its_job(bench: Bench) -> None:
    pods = WatchedPods(bench.client, NAMESPACE, clock=bench.clock)
    ended = {"terminated": {"exitCode": 10, "reason": "Error"}}
    await bench.server.put("pods", pod_object("p", "p", "j", **ended))
    await pods.relist()
    running = pod_object("p", "p", "j", running={})
    bench.server.fails("watch pods", says(told_job("MODIFIED", running, 150)))
    await pods.follow()
    (pod,) = pods.of_job("j")
    assert (pod.exit_code, pod.has_ended, pod.started) == (10, True, True)
    bench.server.lose("pods", "p")
    await pods.relist()
    assert pods.of_job("j") == []


LIVING = PodView("p", "p", "j", "Running", None, "", "", started=True)
ENDED = PodView("p", "p", "j", "Failed", 137, "Error", "", started=True)
UNKNOWN_END = PodView("p", "p", "j", "Failed", -1, "", "", started=True)
GOING = PodView("p", "p", "j", "Running", None, "", "", started=True, is_terminating=True)
FRESH = PodView("p", "p", "j", "Pending", None, "", "")


@pytest.mark.parametrize(
    ("known", "told", "latest"),
    [
        (FRESH, LIVING, LIVING),
        (LIVING, ENDED, ENDED),
        (LIVING, FRESH, LIVING),
        (ENDED, LIVING, ENDED),
        (ENDED, GOING, ENDED),
        (GOING, LIVING, GOING),
        (UNKNOWN_END, ENDED, ENDED),
        (ENDED, UNKNOWN_END, ENDED),
    ],
)
def test_later_state_of_a_pod_wins(known: PodView, told: PodView, latest: PodView) -> None:
    assert PODS.latest(known, told) == latest


def test_waits_grow_to_a_cap_and_begin_anew_once_something_was_heard() -> None:
    pace = Pace()
    waits = [pace.after_failure(None) for _ in range(60)]
    assert all(1.0 <= wait <= 18.0 for wait in waits)
    assert waits[0] < 2.0 <= waits[1] < 4.0 <= waits[2]
    assert min(waits[4:]) >= 15.0
    pace.heard()
    assert pace.after_failure(None) < 2.0
    assert pace.after_failure(10_000.0) == 60.0
    assert pace.after_success(240.0) == 0.0
    assert 0.5 <= pace.after_success(0.5) <= 1.0


async def test_closed_port_is_an_error_of_ours(bench: Bench) -> None:
    bench.client._base_url = "http://127.0.0.1:1"  # noqa: SLF001 -- nobody listens there
    with pytest.raises(KubeError):
        await bench.jobs.follow()
