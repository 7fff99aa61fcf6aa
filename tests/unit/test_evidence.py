"""Evidence from a cluster that answers badly, on the loopback."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from controlplane.kube.evidence import store_evidence
from tests.support.faulty_cluster import FaultyCluster, faulty_cluster, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.kube.client import KubeClient

pytestmark = pytest.mark.unit

NAMESPACE = "store-one-aaaaaaaa"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
EVENTS = f"/api/v1/namespaces/{NAMESPACE}/events"

AGAIN = {"running": {"startedAt": "2026-01-01T00:01:00Z"}, "again": True}
RUNS = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
WAITS = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}}
CREATING = {"waiting": {"reason": "ContainerCreating"}}
FAILED = {"terminated": {"exitCode": 1, "reason": "Error"}}


@pytest.fixture
async def served() -> AsyncIterator[tuple[FaultyCluster, KubeClient]]:
    async with faulty_cluster() as (cluster, client):
        yield cluster, client


def pod(name: str, **containers: dict[str, Any]) -> dict[str, Any]:
    told = [
        {"name": each, "state": state, "restartCount": 3 if state in (WAITS, AGAIN) else 0, "ready": state is RUNS}
        for each, state in containers.items()
    ]
    return {"metadata": {"name": name, "uid": name}, "status": {"phase": "Running", "containerStatuses": told}}


def holds(cluster: FaultyCluster, *pods: dict[str, Any]) -> None:
    cluster.says("GET", PODS, {"kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": list(pods)})
    cluster.says("GET", EVENTS, {"kind": "EventList", "metadata": {"resourceVersion": "1"}, "items": []})


def writes(cluster: FaultyCluster, name: str, text: bytes) -> list[dict[str, str]]:
    """Give a pod's log this text; return the queries it was asked with."""
    asked: list[dict[str, str]] = []

    def answer(request: web.Request) -> web.StreamResponse:
        asked.append(dict(request.query))
        return web.Response(body=text)

    cluster.answers["GET", f"{PODS}/{name}/log"] = answer
    return asked


async def test_logs_are_tails_without_what_a_database_cannot_keep(served: tuple[FaultyCluster, KubeClient]) -> None:
    cluster, client = served
    holds(cluster, pod("web", app=FAILED))
    (asked,) = [writes(cluster, "web", b"x" * 100_000 + b"\xff\x00the end")]
    (told,) = (await store_evidence(client, NAMESPACE)).pods
    (log,) = told.logs
    assert log.text.endswith("\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}the end")
    assert len(log.text) <= 16 * 1024
    assert int(asked[0]["limitBytes"]) <= 2**20
    assert asked[0]["container"] == "app"
    assert told.state == "Running; app: ended with 1 Error"


async def test_worst_containers_come_first_and_eight_are_enough(served: tuple[FaultyCluster, KubeClient]) -> None:
    cluster, client = served
    healthy = [pod(f"ok-{number}", app=RUNS) for number in range(20)]
    holds(cluster, *healthy, pod("crashes", app=AGAIN), pod("waits", app=WAITS), pod("new", app=CREATING))
    asked = {each["metadata"]["name"]: writes(cluster, each["metadata"]["name"], b"log") for each in healthy}
    asked["crashes"] = writes(cluster, "crashes", b"why")
    asked["waits"] = writes(cluster, "waits", b"why")
    told = {each.name: each for each in (await store_evidence(client, NAMESPACE)).pods}
    assert len(told) == 23
    assert sorted(log.is_previous for log in told["crashes"].logs) == [False, True]
    assert [query.get("previous") for query in asked["crashes"]].count("true") == 1
    assert [log.is_previous for log in told["waits"].logs] == [False]
    assert told["crashes"].state == "Running; app: (3 restarts)"
    assert told["waits"].state == "Running; app: CrashLoopBackOff back-off 40s (3 restarts)"
    assert told["new"].logs == ()
    assert sum(len(each.logs) for each in told.values()) == 8


async def test_each_part_that_fails_becomes_a_sentence(served: tuple[FaultyCluster, KubeClient]) -> None:
    cluster, client = served
    holds(cluster, pod("web", app=FAILED, side=RUNS), pod("other", app=RUNS))
    cluster.says("GET", EVENTS, refusal("Forbidden", "events is forbidden"), status=403)
    cluster.says("GET", f"{PODS}/web/log", refusal("InternalError", "kubelet away"), status=500)
    writes(cluster, "other", b"fine")
    found = await store_evidence(client, NAMESPACE)
    (no_events,) = found.unreadable
    assert no_events.startswith("not readable: ")
    assert "events is forbidden" in no_events
    web_pod, other = found.pods
    assert all("kubelet away" in log.unreadable for log in web_pod.logs)
    assert [log.text for log in other.logs] == ["fine"]


async def test_log_that_its_node_has_dropped_is_not_taken_for_one(served: tuple[FaultyCluster, KubeClient]) -> None:
    cluster, client = served
    holds(cluster, pod("web", app=FAILED))
    writes(cluster, "web", b"unable to retrieve container logs for containerd://c6ac12efe3cfb3f6f3c52e24328bb0b3")
    ((log,),) = [each.logs for each in (await store_evidence(client, NAMESPACE)).pods]
    assert (log.text, log.unreadable.endswith("the node no longer has this log")) == ("", True)


async def test_namespace_that_answers_nonsense_is_no_error(served: tuple[FaultyCluster, KubeClient]) -> None:
    cluster, client = served
    cluster.answers["GET", PODS] = cluster.answers["GET", EVENTS] = lambda _: web.Response(text="<html></html>")
    found = await store_evidence(client, NAMESPACE)
    assert (found.pods, found.events, len(found.unreadable)) == ((), (), 2)


async def test_what_has_not_come_in_time_says_so_and_the_rest_is_there(
    served: tuple[FaultyCluster, KubeClient],
) -> None:
    cluster, client = served
    holds(cluster, pod("slow", app=FAILED))

    class Never(web.StreamResponse):
        async def prepare(self, request: web.BaseRequest) -> Any:  # noqa: ARG002 -- its signature
            await asyncio.Event().wait()

    cluster.answers["GET", f"{PODS}/slow/log"] = lambda _: Never()
    found = await store_evidence(client, NAMESPACE, total_seconds=0.5)
    ((log,),) = [each.logs for each in found.pods]
    assert log.unreadable == "not readable: the log did not come in time"
