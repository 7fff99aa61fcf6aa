"""Clusters: how much each is asked for at once."""

import re
from dataclasses import dataclass
from typing import Final

from controlplane.db.pool import Database
from controlplane.domain.errors import FieldProblem, InvalidInputError

__all__ = ["Clusters", "Limits"]

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Limits:
    """A cluster's budget."""

    in_flight: int
    """Attempts that may be open at once."""
    rate: float
    """Jobs created a second, in the long run."""
    burst: float
    """Jobs created at once after a rest."""


class Clusters:
    """What operators do with clusters."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def limit(self, name: str, *, in_flight: int | None, rate: float | None, burst: float | None) -> Limits:
        """Set what is not None, and return what holds now; an unknown cluster is added.

        Raises
        ------
        InvalidInputError
            The name is no DNS label.
        """
        if not _NAME.fullmatch(name):
            message = "A cluster's name is a DNS label: a-z, 0-9 and dashes"
            raise InvalidInputError(message, FieldProblem("#/name", message))
        row = await self._database.fetch_one("set_cluster_limits", name, in_flight, rate, burst)
        if row is None:
            message = "set_cluster_limits always returns a row"
            raise RuntimeError(message)
        return Limits(row["in_flight_limit"], row["bucket_rate"], row["bucket_size"])
