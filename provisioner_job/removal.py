"""Removing a store: its namespace with all that is in it, and only the one that was made for it.

A namespace that is simply deleted tries its content once, is held by the claims that pods still use, and comes back
eight seconds later. So workloads go first, claims next, the namespace last, which takes half the time. Each step is
found done or undone again, so that a removal can be resumed at any point.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from provisioner_job.contract import STORE_LABEL
from provisioner_job.errors import PhaseError, ProvisionerError, RetryableError
from provisioner_job.refusals import TakenError
from provisioner_job.rights import ensure_own_rights
from provisioner_job.work import Facts, Work

__all__ = ["blockers", "remove"]

_WORKLOADS: Final = ("CronJob", "Deployment", "StatefulSet", "Job")
"""Timetables first: they would make Jobs again."""
_COMPONENT: Final = "app.kubernetes.io/component"
_DATA: Final = frozenset({"postgres", "mariadb", "redis"})
"""Components, as the charts name them, that others need until their own end."""
_PHASE: Final = "remove"
_POLL_SECONDS: Final = 0.2
_WORKLOADS_SECONDS: Final = 45.0
"""Above a pod's usual grace of 30 s. What is still there then, the namespace takes along, only later."""
_CLAIMS_SECONDS: Final = 20.0
_GONE_SECONDS: Final = 120.0
"""A namespace without a hindrance is gone within twenty."""
_TOLD_AFTER_SECONDS: Final = 20.0
_BLOCKING: Final = {
    "NamespaceDeletionDiscoveryFailure": (
        "an aggregated API does not answer: see `kubectl get apiservices` and repair or remove it"
    ),
    "NamespaceDeletionGroupVersionParsingFailure": "a kind has an unreadable version: see `kubectl api-resources`",
    "NamespaceDeletionContentFailure": "an object cannot be deleted: a webhook or an admission policy may refuse it",
    "NamespaceContentRemaining": "objects are left: their controllers must run, or are still at it",
    "NamespaceFinalizersRemaining": "finalizers are left: the controllers they belong to must run to take them off",
}
"""Condition of a namespace that does not go -> the next step."""


async def remove(work: Work) -> Facts:
    """Remove the store's namespace and return once it is gone.

    Raises
    ------
    PhaseError
        NAMESPACE_FOREIGN: the namespace is not the store's; nothing was touched.
    RetryableError
        NAMESPACE_STUCK: it is still there; the detail says what holds it and what to do.
    """
    name = work.given.namespace
    found = await work.cluster.get("Namespace", name)
    if found is None:
        work.journal.say("the namespace is gone already", phase=_PHASE, namespace=name)
        return {"namespace": name, "existed": False}
    _refuse_foreign(work, found)
    uid = found["metadata"]["uid"]
    if found["metadata"].get("deletionTimestamp"):
        work.journal.say("the namespace is being removed already", phase=_PHASE, namespace=name)
    else:
        if await _may_work(work):
            await _workloads(work)
            await _claims(work)
        try:
            await work.cluster.delete_namespace(name, uid)
        except TakenError as error:
            detail = f"namespace {name} was replaced while its content was removed; nothing of the new one was touched"
            raise PhaseError("NAMESPACE_FOREIGN", "The namespace belongs to somebody else", detail) from error
        work.journal.say("the namespace is told to go", phase=_PHASE, namespace=name)
    await _gone(work, uid)
    return {"namespace": name, "uid": uid, "existed": True}


def _refuse_foreign(work: Work, found: dict[str, Any]) -> None:
    """Compare with what was recorded; a name alone gives no right to remove anything."""
    name, metadata = work.given.namespace, found["metadata"]
    label = (metadata.get("labels") or {}).get(STORE_LABEL)
    detail = ""
    if work.recorded_uid and metadata["uid"] != work.recorded_uid:
        detail = f"namespace {name} is not the one that was made for this store: {metadata['uid']} is its uid, and "
        detail += f"{work.recorded_uid} was recorded"
    elif label != str(work.given.store_id) and (label or not work.recorded_uid):
        detail = f"namespace {name} has {label or 'nothing'} as its label {STORE_LABEL}"
    if detail:
        detail += "; nothing was touched: find out whose it is, and remove it by hand if it may go"
        raise PhaseError("NAMESPACE_FOREIGN", "The namespace belongs to somebody else", detail)
    if not work.recorded_uid:
        work.journal.say("no uid was recorded; the namespace is the store's by its label", phase=_PHASE, store=label)


async def _may_work(work: Work) -> bool:
    """Say whether the content may be removed by us; the namespace goes without that as well, only slower."""
    try:
        await ensure_own_rights(work)
    except ProvisionerError as error:
        work.journal.say(
            "the content is left to the namespace's end", phase=_PHASE, level="warning", cause=error.detail
        )
        return False
    return True


async def _workloads(work: Work) -> None:
    """Remove what serves, then what it keeps its data in: a server without its database takes long to end."""
    name = work.given.namespace
    found = [(kind, each) for kind in _WORKLOADS for each in await work.cluster.list(kind, name, {})]
    for is_turn in (_serves, _keeps):
        for kind, each in found:
            if is_turn(each):
                await work.cluster.delete(kind, each["metadata"]["name"], name, owned_first=True)
        left = await _empty(partial(_pods, work, is_turn), _WORKLOADS_SECONDS)
        if left:
            break
    _tell(work, "the store's pods have ended", "pods", await _pods(work))


def _keeps(item: dict[str, Any]) -> bool:
    return (item["metadata"].get("labels") or {}).get(_COMPONENT) in _DATA


def _serves(item: dict[str, Any]) -> bool:
    return not _keeps(item)


async def _pods(work: Work, counts: Callable[[dict[str, Any]], bool] = bool) -> list[dict[str, Any]]:
    return [pod for pod in await work.cluster.list("Pod", work.given.namespace, {}) if counts(pod)]


async def _claims(work: Work) -> None:
    name = work.given.namespace
    kind = "PersistentVolumeClaim"
    for each in await work.cluster.list(kind, name, {}):
        await work.cluster.delete(kind, each["metadata"]["name"], name)
    claims = await _empty(lambda: work.cluster.list(kind, name, {}), _CLAIMS_SECONDS)
    _tell(work, "the store's volumes are given back", "claims", claims)


def _tell(work: Work, done: str, what: str, left: list[dict[str, Any]]) -> None:
    if left:
        names = ", ".join(each["metadata"]["name"] for each in left)
        work.journal.say(f"{what} are left; the namespace takes them along", phase=_PHASE, level="warning", left=names)
    else:
        work.journal.say(done, phase=_PHASE)


async def _empty(look: Callable[[], Awaitable[list[dict[str, Any]]]], seconds: float) -> list[dict[str, Any]]:
    """Wait until nothing is found any more, or so long; return what is left."""
    left = await look()
    try:
        async with asyncio.timeout(seconds):
            while left:
                await asyncio.sleep(_POLL_SECONDS)
                left = await look()
    except TimeoutError:
        pass
    return left


async def _gone(work: Work, uid: str) -> None:
    loop = asyncio.get_running_loop()
    began, told = loop.time(), ""
    while True:
        found = await work.cluster.get("Namespace", work.given.namespace)
        if found is None or found["metadata"]["uid"] != uid:
            return
        waited = loop.time() - began
        if waited >= _TOLD_AFTER_SECONDS:
            held = "; ".join(blockers(found, await _pods_left(work)))
            if waited >= _GONE_SECONDS:
                detail = f"namespace {work.given.namespace} is still there after {waited:.0f} s: {held}"
                raise RetryableError("NAMESPACE_STUCK", "The namespace does not go", detail)
            if held != told:
                told = held
                work.journal.say("the namespace does not go yet", phase=_PHASE, level="warning", cause=held)
        await asyncio.sleep(_POLL_SECONDS)


async def _pods_left(work: Work) -> list[dict[str, Any]]:
    # Our rights may have gone with the namespace's content; what it says of itself has to do then.
    with suppress(PhaseError):
        return await work.cluster.list("Pod", work.given.namespace, {})
    return []


def blockers(namespace: dict[str, Any], pods: list[dict[str, Any]]) -> list[str]:
    """Return what holds a namespace that is being removed, each with the next step. Pure.

    The namespace's own conditions have been seen to say that all content is removed while a finalizer held a pod; so
    the pods are looked at, too.
    """
    conditions = (namespace.get("status") or {}).get("conditions") or ()
    held = [
        f"{each['type']}: {each.get('message', '')} ({_BLOCKING[each['type']]})"
        for each in conditions
        if each["status"] == "True" and each["type"] in _BLOCKING
    ]
    for pod in pods:
        finalizers = pod["metadata"].get("finalizers")
        if finalizers:
            held.append(
                f"pod {pod['metadata']['name']} has the finalizers {', '.join(finalizers)} "
                "(their controller must run, and no admission policy may refuse its updates)"
            )
    own = [each for each in namespace["metadata"].get("finalizers") or () if each]
    if own:
        held.append(f"the namespace has the finalizers {', '.join(own)} (their controllers must run)")
    return held or ["the cluster names no cause; its namespace controller may be behind or away"]
