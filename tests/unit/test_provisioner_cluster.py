"""What the provisioner makes of an API server's answers, also of those that a real one gives only by chance."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from provisioner_job import setup
from provisioner_job.cluster import Cluster
from provisioner_job.errors import PhaseError, ProvisionerError, RetryableError
from provisioner_job.exposure import wait_until_exposed
from provisioner_job.job_input import JobInput
from provisioner_job.journal import Journal, Redactor
from provisioner_job.phases import PHASE_STEPS
from provisioner_job.setup import remove_failed_setups, wait_for_setup
from provisioner_job.store_secrets import new_texts
from provisioner_job.work import Work
from tests.support import wishes
from tests.support.polling import poll

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.unit

NAMESPACE = "store-shop-abcd1234"
HOST = "shop-abcd1234.localhost"
JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
SECRET: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "store-secrets", "namespace": NAMESPACE},
}


def _json(body: dict[str, Any], status: int = 200) -> web.Response:
    # The header as Kubernetes writes it: with a charset behind it, the client does not take the body for its own.
    return web.Response(body=json.dumps(body).encode(), status=status, headers={"Content-Type": "application/json"})


class Api:
    """A server of a few objects by path, which answers a fault where one is set."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.faults: dict[str, dict[str, Any]] = {}
        """Method -> the Status that every call with it gets."""
        self.deletions: list[tuple[str, Any]] = []
        self.bodies: list[str] = []
        self.stays_after_delete = False
        """As an object does that a finalizer holds."""

    def fail(self, method: str, code: int, *, name: str | None = "store-secrets", message: str = "no") -> None:
        details = {"name": name} if name else {}
        self.faults[method] = {"kind": "Status", "code": code, "message": message, "details": details}

    async def answer(self, request: web.Request) -> web.Response:
        path, fault = request.path, self.faults.get(request.method)
        self.bodies.append(await request.text())
        if fault is not None:
            return _json(fault, status=fault["code"])
        if request.method == "DELETE":
            self.deletions.append((path, dict(request.query) | json.loads(await request.text() or "{}")))
            if not self.stays_after_delete:
                self.objects.pop(path, None)
            return _json({})
        if request.method == "PATCH":
            self.objects.setdefault(path, yaml.safe_load(self.bodies[-1]))
        if path in self.objects:
            return _json(self.objects[path])
        if path in (JOBS, PODS):
            wanted = dict(pair.split("=") for pair in request.query.get("labelSelector", "").split(",") if pair)
            found = [
                each
                for name, each in self.objects.items()
                if name.startswith(f"{path}/") and wanted.items() <= each["metadata"].get("labels", {}).items()
            ]
            return _json({"metadata": {}, "items": found})
        status = {"kind": "Status", "code": 404, "message": "not found", "details": {"name": path.rsplit("/")[-1]}}
        return _json(status, status=404)


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    made = Api()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", made.answer)
    async with TestServer(application) as server:
        config = {
            "clusters": [{"name": "c", "cluster": {"server": str(server.make_url(""))}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        yield made


@pytest.fixture
async def cluster(api: Api, journal: Journal) -> AsyncIterator[Cluster]:  # noqa: ARG001 -- its address has to be set first
    made = Cluster(journal, patience_seconds=0.5)
    yield made
    await made.close()


@pytest.fixture
def journal() -> Journal:
    return Journal(Redactor(), as_json=False)


def setup_job(name: str, *, condition: str, reason: str = "") -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "labels": {"storeplane.dev/role": "setup"},
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "status": {"conditions": [{"type": condition, "status": "True", "reason": reason}] if condition else []},
    }


async def test_lost_race_is_tried_again_by_the_next_attempt(api: Api, cluster: Cluster) -> None:
    for method in ("PUT", "PATCH"):
        api.fail(method, 409, message="the object has been modified")
    with pytest.raises(RetryableError, match="replace Secret store-secrets: the object has been modified"):
        await cluster.replace_secret(SECRET)
    with pytest.raises(RetryableError, match="apply Secret store-secrets"):
        await cluster.apply(SECRET)


async def test_what_went_away_meanwhile_is_made_by_the_next_attempt(api: Api, cluster: Cluster) -> None:
    api.fail("PATCH", 404, message='namespaces "x" not found')
    with pytest.raises(RetryableError, match="not found") as caught:
        await cluster.apply(SECRET)
    assert caught.value.code == "OBJECT_GONE"


async def test_kind_that_the_cluster_does_not_know_is_final(api: Api, cluster: Cluster) -> None:
    api.fail("PATCH", 404, name=None, message="the server could not find the requested resource")
    with pytest.raises(PhaseError, match="could not find the requested resource"):
        await cluster.apply(SECRET)


async def test_taken_names_and_absent_objects_are_answers(api: Api, cluster: Cluster) -> None:
    assert await cluster.get("Secret", "store-secrets", NAMESPACE) is None
    api.fail("POST", 409)
    assert await cluster.create(SECRET) is False


@pytest.mark.parametrize(("code", "kind"), [(429, RetryableError), (503, RetryableError), (403, PhaseError)])
async def test_refusals_are_told_apart(api: Api, cluster: Cluster, code: int, kind: type[ProvisionerError]) -> None:
    api.fail("POST", code)
    with pytest.raises(kind):
        await cluster.create(SECRET)


async def test_failed_setups_go_with_their_pods_and_the_others_stay(
    api: Api, cluster: Cluster, journal: Journal
) -> None:
    api.objects |= {
        f"{JOBS}/setup-failed": setup_job("setup-failed", condition="Failed"),
        f"{JOBS}/setup-complete": setup_job("setup-complete", condition="Complete"),
        f"{JOBS}/setup-running": setup_job("setup-running", condition=""),
    }
    await remove_failed_setups(cluster, NAMESPACE, journal)
    assert [(path, options["propagationPolicy"]) for path, options in api.deletions] == [
        (f"{JOBS}/setup-failed", "Background")
    ]
    assert sorted(api.objects) == [f"{JOBS}/setup-complete", f"{JOBS}/setup-running"]


async def test_failed_setup_that_cannot_go_is_named(
    api: Api, cluster: Cluster, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "_REMOVAL_SECONDS", 0.2)
    api.stays_after_delete = True
    api.objects[f"{JOBS}/setup-failed"] = setup_job("setup-failed", condition="Failed")
    with pytest.raises(RetryableError, match="setup-failed"):
        await remove_failed_setups(cluster, NAMESPACE, journal)


async def test_setup_that_ran_out_of_time_may_work_later(api: Api, cluster: Cluster, journal: Journal) -> None:
    api.objects[f"{JOBS}/setup-a"] = setup_job("setup-a", condition="Failed", reason="DeadlineExceeded")
    with pytest.raises(RetryableError, match="setup-a"):
        await wait_for_setup(cluster, NAMESPACE, journal)


async def test_setup_that_failed_is_final(api: Api, cluster: Cluster, journal: Journal) -> None:
    api.objects[f"{JOBS}/setup-a"] = setup_job("setup-a", condition="Failed", reason="BackoffLimitExceeded")
    ended = {
        "name": "migrate",
        "image": "x",
        "imageID": "x",
        "ready": False,
        "restartCount": 0,
        "state": {"terminated": {"exitCode": 3, "reason": "Error"}},
    }
    labels = {"batch.kubernetes.io/job-name": "setup-a"}
    api.objects[f"{PODS}/setup-a-1"] = {
        "metadata": {"name": "setup-a-1", "labels": labels},
        "status": {"containerStatuses": [ended]},
    }
    with pytest.raises(PhaseError, match="migrate: Error, exit code 3") as caught:
        await wait_for_setup(cluster, NAMESPACE, journal)
    assert caught.value.code == "SETUP_FAILED"


async def test_setup_whose_pods_were_removed_is_made_again(api: Api, cluster: Cluster, journal: Journal) -> None:
    api.objects[f"{JOBS}/setup-a"] = setup_job("setup-a", condition="Failed", reason="BackoffLimitExceeded")
    with pytest.raises(RetryableError, match="the pods of setup-a were removed") as caught:
        await wait_for_setup(cluster, NAMESPACE, journal)
    assert caught.value.code == "SETUP_GONE"


@pytest.mark.parametrize("is_leaving", [False, True])
async def test_setup_that_was_deleted_is_told_at_once(api: Api, cluster: Cluster, *, is_leaving: bool) -> None:
    # The older one is complete and must not be taken for the one that is followed.
    api.objects[f"{JOBS}/setup-a"] = setup_job("setup-a", condition="Complete")
    followed = setup_job("setup-b", condition="")
    followed["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z"
    api.objects[f"{JOBS}/setup-b"] = followed
    out = io.StringIO()
    waiting = asyncio.create_task(wait_for_setup(cluster, NAMESPACE, Journal(Redactor(), as_json=False, out=out)))
    await asyncio.to_thread(poll, out.getvalue, what="it waits for the setup pod")
    if is_leaving:
        followed["metadata"]["deletionTimestamp"] = "2026-01-02T00:01:00Z"
    else:
        del api.objects[f"{JOBS}/setup-b"]
    with pytest.raises(RetryableError, match="setup-b was deleted") as caught:
        await waiting
    assert caught.value.code == "SETUP_GONE"


SECRETS_STEP = next(phase for phase in PHASE_STEPS if phase.name == "secrets")


def work_on(cluster: Cluster, journal: Journal) -> Work:
    given = JobInput(
        store_id=uuid4(),
        store_name="shop",
        engine="medusa",
        namespace=NAMESPACE,
        operation_id=uuid4(),
        attempt=1,
        request_id="",
        db_host="db",
        db_port=5432,
        db_name="storeplane",
        db_user="storeplane_provisioner",
        db_password="",
        attempt_token="",
        job_uid="job",
        pod_uid="pod",
        pod_name="pod",
        logs_json=False,
    )
    return Work(given, wishes.spec() | {"host": HOST}, cluster, journal)


async def test_fresh_secrets_are_known_before_a_refusal_can_quote_them(
    api: Api, cluster: Cluster, journal: Journal
) -> None:
    api.fail("POST", 422)
    with pytest.raises(PhaseError):
        await SECRETS_STEP.act(work_on(cluster, journal))
    sent = json.loads(api.bodies[0])["stringData"]
    assert len(sent) == 9
    for name in set(sent) - {"ADMIN_EMAIL"}:
        assert sent[name] not in journal.redactor.clean(f"invalid value: {sent[name]}")


async def test_secrets_that_were_there_are_known_too(api: Api, cluster: Cluster, journal: Journal) -> None:
    api.fail("POST", 409)
    texts = {
        **new_texts(wishes.spec()["secret"], HOST),
        "ADMIN_PASSWORD": "chosen-by-hand",
        "DATABASE_URL": "postgres://u:hunter-22@db/x",
    }
    data = {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}
    api.objects[f"{SECRETS}/store-secrets"] = SECRET | {"data": data}
    facts = await SECRETS_STEP.act(work_on(cluster, journal))
    assert facts == {"secret": "store-secrets", "existed": True}
    assert journal.redactor.clean("chosen-by-hand, hunter-22") == "[redacted], [redacted]"


INGRESS = f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/ingresses/medusa"
SERVICE = f"/api/v1/namespaces/{NAMESPACE}/services/medusa"
SERVER = {"app.kubernetes.io/component": "server"}


def expose(api: Api, *, host: str = HOST) -> None:
    backend = {"service": {"name": "medusa", "port": {"name": "http"}}}
    rule = {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    api.objects[INGRESS] = {"metadata": {"name": "medusa"}, "spec": {"rules": [rule]}}
    api.objects[SERVICE] = {"metadata": {"name": "medusa"}, "spec": {"selector": SERVER}}


def server_pod(*, ready: bool, labels: dict[str, str] = SERVER, **metadata: str) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {"metadata": {"name": "pod", "labels": labels, **metadata}, "status": {"conditions": conditions}}


async def test_shop_is_exposed_when_its_host_leads_to_a_ready_pod(api: Api, cluster: Cluster, journal: Journal) -> None:
    expose(api)
    api.objects[f"{PODS}/a"] = server_pod(ready=True)
    facts = await wait_until_exposed(cluster, NAMESPACE, "medusa", HOST, journal)
    assert facts == {"host": HOST, "service": "medusa"}


@pytest.mark.parametrize(
    "pod",
    [
        server_pod(ready=False),
        server_pod(ready=True, deletionTimestamp="2026-01-01T00:00:00Z"),
        server_pod(ready=True, labels={"app.kubernetes.io/component": "redis"}),
    ],
    ids=["not ready", "leaving", "another's"],
)
async def test_other_pods_do_not_count(api: Api, cluster: Cluster, pod: dict[str, Any]) -> None:
    expose(api)
    api.objects[f"{PODS}/a"] = pod
    out = io.StringIO()
    waiting = asyncio.create_task(
        wait_until_exposed(cluster, NAMESPACE, "medusa", HOST, Journal(Redactor(), as_json=False, out=out))
    )
    await asyncio.to_thread(poll, out.getvalue, what="it says what it waits for")
    assert "no pod of the Service is ready" in out.getvalue()
    api.objects[f"{PODS}/a"] = server_pod(ready=True)
    assert (await waiting)["service"] == "medusa"


async def test_foreign_host_is_final(api: Api, cluster: Cluster, journal: Journal) -> None:
    expose(api, host="other.localhost")
    with pytest.raises(PhaseError, match=f"{HOST}; it has other.localhost"):
        await wait_until_exposed(cluster, NAMESPACE, "medusa", HOST, journal)


@pytest.mark.parametrize("gone", [INGRESS, SERVICE])
async def test_ingress_and_service_that_are_gone_are_made_again(
    api: Api, cluster: Cluster, journal: Journal, gone: str
) -> None:
    expose(api)
    del api.objects[gone]
    with pytest.raises(RetryableError, match="medusa"):
        await wait_until_exposed(cluster, NAMESPACE, "medusa", HOST, journal)
