"""What the provisioner makes of a database: a real Postgres, one behind a faulty line, and servers that are none."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from provisioner_job import database
from provisioner_job.database import Address, Call, NotTrustedError, ServerError
from tests.support.postgres_relay import relay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.contract

SECONDS = 30.0
SHORT_SECONDS = 0.5
"""Where the other side never answers, so that nothing is there to be late."""


def ask(address: Address, statement: str, *arguments: database.Argument, seconds: float = SECONDS) -> Any:
    (answer,) = database.ask(address, (statement, arguments), seconds=seconds)
    return answer


def over_tcp(address: Address, port: int, mode: str = "prefer", *, ca: str = "") -> Address:
    return address._replace(host="127.0.0.1", port=port, ssl_mode=mode, ca=ca)


@pytest.fixture
def address(empty_database: str, postgres: PostgresServer) -> Address:
    url = urlsplit(empty_database)
    name = url.path.removeprefix("/")
    return Address(str(postgres.socket_folder), 5432, name, url.username or "", unquote(url.password or ""))


def test_texts_go_there_and_answers_have_their_types(address: Address) -> None:
    for text in ("", "plain", 'it\'s \\ a "quote" % é \U0001f600\n', "x" * 300_000):
        assert ask(address, "SELECT %s::text", text) == text
    assert ask(address, "SELECT %s::text", None) is None
    assert ask(address, "SELECT %s::int + %s::int", "1", "2") == 3
    assert ask(address, "SELECT %s::boolean", "true") is True
    assert ask(address, "SELECT %s::jsonb", '{"a": [1, null]}') == {"a": [1, None]}


def test_no_row_is_none_and_notices_are_passed_over(address: Address) -> None:
    assert ask(address, "SELECT 1 WHERE false") is None
    assert ask(address, "SELECT set_config('client_min_messages', 'debug1', false)") == "debug1"


@pytest.mark.parametrize(
    ("statement", "sqlstate"), [("SELECT 1 / 0", "22012"), ("SELECT nothing()", "42883"), ("SELECT '1", "42601")]
)
def test_refusal_has_its_sqlstate_and_words(address: Address, statement: str, sqlstate: str) -> None:
    with pytest.raises(ServerError) as caught:
        ask(address, statement)
    assert caught.value.sqlstate == sqlstate
    assert str(caught.value)


def test_zero_byte_in_an_argument_is_refused(address: Address) -> None:
    with pytest.raises(ServerError) as caught:
        ask(address, "SELECT %s::text", "a\0b")
    assert caught.value.sqlstate == "22021"


def test_calls_run_in_their_order_and_in_one_transaction(address: Address) -> None:
    made: Call = ("SELECT set_config('storeplane.test', %s, true)", ["there"])
    read: Call = ("SELECT current_setting('storeplane.test', true)", [])
    nothing: Call = ("SELECT 1 WHERE false", [])
    assert database.ask(address, made, nothing, read, seconds=SECONDS) == ["there", None, "there"]


def test_what_was_asked_is_kept(address: Address) -> None:
    ask(address, "CREATE TABLE made AS SELECT 1 AS n")
    assert ask(address, "SELECT n FROM made") == 1


def test_failing_call_undoes_those_before_it(address: Address) -> None:
    with pytest.raises(ServerError):
        database.ask(address, ("CREATE TABLE made (n int)", []), ("SELECT 1 / 0", []), seconds=SECONDS)
    assert ask(address, "SELECT to_regclass('made')::text") is None


def test_argument_that_is_made_is_made_after_the_login(address: Address) -> None:
    made: list[str] = []

    def make() -> str:
        made.append("there")
        return made[-1]

    with pytest.raises(ServerError, match="password"):
        ask(address._replace(password="guessed"), "SELECT %s::text", make)
    assert made == []
    assert ask(address, "SELECT %s::text", make) == "there"


def test_wrong_password_is_refused_by_the_server_and_not_told(address: Address) -> None:
    with pytest.raises(ServerError, match="password") as caught:
        ask(address._replace(password="guessed"), "SELECT 1")
    assert caught.value.sqlstate == "28P01"
    assert "guessed" not in str(caught.value)


@pytest.mark.parametrize(("field", "sqlstate"), [("user", "28P01"), ("database", "3D000")])
def test_login_to_what_is_not_there_has_its_sqlstate(address: Address, field: str, sqlstate: str) -> None:
    with pytest.raises(ServerError) as caught:
        ask(Address(**address._asdict() | {field: "nothing"}), "SELECT 1")
    assert caught.value.sqlstate == sqlstate


@pytest.mark.parametrize("password", ["pässwörd-ﬁ", "with ' and \\ and %"])
async def test_any_password_works(address: Address, empty_database: str, password: str) -> None:
    connection = await asyncpg.connect(empty_database)
    try:
        quoted = await connection.fetchval("SELECT quote_literal($1)", password)
        # Roles are the server's; this one must not be there already.
        await connection.execute("DROP ROLE IF EXISTS login_test")
        await connection.execute(f"CREATE ROLE login_test LOGIN PASSWORD {quoted}")
        who = address._replace(user="login_test", password=password)
        assert ask(who, "SELECT current_user::text") == "login_test"
        await connection.execute("ALTER ROLE login_test NOLOGIN")
        with pytest.raises(ServerError) as caught:
            ask(who, "SELECT 1")
        assert caught.value.sqlstate == "28000"
        await connection.execute("ALTER ROLE login_test LOGIN")
        await connection.execute(f"REVOKE CONNECT ON DATABASE {address.database} FROM PUBLIC")
        with pytest.raises(ServerError) as caught:
            ask(who, "SELECT 1")
        assert caught.value.sqlstate == "42501"
    finally:
        await connection.execute("DROP ROLE IF EXISTS login_test")
        await connection.close()


def test_variables_of_libpq_change_nothing(
    address: Address, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = {
        "PGSERVICE": "none",
        "PGHOSTADDR": "192.0.2.1",
        "PGOPTIONS": "-c search_path=nowhere",
        "PGTZ": "Asia/Tokyo",
        "PGSSLROOTCERT": str(certificate),
        "PGSSLCERT": str(certificate),
        "PGREQUIREPEER": "nobody",
        "PGTARGETSESSIONATTRS": "standby",
    }
    usual = ask(address, "SELECT current_setting('search_path') || current_setting('TimeZone')")
    for name, value in foreign.items():
        monkeypatch.setenv(name, value)
    assert ask(address, "SELECT current_setting('search_path') || current_setting('TimeZone')") == usual


async def test_of_several_hosts_the_one_that_can_be_written_to_is_taken(
    address: Address, empty_database: str, tmp_path: Path
) -> None:
    several = address._replace(host=f"{tmp_path},{address.host}")
    assert ask(several, "SELECT 1") == 1
    connection = await asyncpg.connect(empty_database)
    try:
        await connection.execute(f"ALTER DATABASE {address.database} SET default_transaction_read_only = on")
    finally:
        await connection.close()
    # As a standby: it may be another one's turn, so it is asked again.
    with pytest.raises(ConnectionError, match="read-only"):
        ask(several, "SELECT 1")


def test_server_that_does_not_answer_is_given_up(address: Address) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        # The kernel takes the connection, nobody ever reads from it.
        ask(over_tcp(address, silent.getsockname()[1]), "SELECT 1", seconds=SHORT_SECONDS)


def test_slow_statement_is_given_up(address: Address) -> None:
    with pytest.raises(TimeoutError):
        ask(address, "SELECT pg_sleep(600)::text", seconds=SHORT_SECONDS)


@pytest.mark.parametrize("passing", [0, 1, 100, 1000], ids=["at once", "in the login", "after it", "in the answer"])
def test_line_that_stalls_is_given_up(address: Address, postgres: PostgresServer, passing: int) -> None:
    with relay(postgres.socket_folder) as line:
        there = over_tcp(address, line.port)
        assert ask(there, "SELECT 1") == 1
        line.stall_after = passing
        with pytest.raises(TimeoutError):
            ask(there, "SELECT repeat('x', 1000000)", seconds=SHORT_SECONDS)
        line.stall_after = None
        assert ask(there, "SELECT 1") == 1


def test_answer_that_is_lost_is_told_as_a_broken_connection(address: Address, postgres: PostgresServer) -> None:
    with relay(postgres.socket_folder) as line:
        there = over_tcp(address, line.port)
        line.cut_at = b"the answer"
        with pytest.raises(ConnectionError):
            ask(there, "SELECT 'the answer'")
        assert ask(there, "SELECT 'the answer'") == "the answer"


def test_backend_that_is_ended_says_so(address: Address) -> None:
    with pytest.raises((ServerError, ConnectionError)) as caught:
        ask(address, "SELECT pg_terminate_backend(pg_backend_pid())")
    assert getattr(caught.value, "sqlstate", "57P01") == "57P01"


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


def test_what_is_no_database_is_not_trusted(address: Address) -> None:
    def serve(line: socket.socket) -> None:
        line.recv(4096)
        line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    for mode in ("require", "disable"):
        with _server(serve) as port, pytest.raises(NotTrustedError):
            ask(over_tcp(address, port, mode), "SELECT 1")


def test_connection_that_breaks_is_told_as_such(address: Address) -> None:
    with _server(lambda _line: None) as port, pytest.raises(ConnectionError):
        ask(over_tcp(address, port), "SELECT 1")


@pytest.mark.parametrize("method", [0, 3, 5], ids=["none", "clear text", "md5"])
def test_password_is_given_to_nobody(address: Address, method: int) -> None:
    heard = bytearray()

    def serve(line: socket.socket) -> None:
        heard.extend(line.recv(4096))
        body = method.to_bytes(4, "big") + (b"salt" if method == 5 else b"")
        line.sendall(b"R" + (len(body) + 4).to_bytes(4, "big") + body)
        while more := line.recv(4096):
            heard.extend(more)

    asking = address._replace(password="sesame-open")
    with _server(serve) as port, pytest.raises(ServerError, match="scram-sha-256") as caught:
        ask(over_tcp(asking, port, "disable"), "SELECT 1")
    assert caught.value.sqlstate == "28000"
    # The start-up message, and at most a farewell after it.
    length = int.from_bytes(heard[:4], "big")
    assert bytes(heard[length:]) in (b"", b"X\0\0\0\4")
    assert b"sesame" not in heard


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


def _encrypting(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.mark.parametrize("mode", ["prefer", "require", "verify-full"])
def test_encryption_is_used_where_it_is_offered(
    address: Address, postgres: PostgresServer, certificate: Path, mode: str
) -> None:
    with relay(postgres.socket_folder, tls=_encrypting(certificate)) as line:
        assert ask(over_tcp(address, line.port, mode, ca=certificate.read_text()), "SELECT 'there'") == "there"


def test_without_any_the_systems_certificates_are_trusted(
    address: Address, postgres: PostgresServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with relay(postgres.socket_folder, tls=_encrypting(certificate)) as line:
        there = over_tcp(address, line.port, "verify-full")
        with pytest.raises(NotTrustedError, match="certificate verify failed"):
            ask(there, "SELECT 1")
        # Where OpenSSL is told that the system has them, as in the image.
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert ask(there, "SELECT 1") == 1


def test_certificate_of_another_host_is_refused(address: Address, postgres: PostgresServer, certificate: Path) -> None:
    with relay(postgres.socket_folder, tls=_encrypting(certificate)) as line:
        there = over_tcp(address, line.port, "verify-full", ca=certificate.read_text())
        with pytest.raises(NotTrustedError, match="does not match host name"):
            ask(there._replace(host="localhost"), "SELECT 1")


def test_what_is_no_certificate_is_told(address: Address, postgres: PostgresServer, certificate: Path) -> None:
    with (
        relay(postgres.socket_folder, tls=_encrypting(certificate)) as line,
        pytest.raises(NotTrustedError, match="could not read root certificate file"),
    ):
        ask(over_tcp(address, line.port, "verify-full", ca="no certificate"), "SELECT 1")


@pytest.mark.parametrize("mode", ["require", "verify-full"])
def test_server_without_encryption_is_refused_when_it_is_required(
    address: Address, postgres: PostgresServer, mode: str
) -> None:
    with relay(postgres.socket_folder) as line, pytest.raises(NotTrustedError, match="does not support SSL"):
        ask(over_tcp(address, line.port, mode), "SELECT 1")
