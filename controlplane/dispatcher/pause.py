"""Why the cluster takes no Job now, as a person reads it, and how long to leave it alone.

A sentence names the next step and holds nothing that changes from one try to the next: an operation that waits for the
same reason has waited since the first time.
"""

import re
from dataclasses import dataclass
from typing import Final

from controlplane.kube.errors import (
    KubeError,
    KubeForbiddenError,
    KubeNotFoundError,
    KubeThrottledError,
    KubeUnauthorizedError,
)

__all__ = ["WAIT_SECONDS", "Pause", "no_answer", "pause_for"]

WAIT_SECONDS: Final = 5.0
"""When the cluster is well and only full or busy: soon enough for the next free place."""
_LONGEST_SECONDS: Final = 60.0
"""A cluster may ask for any time; after this one it is asked again."""
_RIGHT: Final = re.compile(r'cannot (\w+) resource "([^"]+)"')


@dataclass(frozen=True, slots=True)
class Pause:
    """A wait of the whole cluster, not of one operation alone."""

    reason: str
    seconds: float | None = None
    """None for a time that grows with every failure."""
    needs_person: bool = False
    """Waiting alone will not mend it."""


def no_answer() -> Pause:
    """Return the wait after a call whose effect is unknown; the next try meets its own Job and adopts it."""
    return Pause("the cluster does not answer; an operator checks its API server and the network to it")


def pause_for(error: KubeError, namespace: str) -> Pause:
    """Return the wait after a refusal of a Job in `namespace`."""
    if isinstance(error, KubeThrottledError):
        seconds = WAIT_SECONDS if error.retry_after_seconds is None else error.retry_after_seconds
        return Pause("the cluster is busy and asks to be tried again later", min(seconds, _LONGEST_SECONDS))
    if isinstance(error, KubeUnauthorizedError):
        reason = "the cluster does not accept our credentials; an operator renews them in the kubeconfig"
        return Pause(reason, needs_person=True)
    if isinstance(error, KubeNotFoundError):
        reason = f"the cluster has no namespace {namespace}; an operator installs Storeplane's chart again"
        return Pause(reason, needs_person=True)
    if isinstance(error, KubeForbiddenError):
        return _refusal(str(error), namespace)
    return no_answer()


def _refusal(said: str, namespace: str) -> Pause:
    if "exceeded quota" in said:
        reason = f"the quota of the namespace {namespace} is used up; it goes on when a Job ends or the quota is raised"
        return Pause(reason, WAIT_SECONDS)
    if "being terminated" in said:
        reason = f"the namespace {namespace} is being deleted; an operator installs Storeplane's chart again"
    elif (right := _RIGHT.search(said)) is not None:
        reason = f"the cluster refuses us the right to {right[1]} {right[2]} in {namespace}; an operator grants it"
    else:
        reason = f"the cluster refuses Jobs in {namespace}; an operator reads why in the dispatcher's log"
    return Pause(reason, needs_person=True)
