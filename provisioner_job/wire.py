"""Calls of database functions: connect, log in, ask, disconnect. Blocking, with one limit for all of it.

The provisioner asks for a text or two at a time and keeps no connection. A driver for everything else a database can do
costs two thirds of the time until the handshake, which is on the path of every store; this speaks only what the four
calls need of the protocol (version 3.0, text format). Logins are SCRAM-SHA-256 or none at all: a server that asks for
the password itself does not get it.
"""

import hashlib
import hmac
import os
import socket
import time
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import ssl

__all__ = ["PREFER", "SSL_MODES", "Address", "Call", "ServerError", "WireError", "ask"]

DISABLE: Final = "disable"
PREFER: Final = "prefer"
REQUIRE: Final = "require"
VERIFY_FULL: Final = "verify-full"
SSL_MODES: Final = (DISABLE, PREFER, REQUIRE, VERIFY_FULL)
"""As libpq names them. Only the last one knows whom it speaks to, but by the login both sides prove the password."""
_PROTOCOL: Final = (3 << 16).to_bytes(4, "big")
_SSL_REQUEST: Final = (8).to_bytes(4, "big") + (80_877_103).to_bytes(4, "big")
_MESSAGE_LIMIT_BYTES: Final = 16 * 2**20
"""A spec is a few kilobytes; more is not a database."""
_MECHANISM: Final = b"SCRAM-SHA-256"
_ITERATIONS_LIMIT: Final = 1_000_000
"""Postgres uses 4096; a server may not keep us busy for minutes."""


class Address(NamedTuple):
    """Where the database is and as whom to ask."""

    host: str
    """A name, an address, or the folder of a socket (begins with a slash)."""
    port: int
    database: str
    user: str
    password: str
    ssl_mode: str = PREFER
    ca_file: str = ""
    """Certificates to trust under `verify-full`; empty means the system's."""


class ServerError(Exception):
    """The server's answer is an error."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class WireError(ServerError):
    """The other side does not speak as a server should, or cannot be trusted."""

    def __init__(self, message: str) -> None:
        # protocol_violation: asking again changes nothing.
        super().__init__("08P01", message)


Call = tuple[str, Sequence[str | None]]
"""A statement, and texts for its $1, $2, … as the server reads their types."""


def ask(address: Address, *calls: Call, seconds: float) -> list[str | None]:
    """Run statements in their order and in one transaction, and return the first column of the last row of each.

    It is text, or None when it is null or there is no row.

    Parameters
    ----------
    seconds
        The limit of everything together, the name's resolution excepted, which the resolver bounds.

    Raises
    ------
    ServerError
        The server refuses; `WireError` when it is none.
    OSError
        It cannot be reached, or the connection breaks; `TimeoutError` after the limit.
    """
    line = _Line(address, time.monotonic() + seconds)
    try:
        _log_in(line, address)
        return _run(line, calls)
    finally:
        line.close()


class _Line:
    """A connection that reads and writes whole messages."""

    def __init__(self, address: Address, deadline: float) -> None:
        self._deadline = deadline
        self._socket = _connected(address, self._left())
        try:
            if address.ssl_mode != DISABLE and not address.host.startswith("/"):
                self._encrypt(address)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.settimeout(self._left())
        self._socket.sendall(data)

    def read(self) -> tuple[bytes, bytes]:
        """Return kind and body of the next message that is for us."""
        while True:
            head = self._exactly(5)
            length = int.from_bytes(head[1:], "big") - 4
            if not 0 <= length <= _MESSAGE_LIMIT_BYTES:
                raise WireError("what answers at the database's address does not speak its protocol")
            kind, body = head[:1], self._exactly(length)
            if kind == b"E":
                raise _refusal(body)
            # Settings, notices and notifications come at any time.
            if kind not in b"SNA":
                return kind, body

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            self._socket.settimeout(self._left())
            # Never more than asked for: what comes after the answer about encryption must be encrypted.
            part = self._socket.recv(count - len(data))
            if not part:
                raise ConnectionResetError("the database closed the connection")
            data += part
        return bytes(data)

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the database did not answer in time")
        return left

    def _encrypt(self, address: Address) -> None:
        self.send(_SSL_REQUEST)
        answer = self._exactly(1)
        if answer == b"S":
            self._socket.settimeout(self._left())
            try:
                self._socket = _context(address).wrap_socket(self._socket, server_hostname=address.host)
            except ValueError as error:
                # What a certificate that is not verified raises, among others.
                raise WireError(f"the database's certificate is not accepted: {error}") from error
        elif answer != b"N":
            raise WireError("what answers at the database's address does not speak its protocol")
        elif address.ssl_mode != PREFER:
            raise WireError(f"the database offers no encryption, and the mode is {address.ssl_mode}")


def _connected(address: Address, seconds: float) -> socket.socket:
    if not address.host.startswith("/"):
        made = socket.create_connection((address.host, address.port), timeout=seconds)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made
    made = socket.socket(socket.AF_UNIX)
    try:
        made.settimeout(seconds)
        made.connect(f"{address.host}/.s.PGSQL.{address.port}")
    except BaseException:
        made.close()
        raise
    return made


def _context(address: Address) -> "ssl.SSLContext":
    import ssl  # noqa: PLC0415 -- the library is large, and inside a cluster the database rarely offers it

    try:
        context = ssl.create_default_context(cafile=address.ca_file or None)
    except OSError as error:
        raise WireError(f"the certificates to trust cannot be read from {address.ca_file}: {error}") from error
    if address.ssl_mode != VERIFY_FULL:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _framed(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def _text(value: str) -> bytes:
    data = value.encode()
    if b"\0" in data:
        raise WireError("a text for the database holds a zero byte")
    return data + b"\0"


def _log_in(line: _Line, address: Address) -> None:
    settings = {
        "user": address.user,
        "database": address.database,
        "application_name": "storeplane-provisioner",
        "client_encoding": "UTF8",
    }
    told = b"".join(_text(part) for pair in settings.items() for part in pair)
    line.send(_framed(b"", _PROTOCOL + told + b"\0"))
    while True:
        kind, body = line.read()
        if kind == b"Z":
            return
        if kind != b"R":
            # The key for cancelling.
            continue
        method = int.from_bytes(body[:4], "big")
        if method == 10 and _MECHANISM in body[4:].split(b"\0"):  # noqa: PLR2004 -- the protocol's number for SASL
            _scram(line, address.password)
        elif method != 0:
            raise ServerError(
                "28000",
                f"the database wants another login than {_MECHANISM.decode()}; set password_encryption to"
                " scram-sha-256, pg_hba.conf alike, and the role's password anew",
            )


def _scram(line: _Line, password: str) -> None:
    """Prove the password and let the server prove that it knows it (RFC 5802 and 7677)."""
    nonce = b2a_base64(os.urandom(18), newline=False)
    # The user is in the start-up message already; Postgres ignores the one here.
    bare = b"n=,r=" + nonce
    first = b"n,," + bare
    line.send(_framed(b"p", _MECHANISM + b"\0" + len(first).to_bytes(4, "big") + first))
    challenge = _sasl(line, 11)
    parts = _attributes(challenge)
    try:
        salt, rounds = a2b_base64(parts[b"s"]), int(parts[b"i"])
        is_sound = parts[b"r"].startswith(nonce) and len(parts[b"r"]) > len(nonce) and 0 < rounds <= _ITERATIONS_LIMIT
    except (KeyError, ValueError, Base64Error):
        is_sound, salt, rounds = False, b"", 1
    if not is_sound:
        raise WireError("the database's half of the login is not sound")
    salted = _salted(password, salt, rounds)
    key = hmac.digest(salted, b"Client Key", "sha256")
    last = b"c=biws,r=" + parts[b"r"]
    signed = b",".join((bare, challenge, last))
    signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
    proof = bytes(left ^ right for left, right in zip(key, signature, strict=True))
    line.send(_framed(b"p", last + b",p=" + b2a_base64(proof, newline=False)))
    shown = _attributes(_sasl(line, 12)).get(b"v", b"")
    expected = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), signed, "sha256")
    if not hmac.compare_digest(shown, b2a_base64(expected, newline=False)):
        raise WireError("the database does not know the password: it may be another server in its place")


@lru_cache(maxsize=1)
def _salted(password: str, salt: bytes, rounds: int) -> bytes:
    """Return the password as the proofs need it; slow on purpose, and the same for every login of a run."""
    return hashlib.pbkdf2_hmac("sha256", _prepared(password), salt, rounds)


def _prepared(password: str) -> bytes:
    """Return the password as the server stored it; what SASLprep does beyond this normal form, no generator makes."""
    if not password.isascii():
        import unicodedata  # noqa: PLC0415 -- a megabyte, and made passwords are ASCII

        password = unicodedata.normalize("NFKC", password)
    return password.encode()


def _sasl(line: _Line, step: int) -> bytes:
    kind, body = line.read()
    if kind != b"R" or int.from_bytes(body[:4], "big") != step:
        raise WireError("the database's half of the login is not sound")
    return body[4:]


def _attributes(text: bytes) -> dict[bytes, bytes]:
    return {part[:1]: part[2:] for part in text.split(b",") if part[1:2] == b"="}


def _run(line: _Line, calls: Sequence[Call]) -> list[str | None]:
    """Parse, bind and execute all of them in one go, so that it is one round trip and one transaction."""
    sync = _framed(b"S", b"")
    line.send(b"".join(_messages(*call) for call in calls) + sync)
    answers: list[str | None] = []
    last: str | None = None
    while True:
        kind, body = line.read()
        if kind == b"D":
            length = int.from_bytes(body[2:6], "big", signed=True)
            last = None if length < 0 else body[6 : 6 + length].decode()
        elif kind == b"C":
            answers.append(last)
            last = None
        elif kind == b"Z":
            # Told, so that its log has no client that went away.
            line.send(_framed(b"X", b""))
            return answers


def _messages(statement: str, arguments: Sequence[str | None]) -> bytes:
    values = b"".join(
        (-1).to_bytes(4, "big", signed=True) if each is None else len(data).to_bytes(4, "big") + data
        for each in arguments
        for data in ((each or "").encode(),)
    )
    return (
        _framed(b"P", b"\0" + _text(statement) + bytes(2))
        # All arguments and all results as text.
        + _framed(b"B", bytes(4) + len(arguments).to_bytes(2, "big") + values + bytes(2))
        + _framed(b"E", bytes(5))
    )


def _refusal(body: bytes) -> ServerError:
    fields = {part[:1]: part[1:].decode("utf-8", "replace") for part in body.split(b"\0") if part}
    return ServerError(fields.get(b"C", ""), fields.get(b"M", "an error without words"))
