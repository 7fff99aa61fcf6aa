"""Every layer of the tests, side by side: what computes, follows Jobs, breaks clusters, and makes real shops.

One after the other they take longer than anybody waits; each has a database server and a cluster of its own, so they do
not meet. Each one's output is shown whole when it ends. Arguments go to every pytest.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Final, NamedTuple

__all__ = ["main"]

_YIELDING: Final = ("tests/unit", "tests/db")
"""Computes all the time and ends early; those that mostly wait for a cluster, and end last, come first."""
_GROUPS: Final = (
    _YIELDING,
    ("tests/kube", "tests/contract"),
    ("tests/cluster",),
    ("tests/e2e",),
)
_NICENESS: Final = 5
_OK: Final = (0, 5)
"""Passed; or nothing was chosen, as by ``-k``."""
_LIMIT_SECONDS: Final = 3300.0
_TOLD_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 60.0


class _Run(NamedTuple):
    name: str
    process: subprocess.Popen[bytes]
    output: IO[bytes]


def main() -> int:
    """Run them and return 0 when all passed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        runs = [_started(stack, group) for group in _GROUPS]
        stack.callback(_stop, runs)
        codes = _followed(runs, began)
    for name, code in codes.items():
        sys.stdout.write(f"{name}: {'passed' if code in _OK else f'FAILED (exit code {code})'}\n")
    return 0 if all(code in _OK for code in codes.values()) else 1


def _started(stack: contextlib.ExitStack, group: tuple[str, ...]) -> _Run:
    output = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 -- the stack closes it
    command = [str(Path(sys.executable).with_name("pytest")), *group, *sys.argv[1:]]
    if group == _YIELDING:
        command = ["nice", f"-n{_NICENESS}", *command]
    return _Run(", ".join(group), subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT), output)


def _followed(runs: list[_Run], began: float) -> dict[str, int]:
    codes: dict[str, int] = {}
    told_at = began
    while len(codes) < len(runs):
        if time.monotonic() - began > _LIMIT_SECONDS:
            sys.stdout.write(f"not done after {_LIMIT_SECONDS:.0f} s; what still runs is ended\n")
            return codes | {run.name: 124 for run in runs if run.name not in codes}
        for run in runs:
            if run.name not in codes and (code := run.process.poll()) is not None:
                codes[run.name] = code
                _show(run, time.monotonic() - began)
        if time.monotonic() - told_at >= _TOLD_SECONDS:
            told_at = time.monotonic()
            left = "; ".join(run.name for run in runs if run.name not in codes)
            sys.stdout.write(f"{told_at - began:.0f} s: still running {left}\n")
            sys.stdout.flush()
        time.sleep(0.2)
    return codes


def _show(run: _Run, seconds: float) -> None:
    run.output.seek(0)
    sys.stdout.write(f"\n===== {run.name}, {seconds:.0f} s =====\n")
    sys.stdout.write(run.output.read().decode("utf-8", "replace"))
    sys.stdout.flush()


def _stop(runs: list[_Run]) -> None:
    """End what still runs, as Ctrl-C does, so that it ends what it has started."""
    for run in runs:
        if run.process.poll() is None:
            run.process.send_signal(signal.SIGINT)
    for run in runs:
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.process.wait(timeout=_STOP_SECONDS)
        if run.process.poll() is None:
            run.process.kill()


if __name__ == "__main__":
    sys.exit(main())
