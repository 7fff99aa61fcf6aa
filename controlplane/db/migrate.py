"""Migrations: numbered files, forward only, each in a transaction with its bookkeeping row.

Any number of processes may run this at once: an advisory lock lets one work, the others find nothing left to do. A
file that was applied and has another checksum by now is refused, because the database would no longer be what the
files say. Needs a direct connection as the owner, not a transaction pooler.
"""

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg

from controlplane.db.errors import is_passing, translated
from controlplane.domain.errors import ConfigurationError, MigrationError

__all__ = ["MIGRATIONS", "ROLES", "Migration", "apply_migrations", "read_migrations", "set_role_password"]

MIGRATIONS: Final = Path(__file__).parent / "migrations"
ROLES: Final = ("storeplane_app", "storeplane_provisioner")
_FILE: Final = re.compile(r"(\d{4})_(pre|post)_\w+\.sql")
_LOCK: Final = 0x53544F5245
"""Key of the advisory lock: `STORE` in ASCII."""
_CONNECT_SECONDS: Final = 10.0
_STATEMENT_SECONDS: Final = 300.0
_LOCK_TIMEOUT: Final = "SET lock_timeout = '10s'"
"""A migration that waits for a table must not queue every query of the service behind itself."""
_SCRAM_ITERATIONS: Final = 4096
"""Postgres' own default; the passwords are long and random, so more would only slow every login down."""
_BOOKKEEPING: Final = """
CREATE SCHEMA IF NOT EXISTS storeplane;
CREATE TABLE IF NOT EXISTS storeplane.schema_migrations (
  number     integer     CONSTRAINT schema_migrations_pkey PRIMARY KEY,
  name       text        NOT NULL,
  sha256     text        NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
);
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    number: int
    name: str
    text: str
    sha256: str


def read_migrations(folder: Path = MIGRATIONS) -> tuple[Migration, ...]:
    """Return the migrations in a folder, in order.

    Raises
    ------
    MigrationError
        A file's name has another form, or the numbers have a gap or a double.
    """
    found = []
    for path in sorted(folder.glob("*.sql")):
        matched = _FILE.fullmatch(path.name)
        if matched is None:
            message = f"{path.name}: a migration is called NNNN_pre_what.sql or NNNN_post_what.sql"
            raise MigrationError(message)
        raw = path.read_bytes()
        found.append(Migration(int(matched[1]), path.name, raw.decode(), hashlib.sha256(raw).hexdigest()))
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        message = f"the migrations in {folder.name} are not numbered 1, 2, 3 … without gaps"
        raise MigrationError(message)
    return tuple(found)


async def apply_migrations(url: str, migrations: tuple[Migration, ...]) -> list[str]:
    """Apply what is missing and return the names of what was applied.

    Raises
    ------
    ConfigurationError
        The address cannot be used, or the server refuses user, password or database.
    MigrationError
        An applied file was edited, a file is refused, or the database is newer than this program.
    DatabaseUnavailableError
        The server does not answer.
    """
    with translated(is_start=True):
        connection: Any = await asyncpg.connect(url, timeout=_CONNECT_SECONDS, command_timeout=_STATEMENT_SECONDS)
        try:
            # The lock belongs to the session and goes with it, also when this process is killed.
            await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
            await connection.execute(_LOCK_TIMEOUT)
            await connection.execute(_BOOKKEEPING)
            rows = await connection.fetch("SELECT number, name, sha256 FROM storeplane.schema_migrations")
            applied = {row["number"]: row["sha256"] for row in rows}
            _check(applied, {row["number"]: row["name"] for row in rows}, migrations)
            pending = [migration for migration in migrations if migration.number not in applied]
            for migration in pending:
                await _apply(connection, migration)
            return [migration.name for migration in pending]
        finally:
            await connection.close(timeout=_CONNECT_SECONDS)


def _check(applied: dict[int, str], names: dict[int, str], migrations: tuple[Migration, ...]) -> None:
    newest = max(applied, default=0)
    # What only adds (`pre`) leaves room for the program of before: going back to it must work.
    strange = sorted(name for number, name in names.items() if number > len(migrations) and "_pre_" not in name)
    if strange:
        message = (
            f"the database is at migration {newest} ({strange[0]}), which this program does not know: use a newer one"
        )
        raise MigrationError(message)
    for migration in migrations:
        if applied.get(migration.number, migration.sha256) != migration.sha256:
            message = f"{migration.name} was edited after it was applied; restore it and write a new migration"
            raise MigrationError(message)


async def _apply(connection: Any, migration: Migration) -> None:
    async with connection.transaction():
        try:
            await connection.execute(migration.text)
        except asyncpg.PostgresError as error:
            if is_passing(error):
                raise
            message = f"{migration.name} is refused, and nothing of it was kept: {error}"
            raise MigrationError(message) from error
        await connection.execute(
            "INSERT INTO storeplane.schema_migrations (number, name, sha256) VALUES ($1, $2, $3)",
            migration.number,
            migration.name,
            migration.sha256,
        )


async def set_role_password(url: str, role: str, password: str) -> None:
    """Give one of the two login roles its password; safe to repeat.

    Raises
    ------
    ConfigurationError
        The role is not one of ours, or the password has other than printable ASCII characters.
    """
    if role not in ROLES:
        message = f"unknown role {role}; known are: {', '.join(ROLES)}"
        raise ConfigurationError(message)
    if not password.isascii() or not password.isprintable():
        # Others would need SASLprep, so that client and server agree on their bytes.
        message = "a role's password has printable ASCII characters only"
        raise ConfigurationError(message)
    with translated(is_start=True):
        connection: Any = await asyncpg.connect(url, timeout=_CONNECT_SECONDS, command_timeout=_CONNECT_SECONDS)
        try:
            # ALTER ROLE takes no parameters; format() quotes both. The server gets the verifier alone: a password
            # would stand in its log as soon as statements are logged.
            statement = await connection.fetchval(
                "SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text)", role, _scram_verifier(password)
            )
            await connection.execute(statement)
        finally:
            await connection.close(timeout=_CONNECT_SECONDS)


def _scram_verifier(password: str) -> str:
    """Return what Postgres keeps of a password: SCRAM-SHA-256 as RFC 5802 and 7677 derive it."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _SCRAM_ITERATIONS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    salt_text, stored_text, server_text = (base64.b64encode(part).decode() for part in (salt, stored_key, server_key))
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{salt_text}${stored_text}:{server_text}"
