"""Everything that can go wrong for a reason the product knows.

One tree. A class has a stable `code`; its message is built from its own fields and says the cause and, where there is
one, the next step. No HTTP status is named here: `api.problems` maps classes to statuses.
"""

from dataclasses import dataclass
from typing import ClassVar
from uuid import UUID

from typing_extensions import override

__all__ = [
    "ConfigurationError",
    "ConflictError",
    "ControlPlaneError",
    "CredentialsRightMissingError",
    "DatabaseFaultError",
    "DatabaseRightMissingError",
    "DatabaseUnavailableError",
    "DependencyUnavailableError",
    "EnginePlannedError",
    "EngineUnsupportedError",
    "FieldProblem",
    "InvalidInputError",
    "InvalidJsonError",
    "InvalidTokenError",
    "JobConflictError",
    "KeyUsedError",
    "LogNotAvailableError",
    "MigrationError",
    "NameReservedError",
    "NameTakenError",
    "NameTooLongError",
    "NotFoundError",
    "OperationInProgressError",
    "OperationNotFoundError",
    "SchemaMissingError",
    "StaleLeaseError",
    "StoreNotFoundError",
    "UnauthorizedError",
]


class ControlPlaneError(Exception):
    """Base of every error the product raises on purpose."""

    code: ClassVar[str] = "INTERNAL"

    @property
    def detail(self) -> str:
        """What a caller may read; the whole message, unless it names something inside."""
        return str(self)


class ConfigurationError(ControlPlaneError):
    """A setting is missing or wrong; the message names it and what it must be."""

    code = "CONFIGURATION"


class MigrationError(ControlPlaneError):
    """The database's schema and this program's migrations do not fit together."""

    code = "MIGRATION"


class NotFoundError(ControlPlaneError):
    """What was asked for does not exist, or not for this caller."""

    code = "NOT_FOUND"


class StoreNotFoundError(NotFoundError):
    """No such store for this caller."""

    code = "STORE_NOT_FOUND"

    def __init__(self, store_id: object) -> None:
        super().__init__(f"No store with the id {store_id}")


class OperationNotFoundError(NotFoundError):
    """No such operation for this caller."""

    code = "OPERATION_NOT_FOUND"

    def __init__(self, operation_id: object) -> None:
        super().__init__(f"No operation with the id {operation_id}")


class LogNotAvailableError(NotFoundError):
    """The operation exists and has no log, with the reason."""

    code = "LOG_NOT_AVAILABLE"

    def __init__(self, reason: str) -> None:
        super().__init__(f"No log: {reason}")


class ConflictError(ControlPlaneError):
    """The request contradicts what is already there."""

    code = "CONFLICT"


class NameTakenError(ConflictError):
    """The caller already has a store with this slug."""

    code = "NAME_TAKEN"

    def __init__(self) -> None:
        super().__init__("You already have a store with this slug; choose another name or give a slug")


class HostTakenError(ConflictError):
    """A store, of whoever, already has this host."""

    code = "HOST_TAKEN"

    def __init__(self) -> None:
        super().__init__("A store with this host exists already; choose another host, or leave it out to be given one")


class OperationInProgressError(ConflictError):
    """The store already has an active operation."""

    code = "OPERATION_IN_PROGRESS"

    def __init__(self, operation_id: UUID | None = None, kind: str = "") -> None:
        named = f"{kind} {operation_id}" if operation_id is not None else "Another operation"
        # What removes a store is not cancelled half-way.
        advice = "wait for its end" if kind in {"delete", "cleanup"} else "wait for its end or cancel it"
        super().__init__(f"{named} of this store is in progress; {advice}")
        self.operation_id = operation_id


class KeyUsedError(ConflictError):
    """Another request with the same Idempotency-Key was first; its answer is to be repeated."""

    code = "KEY_USED"

    def __init__(self) -> None:
        super().__init__("Another request with this Idempotency-Key is being answered; try again")


class StaleLeaseError(ConflictError):
    """The row moved on while we worked: another owner acted, our result must be dropped."""

    code = "STALE_LEASE"

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: the row has another owner or state by now")


class JobConflictError(ConflictError):
    """A Job with our name exists and is not ours; it is never touched."""

    code = "JOB_CONFLICT"

    def __init__(self, job_name: str, difference: str) -> None:
        super().__init__(f"A Job named {job_name} exists and is not this attempt's ({difference}); it was not touched")


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One wrong field of a request body."""

    pointer: str
    """JSON Pointer fragment, such as `#/name`."""
    detail: str
    """What is wrong with it, one sentence."""


class InvalidInputError(ControlPlaneError):
    """The request was understood and may not be carried out as written."""

    code = "INVALID_INPUT"

    def __init__(self, message: str, *problems: FieldProblem) -> None:
        super().__init__(message)
        self.problems = problems


class InvalidJsonError(ControlPlaneError):
    """The body is not JSON at all."""

    code = "INVALID_JSON"

    def __init__(self) -> None:
        super().__init__("The body is not valid JSON")


class NameTooLongError(InvalidInputError):
    """The namespace made from the slug would exceed 63 characters."""

    code = "NAME_TOO_LONG"

    def __init__(self, pointer: str) -> None:
        super().__init__(
            "Store name too long (Kubernetes limit)", FieldProblem(pointer, "the slug may have 48 characters at most")
        )


class NameReservedError(InvalidInputError):
    """The slug is one of the platform's own names."""

    code = "NAME_RESERVED"

    def __init__(self, pointer: str) -> None:
        super().__init__("Store name is reserved", FieldProblem(pointer, "choose another name"))


class EngineUnsupportedError(InvalidInputError):
    """The engine is not in the catalogue."""

    code = "ENGINE_UNSUPPORTED"

    def __init__(self, supported: tuple[str, ...]) -> None:
        sentence = f"Invalid engine. Supported: {', '.join(supported)}"
        super().__init__(sentence, FieldProblem("#/engine", sentence))


class EnginePlannedError(InvalidInputError):
    """The engine is announced and not yet offered."""

    code = "ENGINE_PLANNED"

    def __init__(self, engine: str, supported: tuple[str, ...]) -> None:
        sentence = f"Engine '{engine}' coming soon! Supported: {', '.join(supported)}"
        super().__init__(sentence, FieldProblem("#/engine", sentence))


class UnauthorizedError(ControlPlaneError):
    """No credential came with the request."""

    code = "UNAUTHORIZED"

    def __init__(self) -> None:
        super().__init__("Authentication required")


class InvalidTokenError(ControlPlaneError):
    """A credential came and is not valid."""

    code = "INVALID_TOKEN"

    def __init__(self) -> None:
        super().__init__("Invalid or expired token")


class DependencyUnavailableError(ControlPlaneError):
    """Something outside does not answer; the same request may work later."""

    code = "DEPENDENCY_UNAVAILABLE"


class DatabaseUnavailableError(DependencyUnavailableError):
    """Postgres does not answer, or not in time."""

    code = "DATABASE_UNAVAILABLE"

    def __init__(self, cause: str) -> None:
        super().__init__(f"The database does not answer ({cause}); try again shortly")

    @property
    @override
    def detail(self) -> str:
        """Without the cause, which may name an address inside; the log has it."""
        return "The database does not answer, or has too much to do at this moment; try again shortly"


class SchemaMissingError(DependencyUnavailableError):
    """Tables this program needs are not there."""

    code = "SCHEMA_MISSING"

    def __init__(self, cause: str) -> None:
        super().__init__(f"The database lacks this program's tables ({cause}): run `storeplane migrate`")


class DatabaseRightMissingError(DependencyUnavailableError):
    """The login role may not do what is needed."""

    code = "DATABASE_RIGHT_MISSING"

    def __init__(self, cause: str) -> None:
        super().__init__(
            f"The database refuses a right ({cause}): run `storeplane migrate` as the owner, and the service as "
            "storeplane_app"
        )


class CredentialsRightMissingError(DependencyUnavailableError):
    """The cluster refuses the control plane the one Secret of a store."""

    code = "CREDENTIALS_RIGHT_MISSING"

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"The control plane may not read {what}; whoever runs the platform: {remedy}")


class DatabaseFaultError(ControlPlaneError):
    """Postgres refuses a statement of ours for a reason nobody foresaw."""

    code = "DATABASE_FAULT"

    def __init__(self, cause: str) -> None:
        super().__init__(f"The database refuses a statement of this program ({cause}); this is a bug")
