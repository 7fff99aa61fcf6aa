"""List and watch against a real API server, and the same against the fake one, which so proves that it is alike."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from controlplane.kube.client import KubeClient
from controlplane.kube.errors import KubeConflictError, KubeInvalidError, KubeNotFoundError
from controlplane.kube.views import JOBS, PODS, read_job
from controlplane.kube.watch import Watched, WatchedPods
from tests.support.busybox import busybox_reference
from tests.support.fake_apiserver import fake_apiserver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from controlplane.domain.observation import JobView

STORE, OPERATION = uuid.uuid4(), uuid.uuid4()
MARKS = {"app": "store-provisioner", "store-id": str(STORE), "operation-id": str(OPERATION), "attempt": "2"}


@dataclass(frozen=True)
class Server:
    """A namespace of an API server, as the product's own client sees it."""

    client: KubeClient
    namespace: str

    @property
    def jobs(self) -> str:
        return JOBS.path.format(self.namespace)

    async def add_job(self, name: str, labels: dict[str, str] = MARKS) -> JobView:
        return read_job(await self.client.read("POST", self.jobs, body=orjson.dumps(_job(name, labels))))

    async def shorten(self, name: str, **metadata: str) -> JobView:
        patch = orjson.dumps({"metadata": metadata, "spec": {"ttlSecondsAfterFinished": 300}})
        merge = "application/merge-patch+json"
        return read_job(await self.client.read("PATCH", f"{self.jobs}/{name}", body=patch, content_type=merge))

    async def delete(self, path: str, uid: str) -> None:
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}, "gracePeriodSeconds": 0}
        await self.client.read("DELETE", path, body=orjson.dumps(options))


def _job(name: str, labels: dict[str, str]) -> dict[str, Any]:
    container = {"name": "provisioner", "image": busybox_reference(), "command": ["/bin/true"]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "suspend": True,
            "ttlSecondsAfterFinished": 86400,
            "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
        },
    }


def _pod(name: str, job_uid: str) -> dict[str, Any]:
    container = {"name": "provisioner", "image": busybox_reference(), "command": ["/bin/true"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": MARKS | {"batch.kubernetes.io/controller-uid": job_uid}},
        # No node has the label, so that the pod stays as it is.
        "spec": {"containers": [container], "nodeSelector": {"storeplane.dev/no": "where"}},
    }


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.cluster)])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    if request.param == "fake":
        async with fake_apiserver() as (_, client):
            yield Server(client, "storeplane-jobs")
        return
    namespace = request.getfixturevalue("namespace")
    client = await KubeClient.connect(namespace.kube.kubeconfig)
    yield Server(client, namespace.name)
    await client.close()


@asynccontextmanager
async def _running(watched: Watched[Any]) -> AsyncIterator[None]:
    task = asyncio.create_task(watched.run())
    try:
        async with asyncio.timeout(30):
            await watched.synced.wait()
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _until(probe: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 30
    while not (answer := probe()):
        assert time.monotonic() < deadline, f"not in time: {what}"
        await asyncio.sleep(0.02)
    return answer


async def test_create_get_and_their_refusals(server: Server) -> None:
    made = await server.add_job("one")
    assert (made.name, made.operation_id, made.attempt) == ("one", OPERATION, 2)
    assert (made.end, made.finished_at, made.is_terminating, made.ttl_seconds) == (None, None, False, 86400)
    assert made.created_at is not None
    assert read_job(await server.client.read("GET", f"{server.jobs}/one")) == made
    with pytest.raises(KubeConflictError) as conflict:
        await server.add_job("one")
    assert conflict.value.reason == "AlreadyExists"
    with pytest.raises(KubeNotFoundError) as missing:
        await server.client.read("GET", f"{server.jobs}/two")
    assert missing.value.reason == "NotFound"


async def test_patch_and_delete_mind_the_uid(server: Server) -> None:
    made = await server.add_job("one")
    with pytest.raises(KubeInvalidError, match=r"metadata\.uid"):
        await server.shorten("one", uid=str(uuid.uuid4()))
    assert (await server.shorten("one", uid=made.uid)).ttl_seconds == 300
    with pytest.raises(KubeConflictError):
        await server.delete(f"{server.jobs}/one", str(uuid.uuid4()))
    await server.delete(f"{server.jobs}/one", made.uid)
    with pytest.raises(KubeNotFoundError):
        await server.client.read("GET", f"{server.jobs}/one")


async def test_list_comes_in_pages_of_one_moment_and_only_ours(server: Server) -> None:
    for name in ("a", "b", "c"):
        await server.add_job(name)
    await server.add_job("foreign", {"app": "other"})
    query = {"labelSelector": "app=store-provisioner", "limit": "2"}
    first = JOBS.page(await server.client.read("GET", server.jobs, query=query))
    assert [view.name for view in first.views] == ["a", "b"]
    await server.add_job("d")
    second = JOBS.page(await server.client.read("GET", server.jobs, query=query | {"continue": first.rest}))
    assert [view.name for view in second.views] == ["c"]
    assert (second.rest, second.version) == ("", first.version)


async def test_jobs_are_followed_from_the_list_through_their_changes_to_their_end(server: Server) -> None:
    before = await server.add_job("before")
    changes: list[tuple[JobView | None, JobView | None]] = []
    watched = Watched(server.client, JOBS, server.namespace, on_change=lambda old, new: changes.append((old, new)))
    async with _running(watched):
        assert watched.snapshot()[before.uid].name == "before"
        await server.add_job("foreign", {"app": "other"})
        later = await server.add_job("later")
        await _until(lambda: watched.by_name("later"), "the new Job is told")
        await server.shorten("later")
        await _until(lambda: watched.snapshot()[later.uid].ttl_seconds == 300, "the change is told")
        await server.delete(f"{server.jobs}/later", later.uid)
        await _until(lambda: watched.by_name("later") is None, "the removal is told")
        assert list(watched.snapshot()) == [before.uid]
        assert 0 <= watched.age_seconds() < 60
    told = [(old and old.name, new and (new.name, new.ttl_seconds)) for old, new in changes]
    assert told == [
        (None, ("before", 86400)),
        (None, ("later", 86400)),
        ("later", ("later", 300)),
        ("later", None),
    ]


async def test_pods_are_found_by_their_job(server: Server) -> None:
    job_uid = str(uuid.uuid4())
    path = PODS.path.format(server.namespace)
    watched = WatchedPods(server.client, server.namespace)
    async with _running(watched):
        for name in ("first", "second"):
            await server.client.read("POST", path, body=orjson.dumps(_pod(name, job_uid)))
        pods = await _until(lambda: len(found := watched.of_job(job_uid)) == 2 and found, "both pods are told")
        assert {pod.name for pod in pods} == {"first", "second"}
        assert not any(pod.started or pod.has_ended or pod.is_terminating for pod in pods)
        await server.delete(f"{path}/first", next(pod.uid for pod in pods if pod.name == "first"))
        await _until(lambda: [pod.name for pod in watched.of_job(job_uid)] == ["second"], "the removal is told")
    assert watched.of_job("another") == []


async def test_forced_list_tells_what_a_dead_watch_missed(server: Server) -> None:
    kept, lost = await server.add_job("kept"), await server.add_job("lost")
    removed: list[str] = []

    def told(old: JobView | None, new: JobView | None) -> None:
        if old is not None and new is None:
            removed.append(old.name)

    watched: Watched[JobView] = Watched(server.client, JOBS, server.namespace, on_change=told)
    await watched.relist()
    await server.delete(f"{server.jobs}/lost", lost.uid)
    await server.add_job("fresh")
    await watched.relist()
    assert {view.name for view in watched.snapshot().values()} == {"kept", "fresh"}
    assert removed == ["lost"]
    assert kept.uid in watched.snapshot()
