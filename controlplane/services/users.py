"""Who is calling: static bearer tokens, one per user."""

import hashlib
from typing import Final

from uuid_utils.compat import uuid7

from controlplane.db.users import UserRows
from controlplane.domain.errors import FieldProblem, InvalidInputError, InvalidTokenError, UnauthorizedError
from controlplane.domain.store import Caller, Role

__all__ = ["TOKEN_MINIMUM_CHARACTERS", "Users"]

TOKEN_MINIMUM_CHARACTERS: Final = 32
"""A token is compared by its plain SHA-256, so it must be too long to guess."""
_NAME_LIMIT: Final = 64
_MAX_STORES_LIMIT: Final = 100_000


class Users:
    """Users and their tokens."""

    def __init__(self, rows: UserRows) -> None:
        self._rows = rows

    async def authenticate(self, authorization: str | None) -> Caller:
        """Return the caller behind an Authorization header.

        Raises
        ------
        UnauthorizedError
            No bearer token came.
        InvalidTokenError
            Nobody has this token.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise UnauthorizedError
        if not token.isascii():
            # Bytes above 127 arrive as lone surrogates, which have no encoding; no token has such characters.
            raise InvalidTokenError
        caller = await self._rows.by_token(_hash(token.strip()))
        if caller is None:
            raise InvalidTokenError
        return caller

    async def add(self, name: str, role: Role, token: str, *, max_stores: int | None = None) -> str:
        """Add a user or give an existing one a new role and token; return the id.

        `max_stores` None leaves it as it is, five for a new user.

        Raises
        ------
        InvalidInputError
            The name or the token is too short or too long, or `max_stores` out of range.
        """
        if not 1 <= len(name) <= _NAME_LIMIT:
            message = f"A user's name has 1 to {_NAME_LIMIT} characters"
            raise InvalidInputError(message, FieldProblem("#/name", message))
        if len(token) < TOKEN_MINIMUM_CHARACTERS or not token.isascii() or not token.isprintable():
            message = f"A token has {TOKEN_MINIMUM_CHARACTERS} or more printable ASCII characters"
            raise InvalidInputError(message, FieldProblem("#/token", message))
        if max_stores is not None and not 0 <= max_stores <= _MAX_STORES_LIMIT:
            message = f"A user may have 0 to {_MAX_STORES_LIMIT} stores"
            raise InvalidInputError(message, FieldProblem("#/max_stores", message))
        return str(await self._rows.add(uuid7(), name, role, _hash(token), max_stores))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
