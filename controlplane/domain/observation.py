"""What was seen of an attempt in its cluster, reduced to what a decision needs."""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

__all__ = ["JobView", "Observation", "PodView"]


@dataclass(frozen=True, slots=True)
class JobView:
    """A Job as the API server has it."""

    name: str
    uid: str
    operation_id: UUID | None
    """From the label; None when it is absent or not an id."""
    attempt: int | None
    end: Literal["Complete", "Failed"] | None
    """Terminal condition, if there is one."""
    reason: str
    """Reason and message of a terminal Failed condition; empty otherwise."""
    is_terminating: bool


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod of a Job and the end of its one container."""

    name: str
    uid: str
    job_uid: str | None
    phase: str
    exit_code: int | None
    """None while the container has not ended."""
    reason: str
    """Why it ended: `OOMKilled`, `Evicted`."""
    message: str
    """Termination message of the container, or the pod's own message."""
    waits: str = ""
    """Why the container has not started, `ErrImagePull: ...`; empty once it has, and while all goes as usual."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at the cluster."""

    job: JobView | None
    pod: PodView | None
    """The pod that shook hands; before the handshake, the Job's newest pod."""
    absence_confirmed: bool = False
    """A live read after the list found no Job either."""
    no_pod_because: str = ""
    """What the Job controller says when it cannot create the pod, such as a quota that is used up."""
