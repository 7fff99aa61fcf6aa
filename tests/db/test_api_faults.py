"""What must not hurt: hostile bodies, slow senders, a database that is away, busy or in a deadlock."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from yarl import URL

from controlplane.api import inputs
from controlplane.domain.errors import DatabaseUnavailableError
from tests.support.api import WISH, Api, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.db.pool import Database, Session
    from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.db


@pytest.fixture
async def api(database: Database) -> AsyncIterator[Api]:
    async with serve(database) as made:
        yield made


def _head(api: Api, length: int) -> str:
    head = "POST /api/stores HTTP/1.1\r\nHost: x"
    return f"{head}\r\nAuthorization: Bearer {api.token}\r\nContent-Length: {length}\r\n\r\n"


async def _raw(api: Api, sent: bytes, *, until: bytes) -> bytes:
    """Send bytes that no client would, and return what comes up to `until`."""
    address = URL(api.url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(sent)
        async with asyncio.timeout(30):
            return await reader.readuntil(until)
    finally:
        writer.close()


@pytest.mark.parametrize(
    "body", [b"[" * 60_000, b'{"name":' * 8_000, b'"\xff"', b"\xff\xfe", b"nul", b"{" + b" " * 60_000]
)
async def test_bomb_or_rubbish_is_invalid_json(api: Api, body: bytes) -> None:
    status, problem, _ = await api.call("POST", "/api/stores", data=body)
    assert (status, problem["code"]) == (400, "INVALID_JSON")


async def test_ten_megabytes_are_refused_without_being_kept(api: Api) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(160):
            yield b" " * 65_536

    before = resident()
    with contextlib.suppress(ConnectionError):
        status, problem, _ = await api.call("POST", "/api/stores", data=pieces())
        assert (status, problem["code"]) == (413, "BODY_TOO_LARGE")
    assert resident() - before < 10 * 1024 * 1024


async def test_slow_body_is_told_and_dropped(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_BODY_SECONDS", 0.05)
    head = _head(api, 100) + "{"
    answer = await _raw(api, head.encode(), until=b'"BODY_TIMEOUT"')
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"Connection: close" in answer


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n",
        b"POST /api/stores HTTP/1.1\r\nHost: x\r\nContent-Encoding: zstd\r\nContent-Length: 4\r\n\r\n{  }",
    ],
)
async def test_what_is_no_http_is_a_problem_and_no_traceback(
    api: Api, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await _raw(api, sent, until=b'"BAD_REQUEST"')
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert b"Content-Type: application/problem+json" in answer
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("path", ["/api/stores", "/livez"])
async def test_expectation_that_is_not_offered_is_a_problem(api: Api, path: str) -> None:
    sent = f"GET {path} HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n\r\n"
    answer = await _raw(api, sent.encode(), until=b'"EXPECTATION_FAILED"')
    assert answer.startswith(b"HTTP/1.1 417 ")


async def test_body_that_waits_for_its_turn_is_asked_for(api: Api) -> None:
    head = _head(api, 2).replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n")
    answer = await _raw(api, head.encode(), until=b"\r\n\r\n")
    assert answer == b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_used_up_pool_is_told_soon_and_recovers(api: Api) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(8):
            await stack.enter_async_context(api.database.transaction())
        began = time.monotonic()
        answers = await asyncio.gather(*(api.call("GET", "/api/stores") for _ in range(12)))
        assert {(status, body["code"]) for status, body, _ in answers} == {(503, "DATABASE_UNAVAILABLE")}
        # The promise to callers is two seconds; twice that tells a limit from none.
        assert time.monotonic() - began < 4
        assert answers[0][1]["retry_after_seconds"] == int(answers[0][2]["Retry-After"])
        assert (await api.call("GET", "/livez", headers={"Authorization": ""}))[0] == 200
    assert (await api.call("GET", "/api/stores"))[0] == 200


async def test_database_away_is_told_and_forgotten_when_it_is_back(
    api: Api, postgres: PostgresServer, database_url: str
) -> None:
    name = database_url.split("@/")[1].split("?", maxsplit=1)[0]
    admin = await asyncpg.connect(postgres.url("owner"))
    try:
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        for path in ("/api/stores", "/readyz"):
            status, problem, headers = await api.call("GET", path)
            assert (status, problem["code"]) == (503, "DATABASE_UNAVAILABLE")
            assert headers["Retry-After"] == "5"
        assert (await api.call("GET", "/livez"))[0] == 200
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    finally:
        await admin.close()
    assert (await api.call("GET", "/api/stores"))[0] == 200


async def test_backends_that_die_under_requests_are_told_as_what_they_are(
    api: Api, postgres: PostgresServer, database_url: str
) -> None:
    name = database_url.split("@/")[1].split("?", maxsplit=1)[0]
    admin = await asyncpg.connect(postgres.url("owner"))
    try:
        # Often, because the moment decides which of its many errors the driver has.
        for _ in range(20):
            asked = [asyncio.create_task(api.call("GET", "/api/stores")) for _ in range(5)]
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
            for status, body, _ in await asyncio.gather(*asked):
                assert status == 200 or (status, body["code"]) == (503, "DATABASE_UNAVAILABLE")
    finally:
        await admin.close()


async def test_backend_that_hangs_is_told_too(api: Api) -> None:
    """A backend that is stopped answers nothing: neither the statement nor its cancellation."""
    (row,) = await api.execute("SELECT pg_backend_pid() AS pid")
    os.kill(row["pid"], signal.SIGSTOP)
    try:
        status, problem, _ = await api.call("GET", "/api/stores")
    finally:
        os.kill(row["pid"], signal.SIGCONT)
    assert (status, problem["code"]) == (503, "DATABASE_UNAVAILABLE")


async def test_deadlock_is_repeated_in_silence(database: Database) -> None:
    async with serve(database) as api:
        await api.create("One")
        await api.create("Two")
        met = asyncio.Barrier(2)
        tries: list[int] = []

        def crossing(first: int) -> Any:
            async def work(session: Session) -> int:
                tries.append(first)
                lock = "UPDATE storeplane.stores SET updated_at = now() WHERE name = $1"
                names = ("One", "Two") if first else ("Two", "One")
                await session._connection.execute(lock, names[0])  # noqa: SLF001 -- two locks in the wrong order
                if len(tries) <= 2:
                    await met.wait()
                await session._connection.execute(lock, names[1])  # noqa: SLF001
                return first

            return work

        assert sorted(await asyncio.gather(database.run(crossing(0)), database.run(crossing(1)))) == [0, 1]
        assert len(tries) == 3


async def test_endless_deadlock_is_told_after_three_repetitions(database: Database) -> None:
    tries: list[None] = []

    async def work(_session: Session) -> None:
        tries.append(None)
        message = "deadlock detected"
        raise asyncpg.DeadlockDetectedError(message)

    with pytest.raises(DatabaseUnavailableError):
        await database.run(work)
    assert len(tries) == 4


async def test_client_that_leaves_leaves_nothing_half_done(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    address = URL(api.url)
    body = b'{"name": "Shop", "engine": "medusa"}'
    head = _head(api, len(body))
    for _ in range(8):
        _, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(head.encode() + body)
        await writer.drain()
        writer.transport.abort()
    # Either it was accepted or it was not; whoever asks now gets one of the two, on connections that work.
    answers = await asyncio.gather(*(api.call("POST", "/api/stores", json=WISH) for _ in range(8)))
    assert {status for status, _, _ in answers} <= {202, 409}
    # Clients leave all day long: that is no error to be paged for.
    assert "unexpectedly" not in capsys.readouterr().out
    (row,) = await api.execute(
        "SELECT (SELECT count(*) FROM storeplane.stores) AS stores, (SELECT count(*) FROM storeplane.operations) AS "
        "operations, (SELECT sum(store_count) FROM storeplane.users) AS counted, "
        "(SELECT count(*) FROM storeplane.store_events) AS events"
    )
    assert tuple(row.values()) == (1, 1, 1, 1)
