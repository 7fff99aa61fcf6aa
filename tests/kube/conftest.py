"""Dispatcher and reconciler on a real Postgres and a real Kubernetes, with pods that run the no-op image."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from controlplane.db.migrate import apply_migrations, read_migrations, set_role_password
from tests.support.cluster import cluster, devcluster, namespace
from tests.support.noop_image import noop_image
from tests.support.plane import PASSWORD, open_plane
from tests.support.reachable_postgres import reachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from controlplane.db.pool import Database
    from tests.support.cluster import Kube, Namespace
    from tests.support.plane import Plane
    from tests.support.postgres import PostgresServer

__all__ = ["cluster", "devcluster", "namespace", "noop_image"]


@pytest.fixture(scope="session")
def cluster_name() -> str:
    return "test"


@pytest.fixture
async def database_url(empty_database: str) -> str:
    """Migrated, not copied: a copy has the template's tables and not its database's rights."""
    await apply_migrations(empty_database, read_migrations())
    await set_role_password(empty_database, "storeplane_provisioner", PASSWORD)
    return empty_database


@pytest.fixture
async def database_address(devcluster: Kube, postgres: PostgresServer) -> AsyncIterator[tuple[str, int]]:
    """Give host and port at which pods reach the run's Postgres."""
    host = devcluster.status()["host_address"]
    async with reachable(postgres, host) as port:
        yield host, port


@pytest.fixture
async def more_planes(
    database: Database, database_url: str, namespace: Namespace, noop_image: str, database_address: tuple[str, int]
) -> AsyncIterator[Callable[[], Awaitable[Plane]]]:
    """Give a function that opens replicas whose Jobs live in the test's namespace."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "storeplane-provisioner-db"},
        "stringData": {"password": PASSWORD},
    }
    namespace.apply(secret)
    async with AsyncExitStack() as stack:

        async def more() -> Plane:
            opened = open_plane(
                database=database,
                database_url=database_url,
                namespace=namespace,
                image=noop_image,
                address=database_address,
            )
            return await stack.enter_async_context(opened)

        yield more


@pytest.fixture
async def plane(more_planes: Callable[[], Awaitable[Plane]]) -> Plane:
    """Give a replica."""
    return await more_planes()


@pytest.fixture
async def replica(more_planes: Callable[[], Awaitable[Plane]]) -> Plane:
    """Give another replica of the same plane."""
    return await more_planes()
