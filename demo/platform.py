"""Brings up all of Storeplane for development: cluster, Postgres, images, and the control plane on this machine.

Every step looks first and does only what is missing, so that a second run takes seconds and a run after a crash
mends. The control plane is one more process of the cluster: `devcluster status` shows it, `make down` ends it.
"""

import hashlib
import http.client
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from devcluster.kubernetes.cluster import Cluster
from devcluster.kubernetes.prebuild import build_everything
from devcluster.machine.errors import DevclusterError
from devcluster.machine.packages import ensure_packages
from devcluster.machine.paths import checkout, write_private
from devcluster.machine.ports import free_port
from devcluster.machine.processes import ProcessSpec
from devcluster.machine.progress import note, step
from devcluster.postgres import server as postgres
from devcluster.postgres.server import PostgresAddress
from devcluster.sources.choice import DevclusterSource, choose_source

__all__ = ["Platform", "current", "run", "up"]

_COMMAND_SECONDS = 60
_READY_SECONDS = 30
_POLL_SECONDS = 0.1
_JOBS_NAMESPACE = "storeplane-jobs"
_ADMINISTRATOR = "admin"
_LOGIN_ROLES = ("storeplane_app", "storeplane_provisioner")


@dataclass(frozen=True)
class Platform:
    """A running Storeplane."""

    name: str
    url: str
    """Of the API."""
    token: str = field(repr=False)
    """The administrator's."""
    shops_port: int
    """The loopback port that every shop's host name is served on."""
    kubeconfig: Path
    kubectl: Path


@dataclass(frozen=True)
class _Secrets:
    """Made once for a cluster and kept in its folder, readable by its owner alone."""

    token_key: str
    api_token: str
    role_password: str
    port: int
    """Where the control plane listens; the API's fixed port leads there."""
    database: str = ""
    """Of which database the roles and the user were made: another one needs them again."""

    @classmethod
    def of(cls, file: Path) -> Self:
        """Read them, or make them."""
        if file.exists():
            try:
                return cls(**json.loads(file.read_text()))
            except (ValueError, TypeError) as error:
                raise DevclusterError(
                    f"{file} cannot be read: {error}",
                    remedy=f"remove it, then run `make up NAME={file.parent.name}`, which makes new tokens",
                ) from error
        return cls(secrets.token_hex(32), secrets.token_urlsafe(32), secrets.token_hex(16), free_port())

    def write(self, file: Path) -> None:
        """Keep them."""
        write_private(file, json.dumps(asdict(self)))


def current(name: str) -> Platform:
    """Return the platform that ``up`` brought up; starts nothing.

    Raises
    ------
    DevclusterError
        If there is none.
    """
    cluster = Cluster(name)
    file = cluster.paths.home / "platform.json"
    if not file.exists():
        raise DevclusterError(f"Storeplane is not up on the cluster {name!r}", remedy=f"run `make up NAME={name}`")
    settings = cluster.settings
    return Platform(
        name=name,
        url=f"http://127.0.0.1:{settings.api_port}",
        token=_Secrets.of(file).api_token,
        shops_port=settings.shops_port,
        kubeconfig=cluster.paths.kubeconfig,
        kubectl=cluster.kubectl(),
    )


def up(name: str, overrides: Mapping[str, str] | None = None) -> Platform:
    """Bring everything up and return when the API is ready.

    Parameters
    ----------
    overrides
        Settings of the control plane beside the usual ones.

    Raises
    ------
    DevclusterError
        If a part does not come up, with the end of its log.
    """
    source = choose_source(name)
    note(source.describe())
    if not isinstance(source, DevclusterSource):
        raise DevclusterError(
            "the control plane runs on this machine for now, where pods of that cluster do not reach its database",
            remedy="use CLUSTER=devcluster",
        )
    ensure_packages()
    images = build_everything()
    source.up()
    cluster = Cluster(name)
    address = postgres.up(name)
    cluster.share_postgres()
    source.load([image.archive for image in images.values()])
    kept = _Secrets.of(cluster.paths.home / "platform.json")
    kept.write(cluster.paths.home / "platform.json")
    with step("install Storeplane"):
        kept = _prepare_database(cluster, address, kept)
        _apply(cluster, kept)
    settings = _settings(cluster, address, kept, {each: image.reference for each, image in images.items()})
    _serve(cluster, kept, settings | dict(overrides or {}))
    return current(name)


def _prepare_database(cluster: Cluster, address: PostgresAddress, kept: _Secrets) -> _Secrets:
    _storeplane(address, "migrate")
    if kept.database == address.url:
        return kept
    for role in _LOGIN_ROLES:
        _storeplane(address, "roles", "password", role, text=kept.role_password)
    _storeplane(address, "users", "add", _ADMINISTRATOR, "--role", "admin", "--token-stdin", text=kept.api_token)
    kept = _Secrets(**asdict(kept) | {"database": address.url})
    kept.write(cluster.paths.home / "platform.json")
    return kept


def _storeplane(address: PostgresAddress, *words: str, text: str = "") -> None:
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": address.url}
    run([_program("storeplane"), *words], text=text, environment=environment)


def _apply(cluster: Cluster, kept: _Secrets) -> None:
    kubectl = [str(cluster.kubectl()), "apply", "--server-side", "--field-manager=storeplane-demo", "-f"]
    environment = {"PATH": os.environ["PATH"], "KUBECONFIG": str(cluster.paths.kubeconfig)}
    run([*kubectl, str(checkout() / "manifests/skeleton.yaml")], environment=environment)
    secret: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "storeplane-provisioner-db", "namespace": _JOBS_NAMESPACE},
        "stringData": {"password": kept.role_password},
    }
    run([*kubectl, "-"], text=json.dumps(secret), environment=environment)


def _settings(cluster: Cluster, address: PostgresAddress, kept: _Secrets, images: Mapping[str, str]) -> dict[str, str]:
    return {
        "DATABASE_URL": f"postgresql://storeplane_app:{kept.role_password}@127.0.0.1:{address.port}/{address.database}",
        "STOREPLANE_TOKEN_KEY": kept.token_key,
        "STOREPLANE_KUBECONFIG": str(cluster.paths.kubeconfig),
        "STOREPLANE_PROVISIONER_DB_HOST": cluster.network.host_address,
        "STOREPLANE_PROVISIONER_IMAGE": images["provisioner"],
        "STOREPLANE_MEDUSA_IMAGE": images["medusa"],
        "STOREPLANE_MEDUSA_POSTGRES_IMAGE": images["postgres"],
        "STOREPLANE_MEDUSA_REDIS_IMAGE": images["redis"],
        "STOREPLANE_STORE_PRESET": "local",
        "STOREPLANE_STORE_URL_PORT": str(cluster.settings.shops_port),
    }


def _serve(cluster: Cluster, kept: _Secrets, settings: Mapping[str, str]) -> None:
    argv = [_program("storeplane"), "serve", "--port", str(kept.port)]
    # The program's text is part of what should run: an edit means a restart.
    cluster.run_on_host(ProcessSpec("storeplane", argv, environment=settings, configuration=_digest("controlplane")))
    cluster.lead_api_to(f"127.0.0.1:{kept.port}")
    with step("wait for the API"):
        _await_ready(kept.port, cluster.paths.logs / "storeplane.log")


def _await_ready(port: int, log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except (OSError, http.client.HTTPException):
            pass  # not listening yet
        finally:
            connection.close()
        if time.monotonic() > deadline:
            raise DevclusterError(
                f"the control plane is not ready after {_READY_SECONDS} s", log=log, remedy="mend what the log names"
            )
        time.sleep(_POLL_SECONDS)


def _digest(package: str) -> str:
    digest = hashlib.sha256()
    for file in sorted((checkout() / package).rglob("*")):
        if file.suffix in {".py", ".sql", ".jinja"}:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def run(command: list[str], *, text: str = "", environment: Mapping[str, str]) -> str:
    """Run a short program in this environment and return what it printed.

    Raises
    ------
    DevclusterError
        If it fails, with its own words, or takes longer than a minute.
    """
    try:
        ended = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
            env=dict(environment),
        )
    except subprocess.TimeoutExpired as error:
        raise DevclusterError(f"`{' '.join(command)}` did not end within {_COMMAND_SECONDS} s") from error
    if ended.returncode != 0:
        raise DevclusterError(f"`{' '.join(command)}` failed: {(ended.stderr or ended.stdout).strip()}")
    return ended.stdout
