"""The phases of one store: each checks, acts and verifies, and may be run again at any point.

A phase remembers nothing: what an earlier attempt has done is found in the cluster. Nothing is cleaned up here.
"""

import asyncio
import base64
import os
import time
from typing import Final

from provisioner_job import objects
from provisioner_job.contract import CREDENTIALS_SECRET, SPEC_VERSION, STORE_LABEL
from provisioner_job.errors import PhaseError
from provisioner_job.exposure import wait_until_exposed
from provisioner_job.hindrances import unhindered
from provisioner_job.network import address_of_api_server, network_policies
from provisioner_job.release import install
from provisioner_job.removal import remove
from provisioner_job.rights import ensure_rights
from provisioner_job.setup import wait_for_setup
from provisioner_job.shop import OFFICIAL, ask_for_products, question_of
from provisioner_job.store_secrets import new_texts, secret_among
from provisioner_job.work import Facts, Phase, Work

__all__ = ["PHASE_STEPS", "phases_of"]


async def _namespace(work: Work) -> Facts:
    _refuse_other_version(work)
    name, store_id = work.given.namespace, work.given.store_id
    found = await work.cluster.get("Namespace", name)
    if found is not None:
        labels = found["metadata"].get("labels") or {}
        if labels.get(STORE_LABEL) != str(store_id):
            raise PhaseError("NAMESPACE_FOREIGN", "The namespace belongs to somebody else", name)
        if found["metadata"].get("deletionTimestamp"):
            raise PhaseError("NAMESPACE_TERMINATING", "The namespace is being removed", name)
    made = await work.cluster.apply(objects.namespace(name, store_id))
    work.namespace_uid = made["metadata"]["uid"]
    rights = await ensure_rights(work)
    return {"namespace": name, "uid": work.namespace_uid, "existed": found is not None} | rights


def _refuse_other_version(work: Work) -> None:
    version = work.spec.get("version")
    if version != SPEC_VERSION:
        detail = (
            f"the order is written as version {version}, this provisioner reads {SPEC_VERSION}; "
            "retry the operation with refresh_spec, so that order and image are of one version"
        )
        raise PhaseError("SPEC_VERSION", "The order is of another version than the provisioner", detail)


async def _policies(work: Work) -> Facts:
    name, store_id = work.given.namespace, work.given.store_id
    await work.cluster.apply(objects.limit_range(name, store_id, work.spec["limits"]))
    await work.cluster.apply(objects.quota(name, store_id, work.spec["quota"]))
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
    recipes = work.spec["secret"]
    texts = new_texts(recipes, work.spec["host"])
    # Before the first call that carries them: its refusal may quote them.
    work.journal.redactor.learn(*secret_among(recipes, texts))
    # The first one ever made stays: the database was initialised with it.
    is_new = await work.cluster.create(objects.secret(name, store_id, objects.SECRET_NAME, texts))
    if not is_new:
        found = await work.cluster.get("Secret", objects.SECRET_NAME, name)
        data = (found or {}).get("data") or {}
        missing = sorted(set(texts) - set(data))
        if missing:
            raise PhaseError("SECRET_INCOMPLETE", "The store's Secret lacks keys", ", ".join(missing))
        stored = {key: base64.b64decode(value).decode() for key, value in data.items()}
        work.journal.redactor.learn(*secret_among(recipes, stored))
        # Taken by ourselves, when the answer to a first try was lost.
        is_new, texts = stored == texts, stored
    work.texts = texts
    shown = {label: texts[key] for label, key in work.spec["credentials"].items()}
    # Whatever is there under this name: the control plane hands out no other store's, and no key that is not named.
    await work.cluster.apply(objects.secret(name, store_id, CREDENTIALS_SECRET, shown))
    return {"secret": objects.SECRET_NAME, "existed": not is_new}


async def _release(work: Work) -> Facts:
    facts = await install(work.cluster, work.given.namespace, work.spec, work.journal)
    work.result["release_revision"] = facts["revision"]
    return facts


async def _setup(work: Work) -> Facts:
    waiting = wait_for_setup(work.cluster, work.given.namespace, work.journal)
    return await unhindered(work.cluster, work.given.namespace, work.journal, "setup", waiting)


async def _verify(work: Work) -> Facts:
    question = question_of(work.spec, work.given.namespace, work.texts)
    began = time.monotonic()
    asking = ask_for_products(question, work.journal)
    answer = await unhindered(work.cluster, work.given.namespace, work.journal, "verify", asking)
    seconds = round(time.monotonic() - began, 1)
    work.result["product_count"], work.result["engine_flavour"] = answer.products, answer.flavour
    if answer.flavour != OFFICIAL:
        work.journal.say(
            f"this shop only behaves like {work.given.engine}: its image holds a stand-in, not for customers",
            phase="verify",
            level="warning",
            engine_flavour=answer.flavour,
        )
    return {"products": answer.products, "seconds_until_answer": seconds, "engine_flavour": answer.flavour}


async def _expose(work: Work) -> Facts:
    ingress, host = work.spec["proof"]["service"], work.spec["host"]
    waiting = wait_until_exposed(work.cluster, work.given.namespace, ingress, host, work.journal)
    facts = await unhindered(work.cluster, work.given.namespace, work.journal, "expose", waiting)
    return facts | await _certificate(work)


async def _certificate(work: Work) -> Facts:
    """Say whether the host's certificate is there; a host that does not lead here yet gets none before it does."""
    name = work.spec["ingress"]["tlsSecret"]
    if not name:
        return {}
    found = await work.cluster.get("Secret", name, work.given.namespace)
    is_there = bool(((found or {}).get("data") or {}).get("tls.crt"))
    if not is_there:
        work.journal.say(
            "the certificate is awaited: until it is there, browsers warn of this host",
            phase="expose",
            level="warning",
            host=work.spec["host"],
            next_step=f"lead the host's DNS here; then `kubectl -n {work.given.namespace} get certificates,challenges`",
        )
    return {"certificate": "there" if is_there else "awaited"}


_POLL_SECONDS: Final = 0.1

PHASE_STEPS: Final[tuple[Phase, ...]] = (
    # A minute of each limit is for an API server that is away; the attempt's own time bounds them all together.
    Phase("namespace", 90, _namespace),
    Phase("policies", 90, _policies),
    Phase("secrets", 90, _secrets),
    # Helm has 80 s and 20 to be stopped; a failed setup has 20 to go before that.
    Phase("release", 180, _release),
    # An engine's own limits may be longer: see its row of the catalogue.
    Phase("setup", 180, _setup),
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
