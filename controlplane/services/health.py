"""Is this process fit to serve: it can read the database, and the schema is the one it knows."""

from controlplane.db.migrate import read_migrations
from controlplane.db.stores import StoreRows
from controlplane.domain.errors import SchemaMissingError

__all__ = ["Health"]


class Health:
    """Readiness. The cluster is no part of it: accepting works while Kubernetes is down."""

    def __init__(self, rows: StoreRows) -> None:
        self._rows = rows
        self._needed = len(read_migrations())

    async def check(self) -> None:
        """Return when ready.

        Raises
        ------
        DependencyUnavailableError
            The database does not answer, lacks migrations (`SchemaMissingError`) or refuses a right.
        """
        found = await self._rows.schema_version()
        if found < self._needed:
            message = f"it is at migration {found}, and {self._needed} is needed"
            raise SchemaMissingError(message)
