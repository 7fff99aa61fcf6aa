"""Settings: `STOREPLANE_*` and `DATABASE_URL` from the environment, checked once at the start.

An unknown `STOREPLANE_*` variable is refused, because a misspelt setting that is silently ignored is found in the
worst moment. Secrets are `SecretStr`, so that no log and no traceback shows them.
"""

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from controlplane.domain.catalogue import CATALOGUE, supported
from controlplane.domain.engines import Engine
from controlplane.domain.errors import ConfigurationError
from controlplane.domain.hosts import is_host

__all__ = ["DatabaseSettings", "Settings", "load_database_settings", "load_settings"]

_PREFIX: Final = "STOREPLANE_"
_READ_ELSEWHERE: Final = frozenset({"STOREPLANE_URL", "STOREPLANE_TOKEN", "STOREPLANE_CACHE"})
"""Variables of the API's clients and of the development cluster, which may stand in the same shell."""
_FOREIGN_PREFIX: Final = "STOREPLANE_TEST_"
"""Switches of the test suite."""
_S = TypeVar("_S", bound=BaseSettings)


def _cidr(text: str) -> str:
    """Return the range as Kubernetes wants it, `10.0.0.0/8`; `ValueError` when it is none."""
    return str(ipaddress.ip_network(text))


def _listed(value: object) -> object:
    return [each.strip() for each in value.split(",") if each.strip()] if isinstance(value, str) else value


def _complete(images: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Return the images of each engine without empty ones; `ValueError` names what the catalogue misses or lacks."""
    kept = {}
    for name, given in images.items():
        engine = CATALOGUE.get(name)
        if not isinstance(engine, Engine):
            message = f"there is no engine {name}; there are {', '.join(each.name for each in supported(CATALOGUE))}"
            raise ValueError(message)  # noqa: TRY004 -- what pydantic turns into its own error
        kept[name] = {each: reference for each, reference in given.items() if reference}
        missing = [each for each in engine.images if each not in kept[name]]
        unknown = [each for each in given if each not in (*engine.images, *engine.optional_images)]
        if missing or unknown:
            message = f"the engine {name} needs {', '.join(engine.images)}"
            message += f" and may have {', '.join(engine.optional_images)}" if engine.optional_images else ""
            message += f"; missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}"
            raise ValueError(message)
    if not kept:
        message = "name the images of one engine at least"
        raise ValueError(message)
    return kept


def _host(text: str) -> str:
    if not is_host(text):
        message = f"{text!r} is no full DNS name in lower case, such as api.example.com"
        raise ValueError(message)
    return text


_Cidr = Annotated[str, AfterValidator(_cidr)]
_Host = Annotated[str, AfterValidator(_host)]


class DatabaseSettings(BaseSettings):
    """What every command that touches the database needs."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="ignore", populate_by_name=True)

    database_url: Annotated[SecretStr, Field(validation_alias="DATABASE_URL")]
    """`postgresql://…`; a plain string because a socket address has no host."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(DatabaseSettings):
    """What the service needs."""

    token_key: SecretStr = Field(min_length=32)
    """Key of the attempts' tokens, 32 bytes or more, the same on every replica."""

    db_pool_size: int = Field(default=10, ge=2, le=100)

    kubeconfig: Path | None = None
    """File of the cluster's address and credentials; without it the pod's own service account is used."""
    jobs_namespace: str = "storeplane-jobs"
    jobs_service_account: str = "storeplane-provisioner"
    job_ttl_seconds: int = Field(default=86_400, ge=300)
    """Backstop: long enough for an engineer to read a Job the control plane never harvested."""
    harvested_ttl_seconds: int = Field(default=300, ge=0)
    """Of a success, after its log is stored: minutes for `kubectl logs`."""
    failed_ttl_seconds: int = Field(default=86_400, ge=0)
    """Of a failure, after its log is stored: the engineer who is paged types `kubectl logs` first."""
    failed_jobs_kept: int = Field(default=100, ge=0, le=10_000)
    """Failed Jobs beyond this many go at once, the oldest first."""

    provisioner_image: str = Field(min_length=1)
    provisioner_db_host: str = Field(min_length=1)
    """Address of the database as the pods see it."""
    provisioner_db_port: int = Field(default=5432, ge=1, le=65535)
    provisioner_db_name: str = "storeplane"
    provisioner_db_user: str = "storeplane_provisioner"
    provisioner_db_secret: str = "storeplane-provisioner-db"  # noqa: S105 -- the Secret's name
    provisioner_db_sslmode: Literal["disable", "prefer", "require", "verify-full"] = "prefer"
    provisioner_log: Literal["text", "json"] = "text"

    engine_images: Annotated[dict[str, dict[str, str]], AfterValidator(_complete)]
    """JSON: by engine, the reference of each image it needs. An engine that is left out is not offered."""

    store_preset: Literal["default", "local", "prod"] = "default"
    """Which values the chart begins with; `local` asks for little, so that a laptop holds several shops."""

    store_domain: str = "localhost"
    """Shops answer below this name."""
    store_url_scheme: Literal["http", "https"] = "http"
    store_url_port: int = Field(default=8081, ge=0, le=65535)
    """0 for the scheme's own port; under TLS of a store's own always that."""
    store_ingress_class: str | None = Field(default=None, max_length=253)
    """Of the stores' Ingresses; None for the cluster's default."""
    store_cluster_issuer: str | None = Field(default=None, max_length=253)
    """cert-manager's ClusterIssuer that gives a store a certificate of its own; None where none can be had."""
    store_custom_hosts: bool = True
    """Whether an order may name a host. Nobody has to prove that it is theirs: who orders first has it."""
    store_reserved_hosts: Annotated[tuple[_Host, ...] | None, NoDecode, BeforeValidator(_listed)] = None
    """Parted by commas: hosts that no store may have, nor anything below them: the API's own first of all."""
    store_ingress_namespace: str = "ingress-nginx"
    """Its pods may reach what serves in a store; empty for an ingress that is no pod."""
    store_ingress_cidrs: Annotated[tuple[_Cidr, ...] | None, NoDecode, BeforeValidator(_listed)] = None
    """Parted by commas: addresses that may as well, such as the nodes of an ingress on the host's network."""
    store_dns_cidr: _Cidr | None = None
    """Where stores ask for names beside the pods of kube-system; None for nowhere."""
    store_denied_cidrs: Annotated[tuple[_Cidr, ...] | None, NoDecode, BeforeValidator(_listed)] = None
    """Parted by commas: what stores may not reach beside private ranges, such as a public address of the API server."""

    create_rate_per_minute: int = Field(default=10, ge=1, le=1_000_000)
    """Stores one user may order in a minute, whatever replica is asked."""
    observer_namespace: str = "storeplane"
    observer_service_account: str = "storeplane"
    """Who may look into a store's namespace: the control plane's own service account."""

    cluster_id: str = "default"
    """The cluster, a row of `clusters`, whose operations this process dispatches and follows."""
    dispatch_interval_seconds: float = Field(default=1.0, gt=0, le=60)
    """Pause between polls that found nothing to claim; news from Postgres cuts it short."""
    dispatch_concurrency: int = Field(default=16, ge=1, le=64)
    """Jobs created at once by one process."""
    reconcile_interval_seconds: float = Field(default=5.0, gt=0, le=60)
    """Pause between passes over all attempts; news from the cluster is followed at once."""

    queue_limit_seconds: int = Field(default=86_400, ge=60)
    """An operation that was never dispatched by then fails, unless the cluster was away."""
    failed_store_retention_seconds: int = Field(default=86_400, ge=60)
    """A failed creation's objects are kept that long for diagnosis and retry; then they are cleaned up."""
    event_retention_months: int = Field(default=13, ge=1, le=120)
    log_retention_months: int = Field(default=3, ge=1, le=120)


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    known = {_PREFIX + name.upper() for name in Settings.model_fields if name != "database_url"} | _READ_ELSEWHERE
    unknown = sorted(
        name
        for name in environment
        if name.startswith(_PREFIX) and not name.startswith(_FOREIGN_PREFIX) and name not in known
    )
    if unknown:
        message = f"unknown setting {', '.join(unknown)}; known are: {', '.join(sorted(known))}"
        raise ConfigurationError(message)


def _explained(error: ValidationError) -> ConfigurationError:
    lines = []
    for problem in error.errors(include_input=False, include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else "settings"
        variable = name if name == "DATABASE_URL" else _PREFIX + name.upper()
        lines.append(f"{variable}: {problem['msg']}")
    return ConfigurationError("; ".join(lines))


def _read(kind: type[_S]) -> _S:
    _refuse_unknown(os.environ)
    try:
        return kind()
    except ValidationError as error:
        raise _explained(error) from None


def load_database_settings() -> DatabaseSettings:
    """Read the database's settings alone, for commands that need no cluster.

    Raises
    ------
    ConfigurationError
        A variable is missing, wrong or unknown.
    """
    return _read(DatabaseSettings)


def load_settings() -> Settings:
    """Read every setting of the service.

    Raises
    ------
    ConfigurationError
        A variable is missing, wrong or unknown.
    """
    settings = _read(Settings)
    if settings.kubeconfig is not None and not settings.kubeconfig.is_file():
        message = f"STOREPLANE_KUBECONFIG: there is no file {settings.kubeconfig}"
        raise ConfigurationError(message)
    return settings
