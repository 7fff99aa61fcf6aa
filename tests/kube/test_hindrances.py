"""Pods of a store that cannot come up, on a real cluster: the wait for them ends with the cause."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from provisioner_job import hindrances
from provisioner_job.cluster import Cluster
from provisioner_job.errors import PhaseError, RetryableError
from provisioner_job.hindrances import Hindrance, unhindered
from provisioner_job.journal import Journal, Redactor
from tests.support.cluster import job, pod

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.cluster import Kube, Namespace

pytestmark = pytest.mark.cluster

_SECONDS = 120


class Waiting:
    """A phase that waits for ever in the test's namespace."""

    def __init__(self, client: Cluster, namespace: str) -> None:
        self.out = io.StringIO()
        self._client = client
        self._namespace = namespace

    async def ended(self) -> str:
        journal = Journal(Redactor(), as_json=False, out=self.out)
        async with asyncio.timeout(_SECONDS):
            return await unhindered(self._client, self._namespace, journal, "verify", asyncio.sleep(3600, "done"))


@pytest.fixture
async def waiting(
    cluster: Kube, namespace: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Waiting]:
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(json.loads(cluster.do("config", "view", "--raw", "-o", "json"))))
    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.setattr(hindrances, "_POLL_SECONDS", 0.2)
    client = Cluster(Journal(Redactor(), as_json=False, out=io.StringIO()))
    yield Waiting(client, namespace.name)
    await client.close()


async def test_image_name_that_is_none_ends_the_wait(waiting: Waiting, namespace: Namespace) -> None:
    namespace.apply(pod("shop", "exit 0", container={"image": "NOT an image"}))
    with pytest.raises(PhaseError, match="InvalidImageName") as caught:
        await waiting.ended()
    assert caught.value.code == "IMAGE_UNAVAILABLE"
    assert "a pod does not come up" in waiting.out.getvalue()


async def test_quota_that_leaves_no_room_ends_the_wait(waiting: Waiting, namespace: Namespace) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "store-quota"}}
    namespace.apply(quota | {"spec": {"hard": {"pods": "0"}}})
    namespace.wait("jsonpath={.status.hard.pods}=0", "resourcequota/store-quota")
    ending = asyncio.create_task(waiting.ended())
    namespace.apply(job("setup", "exit 0"))
    with pytest.raises(PhaseError, match="exceeded quota: store-quota") as caught:
        await ending
    assert caught.value.code == "QUOTA_EXCEEDED"


async def test_crash_ends_the_wait_with_its_last_words(
    waiting: Waiting, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The kubelet's pauses double: three take more than a minute.
    monkeypatch.setattr(hindrances, "_CRASHES", 1)
    namespace.apply(pod("shop", "echo no database; exit 3", restartPolicy="Always"))
    with pytest.raises(PhaseError, match="no database") as caught:
        await waiting.ended()
    assert caught.value.code == "SHOP_CRASHES"


async def test_pod_that_no_node_takes_ends_the_wait_for_a_while(
    waiting: Waiting, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def impatient(*parts: Any, **more: Any) -> Hindrance:
        return replace(Hindrance(*parts, **more), seconds=0.0)

    monkeypatch.setattr(hindrances, "Hindrance", impatient)
    namespace.apply(pod("shop", "exit 0", nodeSelector={"no": "such"}))
    with pytest.raises(RetryableError, match="node") as caught:
        await waiting.ended()
    assert caught.value.code == "POD_UNSCHEDULABLE"
