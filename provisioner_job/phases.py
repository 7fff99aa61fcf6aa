"""The phases that make one store: each checks, acts and verifies, and may be run again at any point.

A phase remembers nothing: what an earlier attempt has done is found in the cluster. Nothing is cleaned up here.
"""

import asyncio
import base64
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from provisioner_job import medusa, objects
from provisioner_job.cluster import Cluster
from provisioner_job.errors import PhaseError
from provisioner_job.exposure import wait_until_exposed
from provisioner_job.job_input import JobInput
from provisioner_job.journal import Journal
from provisioner_job.release import install
from provisioner_job.setup import wait_for_setup
from provisioner_job.shop import ask_for_products

__all__ = ["PHASE_STEPS", "Phase", "Work"]

Facts = dict[str, Any]


@dataclass(slots=True)
class Work:
    """What the phases share during one run."""

    given: JobInput
    spec: dict[str, Any]
    cluster: Cluster
    journal: Journal
    namespace_uid: str = ""
    """Known from the phase `namespace` on: the phases after it end when this namespace goes."""
    publishable_key: str = ""
    """Known from the phase `secrets` on."""
    result: Facts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase and its own time limit."""

    name: str
    limit_seconds: float
    act: Callable[[Work], Coroutine[Any, Any, Facts]]
    """Returns facts for the log and the phase's event: no secrets."""


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
    return {"namespace": name, "uid": made["metadata"]["uid"], "existed": found is not None}


async def _policies(work: Work) -> Facts:
    name, store_id = work.given.namespace, work.given.store_id
    await work.cluster.apply(objects.limit_range(name, store_id))
    await work.cluster.apply(objects.quota(name, store_id))
    # Until its controller has counted, a quota refuses every pod, and the controllers that are refused back off.
    while True:
        found = await work.cluster.get("ResourceQuota", objects.QUOTA_NAME, name)
        if found is not None and (found.get("status") or {}).get("hard"):
            return {"quota": objects.QUOTA_NAME, "limits": objects.LIMITS_NAME}
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
    return await wait_for_setup(work.cluster, work.given.namespace, work.journal)


async def _verify(work: Work) -> Facts:
    host = medusa.service_host(work.given.namespace)
    began = time.monotonic()
    count = await ask_for_products(host, medusa.PORT, work.publishable_key, work.journal)
    work.result["product_count"] = count
    return {"products": count, "seconds_until_answer": round(time.monotonic() - began, 1)}


async def _expose(work: Work) -> Facts:
    return await wait_until_exposed(work.cluster, work.given.namespace, work.spec["host"], work.journal)


_POLL_SECONDS: Final = 0.1

PHASE_STEPS: Final = (
    # A minute of each limit is for an API server that is away; the attempt's own time bounds them all together.
    Phase("namespace", 90, _namespace),
    Phase("policies", 90, _policies),
    Phase("secrets", 90, _secrets),
    # Helm has 80 s and 20 to be stopped; a failed setup has 20 to go before that.
    Phase("release", 180, _release),
    # Migrations and seed take half a minute with one CPU and a minute with half of one. Longer than the Job's own
    # limit in the chart, so that its end is seen and told.
    Phase("setup", 420, _setup),
    Phase("verify", 180, _verify),
    Phase("expose", 90, _expose),
)
"""The contract's phases in its order."""
