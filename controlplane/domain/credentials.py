"""A store's credentials: the texts its owner logs in with, and why there may be none.

They live in one Secret in the store's namespace and nowhere else; here they only pass through, from the cluster to the
answer of one request.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique

__all__ = ["Credentials", "NoCredentials"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a Secret holds, by the names it has there."""

    texts: Mapping[str, str] = field(repr=False)
    """Kept out of the representation, and so out of every log line and traceback."""


@unique
class NoCredentials(StrEnum):
    """What the cluster shows where credentials were looked for."""

    NO_NAMESPACE = "no namespace"
    """The store's namespace is gone, or is being removed."""
    NO_SECRET = "no secret"  # noqa: S105 -- a word, no secret
    """The namespace is there and the Secret is not."""
    NO_RIGHT = "no right"
    """The namespace is there, and the cluster refuses the control plane what it should have been given in it."""
    FOREIGN = "foreign"
    """There is a Secret of that name which does not carry the store's id."""
    UNREADABLE = "unreadable"
    """It is the store's, and is empty or holds what is no text."""
