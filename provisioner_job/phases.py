"""The phases of one store: each checks, acts and verifies, and may be run again at any point.

A phase remembers nothing: what an earlier attempt has done is found in the cluster. Nothing is cleaned up here.
"""

import asyncio
import base64
import os
import time
from typing import Final

from provisioner_job import medusa, objects
from provisioner_job.errors import PhaseError
from provisioner_job.exposure import wait_until_exposed
from provisioner_job.hindrances import unhindered
from provisioner_job.network import address_of_api_server, network_policies
from provisioner_job.release import install
from provisioner_job.removal import remove
from provisioner_job.rights import ensure_rights
from provisioner_job.setup import wait_for_setup
from provisioner_job.shop import ask_for_products
from provisioner_job.work import Facts, Phase, Work

__all__ = ["PHASE_STEPS", "phases_of"]


async def _namespace(work: Work) -> Facts:
    name, store_id = work.given.namespace, work.given.store_id
    found = await work.cluster.get("Namespace", name)
    if found is not None:
        labels = found["metadata"].get("labels") or {}
        if labels.get(objects.STORE_LABEL) != str(store_id):
            raise PhaseError("NAMESPACE_FOREIGN", "The namespace belongs to somebody else", name)
        if found["metadata"].get("deletionTimestamp"):
            raise PhaseError("NAMESPACE_TERMINATING", "The namespace is being removed", name)
    made = await work.cluster.apply(objects.namespace(name, store_id))
    work.namespace_uid = made["metadata"]["uid"]
    rights = await ensure_rights(work)
    return {"namespace": name, "uid": work.namespace_uid, "existed": found is not None} | rights


async def _policies(work: Work) -> Facts:
    name, store_id = work.given.namespace, work.given.store_id
    await work.cluster.apply(objects.limit_range(name, store_id))
    await work.cluster.apply(objects.quota(name, store_id))
    # Before the first pod of the store: a fence that comes later leaves a moment without it.
    fences = network_policies(
        name,
        store_id,
        work.spec.get("network") or {},
        jobs_namespace=work.given.pod_namespace,
        api_server=address_of_api_server(os.environ),
    )
    for fence in fences:
        await work.cluster.apply(fence)
    # Until its controller has counted, a quota refuses every pod, and the controllers that are refused back off.
    while True:
        found = await work.cluster.get("ResourceQuota", objects.QUOTA_NAME, name)
        if found is not None and (found.get("status") or {}).get("hard"):
            return {"quota": objects.QUOTA_NAME, "limits": objects.LIMITS_NAME, "network_policies": len(fences)}
        await asyncio.sleep(_POLL_SECONDS)


async def _secrets(work: Work) -> Facts:
    name, store_id = work.given.namespace, work.given.store_id
    texts = medusa.new_secrets(work.spec["host"])
    # Before the first call that carries them: its refusal may quote them.
    _learn(work, texts)
    # The first one ever made stays: the database was initialised with it.
    is_new = await work.cluster.create(objects.secret(name, store_id, texts))
    if not is_new:
        found = await work.cluster.get("Secret", medusa.SECRET_NAME, name)
        data = (found or {}).get("data") or {}
        missing = sorted(set(texts) - set(data))
        if missing:
            raise PhaseError("SECRET_INCOMPLETE", "The store's Secret lacks keys", ", ".join(missing))
        stored = {key: base64.b64decode(value).decode() for key, value in data.items()}
        _learn(work, stored)
        # Taken by ourselves, when the answer to a first try was lost.
        is_new, texts = stored == texts, stored
    work.publishable_key = texts["PUBLISHABLE_KEY"]
    return {"secret": medusa.SECRET_NAME, "existed": not is_new}


def _learn(work: Work, texts: dict[str, str]) -> None:
    work.journal.redactor.learn(*(value for key, value in texts.items() if key != "ADMIN_EMAIL"))


async def _release(work: Work) -> Facts:
    facts = await install(work.cluster, work.given.namespace, work.spec, work.journal)
    work.result["release_revision"] = facts["revision"]
    return facts


async def _setup(work: Work) -> Facts:
    waiting = wait_for_setup(work.cluster, work.given.namespace, work.journal)
    return await unhindered(work.cluster, work.given.namespace, work.journal, "setup", waiting)


async def _verify(work: Work) -> Facts:
    host = medusa.service_host(work.given.namespace)
    began = time.monotonic()
    asking = ask_for_products(host, medusa.PORT, work.publishable_key, work.journal)
    count = await unhindered(work.cluster, work.given.namespace, work.journal, "verify", asking)
    work.result["product_count"] = count
    return {"products": count, "seconds_until_answer": round(time.monotonic() - began, 1)}


async def _expose(work: Work) -> Facts:
    waiting = wait_until_exposed(work.cluster, work.given.namespace, work.spec["host"], work.journal)
    return await unhindered(work.cluster, work.given.namespace, work.journal, "expose", waiting)


_POLL_SECONDS: Final = 0.1

PHASE_STEPS: Final[tuple[Phase, ...]] = (
    # A minute of each limit is for an API server that is away; the attempt's own time bounds them all together.
    Phase("namespace", 90, _namespace),
    Phase("policies", 90, _policies),
    Phase("secrets", 90, _secrets),
    # Helm has 80 s and 20 to be stopped; a failed setup has 20 to go before that.
    Phase("release", 180, _release),
    # A template takes seconds; migrations and seed half a minute with one CPU and a minute with half of one. Longer
    # than the Job's own limit in the chart (330 s), so that its end is seen and told.
    Phase("setup", 420, _setup),
    Phase("verify", 180, _verify),
    Phase("expose", 90, _expose),
)
"""What makes a store, in the contract's order."""

_REMOVAL_STEPS: Final[tuple[Phase, ...]] = (
    # Above its own limits for each step, so that it can say what holds it.
    Phase("remove", 300, remove),
)
_STEPS_BY_KIND: Final = {"create": PHASE_STEPS, "delete": _REMOVAL_STEPS, "cleanup": _REMOVAL_STEPS}


def phases_of(kind: str) -> tuple[Phase, ...]:
    """Return the phases of a kind of operation.

    Raises
    ------
    PhaseError
        This version of the provisioner does not know the kind.
    """
    try:
        return _STEPS_BY_KIND[kind]
    except KeyError as error:
        detail = f"{kind}; use the provisioner's image of the control plane's version"
        raise PhaseError("KIND_UNKNOWN", "The provisioner cannot do this kind of operation", detail) from error
