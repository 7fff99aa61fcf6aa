"""Store names: from what a person types to a namespace that Kubernetes accepts.

Pure. The random part of a namespace is passed in, so that the caller decides where randomness comes from.
"""

import re
from typing import Final

from controlplane.domain.errors import FieldProblem, InvalidInputError, NameReservedError, NameTooLongError

__all__ = [
    "DISPLAY_NAME_LIMIT",
    "RESERVED",
    "SLUG_LIMIT",
    "SUFFIX_LENGTH",
    "display_name",
    "host_label",
    "namespace",
    "slug_from_name",
    "validated_slug",
]

DISPLAY_NAME_LIMIT: Final = 60
"""Characters of the free text a person gives."""
RESERVED: Final = frozenset({"platform", "admin", "api", "system", "test"})
"""Slugs that would be read as parts of the platform."""
SUFFIX_LENGTH: Final = 8
"""Random base32 characters: 40 bits, so that a deleted store's name never waits for its old namespace."""
_PREFIX: Final = "store-"
_LABEL_LIMIT: Final = 63
SLUG_LIMIT: Final = _LABEL_LIMIT - len(_PREFIX) - 1 - SUFFIX_LENGTH
"""48: what a DNS label leaves beside prefix, dash and random part."""

_NOT_SLUG: Final = re.compile(r"[^a-z0-9-]")
_DASHES: Final = re.compile(r"-{2,}")
_SLUG: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_SUFFIX: Final = re.compile(r"[a-z2-7]{8}")


def display_name(raw: str) -> str:
    """Return the name as it is shown: trimmed, printable, not empty, 60 characters at most.

    Raises
    ------
    InvalidInputError
        For an empty, overlong or unprintable name.
    """
    name = raw.strip()
    if not name:
        raise InvalidInputError("Store name is empty", FieldProblem("#/name", "give a name"))
    if len(name) > DISPLAY_NAME_LIMIT:
        raise InvalidInputError(
            "Store name too long",
            FieldProblem("#/name", f"the name may have {DISPLAY_NAME_LIMIT} characters at most"),
        )
    if not name.isprintable():
        raise InvalidInputError("Store name is not printable", FieldProblem("#/name", "remove control characters"))
    return name


def slug_from_name(name: str) -> str:
    """Return the slug made from a display name.

    Raises
    ------
    InvalidInputError
        When nothing is left, or the slug is reserved or too long.
    """
    slug = _DASHES.sub("-", _NOT_SLUG.sub("-", name.lower())).strip("-")
    if not slug:
        raise InvalidInputError(
            "Store name has no usable character",
            FieldProblem("#/name", "use at least one letter a-z or digit, or give a slug"),
        )
    return _checked(slug, "#/name")


def validated_slug(raw: str) -> str:
    """Return a slug a person gave, unchanged.

    Raises
    ------
    InvalidInputError
        When it is not a DNS label, is reserved (whatever the case) or too long.
    """
    _checked(raw.lower(), "#/slug")
    if not _SLUG.fullmatch(raw):
        raise InvalidInputError(
            "Store slug is not valid",
            FieldProblem("#/slug", "use a-z, 0-9 and dashes, and begin and end with a letter or digit"),
        )
    return raw


def _checked(slug: str, pointer: str) -> str:
    if slug in RESERVED:
        raise NameReservedError(pointer)
    if len(slug) > SLUG_LIMIT:
        raise NameTooLongError(pointer)
    return slug


def namespace(slug: str, suffix: str) -> str:
    """Return `store-<slug>-<suffix>`; `suffix` is 8 lower-case base32 characters, `ValueError` otherwise."""
    if not _SUFFIX.fullmatch(suffix):
        message = f"a namespace suffix is 8 characters of a-z2-7, not {suffix!r}"
        raise ValueError(message)
    return f"{_PREFIX}{slug}-{suffix}"


def host_label(slug: str, suffix: str) -> str:
    """Return the first label of the store's default host; unique because the namespace is."""
    return f"{slug}-{suffix}"
