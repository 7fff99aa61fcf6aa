"""What a phase is, and what the phases of one run share."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from provisioner_job.cluster import Cluster
from provisioner_job.job_input import JobInput
from provisioner_job.journal import Journal

__all__ = ["Facts", "Phase", "PhasesOf", "Work"]

Facts = dict[str, Any]


@dataclass(slots=True)
class Work:
    """What the phases share during one run."""

    given: JobInput
    spec: dict[str, Any]
    cluster: Cluster
    journal: Journal
    recorded_uid: str = ""
    """The namespace's, as an earlier attempt or operation has reported it; empty when none has."""
    namespace_uid: str = ""
    """Known from the phase `namespace` on: the phases after it end when this namespace goes."""
    texts: dict[str, str] = field(default_factory=dict)
    """What the store's Secret holds; known from the phase `secrets` on."""
    result: Facts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase and its own time limit."""

    name: str
    limit_seconds: float
    """Unless the engine has its own."""
    act: Callable[[Work], Coroutine[Any, Any, Facts]]
    """Returns facts for the log and the phase's event: no secrets."""


PhasesOf = Callable[[str], tuple[Phase, ...]]
"""Kind of operation -> its phases in their order."""
