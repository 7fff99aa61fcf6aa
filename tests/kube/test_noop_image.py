"""What each word of the no-op image makes the cluster and the database see, and that the frame around it is real."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest

from controlplane.db.migrate import apply_migrations, read_migrations, set_role_password
from controlplane.db.stores import StoreRows
from provisioner_job.contract import PHASES_BY_KIND, Env, ExitCode, JobResult, Outcome, parse_result
from tests.support import wishes
from tests.support.polling import poll
from tests.support.reachable_postgres import reachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from controlplane.db.pool import Database
    from tests.support.cluster import Kube, Namespace
    from tests.support.postgres import PostgresServer


pytestmark = pytest.mark.cluster

PASSWORD = "provisioner-password"


@pytest.fixture
async def database_url(empty_database: str) -> str:
    """Migrated, not copied: a copy has the template's tables and not its database's rights."""
    await apply_migrations(empty_database, read_migrations())
    await set_role_password(empty_database, "storeplane_provisioner", PASSWORD)
    return empty_database


class Noop:
    """A claimed attempt and the pod that runs it with the no-op image."""

    def __init__(
        self, namespace: Namespace, administrator: asyncpg.Connection, image: str, where: Mapping[str, str]
    ) -> None:
        self.namespace = namespace
        self.administrator = administrator
        self._image = image
        self._where = where

    async def begin(self, database: Database, name: str) -> None:
        owner, _ = await wishes.add_user(database)
        await StoreRows(database).submit_create(wishes.new_store(owner))
        claimed = await wishes.claim(database)
        given = {
            **self._where,
            Env.STORE_ID: str(claimed.store_id),
            Env.STORE_NAME: name,
            Env.ENGINE: "medusa",
            Env.NAMESPACE: "store-nothing-abcd1234",
            Env.OPERATION_ID: str(claimed.operation_id),
            Env.ATTEMPT: "1",
            Env.ATTEMPT_TOKEN: wishes.token_of(claimed),
            Env.JOB_UID: str(uuid4()),
            Env.POD_UID: str(uuid4()),
            Env.POD_NAME: "noop",
        }
        self.namespace.apply(_pod(self._image, given))

    def container(self) -> dict[str, Any]:
        statuses = self.namespace.json("get", "pod", "noop")["status"].get("containerStatuses") or [{}]
        found: dict[str, Any] = statuses[0].get("state") or {}
        return found

    async def end(self) -> tuple[dict[str, Any], JobResult | None]:
        """Return how the container ended and what its termination message says."""

        def terminated() -> dict[str, Any]:
            found: dict[str, Any] = self.container().get("terminated") or {}
            return found

        ended = await asyncio.to_thread(lambda: poll(terminated, what="the container has ended"))
        return ended, parse_result(ended.get("message", ""))

    async def said(self, words: str) -> None:
        def is_said() -> bool:
            return words in self.namespace.kube.run("-n", self.namespace.name, "logs", "noop").stdout

        await asyncio.to_thread(poll, is_said, what=f"the log says {words!r}")

    async def recorded(self) -> tuple[str, str | None]:
        found = await self.administrator.fetchrow("SELECT state, outcome FROM storeplane.attempts")
        assert found is not None
        return found["state"], found["outcome"]


def _pod(image: str, given: dict[str, str]) -> dict[str, Any]:
    """Return a pod like the Job's: its resources and its restrictions."""
    container = {
        "name": "provisioner",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["storeplane-provision", "single"],
        "env": [{"name": name, "value": value} for name, value in given.items()],
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"cpu": "500m", "memory": "512Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "noop"},
        "spec": {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]},
    }


@pytest.fixture
async def noop(
    devcluster: Kube, namespace: Namespace, noop_image: str, database_url: str, postgres: PostgresServer
) -> AsyncIterator[Noop]:
    host = devcluster.status()["host_address"]
    administrator = await asyncpg.connect(database_url)
    try:
        async with reachable(postgres, host) as port:
            where: dict[str, str] = {
                Env.DB_HOST: host,
                Env.DB_PORT: str(port),
                Env.DB_NAME: database_url.split("@/")[1].split("?", maxsplit=1)[0],
                Env.DB_USER: "storeplane_provisioner",
                Env.DB_PASSWORD: PASSWORD,
            }
            yield Noop(namespace, administrator, noop_image, where)
    finally:
        await administrator.close()


async def test_store_without_words_runs_through_all_phases(noop: Noop, database: Database) -> None:
    await noop.begin(database, "a shop")
    ended, result = await noop.end()
    assert (ended["exitCode"], result and result.outcome) == (ExitCode.DONE, Outcome.SUCCEEDED)
    assert await noop.recorded() == ("succeeded", "succeeded")
    found = await noop.administrator.fetch(
        "SELECT phase FROM storeplane.phases WHERE finished_at IS NOT NULL ORDER BY started_at"
    )
    assert tuple(each["phase"] for each in found) == PHASES_BY_KIND["create"]


@pytest.mark.parametrize(
    ("name", "exit_code", "outcome"),
    [
        ("shop end=retryable:1", ExitCode.RETRYABLE, Outcome.RETRYABLE),
        ("shop end=permanent", ExitCode.PERMANENT, Outcome.PERMANENT),
        ("shop end=permanent:0", ExitCode.DONE, Outcome.SUCCEEDED),
    ],
)
async def test_end_is_reported_as_ordered(
    noop: Noop, database: Database, name: str, exit_code: ExitCode, outcome: Outcome
) -> None:
    await noop.begin(database, name)
    ended, result = await noop.end()
    assert result is not None
    assert (ended["exitCode"], result.outcome) == (exit_code, outcome)
    assert (await noop.recorded())[1] == outcome


@pytest.mark.parametrize(("name", "exit_code"), [("shop silent", 0), ("shop exit=3", 3)])
async def test_process_that_is_gone_in_mid_phase_says_nothing(
    noop: Noop, database: Database, name: str, exit_code: int
) -> None:
    await noop.begin(database, name)
    ended, result = await noop.end()
    assert (ended["exitCode"], result) == (exit_code, None)
    assert await noop.recorded() == ("running", None)


async def test_mute_run_leaves_its_message_only(noop: Noop, database: Database) -> None:
    await noop.begin(database, "shop mute")
    ended, result = await noop.end()
    assert (ended["exitCode"], result and result.outcome) == (0, Outcome.SUCCEEDED)
    assert await noop.recorded() == ("running", None)


async def test_memory_is_taken_until_the_kernel_ends_it(noop: Noop, database: Database) -> None:
    await noop.begin(database, "shop oom:1")
    ended, result = await noop.end()
    assert (ended["exitCode"], ended["reason"], result) == (137, "OOMKilled", None)


@pytest.mark.parametrize(
    ("name", "words", "phase"),
    [("shop hold=600", "holding", "release"), ("shop hold=600 at=setup", "holding", "setup")],
)
async def test_held_phase_ends_in_order_when_the_pod_is_told_to(
    noop: Noop, database: Database, name: str, words: str, phase: str
) -> None:
    await noop.begin(database, name)
    await noop.said(words)
    noop.namespace.do("exec", "noop", "--", "sh", "-c", "kill -TERM 1")
    ended, result = await noop.end()
    assert result is not None
    assert result.problem is not None
    assert (ended["exitCode"], result.problem["code"], result.problem["phase"]) == (
        ExitCode.RETRYABLE,
        "STOPPED",
        phase,
    )
    assert await noop.recorded() == ("failed", "retryable")


async def test_late_handshake_is_late(noop: Noop, database: Database) -> None:
    await noop.begin(database, "shop late=600")
    await asyncio.to_thread(poll, lambda: "running" in noop.container(), what="the container runs")
    assert await noop.recorded() != ("running", None)

    def is_told() -> bool:
        # Again and again: it may not have come to listening yet.
        noop.namespace.kube.run("-n", noop.namespace.name, "exec", "noop", "--", "sh", "-c", "kill -TERM 1")
        return "terminated" in noop.container()

    await asyncio.to_thread(poll, is_told, what="the container has ended")
    ended, result = await noop.end()
    assert (ended["exitCode"], result) == (ExitCode.RETRYABLE, None)
