"""Many connections at once against the API: requests a second and how long each took."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import orjson

from bench.parts.machine import process_seconds
from bench.parts.table import Row, percentile

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.parts.lab import Lab, Plane, User

__all__ = ["load_rows"]

_CONNECTIONS: Final = 32
_LIMIT_SECONDS: Final = 30.0


@dataclass(frozen=True)
class _Load:
    rate: float
    p50: float
    p99: float
    cpu: float
    """Share of one processor the service used."""


async def load_rows(lab: Lab, seconds: float) -> list[Row]:
    """Measure creates, then reads of one operation, with nothing dispatched meanwhile."""
    async with lab.plane() as plane:
        users = await plane.users(_CONNECTIONS)
        await plane.budget(in_flight=0)
        operation, _, _ = await plane.order(users[0])

        async def creates() -> _Load:
            return await _load(plane, users, lambda user: _create(plane, user), b"202", seconds)

        async def reads() -> _Load:
            return await _load(
                plane, users[:1] * _CONNECTIONS, lambda user: _read(plane, user, operation), b"200", seconds
            )

        created, create_noise = await lab.machine.undisturbed("creates", creates)
        read, read_noise = await lab.machine.undisturbed("reads", reads)
    rows = []
    for what, found, noise, floor in (
        ("create a store", created, create_noise, 2000),
        ("read an operation", read, read_noise, 4500),
    ):
        detail = f"p50 {found.p50:.1f} ms, the service used {found.cpu:.0%} of one processor; the client shares them"
        rows.append(
            Row(
                f"{what}, {_CONNECTIONS} connections",
                found.rate,
                "/s",
                floor,
                is_floor=True,
                detail=detail,
                noise=noise,
            )
        )
        rows.append(Row(f"{what}, {_CONNECTIONS} connections, p99", found.p99, "ms", 50, noise=noise))
    return rows


def _create(plane: Plane, user: User) -> bytes:
    body = orjson.dumps({"name": f"shop-{secrets.token_hex(6)}", "engine": "medusa"})
    return (
        f"POST /api/stores HTTP/1.1\r\nHost: {urlsplit(plane.api).netloc}\r\nAuthorization: Bearer {user.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def _read(plane: Plane, user: User, operation: str) -> bytes:
    return (
        f"GET /api/operations/{operation} HTTP/1.1\r\nHost: {urlsplit(plane.api).netloc}\r\n"
        f"Authorization: Bearer {user.token}\r\n\r\n"
    ).encode()


async def _load(
    plane: Plane, users: list[User], request: Callable[[User], bytes], status: bytes, seconds: float
) -> _Load:
    address = urlsplit(plane.api)
    taken: list[float] = []
    until = time.perf_counter() + seconds

    async def client(user: User) -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            while (began := time.perf_counter()) < until:
                writer.write(request(user))
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
                taken.append(time.perf_counter() - began)
                assert head[9:12] == status, head + body
        finally:
            writer.close()

    cpu, began = process_seconds(plane.process.pid), time.perf_counter()
    async with asyncio.timeout(seconds + _LIMIT_SECONDS):
        await asyncio.gather(*map(client, users))
    wall, cpu = time.perf_counter() - began, process_seconds(plane.process.pid) - cpu
    return _Load(len(taken) / wall, 1000 * percentile(taken, 0.5), 1000 * percentile(taken, 0.99), cpu / wall)
