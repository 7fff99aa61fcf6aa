"""`storeplane-provision single`: provision the one store the environment names.

Exit codes are the contract's; the result stands in the termination message as well. Imports are few, because the time
until the handshake is on the path of every store.
"""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from provisioner_job.contract import ExitCode, JobResult, Outcome, result_text
from provisioner_job.errors import InputError
from provisioner_job.job_input import JobInput
from provisioner_job.journal import Journal, Redactor
from provisioner_job.provisioner import provision

__all__ = ["main"]

_USAGE: Final = "usage: storeplane-provision single"
_WRONG_USE: Final = 2
_TERMINATION_MESSAGE: Final = Path("/dev/termination-log")


def main() -> None:
    """Run and end the process with the contract's exit code."""
    if sys.argv[1:] != ["single"]:
        sys.stderr.write(_USAGE + "\n")
        sys.exit(_WRONG_USE)
    redactor = Redactor()
    try:
        given = JobInput.from_environment(os.environ)
    except InputError as error:
        Journal(redactor, as_json=os.environ.get("STOREPLANE_LOG") == "json").say(
            error.title, level="error", cause=error.detail
        )
        sys.exit(error.exit_code)
    journal = Journal(
        redactor,
        as_json=given.logs_json,
        operation_id=given.operation_id,
        attempt=given.attempt,
        store_id=given.store_id,
        request_id=given.request_id,
    )
    exit_code, result = asyncio.run(_run(given, journal))
    _leave_message(result, redactor)
    sys.exit(exit_code)


async def _run(given: JobInput, journal: Journal) -> tuple[ExitCode, JobResult]:
    task = asyncio.create_task(provision(given, journal))
    # Handled, so that process 1 of the container ends in order and Helm is told to stop.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        # During the handshake or the last report; between them `provision` ends in order by itself.
        journal.say("told to stop", level="warning")
        problem = {
            "code": "STOPPED",
            "title": "The provisioner was told to stop",
            "detail": "SIGTERM",
            "phase": "start",
        }
        return ExitCode.RETRYABLE, _stopped(given, problem)


def _stopped(given: JobInput, problem: dict[str, str]) -> JobResult:
    return JobResult(str(given.operation_id), given.attempt, Outcome.RETRYABLE, {}, problem)


def _leave_message(result: JobResult, redactor: Redactor) -> None:
    # Outside a container there is no such file, and no place to make one.
    with suppress(OSError):
        _TERMINATION_MESSAGE.write_text(redactor.clean(result_text(result)), encoding="utf-8")


if __name__ == "__main__":
    main()
