"""What the Job gives the pod in its environment, read once and checked."""

from collections.abc import Mapping
from typing import Final, NamedTuple, Self
from uuid import UUID

from provisioner_job.contract import Env, OptionalEnv
from provisioner_job.database import PREFER, SSL_MODES, Address
from provisioner_job.errors import InputError

__all__ = ["JobInput", "trace_id_in"]

_MAY_BE_EMPTY: Final = (Env.LOG_FORMAT, Env.REQUEST_ID)
_HEX: Final = frozenset("0123456789abcdef")
_TRACE_LENGTHS: Final = (2, 32, 16, 2)


class JobInput(NamedTuple):
    """The container's environment by the contract."""

    store_id: UUID
    store_name: str
    engine: str
    namespace: str
    operation_id: UUID
    attempt: int
    request_id: str
    db_host: str
    db_port: int
    db_name: str
    db_user: str
    db_password: str
    attempt_token: str
    job_uid: str
    pod_uid: str
    pod_name: str
    logs_json: bool
    trace_id: str = ""
    pod_namespace: str = ""
    service_account: str = ""
    db_ssl_mode: str = PREFER
    db_ca: str = ""

    # The decorator is newer than Python 3.11, and its backport's import is not worth it here.
    def __repr__(self) -> str:  # type: ignore[explicit-override]
        # Two of the fields are secrets.
        return f"JobInput(operation_id={self.operation_id}, attempt={self.attempt})"

    @property
    def database(self) -> Address:
        """Where to report."""
        return Address(
            host=self.db_host,
            port=self.db_port,
            database=self.db_name,
            user=self.db_user,
            password=self.db_password,
            ssl_mode=self.db_ssl_mode,
            ca=self.db_ca,
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Return the input.

        Raises
        ------
        InputError
            A variable is missing or unreadable; the message names every one that is missing.
        """
        missing = [name.value for name in Env if name not in _MAY_BE_EMPTY and not environment.get(name)]
        if missing:
            raise InputError("INVALID_INPUT", "The Job's environment is incomplete", f"missing: {', '.join(missing)}")
        ssl_mode = environment.get(OptionalEnv.DB_SSL_MODE) or PREFER
        if ssl_mode not in SSL_MODES:
            detail = f"{OptionalEnv.DB_SSL_MODE} is {ssl_mode!r}; it may be {', '.join(SSL_MODES)}"
            raise InputError("INVALID_INPUT", "The Job's environment is not readable", detail)
        try:
            return cls(
                store_id=UUID(environment[Env.STORE_ID]),
                store_name=environment[Env.STORE_NAME],
                engine=environment[Env.ENGINE],
                namespace=environment[Env.NAMESPACE],
                operation_id=UUID(environment[Env.OPERATION_ID]),
                attempt=int(environment[Env.ATTEMPT]),
                request_id=environment.get(Env.REQUEST_ID, ""),
                db_host=environment[Env.DB_HOST],
                db_port=int(environment[Env.DB_PORT]),
                db_name=environment[Env.DB_NAME],
                db_user=environment[Env.DB_USER],
                db_password=environment[Env.DB_PASSWORD],
                attempt_token=environment[Env.ATTEMPT_TOKEN],
                job_uid=environment[Env.JOB_UID],
                pod_uid=environment[Env.POD_UID],
                pod_name=environment[Env.POD_NAME],
                logs_json=environment.get(Env.LOG_FORMAT) == "json",
                trace_id=trace_id_in(environment.get(OptionalEnv.TRACEPARENT, "")),
                pod_namespace=environment.get(OptionalEnv.POD_NAMESPACE, ""),
                service_account=environment.get(OptionalEnv.SERVICE_ACCOUNT, ""),
                db_ssl_mode=ssl_mode,
                db_ca=environment.get(OptionalEnv.DB_CA, ""),
            )
        except ValueError as error:
            raise InputError("INVALID_INPUT", "The Job's environment is not readable", str(error)) from error


def trace_id_in(traceparent: str) -> str:
    """Return the trace id of a W3C traceparent; empty when it is none, which the standard says to ignore."""
    parts = traceparent.split("-")
    # A later version may add parts behind these.
    is_sound = (
        tuple(map(len, parts[:4])) == _TRACE_LENGTHS
        and all(_HEX.issuperset(part) for part in parts[:4])
        and parts[0] != "ff"
        and (parts[0] != "00" or len(parts) == len(_TRACE_LENGTHS))
        and all(part.strip("0") for part in parts[1:3])
    )
    return parts[1] if is_sound else ""
