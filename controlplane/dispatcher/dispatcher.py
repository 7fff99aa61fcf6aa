"""The dispatcher: claim operations, create their Jobs, record the Jobs' uids.

Three steps, each safe to die after: (1) the claim commits attempt and rendered Job; (2) the Job is posted under a
name made of the attempt; (3) its uid is recorded. After a death between them the lease runs out, another claim takes
over the same attempt, its POST meets the same Job and adopts it. The cluster is never called inside a transaction.

A cluster that refuses one Job now would refuse the next as well: its circuit is opened, for every replica.
"""

import asyncio
import time
from typing import Any, Final

from controlplane.config import Settings
from controlplane.db.claims import ClaimRows, MadeJob, RenderedJob
from controlplane.dispatcher.pause import WAIT_SECONDS, Pause, no_answer, pause_for
from controlplane.dispatcher.recorder import Recorder
from controlplane.domain.attempt import ClaimedAttempt, attempt_token, token_hash, token_key_id
from controlplane.domain.errors import DatabaseUnavailableError, JobConflictError, StaleLeaseError
from controlplane.domain.observation import JobView
from controlplane.kube.errors import KubeError, KubeInvalidError
from controlplane.kube.job_manifest import ManifestError, render_job, sha256_of, with_token
from controlplane.kube.jobs import JobGateway
from controlplane.telemetry import bound, get_logger

__all__ = ["Dispatcher"]

_LEASE_SECONDS: Final = 30
_TRUST_SECONDS: Final = 25.0
"""How long after it asked for a claim a process believes in it, on its own clock: the lease minus a margin. A process
that was stopped for longer must not post any more, since another may have taken over."""
_CREATE_SECONDS: Final = 20.0
"""For one create with all its calls: post, adoption, credentials read again and a repeated call."""
_BATCH: Final = 16
"""Claims in one transaction: few commits, and still a quick answer to the first of them."""
_AHEAD: Final = 2
"""Claimed but not yet answered by the cluster, for each place that creates: a full queue's places are never without
work while a claim commits, which on a busy machine takes as long as a create."""
_SHORTEST_PAUSE_SECONDS: Final = 0.02

_log = get_logger(__name__)


class Dispatcher:
    """Creates Jobs; any number of them may run, in any number of processes."""

    def __init__(self, rows: ClaimRows, jobs: JobGateway, settings: Settings, *, name: str) -> None:
        self._rows = rows
        self._recorder = Recorder(rows)
        self._jobs = jobs
        self._settings = settings
        self._name = name
        self._key = settings.token_key.get_secret_value().encode()
        self._places = asyncio.Semaphore(settings.dispatch_concurrency)
        self._pause: Pause | None = None
        self._paused_until = 0.0
        """By the monotonic clock: what was claimed ahead is not posted to a cluster that has just refused."""
        self._creating: set[asyncio.Task[None]] = set()
        self._unanswered: set[asyncio.Task[None]] = set()
        """Of these, whose Job the cluster has not taken or refused yet."""
        self._answered = asyncio.Event()

    async def run_once(self) -> float | None:
        """Claim once and begin to create what was claimed.

        Returns seconds after which another claim may find something: 0 at once, None when nothing is due.

        Raises
        ------
        DatabaseUnavailableError
            Postgres went away; whatever was begun is taken over after its lease.
        """
        at_once = self._settings.dispatch_concurrency
        if len(self._unanswered) >= _AHEAD * at_once:
            self._answered.clear()
            await self._answered.wait()
            return 0.0
        asked_at = time.monotonic()
        claim = await self._rows.claim(self._name, _LEASE_SECONDS, min(at_once, _BATCH), self.render)
        for claimed in claim.attempts:
            task = asyncio.create_task(self.dispatch(claimed, asked_at, is_probe=claim.is_probe))
            self._creating.add(task)
            self._unanswered.add(task)
            task.add_done_callback(self._ended)
        if claim.attempts:
            return 0.0
        return max(claim.seconds_to_token, _SHORTEST_PAUSE_SECONDS) if claim.seconds_to_token else None

    async def drain(self, seconds: float) -> None:
        """Wait for the creates that are under way; what is left then is cancelled and taken over after its lease."""
        if not self._creating:
            return
        _, left = await asyncio.wait(set(self._creating), timeout=seconds)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=1.0)

    async def dispatch(self, claimed: ClaimedAttempt, asked_at: float, *, is_probe: bool) -> None:
        """Create the Job of a claimed attempt; raises nothing.

        Parameters
        ----------
        asked_at
            When the claim was asked for, on this process's monotonic clock: the lease is trusted from there.
        is_probe
            The cluster refused the Job of before; a Job that is taken now closes its circuit.
        """
        with bound(operation_id=claimed.operation_id, attempt=claimed.number, store_id=claimed.store_id):
            _log.debug("operation claimed", job_name=claimed.job_name, fence=claimed.fence)
            try:
                await self._create(claimed, asked_at, is_probe=is_probe)
            except StaleLeaseError as error:
                _log.info("claim lost", step=str(error))
            except DatabaseUnavailableError as error:
                # The next claim takes it over after the lease.
                _log.warning("create not recorded", error=str(error))
            except Exception:  # noqa: BLE001 -- the top of a task nobody awaits; the lease lets another one try
                _log.exception("create failed unexpectedly")

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._creating.discard(task)
        self._make_room(task)

    def _make_room(self, task: asyncio.Task[Any] | None) -> None:
        """Let another claim begin: the cluster has answered, what is left for this one is Postgres' business."""
        self._unanswered.discard(task)
        self._answered.set()

    def render(self, claimed: ClaimedAttempt) -> RenderedJob | None:
        """Render the Job of a claimed attempt; None when it can never be rendered."""
        try:
            manifest = render_job(claimed, self._settings)
        except ManifestError as error:
            # Ends the operation in _create, under this claim's fence.
            _log.error("job cannot be rendered", operation_id=str(claimed.operation_id), error=str(error))
            return None
        return RenderedJob(
            manifest=manifest,
            sha256=sha256_of(manifest),
            token_hash=token_hash(self._token(claimed)),
            token_key_id=token_key_id(self._key),
        )

    def _token(self, claimed: ClaimedAttempt) -> str:
        return attempt_token(self._key, claimed.operation_id, claimed.number)

    async def _create(self, claimed: ClaimedAttempt, asked_at: float, *, is_probe: bool) -> None:
        if claimed.manifest is None:
            detail = "the template and this operation's values do not make a Job; see the dispatcher's log"
            await self._fail(claimed, _problem("JOB_UNRENDERABLE", "The Job cannot be rendered", detail))
            return
        manifest = with_token(claimed.manifest, self._token(claimed))
        try:
            async with self._places:
                if not is_probe and self._pause is not None and time.monotonic() < self._paused_until:
                    await self._rows.postpone(claimed, self._pause.reason, self._pause.seconds or WAIT_SECONDS)
                    return
                left = asked_at + _TRUST_SECONDS - time.monotonic()
                if left <= 0:
                    raise StaleLeaseError("the claim is too old to post")
                async with asyncio.timeout(min(left, _CREATE_SECONDS)):
                    job = await self._post(claimed, manifest)
        except KubeInvalidError as error:
            await self._end_probe(is_probe=is_probe)
            await self._fail(claimed, _problem("JOB_REFUSED", "The cluster refuses the Job", str(error)))
        except JobConflictError as error:
            await self._end_probe(is_probe=is_probe)
            await self._fail(claimed, _problem(error.code, "A foreign Job has the name", str(error)))
        except KubeError as error:
            await self._wait(claimed, pause_for(error, self._settings.jobs_namespace), error, is_probe=is_probe)
        except TimeoutError as error:
            await self._wait(claimed, no_answer(), error, is_probe=is_probe)
        else:
            self._make_room(asyncio.current_task())
            self._pause = None
            # A terminating or finished one too: whoever follows it sees its end.
            await self._recorder.record(MadeJob(claimed.operation_id, claimed.number, job.uid))
            _log.info("job dispatched", job_name=claimed.job_name, job_uid=job.uid, fence=claimed.fence)
            await self._end_probe(is_probe=is_probe)

    async def _end_probe(self, *, is_probe: bool) -> None:
        """Close the circuit after a probe that was answered, if only by a refusal of this one Job."""
        if is_probe and await self._rows.close_circuit():
            _log.info("cluster takes Jobs again")

    async def _post(self, claimed: ClaimedAttempt, manifest: dict[str, Any]) -> JobView:
        key_id, expected = token_key_id(self._key), claimed.token_hash or token_hash(self._token(claimed))
        if claimed.token_key_id != key_id:
            # The claim of before was made with another key. Its Job, if there is one, carries the token that the
            # database expects; without one, ours will.
            existing = await self._jobs.find(manifest, expected)
            if existing is not None:
                return existing
            expected = token_hash(self._token(claimed))
            await self._rows.change_token(claimed, expected, key_id)
            _log.warning("token of another key replaced", key_id=key_id)
        return await self._jobs.create(manifest, expected)

    async def _wait(self, claimed: ClaimedAttempt, pause: Pause, error: Exception, *, is_probe: bool) -> None:
        self._pause, self._paused_until = pause, time.monotonic() + (pause.seconds or WAIT_SECONDS)
        is_new = await self._rows.open_circuit(pause.reason, pause.seconds, is_probe=is_probe)
        say = _log.error if is_new and pause.needs_person else _log.warning
        say("cluster takes no Job", reason=pause.reason, error=str(error))
        await self._rows.postpone(claimed, pause.reason, pause.seconds or WAIT_SECONDS)

    async def _fail(self, claimed: ClaimedAttempt, problem: dict[str, Any]) -> None:
        _log.error("operation failed before its Job", code=problem["code"], detail=problem["detail"])
        await self._rows.fail(claimed, problem)


def _problem(code: str, title: str, detail: str) -> dict[str, Any]:
    return {"code": code, "title": title, "detail": detail}
