"""What was seen of an attempt in its cluster, reduced to what a decision needs."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from uuid import UUID

__all__ = ["EventView", "JobView", "Observation", "PodView"]


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
    created_at: datetime | None = None
    """By the API server's clock, as every moment here is by its cluster's: fit to order and to show, not to compare
    with the database's."""
    finished_at: datetime | None = None
    """When the terminal condition was set."""
    ttl_seconds: int | None = None

    def is_news_after(self, known: "JobView") -> bool:
        """Whether an attempt may have to be decided anew: our own change of its TTL is no reason."""
        return (self.end, self.is_terminating) != (known.end, known.is_terminating)


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
    created_at: datetime | None = None
    finished_at: datetime | None = None
    """When the container ended."""
    started: bool = False
    """The container has run, if only for a moment."""
    node: str = ""
    """Empty while no node was chosen."""
    is_terminating: bool = False
    disruption: str = ""
    """Why the cluster took the pod away, in its word: `PreemptionByScheduler`, `Evicted`; empty when it did not."""
    pod_reason: str = ""
    """The pod's own reason, beside its container's: `DeadlineExceeded`."""

    @property
    def is_evicted(self) -> bool:
        """Whether the cluster took it away: evicted, preempted, or lost with its node."""
        return bool(self.disruption)

    @property
    def has_ended(self) -> bool:
        """Whether it will do nothing more."""
        return self.exit_code is not None or self.phase in ("Succeeded", "Failed")

    def is_news_after(self, known: "PodView") -> bool:
        """Whether an attempt may have to be decided anew: a node that was chosen or a container that runs is usual."""
        if (self.has_ended, self.is_terminating, self.waits) != (known.has_ended, known.is_terminating, known.waits):
            return True
        return self.has_ended and replace(self, node=known.node, started=known.started) != known


@dataclass(frozen=True, slots=True)
class EventView:
    """What a component of the cluster said about an object."""

    reason: str
    """`FailedScheduling`, `FailedMount`."""
    message: str
    object_kind: str
    object_name: str
    object_uid: str
    is_warning: bool
    count: int
    """How often it was said."""
    last_at: datetime | None


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at the cluster."""

    job: JobView | None
    """The Job of the attempt's name; one with another uid than the recorded is somebody else's and not seen."""
    pod: PodView | None
    """The pod that shook hands; before the handshake, the Job's newest pod."""
    living: tuple[PodView, ...] = ()
    """Pods of the Job that can still do something."""
    is_pod_gone: bool = False
    """The pod that shook hands was seen ended and then removed."""
    absence_confirmed: bool = False
    """A live read after the list found neither Job nor living pod."""
    no_pod_because: str = ""
    """What the Job controller says when it cannot create the pod, such as a quota that is used up."""
