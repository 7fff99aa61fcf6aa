"""One run after its handshake: phases, and beside them heartbeat and reports. Exactly one store, then the process ends.

A run stops by itself when it is told to (SIGTERM, cancelled, superseded) and before its lease ends, so that two pods
never work at the same time.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from provisioner_job.cluster import Cluster
from provisioner_job.contract import ExitCode, JobResult
from provisioner_job.errors import ProvisionerError, RefusedError, RetryableError
from provisioner_job.job_input import JobInput
from provisioner_job.namespace_guard import held_by_namespace
from provisioner_job.outcome import result_of
from provisioner_job.reports import Reports
from provisioner_job.session import CALL_SECONDS, Session, Started
from provisioner_job.stopping import stopped
from provisioner_job.work import Phase, PhasesOf, Work

__all__ = ["carry_out"]

_REPORT_PATIENCE_SECONDS: Final = 60.0
_HEARTBEAT_SECONDS: Final = 30.0
_LEASE_MARGIN_SECONDS: Final = 30.0
"""Stop this long before the lease ends: Helm needs ten seconds of them to end well."""
_FINISH_PATIENCE_SECONDS: Final = 20.0
"""Within the pod's grace of 30 s; the termination message says the same when this fails."""
_SUCCESSES: Final = {"create": "the store is ready", "delete": "the store is gone", "cleanup": "the store is gone"}


async def carry_out(  # noqa: PLR0913 -- the whole of a run, handed over once
    given: JobInput,
    session: Session,
    started: Started,
    stop: asyncio.Event,
    leave: Callable[[JobResult], None],
    *,
    phases_of: PhasesOf,
) -> ExitCode:
    """Run the phases of the operation's kind and return the exit code. Raises nothing.

    Parameters
    ----------
    stop
        Set when the process is told to end. Once the phases have ended it changes nothing any more.
    leave
        Takes the result for the termination message, before the database is told: the message then says the truth
        even when the report finds no end and the process is killed over it.
    """
    journal, reports = session.journal, Reports(session)
    began = time.monotonic()
    failure, phase, facts = await _guarded(given, session, reports, started, stop, phases_of=phases_of)
    facts["duration_seconds"] = round(time.monotonic() - began, 1)
    result = result_of(given, journal.redactor, failure, facts, phase=phase)
    if failure is None:
        journal.say(_SUCCESSES.get(started.kind, "done"), **facts)
    else:
        journal.say(failure.title, phase=phase, level="error", code=failure.code, cause=failure.detail)
    leave(result)
    exit_code = ExitCode.DONE if failure is None else failure.exit_code
    if exit_code is not ExitCode.REFUSED:
        await _report_end(reports, session, result)
    return exit_code


async def _report_end(reports: Reports, session: Session, result: JobResult) -> None:
    try:
        counted = await reports.finish(
            result.outcome, result.result, result.problem, patience_seconds=_FINISH_PATIENCE_SECONDS
        )
    except ProvisionerError as error:
        # The termination message tells the same; the control plane reads it when the database heard nothing.
        session.journal.say("the end could not be reported", level="error", cause=error.detail)
    else:
        if not counted:
            session.journal.say("the report came too late to count", level="warning")


async def _guarded(  # noqa: PLR0913 -- as its caller
    given: JobInput,
    session: Session,
    reports: Reports,
    started: Started,
    stop: asyncio.Event,
    *,
    phases_of: PhasesOf,
) -> tuple[ProvisionerError | None, str, dict[str, Any]]:
    """Run the phases beside heartbeat and reports until one of them ends; return the error, the phase and the facts."""
    cluster = Cluster(session.journal)
    work = Work(given, started.spec, cluster, session.journal, recorded_uid=started.namespace_uid)
    position = [""]
    phases = asyncio.create_task(_phases(work, reports, position, started.kind, phases_of))
    beat = asyncio.create_task(_beat(reports, started.lease_seconds))
    telling = asyncio.create_task(reports.keep_telling(patience_seconds=_REPORT_PATIENCE_SECONDS))
    told = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait(
            {phases, beat, telling, told}, timeout=started.seconds_left, return_when=asyncio.FIRST_COMPLETED
        )
        # In this order: what is done is done, whatever else happened at the same moment.
        if phases in done:
            error = _error_of(phases)
        elif beat in done:
            error = _error_of(beat)
        elif telling in done:
            error = _error_of(telling)
        elif told in done:
            error = stopped()
        else:
            error = RetryableError(
                "PROVISIONER_TIMEOUT", "The provisioner ran out of time", f"stopped after {started.seconds_left} s"
            )
    finally:
        told.cancel()
        await _ended(phases)
        await _ended(beat)
        await _ended(telling)
        await cluster.close()
    return error, position[0], work.result


def _error_of(task: asyncio.Task[None]) -> ProvisionerError | None:
    error = task.exception()
    if error is None or isinstance(error, ProvisionerError):
        return error
    # A bug of ours: the control plane decides by the class, the log has the place.
    return RetryableError("UNEXPECTED", "The provisioner has a fault", f"{type(error).__name__}: {error}")


async def _ended(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has ended: Helm is being stopped meanwhile."""
    task.cancel()
    await asyncio.wait({task}, timeout=_LEASE_MARGIN_SECONDS)
    if task.done() and not task.cancelled():
        # Taken note of: asyncio would print it otherwise, past the redactor.
        task.exception()


async def _phases(work: Work, reports: Reports, position: list[str], kind: str, phases_of: PhasesOf) -> None:
    for phase in phases_of(kind):
        position[0] = phase.name
        work.journal.say("started", phase=phase.name)
        reports.note(phase.name, is_end=False, detail={})
        reports.note(phase.name, is_end=True, detail=await _one_phase(work, phase))


async def _one_phase(work: Work, phase: Phase) -> dict[str, Any]:
    began = time.monotonic()
    act = phase.act(work)
    if work.namespace_uid:
        act = held_by_namespace(work.cluster, work.given.namespace, work.namespace_uid, act)
    facts = await _limited(phase.name, work.spec.get("phase_seconds", {}).get(phase.name, phase.limit_seconds), act)
    seconds = round(time.monotonic() - began, 1)
    work.journal.say(f"done in {seconds:.1f} s", phase=phase.name, **facts)
    return facts | {"duration_seconds": seconds}


async def _limited(phase: str, seconds: float, act: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    try:
        async with asyncio.timeout(seconds):
            return await act
    except TimeoutError as error:
        detail = f"not done after {seconds:.0f} s; the lines before this one tell what it waited for"
        raise RetryableError("PHASE_TIMEOUT", f"The phase {phase} took too long", detail) from error


async def _beat(reports: Reports, lease_seconds: int) -> None:
    """Renew the lease for ever; ends with an error when the run has to stop."""
    # From before the handshake's and each renewal's call: the database counts the lease from when it heard of it.
    renewed_at = time.monotonic() - CALL_SECONDS
    while True:
        await asyncio.sleep(_HEARTBEAT_SECONDS)
        asked_at = time.monotonic()
        # The last try may begin that late and take its own limit.
        patience = renewed_at + lease_seconds - _LEASE_MARGIN_SECONDS - CALL_SECONDS - asked_at
        try:
            await reports.heartbeat(patience_seconds=patience)
            renewed_at = asked_at
        except RefusedError:
            raise
        except RetryableError as error:
            raise RetryableError("LEASE_LOST", "The lease could not be renewed", error.detail) from error
