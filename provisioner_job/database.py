"""Calls of database functions: connect, log in, ask, disconnect. Blocking, with one limit for all of it.

libpq speaks; here is what it has no words for: the limit, and what its errors mean for the run. Nothing reaches it but
what the Job gives the pod: no variable of libpq's own, no service file, no client certificate. The password is proved
by SCRAM-SHA-256 and by nothing else: a server that asks for the password itself, or for none at all, does not get on.
"""

import os
import re
import select
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, Final, NamedTuple

import psycopg2
from psycopg2 import extensions

__all__ = ["PREFER", "SSL_MODES", "Address", "Argument", "Call", "NotTrustedError", "ServerError", "ask"]

PREFER: Final = "prefer"
VERIFY_FULL: Final = "verify-full"
SSL_MODES: Final = ("disable", PREFER, "require", VERIFY_FULL)
"""Of libpq's the four that the control plane knows. Only the last one knows whom it speaks to, but by the login both
sides prove the password."""
_SAID_BY_SERVER: Final = (
    ("28P01", re.compile(r"authentication failed")),
    ("28000", re.compile(r"authentication method requirement|no pg_hba\.conf entry|pg_hba\.conf rejects")),
    ("28000", re.compile(r'role ".*" (does not exist|is not permitted to log in)')),
    ("3D000", re.compile(r'database ".*" does not exist')),
    ("42501", re.compile(r'permission denied for database ".*"')),
)
"""SQLSTATEs by the words of a refused login, because libpq tells these without. A server that words them in another
language is asked again until the patience ends; its words are the cause then."""
_NOT_TRUSTED: Final = re.compile(
    r"certificate|does not support SSL|invalid response|unencrypted data|expected authentication request"
    r"|SCRAM|server signature"
)
"""libpq's own words, which have no other language. A connection that breaks in mid-TLS is not among them."""


class Address(NamedTuple):
    """Where the database is and as whom to ask."""

    host: str
    """A name, an address, or the folder of a socket (begins with a slash). With several, parted by commas, the one
    that can be written to is taken."""
    port: int
    database: str
    user: str
    password: str
    ssl_mode: str = PREFER
    ca: str = ""
    """Certificates to trust under `verify-full`, as PEM text; empty means the system's."""


class ServerError(Exception):
    """The server's answer is an error."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class NotTrustedError(ServerError):
    """The other side does not speak as a server should, or cannot be trusted."""

    def __init__(self, message: str) -> None:
        # protocol_violation: asking again changes nothing.
        super().__init__("08P01", message)


Argument = str | None | Callable[[], str]
"""A text, or what gives one once the login is done: just before the transaction begins."""
Call = tuple[str, Sequence[Argument]]
"""A statement, and texts for its %s, as the server reads their types."""


def ask(address: Address, *calls: Call, seconds: float) -> list[Any]:
    """Run statements in their order and in one transaction, and return the first column of the first row of each.

    It is what its type is in Python, JSON decoded, or None when it is null or there is no row.

    Parameters
    ----------
    seconds
        The limit of everything together, the name's resolution excepted, which the resolver bounds.

    Raises
    ------
    ServerError
        The server refuses; `NotTrustedError` when it is none.
    OSError
        It cannot be reached, or the connection breaks; `TimeoutError` after the limit.
    """
    line = _connected(address, time.monotonic() + seconds)
    # Not the connection's own context: that one rolls back after a failure, and when the failure has closed the
    # connection, its complaint hides the cause. The server rolls back what is closed.
    try:
        ready = [(statement, [each() if callable(each) else each for each in given]) for statement, given in calls]
        answers = [_answer(line, *call) for call in ready]
        line.commit()
    except psycopg2.Error as error:
        raise _refused(error) or ConnectionError(_words(error)) from error
    finally:
        line.close()
    return answers


class _Line(extensions.connection):
    """A connection with a limit, which `_wait` keeps."""

    def __init__(self, deadline: float, dsn: str) -> None:
        # First, because it is the constructor that connects.
        self.deadline = deadline
        try:
            super().__init__(dsn)
        except BaseException:
            # Or the socket stays open for as long as somebody holds the error.
            self.close()
            raise


def _wait(line: _Line) -> None:
    """Wait until libpq is done with what it does. It waits nowhere else, so a signal's handler runs here as well."""
    while (state := line.poll()) != extensions.POLL_OK:
        ready = select.poll()
        ready.register(line.fileno(), select.POLLIN if state == extensions.POLL_READ else select.POLLOUT)
        left = line.deadline - time.monotonic()
        if left <= 0 or not ready.poll(left * 1000):
            raise TimeoutError("the database did not answer in time")


# One for the process, as libpq's driver has it; the limit is each connection's own.
extensions.set_wait_callback(_wait)


def _connected(address: Address, deadline: float) -> _Line:
    # libpq reads more of them than a connection has parameters: a service, a time zone, a file of passwords. They are
    # gone with the first call, the handshake, which is made before there are threads.
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]
    trusted = _trusted(address.ca) if address.ssl_mode == VERIFY_FULL else None
    try:
        return psycopg2.connect(
            connection_factory=partial(_Line, deadline),
            host=address.host,
            port=address.port,
            dbname=address.database,
            user=address.user,
            password=address.password,
            sslmode=address.ssl_mode,
            sslrootcert=trusted,
            sslcertmode="disable",
            gssencmode="disable",
            require_auth="scram-sha-256",
            target_session_attrs="read-write" if "," in address.host else "any",
            application_name="storeplane-provisioner",
            client_encoding="UTF8",
        )
    except psycopg2.Error as error:
        words = _words(error)
        if _NOT_TRUSTED.search(words):
            raise NotTrustedError(words) from error
        for sqlstate, said in _SAID_BY_SERVER:
            if said.search(words):
                raise ServerError(sqlstate, words) from error
        raise _refused(error) or ConnectionError(words) from error


@cache
def _trusted(ca: str) -> str:
    """Return what libpq calls the certificates, which it reads from nothing but a file: one in memory."""
    if not ca:
        return "system"
    number = os.memfd_create("database-ca")
    os.write(number, ca.encode())
    # Open for as long as the process lives: every connection reads it anew.
    return f"/proc/self/fd/{number}"


def _answer(line: _Line, statement: str, arguments: Sequence[str | None]) -> Any:
    with line.cursor() as cursor:
        try:
            cursor.execute(statement, arguments)
        except ValueError as error:
            # A zero byte, as the server itself would say it.
            raise ServerError("22021", str(error)) from error
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def _refused(error: psycopg2.Error) -> ServerError | None:
    """Return the server's refusal, or None when the error is not its."""
    return ServerError(error.pgcode, error.diag.message_primary or _words(error)) if error.pgcode else None


def _words(error: psycopg2.Error) -> str:
    """Return what libpq says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
