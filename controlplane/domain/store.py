"""A store, its caller and its history, as the rest of the program passes them around."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from controlplane.domain.transitions import StoreState

__all__ = ["Caller", "Origin", "Role", "Store", "StoreEvent"]


class Role(StrEnum):
    """What a user may see and do."""

    MEMBER = "member"
    OPERATOR = "operator"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. Every query about tenants' data takes it."""

    user_id: UUID
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a request comes from: who asks, and how everything it causes is found again."""

    caller: Caller
    request_id: str
    traceparent: str
    """W3C trace context, the caller's or one made for the request; goes with the operation into the Job's pod."""
    ip: str | None


@dataclass(frozen=True, slots=True)
class Store:
    """A tenant's shop."""

    id: UUID
    owner_id: UUID
    name: str
    slug: str
    engine: str
    engine_flavour: str | None
    """`official`, or what a stand-in calls itself; None until the shop has answered once."""
    plan: str
    state: StoreState
    namespace: str
    urls: dict[str, str | None]
    """`storefront`, `admin`, `api`; null where the engine has none."""
    created_at: datetime
    updated_at: datetime
    operation_id: UUID
    """Its newest operation."""


@dataclass(frozen=True, slots=True)
class StoreEvent:
    """One line of a store's history."""

    id: int
    event_type: str
    message: str
    metadata: dict[str, Any]
    created_at: datetime
