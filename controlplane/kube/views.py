"""From the API server's bytes to views: the few fields that are used are decoded, the rest is skipped.

A tree of a whole Job costs forty microseconds and 20 KiB; with five thousand of them in a list that would hold up the
event loop for seconds. Pure: no calls. What does not have the shape of an answer is an error, never a view.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec

from controlplane.domain.observation import EventView, JobView, PodView
from controlplane.kube import labels
from controlplane.kube.errors import KubeUnavailableError, error_from_response
from controlplane.kube.wire import (
    Condition,
    ErrorLine,
    Event,
    Job,
    Labels,
    Line,
    ListOf,
    Pod,
    PodStatus,
    State,
    Waiting,
)

__all__ = ["JOBS", "PODS", "Change", "Kind", "Page", "event_page", "job_view", "pod_view", "read_job"]

_WAITING_LIMIT: Final = 300
"""Characters kept of why a pod does not start: a runtime repeats itself in nested sentences."""
_USUAL_WAITS: Final = frozenset({"", "ContainerCreating", "PodInitializing"})
_NEVER_RAN: Final = frozenset({"StartError", "ContainerCannotRun"})
"""The runtime could not start the command; the kubelet tells it as the end of a container."""
_TAKEN_AWAY: Final = frozenset({"Evicted", "NodeLost", "NodeShutdown", "Preempting", "Shutdown", "Terminated"})
"""A pod's own reasons when a node or its kubelet gave it up; not all come with a DisruptionTarget condition."""
_NOT_LET_IN: Final = ("OutOf", "UnexpectedAdmissionError", "NodeAffinity")
"""How the reasons begin when the chosen node then refused the pod."""
_SHOWN: Final = 80
"""Characters of an unusable answer that are told."""

_View = TypeVar("_View", JobView, PodView)
_NO_LABELS: Final = Labels()


@dataclass(frozen=True, slots=True)
class Page(Generic[_View]):
    """One page of a list."""

    views: list[_View]
    version: str
    """Resource version of the list: a watch goes on from there."""
    rest: str
    """Token of the next page; empty after the last one."""


@dataclass(frozen=True, slots=True)
class Change(Generic[_View]):
    """One line of a watch."""

    view: _View | None
    """None of a bookmark, which only moves the version."""
    is_removed: bool
    version: str


@dataclass(frozen=True, slots=True)
class Kind(Generic[_View]):
    """How one kind is listed, decoded and merged."""

    name: str
    """As the server names its list: `Job` of `JobList`."""
    path: str
    """With `{}` for the namespace."""
    page: Callable[[bytes], Page[_View]]
    """Decode a page; raises `KubeUnavailableError` for anything else."""
    change: Callable[[bytes], Change[_View]]
    """Decode a line; raises the error an ERROR event stands for, `KubeUnavailableError` for anything else."""
    latest: Callable[[_View, _View], _View]
    """Of the known view and the told one, of the same uid, return the later."""


_job: Final = msgspec.json.Decoder(Job)
_jobs: Final = msgspec.json.Decoder(ListOf[Job])
_job_line: Final = msgspec.json.Decoder(Line[Job])
_pods: Final = msgspec.json.Decoder(ListOf[Pod])
_pod_line: Final = msgspec.json.Decoder(Line[Pod])
_events: Final = msgspec.json.Decoder(ListOf[Event])
_error_line: Final = msgspec.json.Decoder(ErrorLine)


def job_view(job: Job) -> JobView:
    """Return what is used of a Job."""
    metadata, status = job.metadata, job.status
    marks = metadata.labels or _NO_LABELS
    end: Literal["Complete", "Failed"] | None = None
    reason, finished_at = "", None
    for condition in (status.conditions if status is not None else None) or ():
        # FailureTarget and SuccessCriteriaMet are on the way; only these two are final, after the pods have ended.
        if condition.status == "True" and condition.type in ("Complete", "Failed"):
            end = "Complete" if condition.type == "Complete" else "Failed"
            finished_at = condition.last_transition_time
            if end == "Failed":
                reason = f"{condition.reason}: {condition.message}".strip(": ")
    return JobView(
        name=metadata.name,
        uid=metadata.uid,
        operation_id=labels.id_of(marks.operation_id),
        attempt=labels.number_of(marks.attempt),
        end=end,
        reason=reason,
        is_terminating=metadata.deletion_timestamp is not None,
        created_at=metadata.creation_timestamp,
        finished_at=finished_at,
        ttl_seconds=job.spec.ttl_seconds_after_finished if job.spec is not None else None,
    )


def pod_view(pod: Pod) -> PodView:
    """Return what is used of a pod and of its one container."""
    metadata, status = pod.metadata, pod.status or PodStatus()
    state = (status.container_statuses[0].state if status.container_statuses else None) or State()
    ended = state.terminated
    exit_code = ended.exit_code if ended is not None else None
    if exit_code is None and status.phase == "Failed":
        # Evicted before the container ran, or its status was lost with the node: it will not say anything any more.
        exit_code = -1
    is_given_up = status.reason in _TAKEN_AWAY or status.reason.startswith(_NOT_LET_IN)
    unscheduled, disruption = None, status.reason if is_given_up else ""
    for condition in status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            unscheduled = condition
        elif condition.type == "DisruptionTarget" and condition.status == "True":
            disruption = condition.reason or disruption
    return PodView(
        name=metadata.name,
        uid=metadata.uid,
        job_uid=metadata.labels.job_uid if metadata.labels is not None else None,
        phase=status.phase,
        exit_code=exit_code,
        reason=(ended.reason if ended is not None else "") or status.reason,
        message=(ended.message if ended is not None else "") or status.message,
        waits=_waits(unscheduled, state.waiting),
        created_at=metadata.creation_timestamp,
        finished_at=ended.finished_at if ended is not None else None,
        started=state.running is not None or (ended is not None and ended.reason not in _NEVER_RAN),
        node=pod.spec.node_name if pod.spec is not None else "",
        is_terminating=metadata.deletion_timestamp is not None,
        disruption=disruption,
        pod_reason=status.reason,
    )


def read_job(raw: bytes) -> JobView:
    """Return the one Job an answer holds; raises `KubeUnavailableError` for anything else."""
    view = job_view(_decoded(_job, raw, "Job"))
    if not view.uid or not view.name:
        message = "the answer is a Job without name and uid"
        raise KubeUnavailableError(message)
    return view


def event_page(raw: bytes) -> tuple[list[EventView], str]:
    """Return the events of a page and the token of the next; errors as of `Kind.page`."""
    told = _decoded(_events, raw, "EventList")
    return [_event_view(event) for event in told.items or ()], told.metadata.continue_


def _waits(unscheduled: Condition | None, waiting: Waiting | None) -> str:
    """Return why a pod's container has not started, or nothing while that is as it should be."""
    if unscheduled is not None:
        return _sentence(unscheduled.reason, unscheduled.message)
    if waiting is None or waiting.reason in _USUAL_WAITS:
        return ""
    return _sentence(waiting.reason, waiting.message)


def _sentence(reason: str, message: str) -> str:
    return f"{reason}: {message}".removesuffix(": ")[:_WAITING_LIMIT]


def _event_view(event: Event) -> EventView:
    series, about = event.series, event.involved_object
    return EventView(
        reason=event.reason,
        message=event.message,
        object_kind=about.kind,
        object_name=about.name,
        object_uid=about.uid,
        is_warning=event.type == "Warning",
        count=(series.count if series is not None else event.count) or 1,
        last_at=(series.last_observed_time if series is not None else None)
        or event.last_timestamp
        or event.event_time
        or event.metadata.creation_timestamp,
    )


def _decoded(decoder: msgspec.json.Decoder[Any], raw: bytes, kind: str) -> Any:
    try:
        told = decoder.decode(raw)
    except msgspec.DecodeError as error:
        message = f"the answer is no {kind}: {error}; it begins {raw[:_SHOWN]!r}"
        raise KubeUnavailableError(message) from error
    if told.kind != kind:
        message = f"the answer is a {told.kind[:_SHOWN]} where a {kind} was asked for"
        raise KubeUnavailableError(message)
    return told


def _pager(
    decoder: msgspec.json.Decoder[Any], kind: str, view: Callable[[Any], _View]
) -> Callable[[bytes], Page[_View]]:
    def page(raw: bytes) -> Page[_View]:
        told = _decoded(decoder, raw, kind)
        views = [view(item) for item in told.items or ()]
        if not told.metadata.resource_version or not all(each.uid and each.name for each in views):
            message = f"the {kind} has no resource version or an object without name and uid"
            raise KubeUnavailableError(message)
        return Page(views, told.metadata.resource_version, told.metadata.continue_)

    return page


def _liner(decoder: msgspec.json.Decoder[Line[Any]], view: Callable[[Any], _View]) -> Callable[[bytes], Change[_View]]:
    def change(raw: bytes) -> Change[_View]:
        try:
            line = decoder.decode(raw)
        except msgspec.DecodeError as error:
            raise _told_error(raw) from error
        metadata = line.object.metadata
        if line.type == "BOOKMARK":
            return Change(None, is_removed=False, version=metadata.resource_version)
        if not metadata.uid or not metadata.name:
            message = f"a watch told of an object without name and uid: {raw[:_SHOWN]!r}"
            raise KubeUnavailableError(message)
        return Change(view(line.object), line.type == "DELETED", metadata.resource_version)

    return change


def _told_error(raw: bytes) -> Exception:
    """Return the error in a line that is no change."""
    try:
        status = _error_line.decode(raw).object
    except msgspec.DecodeError as error:
        return KubeUnavailableError(f"a line of a watch is no event: {error}; it begins {raw[:_SHOWN]!r}")
    body = {"kind": "Status", "message": status.message, "reason": status.reason}
    return error_from_response("watch", status.code, body, None)


def _latest_job(known: JobView, told: JobView) -> JobView:
    # What an object once was it stays: a view that lacks it is an older one, replayed or out of order.
    if (known.end is not None and told.end is None) or (known.is_terminating and not told.is_terminating):
        return known
    return told


def _latest_pod(known: PodView, told: PodView) -> PodView:
    # As with Jobs. -1 stands for a code that is not known, which a later status may still bring, and never takes back.
    if (known.has_ended and not told.has_ended) or (known.is_terminating and not told.is_terminating):
        return known
    if (known.started and not told.started) or (known.exit_code not in (None, -1) and told.exit_code in (None, -1)):
        return known
    return told


JOBS: Final = Kind(
    "Job",
    "/apis/batch/v1/namespaces/{}/jobs",
    _pager(_jobs, "JobList", job_view),
    _liner(_job_line, job_view),
    _latest_job,
)
PODS: Final = Kind(
    "Pod", "/api/v1/namespaces/{}/pods", _pager(_pods, "PodList", pod_view), _liner(_pod_line, pod_view), _latest_pod
)
