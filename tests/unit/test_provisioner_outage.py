"""What the provisioner does while the API server is away, on a server that drops, refuses and loses answers."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from provisioner_job import namespace_guard, patience, release
from provisioner_job.cluster import Cluster
from provisioner_job.errors import PhaseError, RetryableError
from provisioner_job.journal import Journal, Redactor
from provisioner_job.namespace_guard import held_by_namespace
from provisioner_job.setup import wait_for_setup
from provisioner_job.shop import Question, ask_for_products
from tests.support import wishes
from tests.support.polling import poll

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

pytestmark = pytest.mark.unit

NAMESPACE = "store-shop-abcd1234"
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
SECRET: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "s", "namespace": NAMESPACE},
}
AWAY = "the cluster does not answer, trying again"
BACK = "the cluster answers again"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(patience, "_LONGEST_PAUSE_SECONDS", 0.3)
    monkeypatch.setattr(namespace_guard, "_POLL_SECONDS", 0.05)


def status(code: int, message: str = "no", *, name: str = "", **headers: str) -> web.Response:
    body = {"kind": "Status", "code": code, "message": message, "details": {"name": name} if name else {}}
    content = {"Content-Type": "application/json"}
    return web.Response(body=json.dumps(body).encode(), status=code, headers=content | headers)


def drop(request: web.BaseRequest) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def found(body: dict[str, Any]) -> web.Response:
    return web.Response(body=json.dumps(body).encode(), headers={"Content-Type": "application/json"})


class Api:
    """A server that answers what is next in the queue, and its objects by path once the queue is empty."""

    def __init__(self) -> None:
        self.queue: list[Callable[[web.BaseRequest], web.Response]] = []
        self.objects: dict[str, dict[str, Any]] = {}
        self.seen: list[str] = []
        self.loses_answers = 0
        """So many writes are done and their answers lost."""
        self.silent = 0
        """So many calls get no answer until the end."""
        self.ended = asyncio.Event()

    async def answer(self, request: web.BaseRequest) -> web.Response:
        self.seen.append(request.method)
        if self.silent:
            self.silent -= 1
            await self.ended.wait()
        if self.queue:
            return self.queue.pop(0)(request)
        made = await self._done(request)
        if request.method != "GET" and self.loses_answers:
            self.loses_answers -= 1
            return drop(request)
        return made

    async def _done(self, request: web.BaseRequest) -> web.Response:
        path = request.path
        if request.method == "POST":
            sent = json.loads(await request.text())
            path = f"{path}/{sent['metadata']['name']}"
            if path in self.objects:
                return status(409, "already exists", name="s")
            self.objects[path] = sent
            return found(sent)
        if request.method == "DELETE":
            return found({}) if self.objects.pop(path, None) else status(404, name="s")
        if path in self.objects:
            if request.method == "PUT":
                sent = json.loads(await request.text())
                if sent["metadata"]["resourceVersion"] != self.objects[path]["metadata"]["resourceVersion"]:
                    return status(409, "the object has been modified", name="s")
                sent["metadata"]["resourceVersion"] += "1"
                self.objects[path] = sent
            return found(self.objects[path])
        items = [each for name, each in self.objects.items() if name.startswith(f"{path}/")]
        is_list = path.rsplit("/", 1)[-1] in ("secrets", "jobs", "pods")
        return found({"metadata": {}, "items": items}) if is_list else status(404, name="s")


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    made = Api()
    runner = web.ServerRunner(web.Server(made.answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    point_to(runner.addresses[0][1], tmp_path, monkeypatch)
    yield made
    made.ended.set()
    await runner.cleanup()


def point_to(port: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (folder / "kubeconfig").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(folder / "kubeconfig"))


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def journal(out: io.StringIO) -> Journal:
    return Journal(Redactor(), as_json=False, out=out)


@pytest.fixture
async def cluster(journal: Journal, api: Api) -> AsyncIterator[Cluster]:  # noqa: ARG001 -- sets the address
    made = Cluster(journal)
    yield made
    await made.close()


@pytest.mark.parametrize(
    "fault",
    [
        drop,
        *(lambda _, code=code: status(code) for code in (429, 500, 502, 503, 504)),
        lambda _: web.Response(status=503, body=b"", headers={"Content-Type": ""}),
        lambda _: web.Response(status=502, text="<html>", content_type="text/html"),
        lambda _: web.Response(status=500, body=b"{", headers={"Content-Type": "application/json"}),
    ],
    ids=["drop", "429", "500", "502", "503", "504", "no type", "proxy", "half a body"],
)
async def test_call_is_tried_again_and_the_journal_says_it_once(
    api: Api, cluster: Cluster, out: io.StringIO, fault: Callable[[web.BaseRequest], web.Response]
) -> None:
    api.queue += [fault, fault]
    assert await cluster.list("Secret", NAMESPACE, {}) == []
    assert len(api.seen) == 3
    assert (out.getvalue().count(AWAY), out.getvalue().count(BACK)) == (1, 1)


async def test_refused_connections_are_waited_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: io.StringIO, journal: Journal
) -> None:
    with socket.socket() as reserved:
        # Bound and not listening: connections are refused, and nobody else gets the port.
        reserved.bind(("127.0.0.1", 0))
        point_to(reserved.getsockname()[1], tmp_path, monkeypatch)
        cluster = Cluster(journal)
        asking = asyncio.create_task(cluster.list("Secret", NAMESPACE, {}))
        await asyncio.to_thread(poll, out.getvalue, what="it says that the cluster is away")
        runner = web.ServerRunner(web.Server(Api().answer))
        await runner.setup()
        await web.SockSite(runner, reserved).start()
        assert await asking == []
        await cluster.close()
        await runner.cleanup()
    assert BACK in out.getvalue()


async def test_patience_ends(api: Api, journal: Journal) -> None:
    cluster = Cluster(journal, patience_seconds=1)
    api.queue += [drop] * 1000
    with pytest.raises(RetryableError, match="list Secret: ") as caught:
        await cluster.list("Secret", NAMESPACE, {})
    await cluster.close()
    assert caught.value.code == "CLUSTER_UNAVAILABLE"
    assert len(api.seen) > 1


async def test_longer_wait_than_patience_is_not_begun(api: Api, journal: Journal) -> None:
    cluster = Cluster(journal, patience_seconds=5)
    api.queue.append(lambda _: status(429, **{"Retry-After": "600"}))
    with pytest.raises(RetryableError, match="429"):
        await cluster.list("Secret", NAMESPACE, {})
    await cluster.close()
    assert len(api.seen) == 1


async def test_silent_server_is_asked_again(
    api: Api, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, out: io.StringIO
) -> None:
    monkeypatch.setattr(patience, "_CALL_SECONDS", 0.3)
    api.silent = 1
    assert await cluster.list("Secret", NAMESPACE, {}) == []
    assert "TimeoutError" in out.getvalue()


async def test_server_that_has_just_started_may_refuse_at_first(api: Api, cluster: Cluster) -> None:
    api.queue += [drop, lambda _: status(403), lambda _: status(404)]
    assert await cluster.list("Secret", NAMESPACE, {}) == []


async def test_refusal_of_a_server_that_was_not_away_is_final(api: Api, cluster: Cluster) -> None:
    api.queue += [lambda _: status(403, "you may not")]
    with pytest.raises(PhaseError, match="you may not"):
        await cluster.list("Secret", NAMESPACE, {})
    assert len(api.seen) == 1


async def test_writes_whose_answer_was_lost_are_done_once(api: Api, cluster: Cluster) -> None:
    api.loses_answers = 1
    assert await cluster.create(SECRET) is False
    assert api.objects[f"{SECRETS}/s"]["metadata"]["name"] == "s"
    api.loses_answers = 1
    await cluster.delete("Secret", "s", NAMESPACE)
    assert api.objects == {}
    assert api.seen == ["POST", "POST", "DELETE", "DELETE"]


def pending_release() -> dict[str, Any]:
    packed = base64.b64encode(base64.b64encode(gzip.compress(json.dumps({"info": {}}).encode()))).decode()
    labels = {"owner": "helm", "name": "medusa", "version": "1", "status": "pending-install"}
    metadata = {"name": "r", "namespace": NAMESPACE, "resourceVersion": "7", "labels": labels}
    return {"metadata": metadata, "data": {"release": packed}}


async def test_lock_is_off_when_the_answer_to_taking_it_off_was_lost(
    api: Api, cluster: Cluster, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helm = tmp_path / "helm"
    helm.write_text("#!/bin/sh\necho '{\"version\": 2}'\n")
    helm.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    api.objects[f"{SECRETS}/r"] = pending_release()
    api.loses_answers = 1
    facts = await release.install(cluster, NAMESPACE, wishes.spec(), journal)
    assert facts == {"release": "medusa", "revision": 2, "existed": True, "unlocked": True}
    assert api.objects[f"{SECRETS}/r"]["metadata"]["labels"]["status"] == "failed"
    assert api.seen.count("PUT") == 2


NAMESPACE_PATH = f"/api/v1/namespaces/{NAMESPACE}"
OURS: dict[str, Any] = {"metadata": {"name": NAMESPACE, "uid": "ours"}}
GONE: dict[str, dict[str, Any] | None] = {
    "absent": None,
    "leaving": {"metadata": {"name": NAMESPACE, "uid": "ours", "deletionTimestamp": "2026-01-01T00:00:00Z"}},
    "another": {"metadata": {"name": NAMESPACE, "uid": "another"}},
}


def set_namespace(api: Api, seen: dict[str, Any] | None) -> None:
    if seen is None:
        del api.objects[NAMESPACE_PATH]
    else:
        api.objects[NAMESPACE_PATH] = seen


@pytest.mark.parametrize("gone", GONE.values(), ids=GONE)
async def test_wait_in_a_namespace_ends_with_it(
    api: Api, cluster: Cluster, journal: Journal, out: io.StringIO, gone: dict[str, Any] | None
) -> None:
    # The Job stays where it is, as in a namespace that a finalizer holds.
    api.objects[NAMESPACE_PATH] = OURS
    job = {"kind": "Job", "metadata": {"name": "setup", "labels": {"storeplane.dev/role": "setup"}}, "status": {}}
    api.objects[f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/setup"] = job
    waiting = asyncio.create_task(
        held_by_namespace(cluster, NAMESPACE, "ours", wait_for_setup(cluster, NAMESPACE, journal))
    )
    await asyncio.to_thread(poll, out.getvalue, what="it waits for the setup pod")
    set_namespace(api, gone)
    with pytest.raises(PhaseError, match=NAMESPACE) as caught:
        await asyncio.wait_for(waiting, timeout=60)
    assert caught.value.code == "NAMESPACE_GONE"


async def test_question_to_a_shop_ends_with_its_namespace(
    api: Api, cluster: Cluster, journal: Journal, out: io.StringIO
) -> None:
    api.objects[NAMESPACE_PATH] = OURS
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))
        question = Question("127.0.0.1", refusing.getsockname()[1], "/products", {}, "")
        asking = ask_for_products(question, journal)
        waiting = asyncio.create_task(held_by_namespace(cluster, NAMESPACE, "ours", asking))
        await asyncio.to_thread(poll, out.getvalue, what="it says that the shop does not answer")
        set_namespace(api, None)
        with pytest.raises(PhaseError, match=NAMESPACE):
            await asyncio.wait_for(waiting, timeout=60)


async def _fails() -> None:
    raise RetryableError("SETUP_GONE", "The Job is gone", "setup")


async def test_failure_in_a_namespace_that_went_is_told_by_its_cause(api: Api, cluster: Cluster) -> None:
    api.objects[NAMESPACE_PATH] = GONE["leaving"] or {}
    with pytest.raises(PhaseError, match="is being removed"):
        await held_by_namespace(cluster, NAMESPACE, "ours", _fails())


async def test_other_failures_and_results_are_passed_on(api: Api, cluster: Cluster) -> None:
    api.objects[NAMESPACE_PATH] = OURS
    with pytest.raises(RetryableError, match="The Job is gone"):
        await held_by_namespace(cluster, NAMESPACE, "ours", _fails())
    assert await held_by_namespace(cluster, NAMESPACE, "ours", asyncio.sleep(0, "facts")) == "facts"


UNREACHABLE = "Error: kubernetes cluster unreachable: "
GET = 'Get "http://10.0.0.1:443/version": '
QUERY = "Error: query: failed to query with labels: "


@pytest.mark.parametrize(
    "told",
    [
        f"{UNREACHABLE}{GET}dial tcp 10.0.0.1:443: connect: connection refused",
        f"{UNREACHABLE}{GET}EOF",
        f"{UNREACHABLE}{GET}read tcp 10.0.0.2:1->10.0.0.1:443: read: connection reset by peer",
        f"{UNREACHABLE}{GET}net/http: request canceled (Client.Timeout exceeded while awaiting headers)",
        f"{UNREACHABLE}the server is currently unable to handle the request",
        f'{UNREACHABLE}an error on the server ("unknown") has prevented the request from succeeding',
        f"{QUERY}Internal error occurred: x",
        f"{QUERY}apiserver is shutting down",
        f"{QUERY}request timed out",
        f"{QUERY}the server was unable to return a response in the time allotted, but may still be processing it",
        f"{QUERY}storage is (re)initializing",
        f"{QUERY}the server has received too many requests and has asked us to try again later (get secrets)",
    ],
)
def test_helm_without_a_cluster_may_work_later(told: str) -> None:
    assert release.is_outage(told)


@pytest.mark.parametrize(
    "told",
    [
        "Error: parse error at (medusa/templates/setup.yaml:3): unexpected EOF",
        f"{UNREACHABLE}{GET}tls: failed to verify certificate: x509: certificate signed by unknown authority",
        'Error: secrets is forbidden: User "x" cannot list resource "secrets" in API group ""',
        "Error: values don't meet the specifications of the schema(s) in the following chart(s)",
    ],
)
def test_helm_that_refuses_a_chart_is_final(told: str) -> None:
    assert not release.is_outage(told)
