"""A host of the customer's own: from what a person types to a name that an Ingress takes. Pure.

Whoever may name a host could name somebody else's, so a store's host is nobody else's store's (the database holds
that), none of the platform's, and none that the platform gives out itself.
"""

import re
from collections.abc import Collection
from typing import Final

from controlplane.domain.errors import FieldProblem, InvalidInputError

__all__ = ["HOST_LIMIT", "is_host", "validated_host"]

HOST_LIMIT: Final = 253
"""Characters of a DNS name."""
_INTERNAL: Final = frozenset({"arpa", "internal", "invalid", "local", "localdomain", "localhost", "onion", "svc"})
"""Last labels of names that mean something else wherever they are asked for, or nothing."""
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = re.compile(rf"(?:{_LABEL}\.)+(?!\d+$){_LABEL}")


def is_host(text: str) -> bool:
    """Say whether a text is a full DNS name as Kubernetes wants it: lower case, no dot at the end."""
    return len(text) <= HOST_LIMIT and _HOST.fullmatch(text) is not None


def validated_host(raw: str, *, domain: str, reserved: Collection[str]) -> str:
    """Return a host a person gave, unchanged.

    Parameters
    ----------
    domain
        Below which the platform gives stores their hosts.
    reserved
        Hosts that are the platform's, with everything below them.

    Raises
    ------
    InvalidInputError
        It is no fully qualified name, or it is the platform's.
    """
    if not is_host(raw):
        detail = "a full DNS name such as shop.example.com: a-z, 0-9 and dashes, an international name in its xn-- form"
        raise InvalidInputError("Store host is not valid", FieldProblem("#/host", detail))
    last = raw.rpartition(".")[2]
    if last in _INTERNAL and not raw.endswith(f".{domain}"):
        detail = f"names below .{last} lead nowhere on the internet; give a public one, or leave `host` out"
        raise InvalidInputError("Store host is not valid", FieldProblem("#/host", detail))
    for each in (domain, *reserved):
        # Below it are other stores; above it somebody could set cookies for all of them.
        if raw == each or raw.endswith(f".{each}") or each.endswith(f".{raw}"):
            detail = f"{each} is the platform's, with what is above and below it; leave `host` out to be given one"
            raise InvalidInputError("Store host is reserved", FieldProblem("#/host", detail))
    return raw
