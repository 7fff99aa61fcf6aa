"""How the end of an attempt is put into words, once for the database and the termination message."""

from typing import Any

from provisioner_job.contract import ExitCode, JobResult, Outcome
from provisioner_job.errors import ProvisionerError
from provisioner_job.job_input import JobInput
from provisioner_job.journal import Redactor

__all__ = ["result_of"]


def result_of(
    given: JobInput, redactor: Redactor, error: ProvisionerError | None, facts: dict[str, Any], *, phase: str
) -> JobResult:
    """Return the result of a run that ended with this error, or with none; no secret is left in it."""
    told = redactor.cleaned(facts)
    if error is None:
        return JobResult(str(given.operation_id), given.attempt, Outcome.SUCCEEDED, told)
    outcome = {
        ExitCode.RETRYABLE: Outcome.RETRYABLE,
        ExitCode.PERMANENT: Outcome.PERMANENT,
    }.get(error.exit_code, Outcome.REFUSED)
    return JobResult(str(given.operation_id), given.attempt, outcome, told, redactor.cleaned(error.problem(phase)))
