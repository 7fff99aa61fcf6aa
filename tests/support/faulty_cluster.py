"""A cluster that answers what a test says, for what a real one cannot be made to do on demand.

It keeps no state and creates nothing: a path without an answer of its own is an empty list, or 404 below it.
"""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from controlplane.kube.client import KubeClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["JOBS", "PODS", "Credentials", "FaultyCluster", "faulty_cluster", "job_object", "pod_object", "refusal"]

JOBS = "/apis/batch/v1/namespaces/storeplane-jobs/jobs"
PODS = "/api/v1/namespaces/storeplane-jobs/pods"


class Credentials:
    """What the client needs of a configuration."""

    def __init__(self, token: str = "") -> None:
        self.api_key = {"BearerToken": token} if token else {}


class FaultyCluster:
    """Answers of one cluster, by method and path."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Callable[[web.Request], web.StreamResponse]] = {}
        self.calls: Counter[tuple[str, str]] = Counter()

    def says(self, method: str, path: str, body: Any, status: int = 200, **headers: str) -> None:
        self.answers[method, path] = lambda _request: web.json_response(body, status=status, headers=headers)

    def holds(self, jobs: list[Any], pods: list[Any]) -> None:
        self.says("GET", JOBS, {"kind": "JobList", "items": jobs})
        self.says("GET", PODS, {"kind": "PodList", "items": pods})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        key = request.method, request.path
        self.calls[key] += 1
        if key in self.answers:
            return self.answers[key](request)
        if request.method == "GET" and request.path.endswith(("/jobs", "/pods", "/events")):
            return web.json_response({"kind": "List", "items": []})
        return web.json_response(refusal("NotFound", "not found"), status=404)


@asynccontextmanager
async def faulty_cluster() -> AsyncIterator[tuple[FaultyCluster, KubeClient]]:
    """Give such a cluster and a client of it."""
    made = FaultyCluster()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", made.answer)
    async with TestServer(application) as server, aiohttp.ClientSession() as session:
        yield made, KubeClient(str(server.make_url("")), Credentials(), session)


def refusal(reason: str, message: str) -> dict[str, Any]:
    """Return the object a server refuses with."""
    return {"kind": "Status", "status": "Failure", "reason": reason, "message": message}


def job_object(name: str, uid: str, operation_id: object, attempt: int = 1) -> dict[str, Any]:
    """Return a Job as a list shows it."""
    marks = {"app": "store-provisioner", "operation-id": str(operation_id), "attempt": str(attempt)}
    return {"kind": "Job", "metadata": {"name": name, "uid": uid, "labels": marks}, "spec": {}, "status": {}}


def pod_object(name: str, uid: str, job_uid: str, **state: Any) -> dict[str, Any]:
    """Return a pod of that Job whose container is in this state."""
    marks = {"app": "store-provisioner", "batch.kubernetes.io/controller-uid": job_uid}
    status = {"phase": "Running", "containerStatuses": [{"state": state}]}
    return {"kind": "Pod", "metadata": {"name": name, "uid": uid, "labels": marks}, "status": status}
