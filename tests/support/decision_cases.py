"""Every attempt, every observation, and what was decided: the cross product that the rules are held against."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from controlplane.domain.attempt import AttemptFacts, AttemptOutcome
from controlplane.domain.decision import decide
from provisioner_job.contract import Outcome
from tests.support.attempts import (
    ALIVE,
    COMPLETE,
    CREATED,
    DISPATCHED,
    FAILED,
    FOREIGN,
    NOW,
    OTHER,
    RUNNING,
    TERMINATING,
    WORKING,
    ago,
    ended,
    ended_pod,
    in_seconds,
    seen,
    word,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controlplane.domain.observation import Observation, PodView
    from controlplane.domain.step import Decision

__all__ = ["Case", "cases"]

_JOBS = (None, ALIVE, TERMINATING, COMPLETE, FAILED, FOREIGN)
_STUCK = replace(WORKING, phase="Pending", started=False, waits="ErrImagePull: no such image")
_LIVING = (
    _STUCK,
    replace(_STUCK, waits=""),
    WORKING,
    replace(WORKING, is_terminating=True),
)
_ENDS = (
    ended_pod(0),
    ended_pod(0, word(Outcome.SUCCEEDED)),
    ended_pod(0, word(Outcome.SUCCEEDED, attempt=2)),
    ended_pod(1),
    ended_pod(10),
    ended_pod(10, word(Outcome.RETRYABLE)),
    ended_pod(20),
    ended_pod(20, word(Outcome.PERMANENT)),
    ended_pod(30),
    ended_pod(30, word(Outcome.REFUSED)),
    ended_pod(31),
    ended_pod(31, word(Outcome.REFUSED)),
    ended_pod(128, reason="StartError", started=False),
    ended_pod(137, reason="OOMKilled"),
    ended_pod(137, word(Outcome.SUCCEEDED)),
    ended_pod(143, disruption="EvictionByEvictionAPI"),
    ended_pod(-1, reason="NodeLost", started=False),
    ended_pod(-1, reason="Evicted", started=False, disruption="Evicted"),
)
_OTHERS = ((), (OTHER,), (replace(OTHER, is_terminating=True),))
_CANCELS = (None, ago(1), ago(40), ago(300))


class Case(NamedTuple):
    """One of the product, and what was decided."""

    attempt: AttemptFacts
    seen: Observation
    decision: Decision


def _created() -> Iterator[AttemptFacts]:
    for lease, cancel in product((None, in_seconds(10), ago(1)), _CANCELS):
        yield replace(CREATED, lease_until=lease, cancel_requested_at=cancel)


def _dispatched() -> Iterator[AttemptFacts]:
    for age, end, cancel, told in product((10, 299, 301), (None, 5, 15), _CANCELS, ("", _STUCK.waits)):
        yield replace(
            DISPATCHED,
            dispatched_at=ago(age),
            end_seen_at=None if end is None else ago(end),
            cancel_requested_at=cancel,
            waiting_reason=told,
        )


def _running() -> Iterator[AttemptFacts]:
    for lease, end, cancel in product((in_seconds(100), ago(10), ago(20)), (None, 5, 15), _CANCELS):
        yield replace(
            RUNNING, lease_until=lease, end_seen_at=None if end is None else ago(end), cancel_requested_at=cancel
        )


def _over() -> Iterator[AttemptFacts]:
    uids = ((None, None), ("job", None), ("job", "session"))
    ages = (1, 33, 40, 194, 196)
    for outcome, age, (job, pod) in product(AttemptOutcome, ages, uids):
        # Its own lease ended with it; what it shows is one lease after the start of the database, long ago.
        lease = None if pod is None else ago(86400)
        attempt = ended(outcome, age, job_uid=job, pod_uid=pod, lease_until=lease)
        for is_harvested, have_pods_ended in product((False, True), repeat=2):
            yield replace(
                attempt,
                harvested_at=NOW if is_harvested else None,
                pods_ended_at=NOW if have_pods_ended else None,
                cancel_requested_at=ago(300) if outcome is AttemptOutcome.CANCELLED else None,
            )


def _observations(attempt: AttemptFacts, ends: tuple[PodView, ...] = _ENDS) -> Iterator[Observation]:
    """Yield what the observer may show of this attempt."""
    for job in _JOBS if attempt.job_uid is None else _JOBS[:-1]:
        if attempt.job_uid is None and job is None:
            # Without any Job's uid no pod can be found.
            pods: tuple[PodView | None, ...] = (None,)
        else:
            pods = (None, *_LIVING, *ends)
        for pod, others in product(pods, _OTHERS if len(pods) > 1 else ((),)):
            if pod is None and others and attempt.pod_uid is None:
                # Before the handshake the newest pod is shown, and there is one.
                continue
            look = seen(job, pod, *others)
            yield look
            if job is ALIVE and pod is None:
                yield replace(look, no_pod_because="FailedCreate: exceeded quota")
            if not look.living:
                yield replace(look, absence_confirmed=True)
            if pod is not None and pod.has_ended and attempt.pod_uid is not None:
                yield replace(look, is_pod_gone=True)


@cache
def cases() -> list[Case]:
    """Return the cross product of attempts and of what may be seen of them, decided at `NOW`."""
    found = []
    for attempt in (*_created(), *_dispatched(), *_running()):
        looks = _observations(attempt)
        found += [Case(attempt, look, decide(attempt, look, NOW)) for look in looks]
    by_uids: dict[tuple[str | None, str | None], list[Observation]] = {}
    for attempt in _over():
        # How a pod ended no longer matters to an ended attempt: a few ends will do.
        key = attempt.job_uid, attempt.pod_uid
        looks_over = by_uids.setdefault(key, list(_observations(attempt, (_ENDS[1], _ENDS[8], _ENDS[13]))))
        found += [Case(attempt, look, decide(attempt, look, NOW)) for look in looks_over]
    return found
