"""`storeplane serve` as a process of its own, to be asked over HTTP and to be killed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError

from tests.support import wishes
from tests.support.polling import poll

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Answer", "Service", "serving"]

_TIMEOUT_SECONDS = 15


@dataclass(frozen=True)
class Answer:
    """What the API said."""

    status: int
    body: Any
    headers: Mapping[str, str]


class Service:
    """A running process."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait(timeout=10)

    def ask(self, method: str, path: str, token: str, body: object = None, **headers: str) -> Answer:
        """Ask once; raises OSError when nobody answers."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)  # noqa: S310 -- loopback
        request.add_header("Authorization", f"Bearer {token}")
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310 -- as above
                return Answer(response.status, _decoded(response.read()), dict(response.headers))
        except HTTPError as error:
            return Answer(error.code, _decoded(error.read()), dict(error.headers))

    async def aask(self, method: str, path: str, token: str, body: object = None, **headers: str) -> Answer:
        return await asyncio.to_thread(self.ask, method, path, token, body, **headers)


def _decoded(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode()


@contextmanager
def serving(settings: Mapping[str, str], folder: Path, name: str) -> Iterator[Service]:
    """Run a process with these variables over the tests' usual ones; end it afterwards."""
    ready, log = folder / f"{name}.url", folder / f"{name}.log"
    ready.unlink(missing_ok=True)
    environment = {"PATH": os.environ["PATH"], **wishes.ENVIRONMENT, **settings}
    program = Path(sys.executable).with_name("storeplane")
    with log.open("ab") as out:
        process = subprocess.Popen(
            [str(program), "serve", "--port", "0", "--ready-file", str(ready)],
            env=environment,
            stdout=out,
            stderr=out,
        )
    try:

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text()
            return ready.exists()

        poll(is_ready, what="the service answers")
        yield Service(process, ready.read_text().strip(), log)
    finally:
        process.kill()
        process.wait(timeout=10)
