"""Why a pod did not do its work: from what the cluster shows to a category, a cause and a next step.

Pure. The categories are a stable, closed set: they stand in answers, logs and metrics, and clients switch on them. The
sentences are for a person who was woken up; the cluster's own words are part of the cause, cut. What the pod said
itself, its report, is not looked at here: that is an outcome, not a diagnosis.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from controlplane.domain.observation import EventView, JobView, PodView
from provisioner_job.contract import ExitCode

__all__ = ["Category", "Diagnosis", "diagnose"]

_WORDS_LIMIT: Final = 300
"""Characters kept of the cluster's own words."""


class Category(StrEnum):
    """Kinds of causes; never renamed."""

    IMAGE_PULL = "image_pull"
    IMAGE_MISSING = "image_missing"
    """The pod may not pull, and the node does not have it."""
    UNSCHEDULABLE = "unschedulable"
    QUOTA = "quota"
    FORBIDDEN = "forbidden"
    """A rule of the cluster refuses the pod."""
    MISSING_SERVICE_ACCOUNT = "missing_service_account"
    MISSING_SECRET = "missing_secret"  # noqa: S105 -- a category, not a password
    MISSING_CONFIG = "missing_config"
    OOM_KILLED = "oom_killed"
    EVICTED = "evicted"
    PREEMPTED = "preempted"
    NODE_LOST = "node_lost"
    JOB_DELETED = "job_deleted"
    DEADLINE = "deadline"
    START_ERROR = "start_error"
    EXIT_CODE = "exit_code"
    LOST = "lost"
    """It ended, or is gone, and nothing tells how."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a pod did not start or how it came to its end."""

    category: Category
    detail: str
    """The cause, a sentence."""
    remedy: str
    """What a person can do next, a sentence."""


_REMEDIES: Final = {
    Category.IMAGE_PULL: (
        "Check that the registry has this image and that the nodes can reach it and have the credentials for it, "
        "then retry the operation."
    ),
    Category.IMAGE_MISSING: (
        "Load the image into every node of the cluster, or correct the image reference in the settings, then retry "
        "the operation."
    ),
    Category.UNSCHEDULABLE: (
        "Add a node or free CPU and memory on the nodes there are, and compare the pod's tolerations and node "
        "selector with the nodes' taints and labels; the pod starts by itself once a node fits."
    ),
    Category.QUOTA: (
        "Wait until other Jobs have ended, or raise the ResourceQuota of the Jobs' namespace; the Job controller "
        "tries again by itself."
    ),
    Category.FORBIDDEN: (
        "Compare the Job's pod template with the rule that is named, and change the one that is wrong; a retry "
        "alone will be refused again."
    ),
    Category.MISSING_SERVICE_ACCOUNT: (
        "Create the service account in the Jobs' namespace (the chart does) or correct the name in the settings; "
        "the Job controller tries again by itself."
    ),
    Category.MISSING_SECRET: (
        "Create the Secret with the key that is named in the Jobs' namespace; the pod starts by itself once it is "
        "there."
    ),
    Category.MISSING_CONFIG: (
        "Create the ConfigMap with the key that is named in the Jobs' namespace; the pod starts by itself once it "
        "is there."
    ),
    Category.OOM_KILLED: (
        "The next attempt gets more memory once; if that one is killed too, raise the provisioner's memory limit "
        "in the settings."
    ),
    Category.EVICTED: (
        "Nothing: the next attempt goes on where this one stopped. If it repeats, see what fills the node's memory "
        "or disk."
    ),
    Category.PREEMPTED: (
        "Nothing: the next attempt goes on where this one stopped. If it repeats, give the Jobs a higher priority "
        "class or the cluster another node."
    ),
    Category.NODE_LOST: (
        "Nothing: the next attempt goes on, once this one's lease is over, where it stopped. See why the node was "
        "lost or shut down."
    ),
    Category.JOB_DELETED: (
        "Retry the operation; it goes on where it stopped. If nobody deleted the Job on purpose, see the API "
        "server's audit log for who did."
    ),
    Category.DEADLINE: (
        "See in the log which phase took so long, mend that, then retry the operation; it goes on where it stopped."
    ),
    Category.START_ERROR: (
        "Check that the image is a provisioner's and was built for this machine's architecture, then retry the "
        "operation."
    ),
    Category.LOST: (
        "Retry the operation; every phase looks at what is there before it acts. See the node's events for why "
        "nothing was told."
    ),
    Category.UNKNOWN: (
        "Read the events of the Job and of its pod (kubectl describe) and the log; retry the operation once the "
        "cause is gone."
    ),
}

_EXITS: Final[dict[int, tuple[str, str]]] = {
    ExitCode.RETRYABLE: (
        "the provisioner gave up for now: what it needs did not answer in time",
        "Nothing while attempts are left; then see in the log what did not answer, and retry the operation.",
    ),
    ExitCode.PERMANENT: (
        "the provisioner gave up for good: the same would fail again",
        "See in the log what was refused, correct the order or the chart, then retry the operation.",
    ),
    ExitCode.OTHER_POD: (
        "another pod of the same Job had begun, so this one touched nothing",
        "Nothing: the other pod does the work.",
    ),
    ExitCode.REFUSED: (
        "the attempt was over, cancelled or replaced before its pod began, so it touched nothing",
        "Nothing, unless the operation still waits: then retry it.",
    ),
    1: (
        "the provisioner broke off with an error it does not know",
        "Read the end of the log, it names the error; retry the operation once its cause is gone.",
    ),
    126: ("the image's command cannot be executed", _REMEDIES[Category.START_ERROR]),
    127: ("the image has no such command", _REMEDIES[Category.START_ERROR]),
    137: (
        "it was killed (SIGKILL), and not for its own memory",
        "See whether somebody deleted the pod or the node ran out of memory, then retry the operation.",
    ),
    139: ("it crashed (SIGSEGV)", "Keep the log and report the crash; retry the operation."),
    143: ("it was told to stop (SIGTERM) before it was done", "Retry the operation; it goes on where it stopped."),
}

_WAITS: Final = {
    "ErrImageNeverPull": Category.IMAGE_MISSING,
    "ErrImagePull": Category.IMAGE_PULL,
    "ImageInspectError": Category.IMAGE_PULL,
    "ImagePullBackOff": Category.IMAGE_PULL,
    "InvalidImageName": Category.IMAGE_PULL,
    "RegistryUnavailable": Category.IMAGE_PULL,
    "SignatureValidationFailed": Category.IMAGE_PULL,
    "CreateContainerConfigError": Category.START_ERROR,
    "CreateContainerError": Category.START_ERROR,
    "RunContainerError": Category.START_ERROR,
    "SchedulingGated": Category.UNSCHEDULABLE,
    "Unschedulable": Category.UNSCHEDULABLE,
}
_EVENTS: Final = {
    "FailedCreate": Category.UNKNOWN,
    "FailedCreatePodSandBox": Category.START_ERROR,
    "FailedMount": Category.START_ERROR,
    "FailedScheduling": Category.UNSCHEDULABLE,
}
"""Events that explain a wait which the pod's own status does not."""
_STARTS_THAT_FAILED: Final = frozenset(
    {"ContainerCannotRun", "CreateContainerError", "RunContainerError", "StartError"}
)
_NODE_WENT: Final = frozenset(
    {"DeletionByPodGC", "DeletionByTaintManager", "NodeLost", "NodeShutdown", "Shutdown", "Terminated"}
)
_NAMED: Final = (
    (re.compile(r"exceeded quota"), Category.QUOTA),
    (re.compile(r"service ?account .*not found"), Category.MISSING_SERVICE_ACCOUNT),
    (re.compile(r"(?i)\bsecrets? \S+ not found|in secret\b"), Category.MISSING_SECRET),
    (re.compile(r"(?i)\bconfigmaps? \S+ not found|in configmap\b"), Category.MISSING_CONFIG),
    (re.compile(r"is forbidden|denied request"), Category.FORBIDDEN),
)
"""Causes that only the words name; the first that fits."""
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


def diagnose(
    pod: PodView | None,
    events: Sequence[EventView] = (),
    *,
    job: JobView | None = None,
    no_pod_because: str = "",
) -> Diagnosis:
    """Return why this pod did not do its work.

    `events` are the pod's and its Job's, in any order; they only explain what the pod's own state leaves open.
    `no_pod_because` is what the Job controller said. Never raises: what is not understood is `unknown`, with the
    cluster's words.
    """
    newest = sorted(events, key=lambda event: event.last_at or _NEVER, reverse=True)
    if pod is None:
        return _without_pod(job, newest, no_pod_because)
    if pod.disruption:
        return _disrupted(pod)
    if pod.is_terminating and job is not None and job.reason.startswith("DeadlineExceeded"):
        return _made(Category.DEADLINE, "the Job ran into its time limit and took its pod along", job.reason)
    if pod.has_ended:
        return _ended(pod)
    if pod.is_terminating:
        return _made(Category.JOB_DELETED, "the Job or its pod is being deleted")
    return _waiting(pod, newest)


def _made(category: Category, cause: str, words: str = "") -> Diagnosis:
    told = " ".join(words.split())[:_WORDS_LIMIT]
    return Diagnosis(category, f"{cause} ({told})" if told else cause, _REMEDIES[category])


def _named_in(words: str, otherwise: Category) -> Category:
    return next((category for pattern, category in _NAMED if pattern.search(words)), otherwise)


def _without_pod(job: JobView | None, newest: Sequence[EventView], no_pod_because: str) -> Diagnosis:
    words = no_pod_because or next((event.message for event in newest if event.reason == "FailedCreate"), "")
    if words:
        return _made(_named_in(words, Category.UNKNOWN), "the Job's pod cannot be created", words)
    if job is None:
        return _made(Category.JOB_DELETED, "the Job and its pod are gone: they were deleted before their end was seen")
    if job.reason.startswith("DeadlineExceeded"):
        return _made(Category.DEADLINE, "the Job ran into its time limit and took its pod along", job.reason)
    if job.end is not None:
        return _made(Category.LOST, f"the Job ended ({job.end}) and its pod is gone", job.reason)
    if job.is_terminating:
        return _made(Category.JOB_DELETED, "the Job is being deleted")
    return _made(Category.UNKNOWN, "the Job has no pod, and nothing says why")


def _disrupted(pod: PodView) -> Diagnosis:
    where = f" from node {pod.node}" if pod.node else ""
    words = f"{pod.disruption}: {pod.message}".removesuffix(": ")
    if pod.disruption.startswith("Preempt"):
        return _made(Category.PREEMPTED, f"a pod of higher priority took its place{where}", words)
    if pod.disruption in _NODE_WENT:
        return _made(Category.NODE_LOST, f"its node {pod.node or '(unknown)'} was lost, drained or shut down", words)
    return _made(Category.EVICTED, f"the pod was evicted{where}", words)


def _ended(pod: PodView) -> Diagnosis:
    if pod.reason == "OOMKilled":
        return _made(Category.OOM_KILLED, "the provisioner needed more memory than its limit and was killed")
    if pod.reason == "DeadlineExceeded" or pod.pod_reason == "DeadlineExceeded":
        return _made(Category.DEADLINE, "the pod ran longer than its time limit and was stopped")
    if pod.reason in _STARTS_THAT_FAILED:
        return _made(Category.START_ERROR, "the container could not be started", f"{pod.reason}: {pod.message}")
    if pod.exit_code is None or pod.exit_code < 0 or pod.reason == "ContainerStatusUnknown":
        words = f"{pod.pod_reason or pod.reason}: {pod.message}".strip(": ")
        return _made(Category.LOST, "the pod failed, and how its container ended is not known", words)
    return _exited(pod.exit_code, is_terminating=pod.is_terminating)


def _exited(code: int, *, is_terminating: bool) -> Diagnosis:
    if code == ExitCode.DONE:
        return _made(Category.LOST, "the provisioner ended with exit code 0 and without a report")
    # A code of ours was chosen by the provisioner; any other one is the deletion's doing.
    if is_terminating and code not in set(ExitCode):
        return _made(Category.JOB_DELETED, f"the Job or its pod was deleted while it worked (exit code {code})")
    known = _EXITS.get(code)
    if known is not None:
        return Diagnosis(Category.EXIT_CODE, f"exit code {code}: {known[0]}", known[1])
    return Diagnosis(Category.EXIT_CODE, f"exit code {code}, which has no agreed meaning", _REMEDIES[Category.UNKNOWN])


def _waiting(pod: PodView, newest: Sequence[EventView]) -> Diagnosis:
    reason, _, message = pod.waits.partition(": ")
    if not reason:
        return _from_events(pod, newest)
    category = _WAITS.get(reason, Category.UNKNOWN)
    if category is Category.START_ERROR:
        category = _named_in(message, category)
    if category is Category.IMAGE_PULL:
        # The back-off repeats itself; the event before it has the registry's answer.
        pulled = (event.message for event in newest if event.reason == "Failed" and "pull image" in event.message)
        return _made(category, "the image cannot be pulled", next(pulled, pod.waits))
    causes = {
        Category.IMAGE_MISSING: "the node does not have the image, and the pod may not pull it",
        Category.UNSCHEDULABLE: "no node takes the pod",
        Category.MISSING_SECRET: "a Secret that the pod needs is missing",
        Category.MISSING_CONFIG: "a ConfigMap that the pod needs is missing",
        Category.START_ERROR: "the container cannot be started",
    }
    return _made(category, causes.get(category, "the pod waits"), pod.waits)


def _from_events(pod: PodView, newest: Sequence[EventView]) -> Diagnosis:
    event = next((event for event in newest if event.reason in _EVENTS), None)
    if event is None or pod.started:
        state = pod.phase or "without a phase"
        return _made(Category.UNKNOWN, f"the pod is {state}, and nothing says what it waits for")
    category = _named_in(event.message, _EVENTS[event.reason])
    return _made(category, "the pod cannot start", f"{event.reason}: {event.message}")
