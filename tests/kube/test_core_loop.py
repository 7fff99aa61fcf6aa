"""Dispatcher and reconciler on a real Postgres and a real Kubernetes, stopped after each of their steps."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from controlplane.db.attempts import AttemptRows
from controlplane.db.stores import StoreRows
from controlplane.dispatcher import Dispatcher
from controlplane.domain.attempt import attempt_token, token_hash
from controlplane.kube.client import KubeClient
from controlplane.kube.jobs import JobGateway
from controlplane.reconciler import Reconciler
from devcluster.images.archive import write_archive
from devcluster.machine.paths import cache_dir
from devcluster.sources.choice import choose_source
from tests.support import wishes
from tests.support.busybox import busybox_reference
from tests.support.cluster import job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from controlplane.db.pool import Database
    from controlplane.db.stores import NewStore
    from controlplane.domain.observation import JobView
    from controlplane.domain.operation import Operation
    from controlplane.domain.store import Caller
    from tests.support.cluster import Kube, Namespace

pytestmark = pytest.mark.cluster

OTHER_KEY = "another key of thirty-two characters"


class _DiedError(Exception):
    """The process would be gone."""


class _Mortal(JobGateway):
    """A gateway whose process dies at a chosen moment of the create."""

    def __init__(self, client: KubeClient, namespace: str, *, dies: str) -> None:
        super().__init__(client, namespace)
        self._dies = dies

    async def create(self, manifest: dict[str, Any]) -> JobView:
        if self._dies == "after the claim":
            raise _DiedError
        made = await super().create(manifest)
        if self._dies == "after the post":
            raise _DiedError
        return made


class Loop:
    """The parts of a control plane whose Jobs live in the test's own namespace."""

    def __init__(self, database: Database, client: KubeClient, namespace: Namespace, image: str) -> None:
        self.database = database
        self.client = client
        self.namespace = namespace
        self.image = image
        self.rows = AttemptRows(database)
        self.reconciler = Reconciler(self.rows, JobGateway(client, namespace.name), self._settings())
        self.owner: Caller

    def _settings(self, **more: str) -> Any:
        return wishes.settings(
            STOREPLANE_JOBS_NAMESPACE=self.namespace.name, STOREPLANE_JOBS_SERVICE_ACCOUNT="default", **more
        )

    def dispatcher(self, *, dies: str = "", key: str = wishes.KEY) -> Dispatcher:
        gateway = _Mortal(self.client, self.namespace.name, dies=dies)
        return Dispatcher(self.rows, gateway, self._settings(STOREPLANE_TOKEN_KEY=key), name=f"test {dies}")

    async def order(self) -> NewStore:
        self.owner, _ = await wishes.add_user(self.database)
        new = wishes.new_store(self.owner, spec={"version": 1, "engine": "medusa", "provisioner_image": self.image})
        await StoreRows(self.database).submit_create(new)
        return new

    async def operation(self, new: NewStore) -> Operation:
        found = await StoreRows(self.database).get_operation(new.operation_id, self.owner)
        assert found is not None
        return found

    async def attempt(self, new: NewStore) -> Any:
        async with self.database.transaction() as session:
            return await session._connection.fetchrow(  # noqa: SLF001 -- no service shows attempts
                "SELECT * FROM storeplane.attempts WHERE operation_id = $1", new.operation_id
            )

    async def bend(self, statement: str) -> None:
        """Move time: the one thing a test has to bend."""
        async with self.database.transaction() as session:
            await session._connection.execute(statement)  # noqa: SLF001 -- the service has no such statement

    async def leases_run_out(self) -> None:
        await self.bend("UPDATE storeplane.operations SET lease_until = now() - interval '1 second'")

    def jobs(self) -> list[Any]:
        items: list[Any] = self.namespace.json("get", "jobs")["items"]
        return items

    async def reconcile_until(self, probe: Callable[[], Awaitable[Any]], what: str) -> None:
        deadline = time.monotonic() + 120
        while not await probe():
            assert time.monotonic() < deadline, f"not in time: {what}\n{self.namespace.do('get', 'pods', '-o', 'yaml')}"
            await self.reconciler.run_once()
            await asyncio.sleep(0.1)


@pytest.fixture
async def loop(database: Database, namespace: Namespace) -> AsyncIterator[Loop]:
    client = await KubeClient.connect(namespace.kube.kubeconfig)
    yield Loop(database, client, namespace, busybox_reference())
    await client.close()


@pytest.fixture(scope="session")
def failing_image(cluster: Kube, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give an image whose provisioner says one line and ends with 20."""
    folder: Path = tmp_path_factory.mktemp("image")
    script = folder / "storeplane-provision"
    script.write_text("#!/bin/sh\necho nothing works here\nexit 20\n")
    script.chmod(0o755)
    reference = busybox_reference().replace("/busybox:", "/failing:")
    archive = folder / "failing.tar"
    # Asking for its name has put it there.
    busybox = cache_dir("busybox") / "busybox"
    write_archive(
        archive,
        reference=reference,
        files={"bin/busybox": busybox, "bin/storeplane-provision": script},
        entrypoint=["/bin/sh"],
        links={"bin/sh": "busybox", "bin/echo": "busybox"},
    )
    choose_source(cluster.name).load([archive])
    return reference


async def test_one_operation_makes_one_job(loop: Loop) -> None:
    new = await loop.order()
    assert await loop.dispatcher().run_once()
    assert not await loop.dispatcher().run_once()
    (made,) = loop.jobs()
    assert made["metadata"]["labels"]["operation-id"] == str(new.operation_id)
    attempt = await loop.attempt(new)
    assert (attempt["state"], attempt["job_uid"]) == ("dispatched", made["metadata"]["uid"])
    assert (await loop.operation(new)).state == "running"


@pytest.mark.parametrize("dies", ["after the claim", "after the post", "after the record"])
async def test_second_dispatcher_finishes_what_a_dead_one_began(loop: Loop, dies: str) -> None:
    new = await loop.order()
    if dies == "after the record":
        assert await loop.dispatcher().run_once()
    else:
        with pytest.raises(_DiedError):
            await loop.dispatcher(dies=dies).run_once()
        assert not await loop.dispatcher().run_once()
    before = [each["metadata"]["uid"] for each in loop.jobs()]
    assert len(before) == (0 if dies == "after the claim" else 1)
    await loop.leases_run_out()
    assert await loop.dispatcher().run_once() is (dies != "after the record")
    (made,) = loop.jobs()
    assert before in ([], [made["metadata"]["uid"]])
    attempt = await loop.attempt(new)
    assert (attempt["number"], attempt["state"], attempt["job_uid"]) == (1, "dispatched", made["metadata"]["uid"])


async def test_reconciler_reattaches_a_job_that_was_never_recorded(loop: Loop) -> None:
    new = await loop.order()
    with pytest.raises(_DiedError):
        await loop.dispatcher(dies="after the post").run_once()
    await loop.reconciler.run_once()
    (made,) = loop.jobs()
    attempt = await loop.attempt(new)
    assert (attempt["state"], attempt["job_uid"]) == ("dispatched", made["metadata"]["uid"])


@pytest.mark.parametrize("dies", ["after the claim", "after the post"])
async def test_other_key_takes_over_with_the_token_the_job_carries(loop: Loop, dies: str) -> None:
    new = await loop.order()
    with pytest.raises(_DiedError):
        await loop.dispatcher(dies=dies).run_once()
    await loop.leases_run_out()
    assert await loop.dispatcher(key=OTHER_KEY).run_once()
    (made,) = loop.jobs()
    variables = made["spec"]["template"]["spec"]["containers"][0]["env"]
    (carried,) = (each["value"] for each in variables if each["name"] == "ATTEMPT_TOKEN")
    attempt = await loop.attempt(new)
    assert attempt["token_hash"] == token_hash(carried)
    key = OTHER_KEY if dies == "after the claim" else wishes.KEY
    assert carried == attempt_token(key.encode(), new.operation_id, 1)
    assert attempt["job_uid"] == made["metadata"]["uid"]


async def test_foreign_job_of_our_name_is_a_conflict_and_stays(loop: Loop) -> None:
    new = await loop.order()
    foreign = job(f"store-create-{new.operation_id}-1", "exit 0", suspend=True)
    loop.namespace.apply(foreign)
    (before,) = loop.jobs()
    assert await loop.dispatcher().run_once()
    operation = await loop.operation(new)
    assert operation.error is not None
    assert (operation.state, operation.error["code"]) == ("failed", "JOB_CONFLICT")
    assert "not touched" in operation.error["detail"]
    await loop.reconciler.run_once()
    (after,) = loop.jobs()
    for part in ("uid", "generation"):
        assert after["metadata"][part] == before["metadata"][part]


async def test_job_that_was_deleted_is_a_lost_attempt(loop: Loop) -> None:
    new = await loop.order()
    assert await loop.dispatcher().run_once()
    loop.namespace.do("delete", "jobs", "--all", "--wait=true")
    await loop.reconciler.run_once()
    operation = await loop.operation(new)
    assert operation.error is not None
    assert (operation.state, operation.error["code"]) == ("failed", "ATTEMPT_LOST")
    assert (await loop.attempt(new))["state"] == "lost"


async def test_missing_namespace_is_told_with_the_next_step(loop: Loop) -> None:
    new = await loop.order()
    gateway = JobGateway(loop.client, "no-such-namespace")
    settings = wishes.settings(STOREPLANE_JOBS_NAMESPACE="no-such-namespace")
    assert await Dispatcher(loop.rows, gateway, settings, name="lost").run_once()
    waiting = (await loop.operation(new)).waiting
    assert waiting is not None
    assert waiting.reason.startswith("the cluster has no namespace no-such-namespace; ")


async def test_pod_that_cannot_start_says_why_while_it_waits(loop: Loop) -> None:
    new = await loop.order()
    assert await loop.dispatcher().run_once()

    async def is_told() -> bool:
        waiting = (await loop.operation(new)).waiting
        return waiting is not None and "CreateContainerConfigError" in waiting.reason

    # The Secret with the database's password is missing.
    await loop.reconcile_until(is_told, "the reason is told")
    waiting = (await loop.operation(new)).waiting
    assert waiting is not None
    assert "storeplane-provisioner-db" in waiting.reason


def _secret() -> dict[str, Any]:
    name = {"name": "storeplane-provisioner-db"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": name, "stringData": {"password": "unused"}}


async def _to_its_end(loop: Loop) -> NewStore:
    """Dispatch, follow to the end of the pod, let the grace pass and harvest."""
    loop.namespace.apply(_secret())
    new = await loop.order()
    assert await loop.dispatcher().run_once()

    async def is_seen() -> bool:
        return (await loop.attempt(new))["end_seen_at"] is not None

    async def is_harvested() -> bool:
        return (await loop.attempt(new))["harvested_at"] is not None

    await loop.reconcile_until(is_seen, "the end of the pod")
    await loop.bend("UPDATE storeplane.attempts SET end_seen_at = now() - interval '11 seconds'")
    await loop.reconcile_until(is_harvested, "the harvest")
    return new


async def test_exit_without_a_report_fails_with_its_code_and_keeps_its_log(loop: Loop, failing_image: str) -> None:
    loop.image = failing_image
    new = await _to_its_end(loop)
    operation = await loop.operation(new)
    assert operation.state == "failed"
    assert operation.error is not None
    assert operation.error["detail"].startswith("exit code 20")
    found = await StoreRows(loop.database).attempt_log(new.operation_id, loop.owner)
    assert found is not None
    assert (found.state, found.content) == ("stored", "nothing works here\n")
    (made,) = loop.jobs()
    assert made["spec"]["ttlSecondsAfterFinished"] == 300
    assert (await loop.attempt(new))["outcome"] == "permanent"


async def test_image_without_the_command_fails_with_the_runtimes_reason(loop: Loop) -> None:
    new = await _to_its_end(loop)
    operation = await loop.operation(new)
    assert operation.state == "failed"
    assert operation.error is not None
    assert "StartError" in json.dumps(operation.error)
