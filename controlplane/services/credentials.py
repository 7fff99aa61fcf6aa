"""A store's credentials: told to its owner and to admins, each time with an audit row that is written first.

The values pass through: they are in the answer and nowhere else, neither in a row nor in a log line nor in an error.
"""

import asyncio
from typing import Any, Final, Protocol
from uuid import UUID

from controlplane.config import Settings
from controlplane.db.pool import Database
from controlplane.db.stores import StoreRows
from controlplane.domain.credentials import Credentials, NoCredentials
from controlplane.domain.errors import (
    ControlPlaneError,
    CredentialsRightMissingError,
    DependencyUnavailableError,
    StoreNotFoundError,
)
from controlplane.domain.refusals import CredentialsUnavailableError, StoreDeletedError
from controlplane.domain.store import Origin, Store
from controlplane.domain.transitions import StoreState
from controlplane.services.access import check_may_change, note_unknown_id
from provisioner_job.contract import CREDENTIALS_SECRET, OBSERVER_ROLE

__all__ = ["CredentialSource", "StoreCredentials"]

_CLUSTER_SECONDS: Final = 15.0
"""For two calls of milliseconds; below a request's own limit, so that this one names the cause."""
_BEFORE_READY: Final = {
    StoreState.PROVISIONING: "the store is being made and has none until it is ready; follow operation {operation}",
    StoreState.FAILED: "operation {operation} failed before the store had any; retry it, or delete the store",
    StoreState.DELETING: "the store is being deleted, and they are gone already; see operation {operation}",
}
"""Why a store that is not in use has none."""
_LOST: Final = {
    NoCredentials.NO_NAMESPACE: "the namespace {namespace} was deleted, and all of the store with it; delete the store "
    "and order a new one",
    NoCredentials.NO_SECRET: "the Secret {secret} in the namespace {namespace} was deleted; the log-in itself still "
    "works: whoever runs the platform restores the Secret from a copy, or sets a new password in the shop",
    NoCredentials.FOREIGN: "the Secret {secret} in the namespace {namespace} does not carry this store's id, so it is "
    "kept from you; whoever runs the platform: find out who made it, and restore the store's own",
    NoCredentials.UNREADABLE: "the Secret {secret} in the namespace {namespace} is empty or holds what is no text; "
    "whoever runs the platform: find out who changed it, and restore it",
}
"""Why a store that is in use has none."""


class CredentialSource(Protocol):
    """Where credentials are kept."""

    async def store_credentials(self, namespace: str, store_id: UUID) -> Credentials | NoCredentials:
        """Return what a store's Secret holds, or why there is nothing to return."""


class StoreCredentials:
    """Credentials on behalf of callers."""

    def __init__(self, database: Database, source: CredentialSource, settings: Settings) -> None:
        self._database = database
        self._rows = StoreRows(database)
        self._source = source
        self._settings = settings

    async def read(self, store_id: UUID, origin: Origin) -> tuple[Store, Credentials]:
        """Return a store and its credentials, once an audit row tells that they are read; a refusal has one as well.

        While a store is made it has none: some are known early, some only at the end, and half of them help nobody.

        Raises
        ------
        StoreNotFoundError, ForbiddenError
            There is none for this caller, or they may only look at it.
        StoreDeletedError
            It is deleted.
        CredentialsUnavailableError
            It has none yet, or has lost them.
        CredentialsRightMissingError
            The cluster refuses them to the control plane.
        DependencyUnavailableError
            The cluster does not answer; or the database does not, and without an audit row there is no answer.
        """
        try:
            store, credentials = await self._read(store_id, origin)
        except ControlPlaneError as error:
            await self._audit(store_id, origin, {"outcome": "refused", "code": error.code})
            raise
        names = sorted(credentials.texts)
        if not await self._audit(store_id, origin, {"outcome": "read", "names": names}):
            raise StoreNotFoundError(store_id)
        return store, credentials

    async def _read(self, store_id: UUID, origin: Origin) -> tuple[Store, Credentials]:
        store = await self._rows.get_store(store_id, origin.caller)
        if store is None:
            await note_unknown_id(self._database, store_id, origin)
            raise StoreNotFoundError(store_id)
        check_may_change(store.owner_id, origin)
        if store.state is StoreState.DELETED:
            raise StoreDeletedError(store_id)
        if store.state is StoreState.PROVISIONING:
            raise _none_yet(store)
        try:
            async with asyncio.timeout(_CLUSTER_SECONDS):
                found = await self._source.store_credentials(store.namespace, store.id)
        except TimeoutError as error:
            message = f"the cluster did not answer within {_CLUSTER_SECONDS:.0f} s; try again shortly"
            raise DependencyUnavailableError(message) from error
        if isinstance(found, NoCredentials):
            raise self._why_none(store, found)
        return store, found

    def _why_none(self, store: Store, found: NoCredentials) -> ControlPlaneError:
        # What is not there, or not to be looked at, was never made or is gone; what somebody else put there is told.
        if store.state in _BEFORE_READY and found not in (NoCredentials.FOREIGN, NoCredentials.UNREADABLE):
            return _none_yet(store)
        if found is not NoCredentials.NO_RIGHT:
            named = _LOST[found].format(namespace=store.namespace, secret=CREDENTIALS_SECRET)
            return CredentialsUnavailableError(named)
        account = f"{self._settings.observer_namespace}:{self._settings.observer_service_account}"
        return CredentialsRightMissingError(
            f"the Secret {CREDENTIALS_SECRET} in the namespace {store.namespace}",
            f"the RoleBinding {OBSERVER_ROLE} is missing there, or binds something else; remove a wrong one, then "
            f"`kubectl --namespace={store.namespace} create rolebinding {OBSERVER_ROLE} "
            f"--clusterrole=storeplane-{OBSERVER_ROLE} --serviceaccount={account}`",
        )

    async def _audit(self, store_id: UUID, origin: Origin, came_of_it: dict[str, Any]) -> bool:
        told = came_of_it | {"role": origin.caller.role.value, "request_id": origin.request_id}
        return await self._rows.audit_credentials(store_id, origin.caller, told, origin.ip)


def _none_yet(store: Store) -> CredentialsUnavailableError:
    reason = _BEFORE_READY[store.state].format(operation=store.operation_id)
    return CredentialsUnavailableError(reason, store.operation_id)
