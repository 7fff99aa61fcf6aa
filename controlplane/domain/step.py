"""The steps a decision can ask for; one of them at a time, applied by the reconciler."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from controlplane.domain.attempt import AttemptOutcome
from controlplane.domain.transitions import AttemptState

__all__ = [
    "ConfirmAbsence",
    "Decision",
    "DeleteJob",
    "EndAttempt",
    "ForceDeletePod",
    "Harvest",
    "NoteEnd",
    "NoteLateJob",
    "NotePodsEnded",
    "NoteWaiting",
    "RecordJob",
    "Wait",
]


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do now."""

    look_again: timedelta | None = None
    """When time alone may change the decision; None when only news can."""


@dataclass(frozen=True, slots=True)
class RecordJob:
    """The Job exists and its uid was never recorded: the dispatcher died in between."""

    job_uid: str


@dataclass(frozen=True, slots=True)
class NoteLateJob:
    """The attempt had ended when its Job was created: remember it, so that it is removed."""

    job_uid: str


@dataclass(frozen=True, slots=True)
class ConfirmAbsence:
    """Neither Job nor living pod is in the lists: read them live, then decide again."""


@dataclass(frozen=True, slots=True)
class NoteEnd:
    """Container or Job ended without a word: write down when that was seen, which begins the grace.

    The kubelet's own time is not used: its clock may be an hour off, and then the grace would be over at once or
    never.
    """


@dataclass(frozen=True, slots=True)
class NoteWaiting:
    """Tell the user why the pod does not start."""

    reason: str


@dataclass(frozen=True, slots=True)
class EndAttempt:
    """The attempt is over."""

    state: AttemptState
    outcome: AttemptOutcome
    exit_code: int | None = None
    result: dict[str, Any] = field(default_factory=dict)
    problem: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Harvest:
    """Store log tail and diagnosis, then let the Job go."""

    pod_name: str | None
    """None when there is no log to be had any more."""
    is_last_try: bool
    """A log that cannot be read now is unavailable for good; before that, the next pass tries again."""


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """Have the Job and its pods removed; the uid keeps a namesake safe."""

    job_uid: str
    why: str


@dataclass(frozen=True, slots=True)
class ForceDeletePod:
    """Remove a pod whose node is lost: its lease has ended, so it stopped itself."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class NotePodsEnded:
    """No pod of the attempt can do anything any more: the store is free for its next operation."""


Decision = (
    Wait
    | RecordJob
    | NoteLateJob
    | ConfirmAbsence
    | NoteEnd
    | NoteWaiting
    | EndAttempt
    | Harvest
    | DeleteJob
    | ForceDeletePod
    | NotePodsEnded
)
