"""What the Job gives the pod in its environment, read once and checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

from provisioner_job.contract import Env
from provisioner_job.errors import InputError

__all__ = ["JobInput"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInput:
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
    db_password: str = field(repr=False)
    attempt_token: str = field(repr=False)
    job_uid: str
    pod_uid: str
    pod_name: str
    logs_json: bool

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Return the input.

        Raises
        ------
        InputError
            A variable is missing or unreadable; the message names every one.
        """
        missing = [
            name.value for name in Env if name not in (Env.LOG_FORMAT, Env.REQUEST_ID) and not environment.get(name)
        ]
        if missing:
            raise InputError("INVALID_INPUT", "The Job's environment is incomplete", f"missing: {', '.join(missing)}")
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
            )
        except ValueError as error:
            raise InputError("INVALID_INPUT", "The Job's environment is not readable", str(error)) from error
