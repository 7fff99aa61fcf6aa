"""Ready-made users, stores and settings for tests."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from typing import TYPE_CHECKING, Any
from unittest import mock

from uuid_utils.compat import uuid7

from controlplane.config import Settings, load_settings
from controlplane.db.claims import ClaimRows, RenderedJob
from controlplane.db.stores import NewStore
from controlplane.db.users import UserRows
from controlplane.domain.attempt import attempt_token, token_hash, token_key_id
from controlplane.domain.catalogue import CATALOGUE
from controlplane.domain.engines import Engine
from controlplane.domain.store import Caller, Role
from controlplane.kube.job_manifest import render_job, sha256_of
from controlplane.services import specs

if TYPE_CHECKING:
    from controlplane.db.pool import Database
    from controlplane.domain.attempt import ClaimedAttempt

__all__ = [
    "ENGINE_IMAGES",
    "ENVIRONMENT",
    "KEY",
    "add_user",
    "claim",
    "new_store",
    "rendered",
    "settings",
    "spec",
    "token_of",
]

KEY = "k" * 32
ENGINE_IMAGES = {
    "medusa": {name: f"storeplane.local/{name}:1" for name in ("server", "postgres", "redis")},
    "woocommerce": {name: f"storeplane.local/{name}:1" for name in ("server", "mariadb")},
}
ENVIRONMENT = {
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
    "STOREPLANE_TOKEN_KEY": KEY,
    "STOREPLANE_PROVISIONER_IMAGE": "storeplane.local/provisioner:1",
    "STOREPLANE_PROVISIONER_DB_HOST": "10.0.0.1",
    "STOREPLANE_ENGINE_IMAGES": json.dumps(ENGINE_IMAGES),
}


def settings(**more: str) -> Settings:
    """Return complete settings; `more` are environment variables."""
    with mock.patch.dict(os.environ, ENVIRONMENT | more, clear=True):
        return load_settings()


async def add_user(database: Database, role: Role = Role.MEMBER, *, max_stores: int = 10_000) -> tuple[Caller, str]:
    """Add a user and return it with its token."""
    token = secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).digest()
    user_id = await UserRows(database).add(uuid7(), f"user-{secrets.token_hex(4)}", role, digest, max_stores)
    return Caller(user_id, role), token


def spec(engine: str = "medusa", *, name: str = "Shop", plan: str = "small", **more: str) -> dict[str, Any]:
    """Return what an order of this engine freezes; `more` are environment variables of the control plane."""
    row = CATALOGUE[engine]
    assert isinstance(row, Engine)
    at = specs.place("store-shop-abcdefg2", "shop-abcdefg2.localhost", settings(**more), has_tls=False)
    return specs.frozen(row, at, settings(**more), plan=plan, name=name, traceparent="")


def new_store(owner: Caller, slug: str | None = None, **changes: Any) -> NewStore:
    """Return a store to be written."""
    name = slug or f"shop-{secrets.token_hex(3)}"
    given: dict[str, Any] = {
        "store_id": uuid7(),
        "operation_id": uuid7(),
        "owner_id": owner.user_id,
        "cluster_id": "default",
        "name": name,
        "slug": name,
        "engine": "medusa",
        "plan": "small",
        "namespace": f"store-{name}-{secrets.token_hex(4)}",
        "host": f"{name}-{secrets.token_hex(4)}.localhost",
        "urls": {"storefront": None, "admin": "http://shop/app", "api": "http://shop"},
        "spec": {"version": 1, "engine": "medusa", "provisioner_image": "storeplane.local/provisioner:1"},
        "request_id": "request-1",
        "ip": "127.0.0.1",
        "creates_per_minute": 1_000_000,
    }
    return NewStore(**(given | changes))


def token_of(claimed: ClaimedAttempt) -> str:
    """Return the token the Job of this attempt carries."""
    return attempt_token(KEY.encode(), claimed.operation_id, claimed.number)


def rendered(claimed: ClaimedAttempt) -> RenderedJob:
    """Render a claimed attempt as the dispatcher does."""
    manifest = render_job(claimed, settings())
    return RenderedJob(manifest, sha256_of(manifest), token_hash(token_of(claimed)), token_key_id(KEY.encode()))


async def claim(database: Database, holder: str = "test") -> ClaimedAttempt:
    """Claim the next operation; one must be due."""
    (claimed,) = (await ClaimRows(database, "default").claim(holder, 60, 1, rendered)).attempts
    return claimed
