"""What follows an attempt that ended without success: another one, or the end of the operation.

Pure. Retries are ours, never the Job's; their classes are the outcomes of `domain.attempt`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from controlplane.domain.attempt import AttemptOutcome

__all__ = ["FREE_TRIES", "MEMORY_AFTER_OOM_MIB", "TRIES", "GiveUp", "Retry", "next_step"]

TRIES: Final = 4
"""Attempts that may end as retryable or lost: with the back-off they fill a quarter of an hour."""
FREE_TRIES: Final = 6
"""Attempts that may end without having begun, or by the cluster's hand: the first and five that cost nothing."""
MEMORY_AFTER_OOM_MIB: Final = 1024
"""Twice the usual limit, once: a provisioner that needs more than this has a fault."""
_FIRST_PAUSE_SECONDS: Final = 5.0
_LONGEST_PAUSE_SECONDS: Final = 60.0
_JITTER: Final = 0.2
"""Share of a pause by which it is made longer or shorter, so that what failed together does not return together."""
_SHORTEST_RUN_SECONDS: Final = 90.0
"""An attempt that would have less than this before the deadline is not begun: a timeout would hide the cause."""

_FREE: Final = frozenset({AttemptOutcome.NOT_STARTED, AttemptOutcome.EVICTED, AttemptOutcome.REFUSED})
_COUNTED: Final = frozenset({AttemptOutcome.RETRYABLE, AttemptOutcome.LOST})
_LIMITS: Final = (
    (_FREE, FREE_TRIES, "{} attempts could not begin or were taken away"),
    (_COUNTED, TRIES, "{} attempts have failed"),
)


@dataclass(frozen=True, slots=True)
class Retry:
    """Another attempt, `seconds` from now."""

    seconds: float
    reason: str
    """What a person reads while it waits."""
    memory_mib: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The operation fails."""

    because: str
    """Added to the newest attempt's problem; empty when that says it all."""


def next_step(
    outcomes: Sequence[AttemptOutcome], *, seconds_left: float | None, memory_mib: int, spread: float
) -> Retry | GiveUp:
    """Return what follows the newest attempt.

    Parameters
    ----------
    outcomes
        Of all the operation's attempts, the newest last; never empty.
    seconds_left
        Until the operation's deadline; None before its first dispatch.
    memory_mib
        The newest attempt's limit.
    spread
        A random number from 0 to 1.
    """
    newest = outcomes[-1]
    if newest is AttemptOutcome.RETRIED:
        return Retry(0.0, "a person asked for the next attempt", memory_mib)
    wanted = _wanted(outcomes, memory_mib, spread)
    if isinstance(wanted, GiveUp):
        return wanted
    if seconds_left is not None and wanted.seconds + _SHORTEST_RUN_SECONDS > seconds_left:
        return GiveUp("too little time is left before the deadline for another attempt")
    return wanted


def _wanted(outcomes: Sequence[AttemptOutcome], memory_mib: int, spread: float) -> Retry | GiveUp:
    """Return what follows by the outcomes alone."""
    newest = outcomes[-1]
    if newest is AttemptOutcome.OUT_OF_MEMORY:
        if memory_mib >= MEMORY_AFTER_OOM_MIB:
            return GiveUp(f"it ran out of {memory_mib} MiB as well")
        return _retry(outcomes, 0.0, MEMORY_AFTER_OOM_MIB)
    for kind, most, told in _LIMITS:
        if newest in kind:
            count = sum(each in kind for each in outcomes)
            if count >= most:
                return GiveUp(told.format(count))
            return _retry(outcomes, _pause(count, spread), memory_mib)
    return GiveUp("")


def _retry(outcomes: Sequence[AttemptOutcome], seconds: float, memory_mib: int) -> Retry:
    told = "at once" if seconds == 0 else f"in {seconds:.0f} s"
    reason = f"attempt {len(outcomes)} ended ({outcomes[-1].value}); the next one begins {told}"
    return Retry(seconds, reason, memory_mib)


def _pause(count: int, spread: float) -> float:
    base: float = min(_FIRST_PAUSE_SECONDS * 2.0 ** (count - 1), _LONGEST_PAUSE_SECONDS)
    return base * (1 - _JITTER + 2 * _JITTER * spread)
