"""Tells a person at a terminal what takes long: what, how long so far, how long it usually takes.

When the output is not a terminal each step is one line at its end, and only if it took a second or more.
How long a step usually takes is what it took the last time on this machine.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from typing import TYPE_CHECKING

from devcluster.machine.paths import cache_dir

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["note", "step"]

_REFRESH_SECONDS = 0.5
_WORTH_A_LINE_SECONDS = 1.0
_CLEAR_LINE = "\r\x1b[K"
_running: dict[str, tuple[float, str]] = {}
"""The steps that run now, in the order they began: when, and how long it usually takes."""
_running_lock = threading.Lock()


def note(text: str) -> None:
    """Say one thing on stderr, where progress goes; stdout is for results."""
    with _running_lock:
        clear = _CLEAR_LINE if sys.stderr.isatty() else ""
        print(f"{clear}{text}", file=sys.stderr, flush=True)  # noqa: T201 - this is the one place that speaks


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Show one long step while it runs, and remember how long it took when it succeeds. Steps may run side by side."""
    usual = _remembered().get(what)
    hint = f" (usually {usual:.0f} s)" if usual and usual >= _WORTH_A_LINE_SECONDS else ""
    started = time.monotonic()
    with _running_lock:
        _running[what] = (started, hint)
    ended = threading.Event()
    ticker = threading.Thread(target=_tick, args=(what, ended), daemon=True)
    if sys.stderr.isatty():
        ticker.start()
    succeeded = False
    try:
        yield
        succeeded = True
    finally:
        took = time.monotonic() - started
        with _running_lock:
            _running.pop(what, None)
        ended.set()
        if ticker.is_alive():
            ticker.join()
        if succeeded:
            _remember(what, took)
        if not succeeded:
            note(f"  failed after {took:.1f} s: {what}")
        elif took >= _WORTH_A_LINE_SECONDS:
            note(f"  {took:5.1f} s  {what}")


def _tick(what: str, ended: threading.Event) -> None:
    """Draw the line while a step runs: of steps side by side the one that began first draws for all."""
    while not ended.wait(_REFRESH_SECONDS):
        with _running_lock:
            if next(iter(_running), None) == what:
                now = time.monotonic()
                parts = [f"{now - started:.0f} s  {name}{hint}" for name, (started, hint) in _running.items()]
                sys.stderr.write(_CLEAR_LINE + "  " + "  ·  ".join(parts))
                sys.stderr.flush()


def _memory() -> Path:
    return cache_dir() / "durations.json"


def _remembered() -> dict[str, float]:
    """Return the remembered durations; a missing or half-written file only costs the hint."""
    try:
        durations = json.loads(_memory().read_text())
    except (OSError, ValueError):
        return {}
    return durations if isinstance(durations, dict) else {}


def _remember(what: str, took: float) -> None:
    durations = _remembered() | {what: round(took, 1)}
    with contextlib.suppress(OSError):
        temporary = _memory().with_suffix(".new")
        temporary.write_text(json.dumps(durations, indent=1, sort_keys=True))
        temporary.replace(_memory())
