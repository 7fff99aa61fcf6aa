"""Why a caller's request is refused although it was understood: rights, limits, and what is going on already.

The second half of the tree in `domain.errors`, by the same rules.
"""

from uuid import UUID

from controlplane.domain.errors import ConflictError, ControlPlaneError, InvalidInputError, NotFoundError

__all__ = [
    "CredentialsUnavailableError",
    "ForbiddenError",
    "IdempotencyMismatchError",
    "LimitExceededError",
    "NotCancellableError",
    "NotReattachableError",
    "NotRetryableError",
    "OperationEndedError",
    "RateLimitedError",
    "RetryInProgressError",
    "StoreDeletedError",
    "StoreLimitReachedError",
    "TooManyStreamsError",
]


class ForbiddenError(ControlPlaneError):
    """The caller is known and may not do this."""

    code = "FORBIDDEN"

    def __init__(self, who_may: str) -> None:
        super().__init__(f"Your role does not allow this; {who_may} may")


class StoreLimitReachedError(ControlPlaneError):
    """The caller has as many stores as they may have."""

    code = "STORE_LIMIT_REACHED"

    def __init__(self, limit: int) -> None:
        super().__init__(f"Maximum store limit reached ({limit} stores)")
        self.limit = limit


class LimitExceededError(ControlPlaneError):
    """Too much at once; the same request works after a while."""

    code = "LIMIT_EXCEEDED"

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class RateLimitedError(LimitExceededError):
    """The caller orders stores faster than allowed."""

    code = "RATE_LIMITED"

    def __init__(self, per_minute: int, retry_after_seconds: int) -> None:
        super().__init__(
            f"At most {per_minute} stores a minute; try again in {retry_after_seconds} s", retry_after_seconds
        )
        self.per_minute = per_minute


class TooManyStreamsError(LimitExceededError):
    """The caller, or all callers together, follow as many logs at once as this process allows."""

    code = "TOO_MANY_STREAMS"

    def __init__(self, limit: int, *, are_all_counted: bool = False) -> None:
        if are_all_counted:
            detail = f"{limit} logs are being followed already, by all users together; read the log without following"
        else:
            detail = f"You follow {limit} logs already; end one of them first"
        super().__init__(detail, 5)


class IdempotencyMismatchError(InvalidInputError):
    """The key was used for another request."""

    code = "IDEMPOTENCY_MISMATCH"

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key came with another body before; use a new key for a new wish")


class StoreDeletedError(NotFoundError):
    """The store was deleted; only its history is left."""

    code = "STORE_DELETED"

    def __init__(self, store_id: object) -> None:
        super().__init__(f"The store {store_id} is deleted")


class CredentialsUnavailableError(ConflictError):
    """The store has no credentials to tell now, with the reason."""

    code = "CREDENTIALS_UNAVAILABLE"

    def __init__(self, reason: str, operation_id: UUID | None = None) -> None:
        super().__init__(f"No credentials: {reason}")
        self.operation_id = operation_id


class OperationEndedError(ConflictError):
    """The operation is over; nothing is left to cancel."""

    code = "OPERATION_ENDED"

    def __init__(self, operation_id: UUID, state: str) -> None:
        super().__init__(f"The operation has ended already: {state}")
        self.operation_id = operation_id


class NotCancellableError(ConflictError):
    """An operation of a kind that is carried through."""

    code = "NOT_CANCELLABLE"

    def __init__(self, operation_id: UUID, kind: str) -> None:
        super().__init__(
            f"A {kind} is not cancelled half-way, which would leave parts of the store behind; it is safe to repeat"
        )
        self.operation_id = operation_id


class NotRetryableError(ConflictError):
    """The operation cannot be tried again now, with the reason."""

    code = "NOT_RETRYABLE"

    def __init__(self, operation_id: UUID, reason: str) -> None:
        super().__init__(f"The operation cannot be retried: {reason}")
        self.operation_id = operation_id


class RetryInProgressError(ConflictError):
    """Somebody else asked for the same a moment ago."""

    code = "RETRY_IN_PROGRESS"

    def __init__(self, operation_id: UUID) -> None:
        super().__init__("The operation is being retried already; follow the operation named here")
        self.operation_id = operation_id


class NotReattachableError(ConflictError):
    """There is no living Job of this attempt to bind to it, with the reason."""

    code = "NOT_REATTACHABLE"

    def __init__(self, operation_id: UUID, reason: str) -> None:
        super().__init__(f"The operation cannot be reattached: {reason}")
        self.operation_id = operation_id
