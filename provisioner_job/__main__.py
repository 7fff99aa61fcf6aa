"""`storeplane-provision single`: do the one operation on the one store that the environment names.

Exit codes are the contract's; the result stands in the termination message as well. Imports are few, because the time
until the handshake is on the path of every store: what works on the store is imported after it.
"""

import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from uuid import UUID

from provisioner_job.contract import Env, ExitCode, JobResult, Outcome, result_text
from provisioner_job.errors import InputError, ProvisionerError
from provisioner_job.job_input import JobInput
from provisioner_job.journal import Journal, Redactor
from provisioner_job.outcome import result_of
from provisioner_job.session import Session, Started
from provisioner_job.stopping import StopSignal

if TYPE_CHECKING:
    from provisioner_job.work import PhasesOf

__all__ = ["main", "provision"]

_USAGE: Final = "usage: storeplane-provision single"
_WRONG_USE: Final = 2
_TERMINATION_MESSAGE: Final = "/dev/termination-log"
_HANDSHAKE_PATIENCE_SECONDS: Final = 60.0


def main() -> None:
    """Run and end the process with the contract's exit code."""
    if sys.argv[1:] != ["single"]:
        sys.stderr.write(_USAGE + "\n")
        sys.exit(_WRONG_USE)
    sys.exit(provision(os.environ))


def provision(environment: Mapping[str, str], *, phases_of: "PhasesOf | None" = None) -> ExitCode:
    """Shake hands, run the phases and report. Raises nothing; what a person and the control plane need is told.

    Parameters
    ----------
    phases_of
        What to do for a kind of operation; None means a store's own phases.
    """
    redactor = Redactor()
    try:
        given = JobInput.from_environment(environment)
    except InputError as error:
        Journal(redactor, as_json=environment.get(Env.LOG_FORMAT) == "json").say(
            error.title, level="error", cause=error.detail
        )
        _leave_input_error(environment, error)
        return error.exit_code
    journal = _journal(given, redactor)
    stop = StopSignal()
    stop.listen()
    session = Session(given, journal)
    journal.say(
        "asking whether this attempt may run",
        operation=given.operation_id,
        attempt=given.attempt,
        started_for=f"{_age_milliseconds()} ms",
    )
    try:
        with stop.interrupting():
            started = session.start(patience_seconds=_HANDSHAKE_PATIENCE_SECONDS)
    except ProvisionerError as error:
        journal.say(error.title, level="error", cause=error.detail)
        _leave_message(result_of(given, redactor, error, {}, phase="start"))
        return error.exit_code
    _tell_start(given, journal, started)
    return _carried_out(given, session, started, stop, phases_of or _stores_phases())


def _age_milliseconds() -> int:
    """Return for how long this process has been there: what the container's start cost until here, to 10 ms."""
    with open("/proc/self/stat", encoding="ascii", errors="replace") as file:  # noqa: PTH123 -- no pathlib yet
        # Counted from behind the command, which may hold anything.
        begun_ticks = int(file.read().rpartition(")")[2].split()[19])
    return round((time.clock_gettime(time.CLOCK_BOOTTIME) - begun_ticks / os.sysconf("SC_CLK_TCK")) * 1000)


def _stores_phases() -> "PhasesOf":
    from provisioner_job.phases import phases_of  # noqa: PLC0415 -- see the module's docstring

    return phases_of


def _carried_out(
    given: JobInput, session: Session, started: Started, stop: StopSignal, phases_of: "PhasesOf"
) -> ExitCode:
    import asyncio  # noqa: PLC0415 -- see the module's docstring
    import signal  # noqa: PLC0415

    from provisioner_job.provisioner import carry_out  # noqa: PLC0415

    async def run() -> ExitCode:
        told = asyncio.Event()
        # Handled, so that process 1 of the container ends in order and Helm is told to stop.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
        if stop.is_set:
            # It came between the handshake and this.
            told.set()
        return await carry_out(given, session, started, told, _leave_message, phases_of=phases_of)

    return asyncio.run(run())


def _journal(given: JobInput, redactor: Redactor) -> Journal:
    return Journal(
        redactor,
        as_json=given.logs_json,
        operation_id=given.operation_id,
        attempt=given.attempt,
        store_id=given.store_id,
        request_id=given.request_id,
        trace_id=given.trace_id,
    )


def _tell_start(given: JobInput, journal: Journal, started: Started) -> None:
    journal.say(
        "the attempt may run",
        kind=started.kind,
        store=given.store_name,
        engine=given.engine,
        namespace=given.namespace,
        time_left=f"{started.seconds_left} s",
    )
    if started.finished_phases:
        journal.say(
            "going on with what an earlier attempt has done", finished_before=", ".join(started.finished_phases)
        )


def _leave_message(result: JobResult) -> None:
    # Outside a container there is no such file, and no place to make one.
    with suppress(OSError), open(_TERMINATION_MESSAGE, "w", encoding="utf-8") as file:  # noqa: PTH123 -- no pathlib yet
        file.write(result_text(result))


def _leave_input_error(environment: Mapping[str, str], error: InputError) -> None:
    """Leave the message if it can name its attempt; without that nobody could tell whose it is."""
    try:
        operation_id, attempt = UUID(environment[Env.OPERATION_ID]), int(environment[Env.ATTEMPT])
    except (KeyError, ValueError):
        return
    _leave_message(JobResult(str(operation_id), attempt, Outcome.PERMANENT, {}, error.problem("start")))


if __name__ == "__main__":
    main()
