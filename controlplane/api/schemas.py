"""Bodies of requests and query strings; used nowhere else in the program. What is answered: `api.answers`."""

import re
from typing import Annotated, Final
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from controlplane.domain.catalogue import CATALOGUE, PLAN_NAMES, supported
from controlplane.domain.hosts import HOST_LIMIT
from controlplane.domain.operation import OperationKind
from controlplane.domain.transitions import OperationState, StoreState

__all__ = [
    "CreateStoreBody",
    "EmptyBody",
    "EventsQuery",
    "LogsQuery",
    "NoQuery",
    "OperationsQuery",
    "RetryBody",
    "StoresQuery",
]

_NUMBER: Final = re.compile("-?[0-9]{1,30}")
_CURSOR_MOST: Final = 2**63 - 1
_ATTEMPT_MOST: Final = 2**31 - 1


def _digits(value: object) -> object:
    # Query strings are text: 1e2, 1_0 and +1 are no numbers here. What is one may still be out of range.
    if isinstance(value, str):
        return int(value) if _NUMBER.fullmatch(value) else None
    return value


def _flag(value: object) -> object:
    return {"true": True, "false": False}.get(value) if isinstance(value, str) else value


_Number = Annotated[int, BeforeValidator(_digits)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class CreateStoreBody(_Strict):
    """A wish for a store."""

    name: str = Field(max_length=1000, examples=["My Shop"], description="Display name, at most 60 characters.")
    # The longer limit only bounds the input: the rule of 60 has its own sentence.
    engine: str = Field(
        max_length=64,
        # Only told: the refusal of another one names what is supported and what is planned.
        json_schema_extra={"enum": [each.name for each in supported(CATALOGUE)]},
        description="One of the supported engines.",
    )
    slug: str | None = Field(
        default=None, max_length=1000, description="Part of namespace and host; made from the name when left out."
    )
    plan: str | None = Field(
        default=None,
        max_length=64,
        json_schema_extra={"enum": [*PLAN_NAMES, None]},
        description="Size of the shop, as `GET /api/engines` lists them; the smallest when left out.",
    )
    host: str | None = Field(
        default=None,
        max_length=HOST_LIMIT,
        examples=["shop.example.com"],
        description="A host of your own that leads to the platform; given by the platform when left out.",
    )
    tls: bool | None = Field(
        default=None,
        description="A certificate of the store's own, where the platform can have one made. Left out: for a host of "
        "your own if that can be had.",
    )


class RetryBody(_Strict):
    """How to retry; the body may be left out."""

    refresh_spec: bool = Field(
        default=False, description="Resolve images, chart and plan anew instead of repeating the frozen ones."
    )


class EmptyBody(_Strict):
    """Nothing; the body may be left out."""


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NoQuery(_Query):
    """No parameters."""


class _Page(_Query):
    limit: _Number = Field(default=50, ge=1, le=200, description="Most items of the page.")
    cursor: str | None = Field(default=None, max_length=200, description="`next` of the page before.")


class StoresQuery(_Page):
    """Which stores."""

    state: StoreState | None = Field(default=None, description="Left out: every state but deleted.")
    engine: str | None = Field(default=None, max_length=64, pattern="^[a-z0-9-]+$")


class OperationsQuery(_Page):
    """Which operations."""

    store: UUID | None = Field(default=None, description="Of this store alone.")
    state: OperationState | None = None
    kind: OperationKind | None = None


class EventsQuery(_Query):
    """Which part of the history."""

    limit: _Number = Field(default=50, ge=1, le=200, description="Most items of the page.")
    cursor: _Number = Field(default=0, ge=0, le=_CURSOR_MOST, description="Id after which the page begins.")


class LogsQuery(_Query):
    """Which log, and how."""

    attempt: _Number | None = Field(default=None, ge=1, le=_ATTEMPT_MOST, description="Left out: the newest.")
    follow: Annotated[bool, BeforeValidator(_flag)] = Field(
        default=False, description="Go on until the pod ends, instead of what there is now."
    )
