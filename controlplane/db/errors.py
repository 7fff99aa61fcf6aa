"""Translation of the driver's errors; nothing of asyncpg leaves `db`.

A constraint carries the rule, so its name carries the error: the table below is the whole mapping.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

import asyncpg

from controlplane.domain.errors import (
    ControlPlaneError,
    DatabaseUnavailableError,
    NameTakenError,
    OperationInProgressError,
)

__all__ = ["CONSTRAINT_ERRORS", "translated"]

CONSTRAINT_ERRORS: Final[Mapping[str, Callable[[], ControlPlaneError]]] = MappingProxyType(
    {
        "stores_slug_unique": NameTakenError,
        "operations_one_active": OperationInProgressError,
        "operations_one_delete": OperationInProgressError,
    }
)


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors inside the block into domain errors, cause chained.

    Raises
    ------
    DatabaseUnavailableError
        No connection, or none in time.
    ControlPlaneError
        The one a violated constraint stands for; other constraint violations stay as they are, they are our bugs.
    """
    try:
        yield
    except asyncpg.IntegrityConstraintViolationError as error:
        made = CONSTRAINT_ERRORS.get(error.constraint_name or "")
        if made is None:
            raise
        raise made() from error
    except (
        asyncpg.PostgresConnectionError,
        asyncpg.CannotConnectNowError,
        asyncpg.AdminShutdownError,
        asyncpg.TooManyConnectionsError,
        asyncpg.InterfaceError,
        asyncpg.QueryCanceledError,
        OSError,
        TimeoutError,
    ) as error:
        raise DatabaseUnavailableError(str(error) or type(error).__name__) from error
