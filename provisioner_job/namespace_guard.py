"""Seeing that a store's namespace was deleted under a phase, whatever that phase waits for.

Every wait in the namespace would last to its own limit otherwise: nothing that is waited for ever comes there again.
A namespace goes by a person's hand only, so the attempt ends for good instead of making again what somebody removed.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from provisioner_job.cluster import Cluster
from provisioner_job.errors import PhaseError, ProvisionerError, RetryableError
from provisioner_job.guarded import guarded

__all__ = ["held_by_namespace"]

_T = TypeVar("_T")
_POLL_SECONDS: Final = 2.0
_LAST_LOOK_SECONDS: Final = 5.0
"""A failure is told without a second look when the cluster takes longer."""


async def held_by_namespace(cluster: Cluster, namespace: str, uid: str, act: Coroutine[Any, Any, _T]) -> _T:
    """Return what `act` returns, or stop it when the namespace goes.

    A failure of `act` is looked into first: in a namespace that goes, everything fails in some way of its own.

    Parameters
    ----------
    uid
        The namespace's; another one of the same name is not the store's.

    Raises
    ------
    PhaseError
        NAMESPACE_GONE. What `act` raises in a namespace that stays is passed on.
    """
    try:
        return await guarded(act, _watch(cluster, namespace, uid))
    except ProvisionerError as error:
        gone = await _last_look(cluster, namespace, uid)
        if gone is not None:
            raise gone from error
        raise


async def _watch(cluster: Cluster, namespace: str, uid: str) -> None:
    while True:
        await asyncio.sleep(_POLL_SECONDS)
        # Who cannot see does not judge: a phase that needs the cluster finds out by itself.
        with suppress(RetryableError):
            gone = await _gone(cluster, namespace, uid)
            if gone is not None:
                raise gone


async def _last_look(cluster: Cluster, namespace: str, uid: str) -> PhaseError | None:
    with suppress(TimeoutError, ProvisionerError):
        async with asyncio.timeout(_LAST_LOOK_SECONDS):
            return await _gone(cluster, namespace, uid)
    return None


async def _gone(cluster: Cluster, namespace: str, uid: str) -> PhaseError | None:
    """Return the error for a namespace that is not there, is not ours or is being removed; None when all is well."""
    found = await cluster.get("Namespace", namespace)
    if found is None:
        state = "is gone"
    elif found["metadata"].get("deletionTimestamp"):
        state = "is being removed"
    elif found["metadata"].get("uid") != uid:
        state = "was replaced by another one of its name"
    else:
        return None
    detail = (
        f"namespace {namespace} {state}: somebody deleted it while the store was made, and all of the store with it; "
        "find out who did and why, then retry the operation"
    )
    return PhaseError("NAMESPACE_GONE", "The store's namespace was deleted", detail)
