"""`storeplane-provision single`: provision the one store the environment names.

Exit codes are the contract's; the result stands in the termination message as well. Imports are few, because the time
until the handshake is on the path of every store.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import UUID

from provisioner_job.contract import Env, ExitCode, JobResult, Outcome, result_text
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
        _leave_input_error(os.environ, error)
        sys.exit(error.exit_code)
    journal = Journal(
        redactor,
        as_json=given.logs_json,
        operation_id=given.operation_id,
        attempt=given.attempt,
        store_id=given.store_id,
        request_id=given.request_id,
    )
    sys.exit(asyncio.run(_run(given, journal)))


async def _run(given: JobInput, journal: Journal) -> ExitCode:
    stop = asyncio.Event()
    # Handled, so that process 1 of the container ends in order and Helm is told to stop.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    return await provision(given, journal, stop, _leave_message)


def _leave_message(result: JobResult) -> None:
    # Outside a container there is no such file, and no place to make one.
    with suppress(OSError):
        _TERMINATION_MESSAGE.write_text(result_text(result), encoding="utf-8")


def _leave_input_error(environment: Mapping[str, str], error: InputError) -> None:
    """Leave the message if it can name its attempt; without that nobody could tell whose it is."""
    try:
        operation_id, attempt = UUID(environment[Env.OPERATION_ID]), int(environment[Env.ATTEMPT])
    except (KeyError, ValueError):
        return
    _leave_message(JobResult(str(operation_id), attempt, Outcome.PERMANENT, problem=error.problem("start")))


if __name__ == "__main__":
    main()
