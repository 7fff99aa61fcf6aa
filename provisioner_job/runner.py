"""Running a program: argument list, no shell, own session, deadline, bounded and redacted output.

A cancelled or overdue run gets SIGTERM and, after a grace, SIGKILL, for its whole process group: Helm marks its
release as failed when it is told to stop, and leaves it locked when it is killed.
"""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from provisioner_job.errors import PhaseError, RetryableError
from provisioner_job.journal import Redactor

__all__ = ["Finished", "run"]

_OUTPUT_LIMIT_BYTES: Final = 256 * 1024
_CHUNK_BYTES: Final = 16 * 1024
_GRACE_SECONDS: Final = 10.0
"""Less than the pod's own grace of 30 s."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that has ended."""

    exit_code: int
    output: str
    """Standard output and error together, redacted; the end of it, when it was long."""

    def last_lines(self, count: int) -> str:
        """Return the last lines that are not blank."""
        lines = [line for line in self.output.splitlines() if line.strip()]
        return "\n".join(lines[-count:])


async def run(
    arguments: Sequence[str], *, environment: Mapping[str, str], limit_seconds: float, redactor: Redactor
) -> Finished:
    """Run a program to its end.

    Raises
    ------
    RetryableError
        It did not end in time and was stopped.
    PhaseError
        It cannot be started.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )
    except OSError as error:
        raise PhaseError("PROGRAM_MISSING", f"{arguments[0]} cannot be started", str(error)) from error
    output = bytearray()
    reader = asyncio.create_task(_collect(process, output))
    try:
        async with asyncio.timeout(limit_seconds):
            await process.wait()
    except TimeoutError as error:
        await _stop(process)
        detail = f"stopped after {limit_seconds:.0f} s"
        raise RetryableError("PROGRAM_TIMEOUT", f"{arguments[0]} took too long", detail) from error
    except asyncio.CancelledError:
        await _stop(process)
        raise
    finally:
        await _drained(reader)
    return Finished(process.returncode or 0, redactor.clean(output.decode("utf-8", "replace")))


async def _collect(process: asyncio.subprocess.Process, output: bytearray) -> None:
    stream = process.stdout
    while stream is not None and (chunk := await stream.read(_CHUNK_BYTES)):
        output += chunk
        # The end tells the cause; what came before it goes.
        del output[: max(0, len(output) - _OUTPUT_LIMIT_BYTES)]


async def _drained(reader: asyncio.Task[None]) -> None:
    """Wait for the rest of the output; a grandchild that kept the pipe open must not hold us for ever."""
    await asyncio.wait({reader}, timeout=1.0)
    if not reader.done():
        reader.cancel()


async def _stop(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            async with asyncio.timeout(_GRACE_SECONDS):
                await process.wait()
        except TimeoutError:
            continue
