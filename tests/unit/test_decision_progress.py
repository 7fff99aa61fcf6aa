"""By time alone every attempt is settled, whatever the cluster goes on showing: decide and apply until it is.

The cluster here does what it is asked (a deleted Job is gone, a removed pod too) and nothing else: no pod ends by
itself, no controller makes a new one, no node comes back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import product
from typing import TYPE_CHECKING

import pytest

from controlplane.domain.attempt import AttemptFacts, AttemptOutcome
from controlplane.domain.decision import LEASE_MARGIN, PENDING_LIMIT, POD_LEASE, decide
from controlplane.domain.observation import JobView, Observation, PodView
from controlplane.domain.step import (
    ConfirmAbsence,
    Decision,
    DeleteJob,
    EndAttempt,
    ForceDeletePod,
    Harvest,
    NoteEnd,
    NoteLateJob,
    NotePodsEnded,
    NoteWaiting,
    RecordJob,
    Wait,
)
from controlplane.domain.transitions import ATTEMPT_TRANSITIONS, AttemptState, can_become
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
    from datetime import datetime

pytestmark = pytest.mark.unit

MOST_STEPS = 18
"""Steps that do something; waits are bounded by the time they take."""
LONGEST = PENDING_LIMIT + 2 * (POD_LEASE + LEASE_MARGIN) + timedelta(minutes=1)
"""A pod that does not begin is given up, then its own time and its lease pass, with a little for the steps between."""
PASS = timedelta(seconds=5)
"""What a pass over all attempts brings when no decision names a time."""

STUCK = replace(WORKING, phase="Pending", started=False, waits="ImagePullBackOff: no such image")
BACK_OFF = replace(STUCK, waits="Unschedulable: 0/3 nodes are available")
CUT_OFF = replace(WORKING, is_terminating=True)
"""On a node that does not answer: asked to go, and nobody there who does it."""
PODS = (
    None,
    STUCK,
    BACK_OFF,
    WORKING,
    CUT_OFF,
    replace(STUCK, is_terminating=True),
    ended_pod(0),
    ended_pod(0, word(Outcome.SUCCEEDED)),
    ended_pod(10, word(Outcome.RETRYABLE)),
    ended_pod(30),
    ended_pod(31, word(Outcome.REFUSED)),
    ended_pod(137, reason="OOMKilled"),
    ended_pod(-1, reason="Evicted", started=False, disruption="Evicted"),
)


@dataclass
class World:
    """An attempt's row, its corner of the cluster, and the clock."""

    attempt: AttemptFacts
    seen: Observation
    is_node_lost: bool
    """A deleted pod stays, terminating, until it is removed by force."""
    is_log_readable: bool
    now: datetime = NOW

    @property
    def is_settled(self) -> bool:
        return self.attempt.harvested_at is not None and self.attempt.pods_ended_at is not None

    def step(self) -> Decision:
        """Decide as the reconciler does, and apply."""
        look = self.seen
        decision = decide(self.attempt, look, self.now)
        if isinstance(decision, ConfirmAbsence):
            is_absent = not look.living and (look.pod is None or look.pod.has_ended)
            look = replace(look, absence_confirmed=is_absent)
            decision = decide(self.attempt, look, self.now)
        self._apply(decision)
        return decision

    def _apply(self, decision: Decision) -> None:
        match decision:
            case Wait(look_again):
                self.now += PASS if look_again is None else look_again
            case ConfirmAbsence():
                self.now += PASS
            case DeleteJob():
                self._delete_job()
            case ForceDeletePod(_, uid):
                self._remove_pod(uid)
            case Harvest():
                self._harvest(decision)
            case _:
                self._write(decision)

    def _write(self, decision: Decision) -> None:
        attempt = self.attempt
        match decision:
            case RecordJob(uid):
                assert attempt.state is AttemptState.CREATED
                self.attempt = replace(
                    attempt, state=AttemptState.DISPATCHED, job_uid=uid, dispatched_at=self.now, lease_until=None
                )
            case NoteLateJob(uid):
                assert attempt.job_uid is None
                self.attempt = replace(attempt, job_uid=uid)
            case NoteEnd():
                assert attempt.end_seen_at is None
                self.attempt = replace(attempt, end_seen_at=self.now)
            case NoteWaiting(reason):
                assert attempt.waiting_reason != reason
                self.attempt = replace(attempt, waiting_reason=reason)
            case EndAttempt(state, outcome):
                assert can_become(ATTEMPT_TRANSITIONS, attempt.state, state)
                self.attempt = replace(attempt, state=state, outcome=outcome, finished_at=self.now, lease_until=None)
            case NotePodsEnded():
                assert attempt.pods_ended_at is None
                self.attempt = replace(attempt, pods_ended_at=self.now)
            case _:
                raise AssertionError(decision)

    def _delete_job(self) -> None:
        pods = {pod.uid: pod for pod in (self.seen.pod, *self.seen.living) if pod is not None}
        stay = {
            uid: pod if pod.has_ended else replace(pod, is_terminating=True)
            for uid, pod in pods.items()
            if self.is_node_lost
        }
        self._show(None, stay)

    def _remove_pod(self, uid: str) -> None:
        job = self.seen.job
        if job is not None and job.end is None and not job.is_terminating:
            # Its Job counts it only once it has ended, and its finalizer keeps it until then.
            return
        pods = {pod.uid: pod for pod in (self.seen.pod, *self.seen.living) if pod is not None and pod.uid != uid}
        self._show(self.seen.job, pods)

    def _show(self, job: JobView | None, pods: dict[str, PodView]) -> None:
        """As the observer does: the pod that shook hands, or before that the newest."""
        uid = self.attempt.pod_uid
        pod = pods.get(uid) if uid is not None else next(iter(pods.values()), None)
        living = tuple(each for each in pods.values() if not each.has_ended)
        self.seen = Observation(job, pod, living, no_pod_because=self.seen.no_pod_because)

    def _harvest(self, harvest: Harvest) -> None:
        if harvest.pod_name is not None and not self.is_log_readable and not harvest.is_last_try:
            self.now += PASS
            return
        assert self.attempt.harvested_at is None
        look = self.seen
        have_ended = look.pod is not None and look.pod.has_ended and not look.living
        ended_at = self.attempt.pods_ended_at or (self.now if have_ended else None)
        self.attempt = replace(self.attempt, harvested_at=self.now, pods_ended_at=ended_at)


def run(world: World) -> list[Decision]:
    """Apply decisions until the attempt is settled or takes too long; return those that did something."""
    done: list[Decision] = []
    while not world.is_settled and len(done) <= MOST_STEPS and world.now - NOW < LONGEST:
        decision = world.step()
        if not isinstance(decision, Wait):
            done.append(decision)
    return done


def is_up_to_others(attempt: AttemptFacts, look: Observation) -> bool:
    """Whether something else than time must and will move first.

    A dispatcher takes an attempt without Job over; a pod that works reports, is heard of no more, or is stopped by
    its own time limit.
    """
    if attempt.cancel_requested_at is not None or attempt.finished_at is not None:
        return False
    if attempt.state is AttemptState.CREATED:
        return look.job is None or look.job is FOREIGN
    is_at_work = look.pod is not None and look.pod in look.living and not look.pod.is_terminating
    return attempt.state is AttemptState.RUNNING and is_at_work


def attempts() -> Iterator[AttemptFacts]:
    for cancel in (None, ago(1), ago(300)):
        for lease in (None, in_seconds(20), ago(1)):
            yield replace(CREATED, lease_until=lease, cancel_requested_at=cancel)
        for age in (1, 299, 400):
            yield replace(DISPATCHED, dispatched_at=ago(age), cancel_requested_at=cancel)
        for lease, end in product((in_seconds(180), ago(100)), (None, ago(1))):
            yield replace(RUNNING, lease_until=lease, end_seen_at=end, cancel_requested_at=cancel)
    outcomes = (AttemptOutcome.SUCCEEDED, AttemptOutcome.RETRYABLE, AttemptOutcome.TIMEOUT)
    uids = ((None, None), ("job", None), ("job", "session"))
    for outcome, (job, pod), harvested_at in product(outcomes, uids, (None, NOW)):
        # Its own lease ended with it; what it shows is one lease after the start of the database, long ago.
        lease = None if pod is None else ago(86400)
        yield ended(outcome, 1, job_uid=job, pod_uid=pod, lease_until=lease, harvested_at=harvested_at)


def observations(attempt: AttemptFacts) -> Iterator[Observation]:
    """Yield what a cluster may show for as long as one likes to look."""
    for job in (None, ALIVE, TERMINATING, COMPLETE, FAILED):
        if job is None and attempt.job_uid is None:
            yield seen()
            continue
        for pod in PODS:
            yield seen(job, pod)
            if pod is not None or attempt.pod_uid is not None:
                yield seen(job, pod, replace(OTHER, is_terminating=True))
            if pod is not None and pod.has_ended and attempt.pod_uid is not None:
                yield replace(seen(job, pod), is_pod_gone=True)
    if attempt.job_uid is None:
        yield seen(FOREIGN)


def test_time_alone_settles_every_attempt() -> None:
    count = 0
    stuck: dict[str, World] = {}
    for attempt in attempts():
        for look in observations(attempt):
            if is_up_to_others(attempt, look):
                continue
            for is_node_lost, is_log_readable in ((False, True), (True, False)):
                count += 1
                world = World(attempt, look, is_node_lost=is_node_lost, is_log_readable=is_log_readable)
                done = run(world)
                if not world.is_settled:
                    stuck.setdefault(f"{attempt.state} {look.job and look.job.end} {done[-2:]}", world)
    assert not stuck, f"{len(stuck)} kinds of {count} never settle:\n" + "\n".join(
        f"{kind}: {world}" for kind, world in stuck.items()
    )
    assert count > 5_000


@pytest.mark.parametrize("look", [seen(), seen(FOREIGN)], ids=["no Job", "foreign Job"])
def test_attempt_without_job_is_left_to_the_dispatcher(look: Observation) -> None:
    assert decide(CREATED, look, NOW) == Wait()


@pytest.mark.parametrize("pod", [WORKING, replace(WORKING, is_terminating=True), STUCK])
def test_pod_that_works_and_renews_is_left_alone(pod: PodView) -> None:
    assert decide(RUNNING, seen(ALIVE, pod), NOW) == Wait()
