"""What the provisioner makes of an API server's answers, also of those that a real one gives only by chance."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from provisioner_job import setup
from provisioner_job.cluster import Cluster
from provisioner_job.errors import PhaseError, ProvisionerError, RetryableError
from provisioner_job.journal import Journal, Redactor
from provisioner_job.setup import remove_failed_setups, wait_for_setup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.unit

NAMESPACE = "store-shop-abcd1234"
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
        self.stays_after_delete = False
        """As an object does that a finalizer holds."""

    def fail(self, method: str, code: int, *, name: str | None = "store-secrets", message: str = "no") -> None:
        details = {"name": name} if name else {}
        self.faults[method] = {"kind": "Status", "code": code, "message": message, "details": details}

    async def answer(self, request: web.Request) -> web.Response:
        path, fault = request.path, self.faults.get(request.method)
        if fault is not None:
            return _json(fault, status=fault["code"])
        if request.method == "DELETE":
            self.deletions.append((path, dict(request.query) | json.loads(await request.text() or "{}")))
            if not self.stays_after_delete:
                self.objects.pop(path, None)
            return _json({})
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
async def cluster(api: Api) -> AsyncIterator[Cluster]:  # noqa: ARG001 -- its address has to be set first
    made = Cluster()
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
    with pytest.raises(PhaseError, match="setup failed"):
        await wait_for_setup(cluster, NAMESPACE, journal)
