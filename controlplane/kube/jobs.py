"""Jobs of the provisioner: create or adopt, get, logs, shorten the TTL, delete. One namespace, one gateway."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Final
from uuid import UUID

import orjson

from controlplane.domain.attempt import token_hash as hash_of_token
from controlplane.domain.credentials import Credentials, NoCredentials
from controlplane.domain.errors import JobConflictError
from controlplane.domain.observation import EventView, JobView, PodView
from controlplane.kube import labels
from controlplane.kube.client import KubeClient
from controlplane.kube.credentials import read_credentials
from controlplane.kube.errors import (
    KubeConflictError,
    KubeInvalidError,
    KubeNotFoundError,
    KubeThrottledError,
    KubeUnavailableError,
)
from controlplane.kube.evidence import StoreEvidence, pod_events, store_evidence
from controlplane.kube.job_manifest import comparable, difference, token_in
from controlplane.kube.views import PODS, event_page, read_job

__all__ = ["JobGateway"]

_PAGE: Final = "500"
_CONTAINER: Final = "provisioner"
LOG_LIMIT_BYTES: Final = 1024 * 1024
"""Kept of a log, from its end; a provisioning run writes a few KiB."""
_LOG_LINES: Final = 20_000
_CUT_MARK: Final = "[the log's beginning was cut: only its last MiB is kept]\n"
_LOG_SILENCE_SECONDS: Final = 120.0
"""The longest rest of a provisioner that works: it says at least what it waits for."""
_REASON_LIMIT: Final = 300


class JobGateway:
    """The provisioner's Jobs and pods of one cluster."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._events = f"/api/v1/namespaces/{namespace}/events"

    async def create(self, manifest: dict[str, Any], token_hash: bytes) -> JobView:
        """Post a Job; a Job of this name that is the same is adopted, as an earlier post of ours.

        `token_hash` is of the token that the database expects, which an existing Job must carry.

        Raises
        ------
        JobConflictError
            Another Job has the name; it was not touched.
        KubeError
            Everything else; after `KubeUnavailableError` posting the same again decides.
        """
        try:
            return read_job(await self._client.read("POST", self._jobs, body=orjson.dumps(manifest)))
        except KubeConflictError as error:
            # AlreadyExists: whose it is, the object itself tells.
            existing = await self.find(manifest, token_hash)
            if existing is None and error.reason != "AlreadyExists":
                # Such as a quota that was counted by two creates at once.
                message = f"the cluster could not take the Job this time: {error}"
                raise KubeThrottledError(message, retry_after_seconds=1) from error
            if existing is None:
                message = "the Job that had the name is gone by now"
                raise KubeUnavailableError(message) from error
            return existing
        except KubeUnavailableError:
            # Whether it worked is unknown; the name decides.
            existing = await self.find(manifest, token_hash)
            if existing is None:
                raise
            return existing

    async def find(self, manifest: dict[str, Any], token_hash: bytes) -> JobView | None:
        """Return the Job that an earlier post of this manifest made, or None when the name is free.

        The one rule by which a Job is ours, whoever asks: to create, to reattach or to look after a late one.

        Raises
        ------
        JobConflictError
            Another Job has the name: it differs in a label, the attempt, the token or any other rendered field.
        """
        name = manifest["metadata"]["name"]
        try:
            raw = await self._client.read("GET", f"{self._jobs}/{name}")
        except KubeNotFoundError:
            return None
        view, existing = read_job(raw), orjson.loads(raw)
        place = difference(comparable(manifest), existing)
        if place is not None:
            raise JobConflictError(name, f"uid {view.uid} differs at {place}")
        if hash_of_token(token_in(existing)) != token_hash:
            raise JobConflictError(name, f"uid {view.uid} carries another token")
        return view

    async def get(self, name: str) -> JobView | None:
        """Read one Job live, or None when there is none."""
        try:
            return read_job(await self._client.read("GET", f"{self._jobs}/{name}"))
        except KubeNotFoundError:
            return None

    async def list_pods(self, job_uid: str) -> list[PodView]:
        """Read one Job's pods live, newest first."""
        selector = f"{labels.SELECTOR},{labels.JOB_UID}={job_uid}"
        pods = PODS.page(
            await self._client.read("GET", self._pods, query={"labelSelector": selector, "limit": _PAGE})
        ).views
        return sorted(pods, key=lambda pod: pod.created_at.timestamp() if pod.created_at else 0.0, reverse=True)

    async def list_refused_pods(self) -> dict[str, str]:
        """Return, by the Job's uid, why the Job controller could not create its pod, as its newest event says."""
        query = {"fieldSelector": "involvedObject.kind=Job,reason=FailedCreate", "limit": _PAGE}
        events, _ = event_page(await self._client.read("GET", self._events, query=query))
        events.sort(key=lambda event: event.last_at.timestamp() if event.last_at else 0.0)
        return {event.object_uid: f"{event.reason}: {event.message}"[:_REASON_LIMIT] for event in events}

    async def logs(self, pod_name: str) -> str | None:
        """Return the end of a pod's log, cut at one MiB with a mark, or None when there is none."""
        try:
            raw = await self._client.log(
                self._namespace, pod_name, container=_CONTAINER, tail_lines=_LOG_LINES, limit_bytes=2**31 - 1
            )
        except (KubeNotFoundError, KubeInvalidError):
            # Invalid while the container has not started, and not found once the kubelet has dropped it.
            return None
        # Postgres stores no NUL; the mark makes the cut visible to whoever reads the log later.
        text = raw[-LOG_LIMIT_BYTES:].decode("utf-8", "replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")
        return _CUT_MARK + text if len(raw) > LOG_LIMIT_BYTES else text

    def follow_log(self, pod_name: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Give a pod's log from its beginning and what it writes from now on; errors as of `KubeClient.stream`."""
        return self._client.follow_log(
            self._namespace, pod_name, container=_CONTAINER, silence_seconds=_LOG_SILENCE_SECONDS
        )

    async def pod_events(self, pod_uid: str) -> tuple[EventView, ...]:
        """Return what was said about a pod, newest first; raises `KubeError`."""
        return await pod_events(self._client, self._namespace, pod_uid)

    async def store_evidence(self, namespace: str) -> StoreEvidence:
        """Return what a store's own pods, their logs and warnings tell; never raises a `KubeError`."""
        return await store_evidence(self._client, namespace)

    async def store_credentials(self, namespace: str, store_id: UUID) -> Credentials | NoCredentials:
        """Return what a store's one readable Secret holds, or why there is nothing; raises `KubeError`."""
        return await read_credentials(self._client, namespace, store_id)

    async def shorten_ttl(self, name: str, uid: str, seconds: int) -> None:
        """Patch the TTL of a finished Job; a Job that is gone, or another by that name, is left alone."""
        patch = {"metadata": {"uid": uid}, "spec": {"ttlSecondsAfterFinished": seconds}}
        try:
            await self._client.read(
                "PATCH",
                f"{self._jobs}/{name}",
                body=orjson.dumps(patch),
                content_type="application/merge-patch+json",
            )
        except (KubeNotFoundError, KubeConflictError, KubeInvalidError):
            # A uid that is another's is refused as an attempt to change it.
            return

    async def delete_job(self, name: str, uid: str) -> None:
        """Delete a Job and, behind it, its pods; a Job that is gone, or another by that name, is left alone."""
        await self._delete(f"{self._jobs}/{name}", uid, {"propagationPolicy": "Background"})

    async def force_delete_pod(self, name: str, uid: str) -> None:
        """Remove a pod without waiting for its node; only for a pod that can do nothing any more."""
        await self._delete(f"{self._pods}/{name}", uid, {"gracePeriodSeconds": 0})

    async def _delete(self, path: str, uid: str, options: dict[str, Any]) -> None:
        # An unmanaged Job's pods would be orphaned by default, and a name alone may be somebody else's by now.
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}, **options}
        try:
            await self._client.read("DELETE", path, body=orjson.dumps(body))
        except (KubeNotFoundError, KubeConflictError):
            return
