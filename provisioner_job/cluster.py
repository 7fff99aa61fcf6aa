"""The cluster as the phases need it: server-side apply, read, create, list, logs.

A call waits for an API server that is away for a minute; the caller's own limit ends it earlier. lightkube is imported
when the first call is made, after the handshake: it costs a third of a second that the start of every store would pay.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from provisioner_job.errors import ProvisionerError
from provisioner_job.journal import Journal
from provisioner_job.patience import Patience
from provisioner_job.refusals import AbsentError, TakenError

if TYPE_CHECKING:
    from httpx2 import Timeout
    from lightkube import AsyncClient

__all__ = ["FIELD_MANAGER", "Cluster"]

FIELD_MANAGER: Final = "storeplane-provisioner"
_CONNECT_SECONDS: Final = 5.0
_READ_SECONDS: Final = 20.0
_PATIENCE_SECONDS: Final = 60.0
"""A control plane that is restarted or moved is back within a minute."""


class Cluster:
    """One client for the whole run. Objects go in and come out as plain dictionaries."""

    def __init__(self, journal: Journal, *, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self._made: AsyncClient | None = None
        self._patience = Patience(journal, seconds=patience_seconds)

    async def close(self) -> None:
        """Close the client, if one was made."""
        if self._made is not None:
            await self._made.close()

    async def apply(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Create or change an object so that it holds what is wanted (server-side apply, our fields only)."""
        from lightkube import codecs  # noqa: PLC0415 -- see the module's docstring

        what = f"apply {wanted['kind']} {wanted['metadata']['name']}"
        made = codecs.from_dict(wanted)
        return await self._asked(what, lambda: self._client().apply(made, field_manager=FIELD_MANAGER, force=True))

    async def create(self, wanted: dict[str, Any]) -> bool:
        """Create an object; False when the name is taken, be it by a try of ours whose answer was lost."""
        from lightkube import codecs  # noqa: PLC0415 -- see the module's docstring

        what = f"create {wanted['kind']} {wanted['metadata']['name']}"
        made = codecs.from_dict(wanted)
        try:
            await self._asked(what, lambda: self._client().create(made))
        except TakenError:
            return False
        return True

    async def get(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """Read an object, or None when there is none."""
        resource = _resource(kind)
        # Namespaced and cluster-wide reads have different types; which one it is, the caller knows.
        arguments: dict[str, Any] = {} if namespace is None else {"namespace": namespace}
        try:
            return await self._asked(f"get {kind} {name}", lambda: self._client().get(resource, name, **arguments))
        except AbsentError:
            return None

    async def list(self, kind: str, namespace: str, labels: dict[str, str]) -> list[dict[str, Any]]:
        """Return a namespace's objects with these labels."""
        selector: dict[str, Any] = dict(labels)

        async def whole() -> list[dict[str, Any]]:
            found = self._client().list(_resource(kind), namespace=namespace, labels=selector)
            return [item.to_dict() async for item in found]

        return await self._patience.ask(f"list {kind}", whole)

    async def replace_secret(self, secret: dict[str, Any]) -> None:
        """Write a Secret that was read, if nobody changed it since.

        Raises
        ------
        TakenError
            It was changed, be it by a try of ours whose answer was lost.
        """
        from lightkube import codecs  # noqa: PLC0415 -- see the module's docstring

        made = codecs.from_dict({"apiVersion": "v1", "kind": "Secret"} | secret)
        await self._asked(f"replace Secret {secret['metadata']['name']}", lambda: self._client().replace(made))

    async def delete(self, kind: str, name: str, namespace: str, *, owned_first: bool = False) -> None:
        """Remove an object and what it owns, before it or in the background; nothing happens when there is none."""
        from lightkube.types import CascadeType  # noqa: PLC0415 -- see the module's docstring

        cascade = CascadeType.FOREGROUND if owned_first else CascadeType.BACKGROUND
        with suppress(AbsentError):
            await self._asked(
                f"delete {kind} {name}",
                lambda: self._client().delete(_resource(kind), name, namespace=namespace, cascade=cascade),
            )

    async def delete_namespace(self, name: str, uid: str) -> None:
        """Begin to remove a namespace; nothing happens when it is not there or going already.

        Raises
        ------
        TakenError
            The namespace of this name is another one by now.
        """
        from lightkube.config.client_adapter import AsyncClient, ConnectionParams  # noqa: PLC0415 -- as above

        # lightkube's own delete has no preconditions.
        config = self._client().config
        async with AsyncClient(config, ConnectionParams(timeout=_timeout(), trust_env=False)) as client:

            async def delete() -> None:
                body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}}
                answer = await client.request("DELETE", f"/api/v1/namespaces/{name}", json=body)
                answer.raise_for_status()

            with suppress(AbsentError):
                await self._patience.ask(f"delete Namespace {name}", delete)

    async def is_allowed(self, verb: str, group: str, resource: str, namespace: str) -> bool:
        """Return whether we have a right in a namespace."""
        from lightkube import codecs  # noqa: PLC0415 -- see the module's docstring

        attributes = {"verb": verb, "group": group, "resource": resource, "namespace": namespace}
        review = codecs.from_dict(
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "metadata": {},
                "spec": {"resourceAttributes": attributes},
            }
        )
        answer = await self._asked("review our rights", lambda: self._client().create(review))
        return bool((answer.get("status") or {}).get("allowed"))

    def expect_rights(self, *, seconds: float) -> None:
        """Take a refusal for one that passes, for so long: not every API server has seen a new binding yet."""
        self._patience.forgive(seconds)

    async def log_tail(self, pod: str, namespace: str, container: str, lines: int) -> str:
        """Return the last lines of a container's log; empty when there is none."""

        async def whole() -> str:
            found = self._client().log(pod, namespace=namespace, container=container, tail_lines=lines)
            return "".join([line async for line in found])

        try:
            return await self._patience.ask(f"log of {pod}", whole)
        except ProvisionerError as error:
            # A log that cannot be had must not hide the failure it would tell.
            return f"(no log: {error.detail})"

    def _client(self) -> "AsyncClient":
        if self._made is None:
            from lightkube import AsyncClient, KubeConfig  # noqa: PLC0415 -- see the module's docstring

            self._made = AsyncClient(
                config=KubeConfig.from_env(),
                timeout=_timeout(),
                field_manager=FIELD_MANAGER,
                # The API server is never behind the proxy of the environment.
                trust_env=False,
            )
        return self._made

    async def _asked(self, what: str, call: Callable[[], Awaitable[Any]]) -> dict[str, Any]:
        answer = await self._patience.ask(what, call)
        made: dict[str, Any] = answer.to_dict() if answer is not None else {}
        return made


def _timeout() -> "Timeout":
    from httpx2 import Timeout  # noqa: PLC0415 -- see the module's docstring

    return Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS)


def _resource(kind: str) -> Any:
    from lightkube.resources import apps_v1, batch_v1, core_v1, networking_v1  # noqa: PLC0415 -- as above

    return {
        "CronJob": batch_v1.CronJob,
        "Deployment": apps_v1.Deployment,
        "Event": core_v1.Event,
        "Ingress": networking_v1.Ingress,
        "Job": batch_v1.Job,
        "Namespace": core_v1.Namespace,
        "PersistentVolumeClaim": core_v1.PersistentVolumeClaim,
        "Pod": core_v1.Pod,
        "ResourceQuota": core_v1.ResourceQuota,
        "Secret": core_v1.Secret,
        "Service": core_v1.Service,
        "StatefulSet": apps_v1.StatefulSet,
    }[kind]
