"""What this process has seen of the cluster, as an attempt's decision needs it.

Two watches feed it; whoever is concerned is told through `on_news`. The end of a pod that was removed is remembered:
its last view may be the only word of how it ended. Decides nothing.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Final
from uuid import UUID

from controlplane.domain.attempt import AttemptFacts
from controlplane.domain.observation import JobView, Observation, PodView
from controlplane.kube.client import KubeClient
from controlplane.kube.jobs import JobGateway
from controlplane.kube.views import JOBS
from controlplane.kube.watch import Watched, WatchedPods

__all__ = ["Observer"]

_REMEMBERED: Final = 10_000
"""Ended pods and vanished Jobs kept in mind: far more than end between two passes."""
_STALE_SECONDS: Final = 150.0
"""Above the relist's interval and a list's own limits: an older view is not the cluster as it is."""


class Observer:
    """The Jobs and pods with our label in one namespace."""

    def __init__(
        self,
        client: KubeClient,
        gateway: JobGateway,
        namespace: str,
        *,
        on_news: Callable[[UUID], None] = lambda _operation_id: None,
    ) -> None:
        self._gateway = gateway
        self._on_news = on_news
        self.jobs: Watched[JobView] = Watched(client, JOBS, namespace, on_change=self._job_changed)
        self.pods = WatchedPods(client, namespace, on_change=self._pod_changed)
        self._operations: OrderedDict[str, UUID] = OrderedDict()
        """By the Job's uid, also after the Job is gone."""
        self._ended: OrderedDict[str, PodView] = OrderedDict()
        """Last views of pods that ended and were removed."""
        self._strangers: OrderedDict[str, UUID] = OrderedDict()
        """By uid, Jobs under an attempt's name and labels that are not the attempt's."""

    def tell(self, on_news: Callable[[UUID], None]) -> None:
        """Say from now on whose Job or pod changed."""
        self._on_news = on_news

    @property
    def is_current(self) -> bool:
        """Whether what is missing here may be taken for a hint of its absence."""
        return max(self.jobs.age_seconds(), self.pods.age_seconds()) < _STALE_SECONDS

    async def run(self) -> None:
        """Follow the cluster for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.jobs.run())
            group.create_task(self.pods.run())

    async def relist(self) -> None:
        """Read everything once; raises `KubeError`."""
        # Pods first: a pod that ends between the two lists then has its Job's newer state beside it, not an older one.
        await self.pods.relist()
        await self.jobs.relist()

    def disown(self, attempt: AttemptFacts, job_uid: str) -> None:
        """See the Job no more when this attempt is looked at: it is somebody else's."""
        _remember(self._strangers, job_uid, attempt.operation_id)

    def observe(self, attempt: AttemptFacts) -> Observation:
        """Return what is known of this attempt; a Job of its name with another uid is somebody else's."""
        job = self._ours(attempt, self.jobs.by_name(attempt.job_name))
        job_uid = attempt.job_uid or (job.uid if job is not None else None)
        pods = self.pods.of_job(job_uid) if job_uid is not None else []
        return self._observation(attempt, job, pods)

    async def observe_live(self, attempt: AttemptFacts, seen: Observation) -> Observation:
        """Read Job and pods of an attempt from the cluster itself; raises `KubeError`."""
        job = self._ours(attempt, await self._gateway.get(attempt.job_name))
        job_uid = attempt.job_uid or (job.uid if job is not None else None)
        pods = await self._gateway.list_pods(job_uid) if job_uid is not None else []
        live = self._observation(attempt, job, pods)
        is_absent = not live.living and (live.pod is None or live.pod.has_ended)
        return replace(live, absence_confirmed=is_absent, no_pod_because=seen.no_pod_because)

    def _ours(self, attempt: AttemptFacts, job: JobView | None) -> JobView | None:
        """Return the Job if it is the attempt's: a name alone may be anybody's."""
        if job is None or (job.operation_id, job.attempt) != (attempt.operation_id, attempt.number):
            return None
        is_ours = attempt.job_uid == job.uid if attempt.job_uid is not None else job.uid not in self._strangers
        return job if is_ours else None

    def _observation(self, attempt: AttemptFacts, job: JobView | None, pods: list[PodView]) -> Observation:
        living = tuple(pod for pod in pods if not pod.has_ended)
        if attempt.pod_uid is None:
            return Observation(job, pods[0] if pods else None, living)
        began = next((pod for pod in pods if pod.uid == attempt.pod_uid), None)
        gone = self._ended.get(attempt.pod_uid) if began is None else None
        return Observation(job, began or gone, living, is_pod_gone=gone is not None)

    def _job_changed(self, old: JobView | None, new: JobView | None) -> None:
        job = new or old
        if job is None or job.operation_id is None:
            return
        _remember(self._operations, job.uid, job.operation_id)
        if old is None or new is None or new.is_news_after(old):
            self._on_news(job.operation_id)

    def _pod_changed(self, old: PodView | None, new: PodView | None) -> None:
        pod = new or old
        if pod is None:
            return
        if new is None and pod.has_ended:
            _remember(self._ended, pod.uid, pod)
        operation_id = self._operations.get(pod.job_uid or "")
        if operation_id is not None and (old is None or new is None or new.is_news_after(old)):
            self._on_news(operation_id)


def _remember(memory: "OrderedDict[str, UUID] | OrderedDict[str, PodView]", key: str, value: object) -> None:
    memory[key] = value  # type: ignore[assignment]  # each memory gets its own kind, as its two callers show
    memory.move_to_end(key)
    while len(memory) > _REMEMBERED:
        memory.popitem(last=False)
