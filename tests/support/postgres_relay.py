"""A TCP port that leads to a Postgres whose socket is a file, and can lose or hold back what the server says."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Relay", "relay"]

_CHUNK_BYTES = 65536
_SECONDS = 60.0
_SSL_REQUEST_BYTES = 8


class Relay:
    """The port and its faults, which hold for what is passed on after they are set.

    Attributes
    ----------
    cut_at
        The first answer with this in it is lost together with its connection; later ones pass.
    stall_after
        So many bytes of a connection's answers pass; the rest never comes, and nothing is closed.
    """

    def __init__(self, folder: Path, tls: ssl.SSLContext | None) -> None:
        self.cut_at: bytes = b""
        self.stall_after: int | None = None
        self._behind = str(folder / ".s.PGSQL.5432")
        self._tls = tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._is_closing = False
        self._lines: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._take)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        number: int = self._listening.getsockname()[1]
        return number

    def close(self) -> None:
        with self._lock:
            self._is_closing = True
            for each in (self._listening, *self._lines):
                _wake(each)
        for thread in self._threads:
            thread.join(_SECONDS)
            assert not thread.is_alive()
        self._listening.close()

    def _take(self) -> None:
        with suppress(OSError):
            while True:
                taken, _ = self._listening.accept()
                thread = threading.Thread(target=self._serve, args=(taken,))
                self._threads.append(thread)
                thread.start()

    def _waiting_on(self, line: socket.socket) -> socket.socket:
        """Return the same, known to `close` from now on, which may have begun."""
        with self._lock:
            self._lines.append(line)
            if self._is_closing:
                _wake(line)
        return line

    def _serve(self, taken: socket.socket) -> None:
        with ExitStack() as held, suppress(OSError):
            line = held.enter_context(self._waiting_on(taken))
            if self._tls is not None:
                line.recv(_SSL_REQUEST_BYTES)
                line.sendall(b"S")
                inside = self._tls.wrap_socket(line, server_side=True, do_handshake_on_connect=False)
                line = held.enter_context(self._waiting_on(inside))
                inside.do_handshake()
            behind = held.enter_context(self._waiting_on(socket.socket(socket.AF_UNIX)))
            behind.connect(self._behind)
            there = threading.Thread(target=self._ask, args=(line, behind))
            there.start()
            held.callback(there.join, _SECONDS)
            held.callback(_wake, behind)
            held.callback(_wake, line)
            self._answer(behind, line)

    def _ask(self, line: socket.socket, behind: socket.socket) -> None:
        with suppress(OSError):
            while data := line.recv(_CHUNK_BYTES):
                behind.sendall(data)
            behind.shutdown(socket.SHUT_WR)

    def _answer(self, behind: socket.socket, line: socket.socket) -> None:
        passed = 0
        while data := behind.recv(_CHUNK_BYTES):
            if self.cut_at and self.cut_at in data:
                self.cut_at = b""
                break
            if self.stall_after is not None:
                data = data[: max(0, self.stall_after - passed)]
            line.sendall(data)
            passed += len(data)


def _wake(line: socket.socket) -> None:
    """End what waits on the socket; closing alone would not.

    The plain shutdown, for TLS too: `SSLSocket.shutdown` first takes away the very object on which another thread may
    be in the middle of a handshake.
    """
    with suppress(OSError):
        socket.socket.shutdown(line, socket.SHUT_RDWR)


@contextmanager
def relay(folder: Path, *, tls: ssl.SSLContext | None = None) -> Iterator[Relay]:
    """Give a relay to the Postgres whose socket is in this folder.

    Parameters
    ----------
    tls
        Encrypts on this side of the relay; None offers what the server offers.
    """
    made = Relay(folder, tls)
    try:
        yield made
    finally:
        made.close()
