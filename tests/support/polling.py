"""Waiting for what happens elsewhere: ask until it is so, and fail with what was seen last."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["poll"]

_T = TypeVar("_T")
_PAUSE_SECONDS = 0.1


def poll(probe: Callable[[], _T], *, what: str, seconds: float = 60) -> _T:
    """Call the probe until it returns something true, and return that; fail after the deadline.

    The deadline is a safety net far above what is usual, never a statement about speed. An ``AssertionError`` of the
    probe counts as "not yet", so that a probe may say what it misses.
    """
    deadline = time.monotonic() + seconds
    while True:
        seen: object
        try:
            seen = answer = probe()
            if answer:
                return answer
        except AssertionError as missing:
            seen = missing
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}; last seen: {seen}")
        time.sleep(_PAUSE_SECONDS)
