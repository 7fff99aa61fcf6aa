"""The dispatcher: claim an operation, create its Job, record the Job's uid.

Three steps, each safe to die after: (1) the claim commits attempt and rendered Job; (2) the Job is posted under a
name made of the attempt; (3) its uid is recorded. After a death between them the lease runs out, another claim takes
over the same attempt, its POST meets the same Job and adopts it. The cluster is never called inside a transaction.

A cluster that refuses one Job now would refuse the next as well: the dispatcher then leaves it alone for a while.
"""

import asyncio
import time
from typing import Any, Final

from controlplane.config import Settings
from controlplane.db.attempts import AttemptRows, RenderedJob
from controlplane.dispatcher.pause import WAIT_SECONDS, Pause, no_answer, pause_for
from controlplane.domain.attempt import ClaimedAttempt, attempt_token, token_hash, token_key_id
from controlplane.domain.errors import JobConflictError, StaleLeaseError
from controlplane.domain.observation import JobView
from controlplane.kube.errors import KubeError, KubeInvalidError
from controlplane.kube.job_manifest import ManifestError, render_job, sha256_of, with_token
from controlplane.kube.jobs import JobGateway
from controlplane.telemetry import bound, get_logger

__all__ = ["Dispatcher"]

_LEASE_SECONDS: Final = 30
"""Above the longest create, so that nobody takes over a living dispatcher's claim."""
_CREATE_SECONDS: Final = 20.0
"""For one create with all its calls: post, adoption, credentials read again and a repeated call."""

_log = get_logger(__name__)


class Dispatcher:
    """Creates Jobs; any number of them may run."""

    def __init__(self, rows: AttemptRows, jobs: JobGateway, settings: Settings, *, name: str) -> None:
        self._rows = rows
        self._jobs = jobs
        self._settings = settings
        self._name = name
        self._key = settings.token_key.get_secret_value().encode()
        self._paused_until = time.monotonic()

    async def run_once(self) -> bool:
        """Dispatch one operation; False when none was due or the cluster is left alone for now.

        Raises
        ------
        DatabaseUnavailableError
            Postgres went away; whatever was begun is taken over after its lease.
        """
        if time.monotonic() < self._paused_until:
            return False
        claimed = await self._rows.claim(self._name, _LEASE_SECONDS, self._render)
        if claimed is None:
            return False
        with bound(operation_id=claimed.operation_id, attempt=claimed.number, store_id=claimed.store_id):
            _log.info("operation claimed", job_name=claimed.job_name, fence=claimed.fence)
            await self._create(claimed)
        return True

    def _render(self, claimed: ClaimedAttempt) -> RenderedJob | None:
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

    async def _create(self, claimed: ClaimedAttempt) -> None:
        if claimed.manifest is None:
            detail = "the template and this operation's values do not make a Job; see the dispatcher's log"
            await self._end(claimed, _problem("JOB_UNRENDERABLE", "The Job cannot be rendered", detail))
            return
        try:
            async with asyncio.timeout(_CREATE_SECONDS):
                job = await self._post(claimed, with_token(claimed.manifest, self._token(claimed)))
        except KubeInvalidError as error:
            await self._end(claimed, _problem("JOB_REFUSED", "The cluster refuses the Job", str(error)))
        except JobConflictError as error:
            await self._end(claimed, _problem(error.code, "A foreign Job has the name", str(error)))
        except StaleLeaseError:
            _log.info("claim lost while creating")
        except KubeError as error:
            await self._pause(claimed, pause_for(error, self._settings.jobs_namespace), error)
        except TimeoutError as error:
            await self._pause(claimed, no_answer(), error)
        else:
            if job.is_terminating:
                await self._wait(claimed, "an earlier Job of this attempt is being removed", WAIT_SECONDS, None)
                return
            await self._record(claimed, job.uid)

    async def _post(self, claimed: ClaimedAttempt, manifest: dict[str, Any]) -> JobView:
        key_id = token_key_id(self._key)
        if claimed.token_key_id not in (None, key_id):
            # The claim of before was made with another key. Its Job, if there is one, carries the token that the
            # database expects; without one, ours will.
            existing = await self._jobs.find(manifest)
            if existing is not None:
                return existing
            await self._rows.change_token(claimed, token_hash(self._token(claimed)), key_id)
            _log.warning("token of another key replaced", key_id=key_id)
        return await self._jobs.create(manifest)

    async def _pause(self, claimed: ClaimedAttempt, pause: Pause, error: Exception) -> None:
        self._paused_until = time.monotonic() + pause.seconds
        await self._wait(claimed, pause.reason, pause.seconds, error)

    async def _record(self, claimed: ClaimedAttempt, job_uid: str) -> None:
        try:
            await self._rows.record_job(claimed.operation_id, claimed.number, job_uid)
        except StaleLeaseError as error:
            _log.warning("job not recorded", job_name=claimed.job_name, job_uid=job_uid, error=str(error))
        else:
            _log.info("job dispatched", job_name=claimed.job_name, job_uid=job_uid)

    async def _wait(self, claimed: ClaimedAttempt, reason: str, seconds: float, error: Exception | None) -> None:
        _log.warning("dispatch postponed", reason=reason, seconds=seconds, error=str(error or ""))
        try:
            await self._rows.postpone(claimed, reason, seconds)
        except StaleLeaseError:
            _log.info("claim lost while waiting")

    async def _end(self, claimed: ClaimedAttempt, problem: dict[str, Any]) -> None:
        _log.error("operation failed before its Job", code=problem["code"], detail=problem["detail"])
        try:
            await self._rows.fail_unrenderable(claimed, problem)
        except StaleLeaseError:
            _log.info("claim lost while failing")


def _problem(code: str, title: str, detail: str) -> dict[str, Any]:
    return {"code": code, "title": title, "detail": detail}
