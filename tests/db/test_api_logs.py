"""Logs: archive, living pod, and streams that end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from controlplane.domain.observation import PodView
from controlplane.domain.store import Origin
from controlplane.services.logs import Logs
from tests.support.api import Api, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.db.pool import Database

pytestmark = pytest.mark.db

RUNNING = PodView("pod-1", "pod-uid", "job-uid", "Running", None, "", "")


@pytest.fixture
async def api(database: Database) -> AsyncIterator[Api]:
    async with serve(database) as made:
        yield made


def _path(body: Any, query: str = "") -> str:
    return f"/api/operations/{body['operation']['id']}/logs{query}"


async def _living(api: Api) -> Any:
    body = await api.create()
    await api.open_attempt(body)
    api.jobs.is_away, api.jobs.pods, api.jobs.text = False, [RUNNING], "so far\n"
    return body


async def test_archive_is_served_by_attempt(api: Api) -> None:
    body = await api.create()
    for number in (1, 2):
        await api.open_attempt(body)
        await api.execute(
            "INSERT INTO storeplane.attempt_logs (operation_id, number, content) VALUES ($1, $2, $3)",
            body["operation"]["id"],
            number,
            f"log {number}\n",
        )
        await api.execute("UPDATE storeplane.attempts SET state = 'lost', outcome = 'lost', finished_at = now()")
    assert (await api.call("GET", _path(body)))[:2] == (200, "log 2\n")
    assert (await api.call("GET", _path(body, "?attempt=1&follow=true")))[:2] == (200, "log 1\n")
    status, problem, _ = await api.call("GET", _path(body, "?attempt=3"))
    assert (status, problem["detail"]) == (404, "No log: the operation has no attempt 3")
    for query in ("attempt=0", "attempt=x", "follow=1", "follow="):
        assert (await api.call("GET", _path(body, f"?{query}")))[0] == 422


async def test_living_pod_is_read(api: Api) -> None:
    body = await _living(api)
    status, text, headers = await api.call("GET", _path(body))
    assert (status, text, headers["Content-Type"]) == (200, "so far\n", "text/plain; charset=utf-8")
    assert headers["X-Content-Type-Options"] == "nosniff"
    api.jobs.text = None
    assert "has not started to write" in (await api.call("GET", _path(body)))[1]["detail"]
    api.jobs.is_away = True
    status, problem, _ = await api.call("GET", _path(body))
    assert (status, problem["code"]) == (503, "DEPENDENCY_UNAVAILABLE")


async def test_following_gives_pieces_as_they_come_until_the_pod_ends(api: Api) -> None:
    body = await _living(api)
    headers = {"Authorization": f"Bearer {api.token}"}
    async with api.session.get(api.url + _path(body, "?follow=true"), headers=headers) as response:
        assert (response.status, response.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
        assert response.headers["X-Request-ID"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        for piece in (b"one\n", b"two\n"):
            api.jobs.pieces.put_nowait(piece)
            # Read before the next one is written: nothing waits for the end.
            assert await response.content.readline() == piece
        api.jobs.pieces.put_nowait(None)
        assert await response.content.read() == b""
    assert api.jobs.open_streams == 0


async def test_following_an_ended_pod_gives_what_there_is(api: Api) -> None:
    body = await _living(api)
    api.jobs.pods = [PodView("pod-1", "pod-uid", "job-uid", "Succeeded", 0, "", "")]
    assert (await api.call("GET", _path(body, "?follow=true")))[:2] == (200, "so far\n")


async def test_streams_of_one_user_are_limited_and_given_back(api: Api) -> None:
    body = await _living(api)
    path, headers = api.url + _path(body, "?follow=true"), {"Authorization": f"Bearer {api.token}"}
    streams = [await api.session.get(path, headers=headers) for _ in range(4)]
    assert [stream.status for stream in streams] == [200] * 4
    status, problem, answered = await api.call("GET", _path(body, "?follow=true"))
    assert (status, problem["code"], answered["Retry-After"]) == (429, "TOO_MANY_STREAMS", "5")
    for stream in streams:
        stream.close()

    async with asyncio.timeout(30):
        while api.jobs.open_streams:
            # A writer notices that nobody reads only when it writes.
            api.jobs.pieces.put_nowait(b"more\n")
            await asyncio.sleep(0.01)
    async with api.session.get(path, headers=headers) as response:
        assert response.status == 200


async def test_silence_ends_a_stream_with_a_word(api: Api) -> None:
    origin = Origin(caller=api.caller, request_id="r", traceparent="t", ip=None)
    api.jobs.is_away = False
    api.jobs.pieces.put_nowait(b"one\n")
    async with Logs(api.database, api.jobs, silence_seconds=0.05).followed("pod-1", origin) as pieces:
        assert [piece async for piece in pieces] == [b"one\n", b"[silent for 0 s; ask again to go on]\n"]
    assert api.jobs.open_streams == 0
