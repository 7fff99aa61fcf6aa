"""Evidence, and a log that is followed, from a real cluster."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from controlplane.kube.client import KubeClient
from controlplane.kube.errors import KubeInvalidError, KubeNotFoundError
from controlplane.kube.evidence import pod_events, store_evidence
from tests.support.cluster import pod
from tests.support.polling import poll

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.cluster import Namespace

pytestmark = pytest.mark.cluster


@pytest.fixture
async def client(namespace: Namespace) -> AsyncIterator[KubeClient]:
    made = await KubeClient.connect(namespace.kube.kubeconfig)
    yield made
    await made.close()


async def test_store_that_fails_shows_its_logs_its_restarts_and_its_warnings(
    namespace: Namespace, client: KubeClient
) -> None:
    namespace.apply(
        pod("crashes", "echo the database refuses us; exit 3"),
        pod("works", "echo all is well; sleep 300"),
        pod("stuck", "true", container={"image": "storeplane.local/missing:1", "imagePullPolicy": "Never"}),
    )

    def is_told() -> bool:
        states = namespace.json("get", "pods", "crashes", "works")["items"]
        # A pod that no kubelet has taken up yet has none.
        restarts = sum(each["restartCount"] for each in states[0]["status"].get("containerStatuses", []))
        events = namespace.json("get", "events", "--field-selector", "reason=BackOff,involvedObject.name=crashes")
        return restarts > 0 and states[1]["status"]["phase"] == "Running" and bool(events["items"])

    poll(is_told, what="one pod restarts, one runs")
    found = await store_evidence(client, namespace.name)
    assert found.unreadable == ()
    pods = {each.name: each for each in found.pods}
    assert "the database refuses us\n" in {log.text for log in pods["crashes"].logs}
    assert "restarts, the last with 3 Error" in pods["crashes"].state
    assert [log.text for log in pods["works"].logs] == ["all is well\n"]
    assert pods["stuck"].logs == ()
    assert "ErrImageNeverPull" in pods["stuck"].state
    told = {(event.object_name, event.reason) for event in found.events}
    assert ("crashes", "BackOff") in told
    assert all(event.is_warning for event in found.events)


async def test_namespace_that_is_not_there_is_empty_evidence(client: KubeClient) -> None:
    found = await store_evidence(client, "store-none-aaaaaaaa")
    assert (found.pods, found.events, found.unreadable) == ((), (), ())


async def test_events_are_of_the_one_pod_alone_and_newest_first(namespace: Namespace, client: KubeClient) -> None:
    namespace.apply(pod("one", "true", restartPolicy="Never"), pod("two", "true", restartPolicy="Never"))
    namespace.wait("jsonpath={.status.phase}=Succeeded", "pod/one")
    uid = namespace.json("get", "pod", "one")["metadata"]["uid"]
    events = await pod_events(client, namespace.name, uid)
    assert {event.object_uid for event in events} == {uid}
    assert {"Scheduled", "Started"} <= {event.reason for event in events}
    moments = [event.last_at for event in events if event.last_at is not None]
    assert moments == sorted(moments, reverse=True)


async def test_log_is_followed_from_its_beginning_to_its_end(namespace: Namespace, client: KubeClient) -> None:
    script = "echo first; until test -e /go; do sleep 0.1; done; echo last"
    namespace.apply(pod("talks", script, restartPolicy="Never"))
    namespace.wait("condition=Ready", "pod/talks")
    heard = b""
    deadline = time.monotonic() + 60
    async with client.follow_log(namespace.name, "talks", container="main", silence_seconds=30) as pieces:
        async for piece in pieces:
            heard += piece
            assert time.monotonic() < deadline
            if heard == b"first\n":
                # Only now may it go on: what was heard was heard while it ran.
                namespace.do("exec", "talks", "--", "/bin/sh", "-c", ": > /go")
    assert heard == b"first\nlast\n"


async def test_log_of_no_pod_and_of_one_that_has_not_begun_are_told_apart(
    namespace: Namespace, client: KubeClient
) -> None:
    with pytest.raises(KubeNotFoundError):
        async with client.follow_log(namespace.name, "nobody", container="main", silence_seconds=5):
            pass
    missing = {"image": "storeplane.local/missing:1", "imagePullPolicy": "Never"}
    namespace.apply(
        pod("waits", "true", nodeSelector={"storeplane.dev/no": "where"}), pod("stuck", "", container=missing)
    )
    namespace.wait("condition=PodScheduled", "pod/stuck")
    with pytest.raises(KubeInvalidError):
        async with client.follow_log(namespace.name, "stuck", container="main", silence_seconds=5):
            pass
    # Without a node there is nobody to ask, and the answer is an empty log.
    async with client.follow_log(namespace.name, "waits", container="main", silence_seconds=5) as pieces:
        assert [piece async for piece in pieces] == []
