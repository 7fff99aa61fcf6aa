"""Shops of a running Storeplane, ordered as a user orders them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import secrets
from typing import TYPE_CHECKING

from demo.order import Order, place
from demo.platform import kubectl_of
from demo.shops import SHOPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demo.platform import Platform

__all__ = ["placed_at_once"]


@contextlib.contextmanager
def placed_at_once(platform: Platform) -> Iterator[dict[str, Order]]:
    """Order one shop of each engine at once, and give them by engine when all can be bought in."""

    def one(engine: str) -> Order:
        told: list[str] = []
        placed = place(platform, f"Test {secrets.token_hex(3)}", told.append, engine=engine)
        assert placed.operation["state"] == "succeeded", f"{placed.operation['error']}\n" + "\n".join(told)
        return placed

    with concurrent.futures.ThreadPoolExecutor(len(SHOPS)) as pool:
        made = dict(zip(SHOPS, pool.map(one, SHOPS), strict=True))
    yield made
    for each in made.values():
        kubectl_of(platform.name).do(
            "delete", "namespace", each.store["namespace"], "--wait=false", "--ignore-not-found"
        )
