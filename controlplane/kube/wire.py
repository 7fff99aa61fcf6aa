"""The shapes of the API server's answers, reduced to the fields that are used; everything else is skipped in decoding.

Names are Kubernetes' own. A field that an object may lack has a default; what is not of this shape does not decode.
"""

from datetime import datetime
from typing import Generic, Literal, TypeVar

import msgspec

from controlplane.kube import labels as keys

__all__ = [
    "Condition",
    "ErrorLine",
    "Event",
    "Job",
    "Labels",
    "Line",
    "ListOf",
    "Metadata",
    "Namespace",
    "Pod",
    "PodStatus",
    "Secret",
    "State",
    "StoreContainer",
    "StorePod",
    "StorePodStatus",
    "Waiting",
]

_Struct = TypeVar("_Struct")


class _Lean(msgspec.Struct, gc=False):
    """Outside the garbage collector's counts: thousands come with a list, live for a moment and form no cycles."""


class Labels(_Lean):
    """Labels of ours and the Job controller's."""

    operation_id: str = msgspec.field(default="", name=keys.OPERATION_ID)
    attempt: str = msgspec.field(default="", name=keys.ATTEMPT)
    job_uid: str | None = msgspec.field(default=None, name=keys.JOB_UID)


class Metadata(_Lean, rename="camel"):
    """Of an object; a bookmark has neither name nor uid."""

    name: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: Labels | None = None


class Condition(_Lean, rename="camel"):
    """One condition of a status."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None


class JobSpec(_Lean, rename="camel"):
    """Of a Job."""

    ttl_seconds_after_finished: int | None = None


class JobStatus(_Lean):
    """Of a Job."""

    conditions: list[Condition] | None = None


class Job(_Lean):
    """A `batch/v1` Job."""

    metadata: Metadata
    kind: str = ""
    """Absent inside a list."""
    spec: JobSpec | None = None
    status: JobStatus | None = None


class Waiting(_Lean):
    """A container that does not run yet."""

    reason: str = ""
    message: str = ""


class Running(_Lean):
    """A container that runs."""


class Terminated(_Lean, rename="camel"):
    """A container that has ended."""

    exit_code: int
    reason: str = ""
    message: str = ""
    finished_at: datetime | None = None


class State(_Lean):
    """Of a container; one of the three."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class Container(_Lean):
    """Status of a container."""

    state: State | None = None


class PodSpec(_Lean, rename="camel"):
    """Of a pod."""

    node_name: str = ""


class PodStatus(_Lean, rename="camel"):
    """Of a pod."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: list[Condition] | None = None
    container_statuses: list[Container] | None = None


class Pod(_Lean):
    """A pod."""

    metadata: Metadata
    spec: PodSpec | None = None
    status: PodStatus | None = None


class Involved(_Lean):
    """What an event is about."""

    kind: str = ""
    name: str = ""
    uid: str = ""


class Series(_Lean, rename="camel"):
    """Repetitions of an event, as newer components write them."""

    count: int = 1
    last_observed_time: datetime | None = None


class Event(_Lean, rename="camel"):
    """An event."""

    metadata: Metadata
    involved_object: Involved
    reason: str = ""
    message: str = ""
    type: str = ""
    count: int | None = None
    last_timestamp: datetime | None = None
    event_time: datetime | None = None
    series: Series | None = None


class ListMetadata(_Lean, rename="camel"):
    """Of a page of a list."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class ListOf(_Lean, Generic[_Struct]):
    """A page of a list."""

    kind: str
    metadata: ListMetadata
    items: list[_Struct] | None = None


class Line(_Lean, Generic[_Struct]):
    """A line of a watch."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: _Struct


class Status(_Lean):
    """Why a watch ends."""

    code: int = 0
    reason: str = ""
    message: str = ""


class ErrorLine(_Lean):
    """The last line of a watch that the server ends by an error."""

    type: Literal["ERROR"]
    object: Status


class StoreContainer(_Lean, rename="camel"):
    """Status of a container of a store's pod."""

    name: str
    ready: bool = False
    restart_count: int = 0
    state: State | None = None
    last_state: State | None = None

    def has_run(self) -> bool:
        """Return whether there can be a log."""
        return self.restart_count > 0 or self.is_begun()

    def is_begun(self) -> bool:
        """Return whether its present run has begun; between two runs it waits."""
        return self.state is not None and (self.state.running is not None or self.state.terminated is not None)

    def has_failed(self) -> bool:
        """Return whether its present run ended badly or waits after one that did."""
        if self.state is None:
            return False
        ended = self.state.terminated
        return (ended is not None and ended.exit_code != 0) or (
            self.state.waiting is not None and self.restart_count > 0
        )

    def trouble(self) -> str:
        """Return in words what is not as it should be, or nothing."""
        state, ended = self.state or State(), (self.last_state or State()).terminated
        told = ""
        if state.waiting is not None:
            told = f"{state.waiting.reason} {state.waiting.message}".strip()
        elif state.terminated is not None and state.terminated.exit_code != 0:
            told = f"ended with {state.terminated.exit_code} {state.terminated.reason}".strip()
        if self.restart_count:
            before = f", the last with {ended.exit_code} {ended.reason}".rstrip() if ended is not None else ""
            told = f"{told} ({self.restart_count} restarts{before})".strip()
        elif not told and not self.ready and state.running is not None:
            told = "runs and is not ready"
        return f"{self.name}: {told}" if told else ""


class StorePodStatus(_Lean, rename="camel"):
    """Of a store's pod."""

    phase: str = ""
    init_container_statuses: list[StoreContainer] | None = None
    container_statuses: list[StoreContainer] | None = None


class StorePod(_Lean):
    """A pod of a store."""

    metadata: Metadata
    status: StorePodStatus | None = None

    def containers(self) -> list[StoreContainer]:
        """Return its containers in the order they run."""
        if self.status is None:
            return []
        return [*(self.status.init_container_statuses or ()), *(self.status.container_statuses or ())]


class Namespace(_Lean):
    """A namespace."""

    metadata: Metadata
    kind: Literal["Namespace"]


class SecretMetadata(_Lean):
    """Of a Secret."""

    labels: dict[str, str] | None = None


class Secret(_Lean):
    """A Secret; its values come as base64 and are decoded."""

    metadata: SecretMetadata
    kind: Literal["Secret"]
    data: dict[str, bytes] | None = None
