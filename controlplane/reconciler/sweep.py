"""Sweep: what no single attempt's pass looks after, once in a while.

Jobs that no attempt knows, failed Jobs beyond the number that is kept, objects of creations that failed long ago,
partitions, old idempotency keys. Safe to run in every process: each step is guarded or repeats itself harmlessly.
"""

import time
from collections.abc import Callable
from typing import Final

from uuid_utils.compat import uuid7

from controlplane.config import Settings
from controlplane.db.attempts import AttemptRows
from controlplane.domain.observation import JobView
from controlplane.kube.jobs import JobGateway
from controlplane.reconciler.observer import Observer
from controlplane.telemetry import get_logger

__all__ = ["Sweep"]

_ORPHAN_SECONDS: Final = 60.0
"""A Job must have been without an attempt for that long: a claim that is being committed is no orphan."""
_MAINTENANCE_SECONDS: Final = 3600.0
_CLEANUPS_AT_ONCE: Final = 20
_IDEMPOTENCY_SECONDS: Final = 48 * 3600.0
_REAPED_AT_ONCE: Final = 50
"""Patches a pass: deletes are paced, so that a backlog does not become a storm."""

_log = get_logger(__name__)


class Sweep:
    """Removes what is nobody's."""

    def __init__(
        self,
        rows: AttemptRows,
        jobs: JobGateway,
        observer: Observer,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rows = rows
        self._jobs = jobs
        self._observer = observer
        self._settings = settings
        self._clock = clock
        self._orphans: dict[str, float] = {}
        """By uid, when a Job was first seen without an attempt."""
        self._maintained_at = float("-inf")

    async def run_once(self) -> None:
        """Sweep once.

        Raises
        ------
        DatabaseUnavailableError, KubeError
            The next sweep goes on.
        """
        await self._order_cleanups()
        if self._observer.is_current:
            await self._remove_orphans()
            await self._reap_failed()
        # Last: what is wrong with a table must not keep Jobs and namespaces from being removed.
        if self._clock() - self._maintained_at >= _MAINTENANCE_SECONDS:
            await self._rows.forget_idempotency_keys(_IDEMPOTENCY_SECONDS)
            await self._rows.keep_partitions(self._settings.event_retention_months, self._settings.log_retention_months)
            self._maintained_at = self._clock()

    async def _order_cleanups(self) -> None:
        retention = self._settings.failed_store_retention_seconds
        ordered = await self._rows.submit_overdue_cleanups(retention, [uuid7() for _ in range(_CLEANUPS_AT_ONCE)])
        if ordered:
            _log.info("clean-ups ordered", count=ordered)

    async def _remove_orphans(self) -> None:
        """Delete Jobs of ours that no attempt has: of a database that was set back, or made again under an old name."""
        jobs = self._observer.jobs.snapshot()
        known = await self._rows.known([job.name for job in jobs.values()])
        now = self._clock()
        orphans = {
            uid: job
            for uid, job in jobs.items()
            # Under a known attempt's name with another uid it is a stranger's, and stays.
            if _is_named_like_ours(job) and not job.is_terminating and job.name not in known
        }
        self._orphans = {uid: self._orphans.get(uid, now) for uid in orphans}
        for uid, job in orphans.items():
            if now - self._orphans[uid] < _ORPHAN_SECONDS:
                continue
            # Audited first: what was removed must be on record whatever happens next.
            details = {"job_name": job.name, "job_uid": uid, "operation_id": str(job.operation_id)}
            await self._rows.audit("job.orphan_deleted", details)
            _log.warning("orphan Job deleted", job_name=job.name, job_uid=uid)
            await self._jobs.delete_job(job.name, uid)

    async def _reap_failed(self) -> None:
        """Shorten the TTL of failed Jobs beyond the number that is kept, the oldest first."""
        failed = [job for job in self._observer.jobs.snapshot().values() if job.end == "Failed"]
        surplus = len(failed) - self._settings.failed_jobs_kept
        if surplus <= 0:
            return
        failed.sort(key=lambda job: job.finished_at.timestamp() if job.finished_at else 0.0)
        oldest = [job for job in failed[:surplus] if job.ttl_seconds != 0][:_REAPED_AT_ONCE]
        known = await self._rows.known([job.name for job in oldest])
        for job in oldest:
            if job.name in known and known[job.name].is_harvested:
                await self._jobs.shorten_ttl(job.name, job.uid, 0)


def _is_named_like_ours(job: JobView) -> bool:
    """Return whether name and labels tell the same attempt: a stranger with our label alone is left alone."""
    return (
        job.operation_id is not None
        and job.attempt is not None
        and job.name.startswith("store-")
        and job.name.endswith(f"-{job.operation_id}-{job.attempt}")
    )
