"""A control plane to be measured: its own database, its own namespace, its own process, orders through HTTP.

The cluster and Postgres are real and this benchmark's own; Postgres has its default settings, fsync included. A plane
begins empty, so no part of the benchmark inherits the rows or the Jobs of another.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import orjson

from controlplane.db.migrate import apply_migrations, read_migrations, set_role_password
from controlplane.db.pool import Database
from controlplane.kube.errors import KubeNotFoundError
from tests.support import wishes
from tests.support.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bench.parts.machine import Machine
    from controlplane.config import Settings
    from controlplane.kube.client import KubeClient
    from devcluster.postgres.server import PostgresAddress

__all__ = ["PASSWORD", "Lab", "Plane", "Service", "Tables", "User", "wait_until"]

PASSWORD: Final = "of-both-roles"  # noqa: S105 -- of databases that live for one part
_POD_PORT: Final = 5432
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.05


async def wait_until(probe: Any, what: str, *, seconds: float = 300.0, every: float = _POLL_SECONDS) -> None:
    """Wait until an asynchronous probe is true; `AssertionError` when it is not in time."""
    deadline = time.monotonic() + seconds
    while not await probe():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        await asyncio.sleep(every)


@dataclass(frozen=True)
class User:
    """A member and its token."""

    user_id: Any
    token: str = field(repr=False)


@dataclass
class Tables:
    """One database with the schema, and the namespace its Jobs go to."""

    lab: Lab
    url: str
    """The superuser's."""
    namespace: str
    environment: dict[str, str]
    ledger: Ledger
    database: Database
    """With the service's own rights."""

    @property
    def settings(self) -> Settings:
        """The same as the service reads."""
        return wishes.settings(**self.environment)

    @property
    def jobs_path(self) -> str:
        """Where Jobs are posted."""
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs"

    async def users(self, count: int) -> list[User]:
        """Add members without a limit of stores."""
        made = [await wishes.add_user(self.database, max_stores=100_000) for _ in range(count)]
        return [User(caller.user_id, token) for caller, token in made]

    async def budget(self, *, in_flight: int, rate: int = 100_000) -> None:
        """Set how much may be dispatched; the product's defaults stand without this."""
        await self.ledger.execute(
            "UPDATE storeplane.clusters SET in_flight_limit = $1, bucket_rate = $2, bucket_size = $2,"
            " bucket_tokens = $2",
            in_flight,
            rate,
        )
        await self.ledger.execute("UPDATE storeplane.user_slots SET slots = 100000")
        await self.ledger.execute("ALTER TABLE storeplane.user_slots ALTER COLUMN slots SET DEFAULT 100000")

    async def unfinished(self) -> int:
        """Return how many operations have not ended."""
        return int(await self.ledger.value("SELECT count(*) FROM storeplane.operations WHERE finished_at IS NULL"))

    async def is_done(self) -> bool:
        """Return whether every operation has ended."""
        return await self.unfinished() == 0

    async def last_finished(self) -> float:
        """Return when the last operation ended, as seconds since the epoch; all must have succeeded."""
        failed = await self.ledger.value(
            "SELECT string_agg(DISTINCT error ->> 'code', ', ') FROM storeplane.operations WHERE state <> 'succeeded'"
        )
        assert failed is None, f"operations did not succeed: {failed}"
        return float(await self.ledger.value("SELECT extract(epoch FROM max(finished_at)) FROM storeplane.operations"))


class Service:
    """One replica of the service, as a process of its own; stopped with ``stop``."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._ready, self._log = folder / "ready", folder / "log"
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "controlplane", "serve", "--port", "0", "--ready-file", str(self._ready)],
                env={"PATH": os.environ["PATH"], **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def url(self) -> str:
        """Where it answers."""
        return self._ready.read_text(encoding="utf-8").strip()

    async def is_ready(self) -> bool:
        """Return whether it answers; `AssertionError` with its log when it has ended."""
        assert self.process.poll() is None, self._log.read_text(encoding="utf-8")
        return self._ready.exists()

    def stop(self) -> None:
        """End it, and show the errors it logged."""
        self.process.terminate()
        self.process.wait(_STOP_SECONDS)
        for line in self._log.read_text(encoding="utf-8").splitlines():
            if '"level":"error"' in line:
                print(line, file=sys.stderr)


@dataclass
class Plane(Tables):
    """Tables, and one replica of the service on them."""

    service: Service
    http: aiohttp.ClientSession
    started_seconds: float
    """From the start of the process to its first answer."""

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The replica's process."""
        return self.service.process

    @cached_property
    def api(self) -> str:
        """Its URL."""
        return self.service.url

    async def order(self, user: User, name: str = "") -> tuple[str, float, float]:
        """Order a store; return the operation's id, when it was asked and when it was answered (perf counter)."""
        body = orjson.dumps({"name": name or f"shop-{secrets.token_hex(5)}", "engine": "medusa"})
        headers = {"Authorization": f"Bearer {user.token}", "Content-Type": "application/json"}
        asked = time.perf_counter()
        async with self.http.post(f"{self.api}/api/stores", data=body, headers=headers) as response:
            raw = await response.read()
        answered = time.perf_counter()
        accepted = 202
        assert response.status == accepted, raw
        return str(orjson.loads(raw)["operation"]["id"]), asked, answered

    async def state(self, user: User, operation_id: str) -> str:
        """Ask the API for an operation's state."""
        headers = {"Authorization": f"Bearer {user.token}"}
        async with self.http.get(f"{self.api}/api/operations/{operation_id}", headers=headers) as response:
            return str(orjson.loads(await response.read())["state"])

    async def is_settled(self) -> bool:
        """Return whether all has ended and nothing is left to harvest."""
        return not await self.ledger.value(
            "SELECT EXISTS (SELECT FROM storeplane.operations WHERE finished_at IS NULL) OR EXISTS"
            " (SELECT FROM storeplane.attempts WHERE harvested_at IS NULL OR pods_ended_at IS NULL)"
        )

    def memory(self) -> dict[str, float]:
        """Return resident and proportional MiB of the process."""
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        values = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.endswith("kB")}
        return {"rss": values["Rss"], "pss": values["Pss"]}


@dataclass
class Lab:
    """The cluster and Postgres that everything runs on."""

    kube: KubeClient
    kubeconfig: Path
    postgres: PostgresAddress
    host_address: str
    image: str
    machine: Machine
    postgres_cgroup: str

    @asynccontextmanager
    async def tables(self, **settings: str) -> AsyncIterator[Tables]:
        """Give an empty database and namespace; both go at the end."""
        name = f"bench_{secrets.token_hex(4)}"
        owner = await Ledger.open(self.postgres.url)
        url = self.postgres.url.rpartition("/")[0] + f"/{name}"
        await owner.execute(f"CREATE DATABASE {name}")
        namespace = name.replace("_", "-")
        try:
            await apply_migrations(url, read_migrations())
            for role in ("storeplane_app", "storeplane_provisioner"):
                await set_role_password(url, role, PASSWORD)
            await self._make_namespace(namespace)
            service_url = f"postgresql://storeplane_app:{PASSWORD}@{self.postgres.host}:{self.postgres.port}/{name}"
            ledger, database = await Ledger.open(url), await Database.connect(service_url, size=4)
            environment = self._environment(service_url, name, namespace) | settings
            try:
                yield Tables(self, url, namespace, environment, ledger, database)
            finally:
                await database.close()
                await ledger.close()
        finally:
            await self._remove_namespace(namespace)
            await owner.execute(f"DROP DATABASE {name} WITH (FORCE)")
            await owner.close()

    @asynccontextmanager
    async def plane(self, **settings: str) -> AsyncIterator[Plane]:
        """Give a running replica on tables of its own."""
        async with self.tables(**settings) as tables, aiohttp.ClientSession() as http:
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                service = Service(Path(folder), tables.environment)
                self.machine.pids.add(service.process.pid)
                try:
                    await wait_until(service.is_ready, "the control plane serves", seconds=_START_SECONDS, every=0.005)
                    started = time.perf_counter() - began
                    yield Plane(**vars(tables), service=service, http=http, started_seconds=started)
                finally:
                    self.machine.pids.discard(service.process.pid)
                    await asyncio.to_thread(service.stop)

    def _environment(self, url: str, database: str, namespace: str) -> dict[str, str]:
        return wishes.ENVIRONMENT | {
            "DATABASE_URL": url,
            "STOREPLANE_KUBECONFIG": str(self.kubeconfig),
            "STOREPLANE_JOBS_NAMESPACE": namespace,
            "STOREPLANE_JOBS_SERVICE_ACCOUNT": "default",
            "STOREPLANE_PROVISIONER_IMAGE": self.image,
            "STOREPLANE_PROVISIONER_DB_HOST": self.host_address,
            "STOREPLANE_PROVISIONER_DB_PORT": str(_POD_PORT),
            "STOREPLANE_PROVISIONER_DB_NAME": database,
            "STOREPLANE_CREATE_RATE_PER_MINUTE": "1000000",
        }

    async def _make_namespace(self, name: str) -> None:
        await self._post("/api/v1/namespaces", {"metadata": {"name": name}})
        secret = {"metadata": {"name": "storeplane-provisioner-db"}, "stringData": {"password": PASSWORD}}
        await self._post(f"/api/v1/namespaces/{name}/secrets", secret)

        async def has_account() -> bool:
            try:
                await self.kube.read("GET", f"/api/v1/namespaces/{name}/serviceaccounts/default")
            except KubeNotFoundError:
                return False
            return True

        await wait_until(has_account, "the namespace has its service account")

    async def _post(self, path: str, body: dict[str, Any]) -> None:
        await self.kube.read("POST", path, body=orjson.dumps(body))

    async def _remove_namespace(self, name: str) -> None:
        path = f"/api/v1/namespaces/{name}"
        try:
            await self.kube.read("DELETE", path)
        except KubeNotFoundError:
            return

        async def is_gone() -> bool:
            try:
                await self.kube.read("GET", path)
            except KubeNotFoundError:
                return True
            return False

        # Its Jobs' deletion would burden the next part.
        await wait_until(is_gone, f"the namespace {name} is gone", every=0.5)
