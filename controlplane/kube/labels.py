"""Keys of labels; nothing else spells them."""

from typing import Any, Final
from uuid import UUID

__all__ = ["APP", "APP_VALUE", "ATTEMPT", "JOB_UID", "OPERATION_ID", "SELECTOR", "attempt_of", "operation_of"]

APP: Final = "app"
APP_VALUE: Final = "store-provisioner"
OPERATION_ID: Final = "operation-id"
ATTEMPT: Final = "attempt"
JOB_UID: Final = "batch.kubernetes.io/controller-uid"
"""Set on pods by the Job controller."""
SELECTOR: Final = f"{APP}={APP_VALUE}"


def operation_of(labels: dict[str, Any]) -> UUID | None:
    """Return the operation's id in an object's labels, or None; anybody may have written them."""
    try:
        return UUID(str(labels.get(OPERATION_ID)))
    except ValueError:
        return None


def attempt_of(labels: dict[str, Any]) -> int | None:
    """Return the attempt's number in an object's labels, or None."""
    value = str(labels.get(ATTEMPT))
    return int(value) if value.isascii() and value.isdigit() else None
