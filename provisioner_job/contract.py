"""What the control plane and the Job's pod agree on: exit codes, environment, result.

The one module both packages know, so it holds no behaviour beyond reading and writing the result, and imports only a
little of the standard library: its import is on the way to the handshake, and `dataclasses` would double it. A change
here needs both sides, of neighbouring versions, to understand each other: fields are added, never renamed.
"""

import json
from enum import IntEnum, StrEnum
from typing import Any, Final, NamedTuple

__all__ = [
    "ALL_PHASES",
    "COMMAND",
    "CREDENTIALS_SECRET",
    "OBSERVER_ROLE",
    "PHASES_BY_KIND",
    "SPEC_VERSION",
    "STORE_LABEL",
    "TERMINATION_MESSAGE_LIMIT_BYTES",
    "Env",
    "ExitCode",
    "JobResult",
    "OptionalEnv",
    "Outcome",
    "StartAnswer",
    "parse_result",
    "result_text",
]

COMMAND: Final = ("storeplane-provision", "single")
"""The container's command; `provisioner_job.__main__` answers to it."""
_REMOVAL: Final = ("remove",)
PHASES_BY_KIND: Final = {
    "create": ("namespace", "policies", "secrets", "release", "setup", "verify", "expose"),
    "delete": _REMOVAL,
    "cleanup": _REMOVAL,
}
"""Kind of operation -> its phases in their order."""
ALL_PHASES: Final = tuple(dict.fromkeys(phase for phases in PHASES_BY_KIND.values() for phase in phases))
"""Every phase that can be reported."""
TERMINATION_MESSAGE_LIMIT_BYTES: Final = 4096
"""The kubelet cuts a longer termination message, which would break its JSON."""


SPEC_VERSION: Final = 2
"""Of what an order freezes; a provisioner makes no store from another one. Raised when a key changes its meaning."""
CREDENTIALS_SECRET: Final = "store-credentials"  # noqa: S105 -- its name
"""In a store's namespace, with the store's label: its data are the credentials that the API tells, under these names.
The chart's ClusterRole names it as the one Secret the control plane may get."""
STORE_LABEL: Final = "storeplane.dev/store-id"
"""On everything of a store."""
OBSERVER_ROLE: Final = "store-observer"
"""Name of the binding in a store's namespace by which the control plane looks into it."""


class ExitCode(IntEnum):
    """How the process ends; the Job's podFailurePolicy and the reconciler read it."""

    DONE = 0
    RETRYABLE = 10
    """The same attempt may work later: a database away, a time limit."""
    PERMANENT = 20
    """It will fail again: a broken chart, an impossible plan."""
    OTHER_POD = 30
    """Another pod of the same Job has begun; nothing was touched (Ignore)."""
    REFUSED = 31
    """Superseded, unknown, cancelled or a foreign Job; nothing was touched (FailJob)."""


class Outcome(StrEnum):
    """How an attempt ended, as its pod tells it."""

    SUCCEEDED = "succeeded"
    RETRYABLE = "retryable"
    PERMANENT = "permanent"
    REFUSED = "refused"


class StartAnswer(StrEnum):
    """Answers of the start handshake."""

    START = "start"
    OTHER_POD = "other_pod"
    REFUSED = "refused"


class Env(StrEnum):
    """Names of the environment variables the Job gives its pod."""

    STORE_ID = "STORE_ID"
    STORE_NAME = "STORE_NAME"
    ENGINE = "ENGINE"
    NAMESPACE = "NAMESPACE"
    OPERATION_ID = "OPERATION_ID"
    ATTEMPT = "ATTEMPT"
    REQUEST_ID = "REQUEST_ID"
    DB_HOST = "DB_HOST"
    DB_PORT = "DB_PORT"
    DB_NAME = "DB_NAME"
    DB_USER = "DB_USER"
    DB_PASSWORD = "DB_PASSWORD"  # noqa: S105 -- the variable's name, not a password
    ATTEMPT_TOKEN = "ATTEMPT_TOKEN"  # noqa: S105 -- the variable's name, not a token
    JOB_UID = "JOB_UID"
    POD_UID = "POD_UID"
    POD_NAME = "POD_NAME"
    LOG_FORMAT = "STOREPLANE_LOG"
    """`json` for one JSON object a line; anything else is text for a person."""


class OptionalEnv(StrEnum):
    """Names of the variables a Job may leave out; what that means stands with each."""

    TRACEPARENT = "TRACEPARENT"
    """The request's trace as W3C writes it; without it the log has no trace id."""
    POD_NAMESPACE = "POD_NAMESPACE"
    """The pod's namespace; needed where the provisioner has no rights in a store's namespace but those it binds."""
    SERVICE_ACCOUNT = "SERVICE_ACCOUNT"
    """The pod's service account; needed as POD_NAMESPACE is."""
    DB_SSL_MODE = "DB_SSL_MODE"
    """disable, prefer, require or verify-full, as libpq has them; prefer without it."""
    DB_CA = "DB_CA"
    """Certificates to trust under verify-full, as PEM text; the system's without it."""


class JobResult(NamedTuple):
    """What an attempt achieved or why it did not."""

    operation_id: str
    attempt: int
    outcome: Outcome
    result: dict[str, Any]
    """Of a create: `product_count`, `release_revision`; of every run that began: `duration_seconds`."""
    problem: dict[str, Any] | None = None
    """Of a failure: `code`, `title`, `detail`, `phase`."""


def result_text(result: JobResult) -> str:
    """Return the termination message: JSON of 4096 bytes at most, cutting the problem's detail where needed."""
    body: dict[str, Any] = {
        "version": 1,
        "operation_id": result.operation_id,
        "attempt": result.attempt,
        "outcome": result.outcome.value,
        "result": result.result,
        "problem": result.problem,
    }
    # ASCII only, so that characters are bytes and a cut never splits one.
    text = json.dumps(body, separators=(",", ":"))
    if len(text) <= TERMINATION_MESSAGE_LIMIT_BYTES:
        return text
    problem = dict(result.problem) if result.problem else None
    if problem is not None:
        detail = str(problem.get("detail", ""))
        problem = {key: str(problem.get(key, ""))[:200] for key in ("code", "title", "phase")}
        # One character can take twelve bytes as two escaped surrogates.
        problem["detail"] = detail[:200] + " [cut]"
    return json.dumps(body | {"result": {}, "problem": problem}, separators=(",", ":"))


def parse_result(text: str) -> JobResult | None:
    """Return the result in a termination message, or None when there is none to be read.

    The message is the pod's and may be empty, cut or something else altogether.
    """
    try:
        body = json.loads(text)
        if not isinstance(body, dict) or body.get("version") != 1:
            return None
        result, problem = body.get("result") or {}, body.get("problem")
        if not isinstance(result, dict) or not (problem is None or isinstance(problem, dict)):
            return None
        return JobResult(
            operation_id=str(body["operation_id"]),
            attempt=int(body["attempt"]),
            outcome=Outcome(body["outcome"]),
            result=result,
            problem=problem,
        )
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
        return None
