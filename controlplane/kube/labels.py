"""Keys of labels; nothing else spells them."""

from typing import Final
from uuid import UUID

__all__ = [
    "APP",
    "APP_VALUE",
    "ATTEMPT",
    "JOB_UID",
    "OPERATION_ID",
    "SELECTOR",
    "STORE_ID",
    "id_of",
    "number_of",
]

APP: Final = "app"
APP_VALUE: Final = "store-provisioner"
STORE_ID: Final = "store-id"
OPERATION_ID: Final = "operation-id"
ATTEMPT: Final = "attempt"
JOB_UID: Final = "batch.kubernetes.io/controller-uid"
"""Set on pods by the Job controller."""
SELECTOR: Final = f"{APP}={APP_VALUE}"


def id_of(value: str) -> UUID | None:
    """Return the id a label's value is, or None."""
    try:
        return UUID(value)
    except ValueError:
        return None


def number_of(value: str) -> int | None:
    """Return the number a label's value is, or None."""
    return int(value) if value.isascii() and value.isdigit() else None
