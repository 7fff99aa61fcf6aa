"""Stores: accept a create, show one, tell its history. Never talks to the cluster."""

import base64
import secrets
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from controlplane.config import Settings
from controlplane.db.stores import NewStore, StoreRows
from controlplane.domain import names
from controlplane.domain.engines import Engine, engine_named
from controlplane.domain.errors import StoreNotFoundError
from controlplane.domain.operation import Operation
from controlplane.domain.store import Caller, Store, StoreEvent

__all__ = ["CreateStore", "Stores"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateStore:
    """A wish, as it came in."""

    name: str
    engine: str
    slug: str | None
    request_id: str
    ip: str | None


class Stores:
    """What callers do with stores."""

    def __init__(self, rows: StoreRows, settings: Settings) -> None:
        self._rows = rows
        self._settings = settings

    async def create(self, wish: CreateStore, caller: Caller) -> tuple[Store, Operation]:
        """Accept a store: check the wish, freeze the spec, write it in one statement.

        Raises
        ------
        InvalidInputError
            Name, slug or engine cannot be accepted.
        NameTakenError
            The caller has a store with this slug.
        """
        engine = engine_named(wish.engine)
        name = names.display_name(wish.name)
        slug = names.slug_from_name(name) if wish.slug is None else names.validated_slug(wish.slug)
        suffix = base64.b32encode(secrets.token_bytes(5)).decode().lower()
        host = f"{names.host_label(slug, suffix)}.{self._settings.store_domain}"
        url = self._public_url(host)
        new = NewStore(
            store_id=uuid7(),
            operation_id=uuid7(),
            owner_id=caller.user_id,
            cluster_id="default",
            name=name,
            slug=slug,
            engine=engine.name,
            namespace=names.namespace(slug, suffix),
            urls={"storefront": None, "admin": f"{url}/app", "api": url},
            spec=self._spec(engine, names.namespace(slug, suffix), host, url),
            request_id=wish.request_id,
            ip=wish.ip,
        )
        await self._rows.submit_create(new)
        return await self.get(new.store_id, caller), await self._operation(new.store_id, caller)

    async def get(self, store_id: UUID, caller: Caller) -> Store:
        """Return a store; `StoreNotFoundError` when there is none for this caller."""
        store = await self._rows.get_store(store_id, caller)
        if store is None:
            raise StoreNotFoundError(store_id)
        return store

    async def get_with_operation(self, store_id: UUID, caller: Caller) -> tuple[Store, Operation]:
        """Return a store and its newest operation; `StoreNotFoundError` when there is none for this caller."""
        return await self.get(store_id, caller), await self._operation(store_id, caller)

    async def events(self, store_id: UUID, caller: Caller, *, after: int, limit: int) -> list[StoreEvent]:
        """Return a page of the store's history, oldest first; `StoreNotFoundError` as above."""
        await self.get(store_id, caller)
        return await self._rows.list_events(store_id, caller, after=after, limit=limit)

    async def _operation(self, store_id: UUID, caller: Caller) -> Operation:
        operation = await self._rows.latest_operation(store_id, caller)
        if operation is None:
            raise StoreNotFoundError(store_id)
        return operation

    def _public_url(self, host: str) -> str:
        port = self._settings.store_url_port
        return f"{self._settings.store_url_scheme}://{host}" + (f":{port}" if port is not None else "")

    def _spec(self, engine: Engine, namespace: str, host: str, url: str) -> dict[str, Any]:
        """Return everything an attempt needs, so that a later change of the settings changes no running operation."""
        return {
            "version": 1,
            "engine": engine.name,
            "chart": engine.chart,
            "preset": self._settings.store_preset,
            "images": self._settings.engine_images(engine.name),
            "provisioner_image": self._settings.provisioner_image,
            "namespace": namespace,
            "host": host,
            "public_url": url,
        }
