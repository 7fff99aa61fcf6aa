"""The provisioner's half of the database protocol, against a real Postgres and against servers that are none."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from provisioner_job import wire
from provisioner_job.wire import Address, ServerError, WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.contract

SECONDS = 30.0


def ask(address: Address, statement: str, arguments: list[str | None], *, seconds: float) -> str | None:
    (answer,) = wire.ask(address, (statement, arguments), seconds=seconds)
    return answer


@pytest.fixture
def address(empty_database: str, postgres: PostgresServer) -> Address:
    url = urlsplit(empty_database)
    name = url.path.removeprefix("/")
    return Address(str(postgres.socket_folder), 5432, name, url.username or "", unquote(url.password or ""))


def test_texts_and_null_go_there_and_back(address: Address) -> None:
    for text in ("", "plain", 'it\'s \\ a "quote" é \U0001f600\n', "x" * 300_000):
        assert ask(address, "SELECT $1::text", [text], seconds=SECONDS) == text
    assert ask(address, "SELECT $1::text", [None], seconds=SECONDS) is None
    assert ask(address, "SELECT $1::int + $2::int", ["1", "2"], seconds=SECONDS) == "3"
    assert ask(address, "SELECT $1::boolean", ["true"], seconds=SECONDS) == "t"


def test_no_row_is_null_and_notices_are_passed_over(address: Address) -> None:
    assert ask(address, "SELECT 1 WHERE false", [], seconds=SECONDS) is None
    assert ask(address, "SELECT set_config('client_min_messages', 'debug1', false)", [], seconds=SECONDS) == "debug1"


@pytest.mark.parametrize(
    ("statement", "sqlstate"), [("SELECT 1 / 0", "22012"), ("SELECT nothing()", "42883"), ("SELECT '1", "42601")]
)
def test_refusal_has_its_sqlstate_and_words(address: Address, statement: str, sqlstate: str) -> None:
    with pytest.raises(ServerError) as caught:
        ask(address, statement, [], seconds=SECONDS)
    assert caught.value.sqlstate == sqlstate
    assert str(caught.value)


def test_wrong_password_is_refused_by_the_server(address: Address) -> None:
    with pytest.raises(ServerError, match="password") as caught:
        ask(address._replace(password="guessed"), "SELECT 1", [], seconds=SECONDS)
    assert caught.value.sqlstate == "28P01"


@pytest.mark.parametrize("password", ["pässwörd-ﬁ", "with ' and \\ and %"])
async def test_any_password_works(address: Address, empty_database: str, password: str) -> None:
    connection = await asyncpg.connect(empty_database)
    try:
        quoted = await connection.fetchval("SELECT quote_literal($1)", password)
        # Roles are the server's; this one must not be there already.
        await connection.execute("DROP ROLE IF EXISTS wire_test")
        await connection.execute(f"CREATE ROLE wire_test LOGIN PASSWORD {quoted}")
        who = address._replace(user="wire_test", password=password)
        assert ask(who, "SELECT current_user::text", [], seconds=SECONDS) == "wire_test"
    finally:
        await connection.execute("DROP ROLE IF EXISTS wire_test")
        await connection.close()


def test_server_that_does_not_answer_is_given_up(address: Address) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        # The kernel takes the connection, nobody ever reads from it.
        ask(address._replace(host="127.0.0.1", port=silent.getsockname()[1]), "SELECT 1", [], seconds=0.3)


def test_slow_statement_is_given_up(address: Address) -> None:
    with pytest.raises(TimeoutError):
        ask(address, "SELECT pg_sleep(600)::text", [], seconds=0.5)


@contextmanager
def _server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Give the port of a server that takes one connection."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(SECONDS)

    def take() -> None:
        with suppress(OSError):
            taken, _ = listening.accept()
            with taken:
                taken.settimeout(SECONDS)
                serve(taken)

    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.close()
        thread.join(SECONDS)
        assert not thread.is_alive()


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def _authentication(method: int, body: bytes = b"") -> bytes:
    return _message(b"R", method.to_bytes(4, "big") + body)


def test_what_is_no_database_is_not_trusted(address: Address) -> None:
    def serve(line: socket.socket) -> None:
        line.recv(4096)
        line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with _server(serve) as port, pytest.raises(WireError, match="does not speak its protocol"):
        ask(address._replace(host="127.0.0.1", port=port), "SELECT 1", [], seconds=SECONDS)


def test_connection_that_breaks_is_told_as_such(address: Address) -> None:
    with _server(lambda _line: None) as port, pytest.raises(ConnectionError):
        ask(address._replace(host="127.0.0.1", port=port), "SELECT 1", [], seconds=SECONDS)


@pytest.mark.parametrize("method", [3, 5], ids=["clear text", "md5"])
def test_password_is_given_to_nobody(address: Address, method: int) -> None:
    heard = bytearray()

    def serve(line: socket.socket) -> None:
        heard.extend(line.recv(4096))
        line.sendall(_authentication(method, b"salt"))
        while more := line.recv(4096):
            heard.extend(more)

    with _server(serve) as port, pytest.raises(ServerError, match="scram-sha-256") as caught:
        ask(
            address._replace(host="127.0.0.1", port=port, password="sesame-open", ssl_mode="disable"),
            "SELECT 1",
            [],
            seconds=SECONDS,
        )
    assert caught.value.sqlstate == "28000"
    assert b"sesame" not in heard
    # The start-up message and nothing after it.
    assert len(heard) == int.from_bytes(heard[:4], "big")


def test_server_that_does_not_know_the_password_is_found_out(address: Address) -> None:
    def serve(line: socket.socket) -> None:
        line.recv(4096)
        line.sendall(_authentication(10, b"SCRAM-SHA-256\0\0"))
        nonce = line.recv(4096).rpartition(b"r=")[2]
        line.sendall(_authentication(11, b"r=" + nonce + b"more,s=c2FsdA==,i=4096"))
        line.recv(4096)
        line.sendall(_authentication(12, b"v=" + b"A" * 43 + b"=") + _authentication(0) + _message(b"Z", b"I"))
        line.recv(4096)

    with _server(serve) as port, pytest.raises(WireError, match="does not know the password"):
        ask(address._replace(host="127.0.0.1", port=port, ssl_mode="disable"), "SELECT 1", [], seconds=SECONDS)


@pytest.mark.parametrize(
    "challenge", [b"r=other,s=c2FsdA==,i=4096", b"s=c2FsdA==,i=4096", b"r=%b,s=c2FsdA==,i=999999999"]
)
def test_unsound_challenge_is_not_answered(address: Address, challenge: bytes) -> None:
    heard = []

    def serve(line: socket.socket) -> None:
        line.recv(4096)
        line.sendall(_authentication(10, b"SCRAM-SHA-256\0\0"))
        nonce = line.recv(4096).rpartition(b"r=")[2]
        line.sendall(_authentication(11, challenge.replace(b"%b", nonce + b"more")))
        heard.append(line.recv(4096))

    with _server(serve) as port, pytest.raises(WireError, match="not sound"):
        ask(address._replace(host="127.0.0.1", port=port, ssl_mode="disable"), "SELECT 1", [], seconds=SECONDS)
    assert heard == [b""]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Give a file with a key and a certificate for 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "database")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = tmp_path / "database.pem"
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


def _encrypting(certificate: Path, folder: Path) -> Callable[[socket.socket], None]:
    """Return a server that encrypts and passes on to the Postgres in this folder."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def serve(line: socket.socket) -> None:
        assert line.recv(8)[4:] == (80_877_103).to_bytes(4, "big")
        line.sendall(b"S")
        with (
            context.wrap_socket(line, server_side=True) as inside,
            socket.socket(socket.AF_UNIX) as behind,
            suppress(OSError),
        ):
            behind.settimeout(SECONDS)
            behind.connect(str(folder / ".s.PGSQL.5432"))
            there = threading.Thread(target=_pass_on, args=(inside, behind))
            there.start()
            _pass_on(behind, inside)
            there.join(SECONDS)

    return serve


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("mode", ["prefer", "require", "verify-full"])
def test_encryption_is_used_where_it_is_offered(
    address: Address, postgres: PostgresServer, certificate: Path, mode: str
) -> None:
    with _server(_encrypting(certificate, postgres.socket_folder)) as port:
        there = address._replace(host="127.0.0.1", port=port, ssl_mode=mode, ca_file=str(certificate))
        assert ask(there, "SELECT 'there'::text", [], seconds=SECONDS) == "there"


def test_unknown_certificate_is_refused_when_it_shall_be_verified(
    address: Address, postgres: PostgresServer, certificate: Path
) -> None:
    with (
        _server(_encrypting(certificate, postgres.socket_folder)) as port,
        pytest.raises(WireError, match="certificate"),
    ):
        ask(address._replace(host="127.0.0.1", port=port, ssl_mode="verify-full"), "SELECT 1", [], seconds=SECONDS)


def test_missing_file_of_certificates_is_named(address: Address, postgres: PostgresServer, certificate: Path) -> None:
    with _server(_encrypting(certificate, postgres.socket_folder)) as port, pytest.raises(WireError, match="/no/such"):
        ask(
            address._replace(host="127.0.0.1", port=port, ssl_mode="verify-full", ca_file="/no/such"),
            "SELECT 1",
            [],
            seconds=SECONDS,
        )


@pytest.mark.parametrize("mode", ["require", "verify-full"])
def test_server_without_encryption_is_refused_when_it_is_required(address: Address, mode: str) -> None:
    def serve(line: socket.socket) -> None:
        line.recv(8)
        line.sendall(b"N")
        line.recv(4096)

    with _server(serve) as port, pytest.raises(WireError, match="offers no encryption"):
        ask(address._replace(host="127.0.0.1", port=port, ssl_mode=mode), "SELECT 1", [], seconds=SECONDS)


def test_zero_byte_in_an_argument_is_refused_by_the_server(address: Address) -> None:
    with pytest.raises(ServerError) as caught:
        ask(address, "SELECT $1::text", ["a\0b"], seconds=SECONDS)
    assert caught.value.sqlstate == "22021"


def test_calls_run_in_their_order_and_in_one_transaction(address: Address) -> None:
    made = ("SELECT set_config('storeplane.test', $1, true)", ["there"])
    read = ("SELECT current_setting('storeplane.test', true)", [])
    nothing = ("SELECT 1 WHERE false", [])
    assert wire.ask(address, made, nothing, read, seconds=SECONDS) == ["there", None, "there"]


def test_failing_call_undoes_those_before_it(address: Address) -> None:
    with pytest.raises(ServerError):
        wire.ask(address, ("CREATE TABLE made (n int)", []), ("SELECT 1 / 0", []), seconds=SECONDS)
    assert ask(address, "SELECT to_regclass('made')::text", [], seconds=SECONDS) is None
