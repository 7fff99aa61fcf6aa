"""Jobs of the provisioner: create or adopt, get, list, logs, shorten the TTL. One namespace, one gateway."""

from typing import Any, Final, Literal

import orjson

from controlplane.domain.errors import JobConflictError
from controlplane.domain.observation import JobView, PodView
from controlplane.kube import labels
from controlplane.kube.client import KubeClient
from controlplane.kube.errors import KubeConflictError, KubeInvalidError, KubeNotFoundError, KubeUnavailableError
from controlplane.kube.job_manifest import comparable, difference

__all__ = ["JobGateway"]

_PAGE: Final = "500"
_WAITING_LIMIT: Final = 300
"""Characters kept of why a pod does not start: a runtime repeats itself in nested sentences."""
_USUAL_WAITS: Final = frozenset({"", "ContainerCreating", "PodInitializing"})
LOG_LIMIT_BYTES: Final = 1024 * 1024
"""Kept of a log, from its end; a provisioning run writes a few KiB."""
_CUT_MARK: Final = "[the log's beginning was cut: only its last MiB is kept]\n"


class JobGateway:
    """The provisioner's Jobs and pods of one cluster."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._events = f"/api/v1/namespaces/{namespace}/events"

    async def create(self, manifest: dict[str, Any]) -> JobView:
        """Post a Job; a Job of this name that is the same is adopted, as an earlier post of ours.

        Raises
        ------
        JobConflictError
            Another Job has the name; it was not touched.
        KubeError
            Everything else; after `KubeUnavailableError` posting the same again decides.
        """
        try:
            return _job_view(await self._client.request("POST", self._jobs, body=orjson.dumps(manifest)))
        except KubeConflictError as error:
            # 409 for a name is AlreadyExists; whose it is, the object itself tells.
            existing = await self.find(manifest)
            if existing is None:
                message = "the Job that had the name is gone by now"
                raise KubeUnavailableError(message) from error
            return existing

    async def find(self, manifest: dict[str, Any]) -> JobView | None:
        """Return the Job that an earlier post of this manifest made, or None when the name is free.

        Raises
        ------
        JobConflictError
            Another Job has the name: it differs in a label, the attempt or any other rendered field.
        """
        name = manifest["metadata"]["name"]
        try:
            existing = await self._client.request("GET", f"{self._jobs}/{name}")
        except KubeNotFoundError:
            return None
        place = difference(comparable(manifest), existing)
        if place is not None:
            raise JobConflictError(name, f"it differs at {place}")
        return _job_view(existing)

    async def get(self, name: str) -> JobView | None:
        """Read one Job live, or None when there is none."""
        try:
            return _job_view(await self._client.request("GET", f"{self._jobs}/{name}"))
        except KubeNotFoundError:
            return None

    async def list_jobs(self) -> list[JobView]:
        """Return every Job with our label, page by page."""
        return [_job_view(item) for item in await self._list(self._jobs, labelSelector=labels.SELECTOR)]

    async def list_pods(self, job_uid: str | None = None) -> list[PodView]:
        """Return every pod with our label, or one Job's alone, newest first."""
        selector = labels.SELECTOR if job_uid is None else f"{labels.SELECTOR},{labels.JOB_UID}={job_uid}"
        items = await self._list(self._pods, labelSelector=selector)
        items.sort(key=lambda item: str(item["metadata"].get("creationTimestamp")), reverse=True)
        return [_pod_view(item) for item in items]

    async def list_refused_pods(self) -> dict[str, str]:
        """Return, by the Job's uid, why the Job controller could not create its pod, as its newest event says."""
        found = await self._list(self._events, fieldSelector="involvedObject.kind=Job,reason=FailedCreate")
        found.sort(key=lambda item: str(item.get("lastTimestamp") or item.get("eventTime") or ""))
        return {
            str((item.get("involvedObject") or {}).get("uid")): _sentence("FailedCreate", item.get("message"))
            for item in found
        }

    async def logs(self, pod_name: str) -> str | None:
        """Return the end of a pod's log, cut at one MiB with a mark, or None when there is none."""
        query = {"container": "provisioner", "limitBytes": str(2**31 - 1), "tailLines": "20000"}
        try:
            raw = await self._client.read("GET", f"{self._pods}/{pod_name}/log", query=query)
        except (KubeNotFoundError, KubeInvalidError):
            # 400 while the container has not started, and when the kubelet has dropped it.
            return None
        # Postgres stores no NUL; the mark makes the cut visible to whoever reads the log later.
        text = raw[-LOG_LIMIT_BYTES:].decode("utf-8", "replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")
        return _CUT_MARK + text if len(raw) > LOG_LIMIT_BYTES else text

    async def shorten_ttl(self, name: str, uid: str, seconds: int) -> None:
        """Patch the TTL of a finished Job; a Job that is gone, or another by that name, is left alone."""
        patch = {"metadata": {"uid": uid}, "spec": {"ttlSecondsAfterFinished": seconds}}
        try:
            await self._client.request(
                "PATCH",
                f"{self._jobs}/{name}",
                body=orjson.dumps(patch),
                content_type="application/merge-patch+json",
            )
        except (KubeNotFoundError, KubeConflictError):
            return

    async def _list(self, path: str, **selector: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        query = {**selector, "limit": _PAGE}
        while True:
            page = await self._client.request("GET", path, query=query)
            items += page.get("items") or []
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return items
            query = query | {"continue": token}


def _job_view(item: dict[str, Any]) -> JobView:
    metadata, status = item["metadata"], item.get("status") or {}
    marks = metadata.get("labels") or {}
    end: Literal["Complete", "Failed"] | None = None
    reason = ""
    for condition in status.get("conditions") or ():
        # FailureTarget and SuccessCriteriaMet are on the way; only these two are final, after the pods have ended.
        if condition.get("status") == "True" and condition.get("type") in ("Complete", "Failed"):
            end = "Complete" if condition["type"] == "Complete" else "Failed"
            if end == "Failed":
                reason = f"{condition.get('reason', '')}: {condition.get('message', '')}".strip(": ")
    return JobView(
        name=metadata["name"],
        uid=metadata["uid"],
        operation_id=labels.operation_of(marks),
        attempt=labels.attempt_of(marks),
        end=end,
        reason=reason,
        is_terminating=metadata.get("deletionTimestamp") is not None,
    )


def _pod_view(item: dict[str, Any]) -> PodView:
    metadata, status = item["metadata"], item.get("status") or {}
    containers = status.get("containerStatuses") or [{}]
    state = containers[0].get("state") or {}
    ended = state.get("terminated") or {}
    exit_code = ended.get("exitCode")
    if exit_code is None and status.get("phase") == "Failed":
        # Evicted before the container ran, or its status was lost with the node: it will not say anything any more.
        exit_code = -1
    return PodView(
        name=metadata["name"],
        uid=metadata["uid"],
        job_uid=(metadata.get("labels") or {}).get(labels.JOB_UID),
        phase=str(status.get("phase", "")),
        exit_code=exit_code,
        reason=str(ended.get("reason") or status.get("reason") or ""),
        message=str(ended.get("message") or status.get("message") or ""),
        waits=_waits(status, state.get("waiting") or {}),
    )


def _waits(status: dict[str, Any], waiting: dict[str, Any]) -> str:
    """Return why a pod's container has not started, or nothing while that is as it should be."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _sentence(condition.get("reason"), condition.get("message"))
    if waiting.get("reason", "") in _USUAL_WAITS:
        return ""
    return _sentence(waiting["reason"], waiting.get("message"))


def _sentence(reason: Any, message: Any) -> str:
    return f"{reason}: {message or ''}".removesuffix(": ")[:_WAITING_LIMIT]
