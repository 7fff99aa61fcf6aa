"""Rights in a store's namespace: the provisioner binds its own there, and the control plane's to look.

Nothing holds rights in a store before its namespace is made. Where a cluster gives the provisioner its rights
everywhere, there is nothing to bind, and the log says so.
"""

import asyncio
from typing import Any, Final

from provisioner_job import objects
from provisioner_job.contract import OBSERVER_ROLE
from provisioner_job.errors import PhaseError, RetryableError
from provisioner_job.work import Facts, Work

__all__ = ["ensure_own_rights", "ensure_rights"]

_ADMIN: Final = "store-admin"
_SEEN_SECONDS: Final = 10.0
"""An API server's authorizer sees a new binding within tens of milliseconds."""
_POLL_SECONDS: Final = 0.1


async def ensure_rights(work: Work) -> Facts:
    """Return once we may work in the store's namespace and the control plane may look into it.

    The facts say where our rights come from.

    Raises
    ------
    PhaseError
        RIGHTS_MISSING: we have no rights there and cannot bind any.
    RetryableError
        RIGHTS_UNSEEN: the binding is made and did not work in time.
    """
    source = await ensure_own_rights(work)
    await _observer(work)
    return {"rights": source}


async def ensure_own_rights(work: Work) -> str:
    """Return once we may work in the store's namespace; raises as `ensure_rights` does."""
    if await _may_work(work):
        return "held already"
    given = work.given
    if not await _may_bind(work):
        detail = f"it may not create role bindings in {given.namespace}; install the chart's rights for its account"
        raise PhaseError("RIGHTS_MISSING", "The provisioner has no rights in the store's namespace", detail)
    if not (given.pod_namespace and given.service_account):
        detail = "it cannot name itself; the Job must set POD_NAMESPACE and SERVICE_ACCOUNT"
        raise PhaseError("RIGHTS_MISSING", "The provisioner has no rights in the store's namespace", detail)
    await _bind(work, _ADMIN, (given.pod_namespace, given.service_account))
    try:
        async with asyncio.timeout(_SEEN_SECONDS):
            await _seen(work)
    except TimeoutError as error:
        detail = (
            f"RoleBinding {_ADMIN} in {given.namespace} has no effect after {_SEEN_SECONDS:.0f} s; "
            f"look at its subject and at the ClusterRole storeplane-{_ADMIN}"
        )
        raise RetryableError("RIGHTS_UNSEEN", "The provisioner's rights do not work yet", detail) from error
    # That was the word of one API server; there may be others.
    work.cluster.expect_rights(seconds=_SEEN_SECONDS)
    return f"bound {_ADMIN}"


async def _seen(work: Work) -> None:
    while True:
        if await _may_work(work):
            return
        await asyncio.sleep(_POLL_SECONDS)


async def _observer(work: Work) -> None:
    wanted: dict[str, Any] = work.spec.get("observer") or {}
    if not wanted:
        work.journal.say("no observer is named: the control plane gets no rights in this namespace")
        return
    if not await _may_bind(work):
        # Only where our own rights are cluster-wide; the control plane's may be as well.
        work.journal.say(
            "may not bind the observer's rights; logs and events of the store may be out of the control plane's sight",
            level="warning",
        )
        return
    await _bind(work, OBSERVER_ROLE, (wanted["namespace"], wanted["service_account"]))


async def _bind(work: Work, role: str, subject: tuple[str, str]) -> None:
    given = work.given
    wanted = objects.role_binding(given.namespace, given.store_id, role=role, subject=subject)
    is_new = await work.cluster.create(wanted)
    if not is_new:
        work.journal.say("found a binding of an earlier run", binding=role)


async def _may_work(work: Work) -> bool:
    """Ask for one right of a store's administrator that nobody else has."""
    return await work.cluster.is_allowed("create", "", "secrets", work.given.namespace)


async def _may_bind(work: Work) -> bool:
    return await work.cluster.is_allowed("create", "rbac.authorization.k8s.io", "rolebindings", work.given.namespace)
