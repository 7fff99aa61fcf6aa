"""Being told to end (SIGTERM), before an event loop is there to be told."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from provisioner_job.errors import RetryableError

__all__ = ["StopSignal", "stopped"]


def stopped() -> RetryableError:
    """Return the error of a run that was told to stop."""
    return RetryableError("STOPPED", "The provisioner was told to stop", "SIGTERM")


class StopSignal:
    """Takes note of SIGTERM, and ends a blocking wait with it.

    Attributes
    ----------
    is_set
        The process was told to end.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._interrupts = False

    def listen(self) -> None:
        """Take the signal; an event loop that takes it later puts its own handler in this one's place."""
        signal.signal(signal.SIGTERM, self._take)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """End what is done inside with `stopped()` when the signal comes, or has come."""
        self._interrupts = True
        try:
            if self.is_set:
                raise stopped()
            yield
        finally:
            self._interrupts = False

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        self.is_set = True
        if self._interrupts:
            # Once: what it interrupts may have something to put away.
            self._interrupts = False
            raise stopped()
