"""Doing one thing while another one watches that it still makes sense."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["guarded"]

_T = TypeVar("_T")


async def guarded(act: Coroutine[Any, Any, _T], watch: Coroutine[Any, Any, None]) -> _T:
    """Return what `act` returns; when `watch` ends first, stop `act` and raise what `watch` raised.

    `watch` ends with an error or not at all. What was done is done: an `act` that ended at the same moment counts.
    """
    acting, watching = asyncio.create_task(act), asyncio.create_task(watch)
    try:
        await asyncio.wait({acting, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not acting.done():
            watching.result()
        return acting.result()
    finally:
        # Waited for: Helm is being stopped meanwhile.
        for task in (acting, watching):
            task.cancel()
        await asyncio.gather(acting, watching, return_exceptions=True)
