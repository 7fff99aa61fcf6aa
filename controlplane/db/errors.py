"""Translation of the driver's errors; nothing of asyncpg leaves `db`.

Two tables are the whole mapping: a constraint carries a rule, so its name carries the error; every other answer of the
server is judged by its SQLSTATE. What neither knows is a fault of ours.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

import asyncpg

from controlplane.domain.errors import (
    ConfigurationError,
    ControlPlaneError,
    DatabaseFaultError,
    DatabaseRightMissingError,
    DatabaseUnavailableError,
    HostTakenError,
    KeyUsedError,
    NameTakenError,
    OperationInProgressError,
    SchemaMissingError,
)

__all__ = ["CONSTRAINT_ERRORS", "SQLSTATE_ERRORS", "is_passing", "translated"]

CONSTRAINT_ERRORS: Final[Mapping[str, Callable[[], ControlPlaneError]]] = MappingProxyType(
    {
        "stores_slug_unique": NameTakenError,
        "stores_host_unique": HostTakenError,
        "operations_one_active": OperationInProgressError,
        "operations_one_delete": OperationInProgressError,
        "idempotency_keys_pkey": KeyUsedError,
    }
)
SQLSTATE_ERRORS: Final[Mapping[str, Callable[[str], ControlPlaneError]]] = MappingProxyType(
    {
        "08": DatabaseUnavailableError,  # connection lost
        "25006": DatabaseUnavailableError,  # read only: a standby, or a primary that was demoted
        "25P03": DatabaseUnavailableError,  # idle in a transaction for too long: we were stopped
        "25P04": DatabaseUnavailableError,  # transaction took too long
        "28": DatabaseUnavailableError,  # refused a login that worked before: the password is being changed
        "3D000": DatabaseUnavailableError,  # unknown database, known before: it is being restored
        "40": DatabaseUnavailableError,  # deadlock, serialization failure: nothing was written
        "53": DatabaseUnavailableError,  # connections, disk or memory are used up
        "55000": DatabaseUnavailableError,  # takes no connections for now: it is being moved or restored
        "55P03": DatabaseUnavailableError,  # a lock did not come in time
        "57": DatabaseUnavailableError,  # statement took too long; server stops or starts
        "58": DatabaseUnavailableError,  # the server's own disk
        "3F000": SchemaMissingError,
        "42P01": SchemaMissingError,  # unknown table
        "42703": SchemaMissingError,  # unknown column
        "42883": SchemaMissingError,  # unknown function
        "42501": DatabaseRightMissingError,
    }
)
"""By whole SQLSTATE or by its class, the first two characters."""
_LOGIN_REFUSED: Final = ("28", "3D000")
_ADDRESS: Final = (
    "DATABASE_URL is not a usable address; its form is postgresql://user:password@host:port/database, "
    "with special characters of the password written as %XX"
)


@contextmanager
def translated(*, is_start: bool = False) -> Iterator[None]:
    """Turn the driver's errors inside the block into domain errors, cause chained.

    `is_start` for the first connection of a process: a refused login is then a wrong setting, not a passing state.

    Raises
    ------
    ConfigurationError
        At the start: the address cannot be used, or user, password or database are refused.
    DatabaseUnavailableError
        No connection, none in time, or the server cannot serve now; the same may work later.
    SchemaMissingError, DatabaseRightMissingError
        Tables or rights are missing.
    ControlPlaneError
        The one a violated constraint stands for; `DatabaseFaultError` for everything else, which is our bug.
    """
    try:
        yield
    except asyncpg.PostgresError as error:
        raise _of_server(error, is_start=is_start) from error
    except ValueError as error:
        # asyncpg.ClientConfigurationError is one too. No cause: its text may hold a piece of the password.
        if is_start:
            raise ConfigurationError(_ADDRESS) from None
        if isinstance(error, asyncpg.InterfaceError):
            raise DatabaseUnavailableError(str(error)) from error
        raise
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as error:
        # Internal to the driver is what it meets on a connection whose server says farewell as a statement begins.
        raise DatabaseUnavailableError(str(error) or type(error).__name__) from error


def is_passing(error: asyncpg.PostgresError) -> bool:
    """Return whether the server may do the same later."""
    return isinstance(_of_server(error, is_start=False), DatabaseUnavailableError)


def _of_server(error: asyncpg.PostgresError, *, is_start: bool) -> ControlPlaneError:
    state = error.sqlstate or ""
    constraint = CONSTRAINT_ERRORS.get(getattr(error, "constraint_name", None) or "")
    if state.startswith("23") and constraint is not None:
        return constraint()
    if is_start and state.startswith(_LOGIN_REFUSED):
        message = f"the database refuses the login: {error}; check user, password and database name in DATABASE_URL"
        return ConfigurationError(message)
    made = SQLSTATE_ERRORS.get(state) or SQLSTATE_ERRORS.get(state[:2])
    if made is None:
        return DatabaseFaultError(f"{state}: {error}")
    return made(str(error))
