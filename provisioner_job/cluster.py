"""The cluster as the phases need it: server-side apply, read, create, list, logs.

lightkube is imported when the first call is made, after the handshake: it costs a third of a second that the start of
every store would pay.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from provisioner_job.errors import PhaseError, RetryableError

if TYPE_CHECKING:
    from lightkube import AsyncClient

__all__ = ["FIELD_MANAGER", "Cluster"]

FIELD_MANAGER: Final = "storeplane-provisioner"
_CONNECT_SECONDS: Final = 5.0
_READ_SECONDS: Final = 20.0
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_THROTTLED: Final = 429
_SERVER_ERRORS: Final = 500


class Cluster:
    """One client for the whole run. Objects go in and come out as plain dictionaries."""

    def __init__(self) -> None:
        self._made: AsyncClient | None = None

    async def close(self) -> None:
        """Close the client, if one was made."""
        if self._made is not None:
            await self._made.close()

    async def apply(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Create or change an object so that it holds what is wanted (server-side apply, our fields only)."""
        from lightkube import codecs  # noqa: PLC0415 -- see the module's docstring

        what = f"apply {wanted['kind']} {wanted['metadata']['name']}"
        made = codecs.from_dict(wanted)
        return await self._asked(what, self._client().apply(made, field_manager=FIELD_MANAGER, force=True))

    async def create(self, wanted: dict[str, Any]) -> bool:
        """Create an object; False when the name is taken."""
        from lightkube import codecs  # noqa: PLC0415 -- see the module's docstring

        what = f"create {wanted['kind']} {wanted['metadata']['name']}"
        try:
            await self._asked(what, self._client().create(codecs.from_dict(wanted)))
        except _TakenError:
            return False
        return True

    async def get(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """Read an object, or None when there is none."""
        resource = _resource(kind)
        # Namespaced and cluster-wide reads have different types; which one it is, the caller knows.
        arguments: dict[str, Any] = {} if namespace is None else {"namespace": namespace}
        try:
            return await self._asked(f"get {kind} {name}", self._client().get(resource, name, **arguments))
        except _AbsentError:
            return None

    async def list(self, kind: str, namespace: str, labels: dict[str, str]) -> list[dict[str, Any]]:
        """Return a namespace's objects with these labels."""
        made: list[dict[str, Any]] = []
        selector: dict[str, Any] = dict(labels)
        try:
            async for item in self._client().list(_resource(kind), namespace=namespace, labels=selector):
                made.append(item.to_dict())  # noqa: PERF401 -- errors of the iteration are translated around it
        except Exception as error:
            raise _explained(f"list {kind}", error) from error
        return made

    async def replace_secret(self, secret: dict[str, Any]) -> None:
        """Write a Secret that was read, if nobody changed it since."""
        from lightkube import codecs  # noqa: PLC0415 -- see the module's docstring

        made = codecs.from_dict({"apiVersion": "v1", "kind": "Secret"} | secret)
        await self._asked(f"replace Secret {secret['metadata']['name']}", self._client().replace(made))

    async def delete(self, kind: str, name: str, namespace: str) -> None:
        """Remove an object at once and what it owns in the background; nothing happens when there is none."""
        from lightkube.types import CascadeType  # noqa: PLC0415 -- see the module's docstring

        removal = self._client().delete(_resource(kind), name, namespace=namespace, cascade=CascadeType.BACKGROUND)
        with suppress(_AbsentError):
            await self._asked(f"delete {kind} {name}", removal)

    async def log_tail(self, pod: str, namespace: str, container: str, lines: int) -> str:
        """Return the last lines of a container's log; empty when there is none."""
        try:
            found = [
                line
                async for line in self._client().log(pod, namespace=namespace, container=container, tail_lines=lines)
            ]
        except Exception as error:  # noqa: BLE001 -- a log that cannot be had must not hide the failure it would tell
            return f"(no log: {error})"
        return "".join(found)

    def _client(self) -> "AsyncClient":
        if self._made is None:
            from httpx2 import Timeout  # noqa: PLC0415 -- see the module's docstring
            from lightkube import AsyncClient, KubeConfig  # noqa: PLC0415 -- see the module's docstring

            self._made = AsyncClient(
                config=KubeConfig.from_env(),
                timeout=Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
                field_manager=FIELD_MANAGER,
                # The API server is never behind the proxy of the environment.
                trust_env=False,
            )
        return self._made

    @staticmethod
    async def _asked(what: str, call: Any) -> dict[str, Any]:
        try:
            answer = await call
        except Exception as error:
            raise _explained(what, error) from error
        made: dict[str, Any] = answer.to_dict() if answer is not None else {}
        return made


class _AbsentError(RetryableError):
    """The object is not there; where that is no answer, it or its namespace went away while we worked."""

    def __init__(self, detail: str) -> None:
        super().__init__("OBJECT_GONE", "An object of the store went away", detail)


class _TakenError(RetryableError):
    """The name is taken; where that is no answer, somebody else changed the object since it was read."""

    def __init__(self, detail: str) -> None:
        super().__init__("OBJECT_CHANGED", "Somebody else changes an object of the store", detail)


def _explained(what: str, error: Exception) -> Exception:
    """Return our error for one of the client's, or the same one when it is a bug."""
    from httpx2 import HTTPError  # noqa: PLC0415 -- see the module's docstring
    from lightkube import ApiError  # noqa: PLC0415 -- see the module's docstring

    if isinstance(error, ApiError):
        status, message = error.status.code or 0, f"{what}: {error.status.message}"
        # Without a name it is the kind that is not there, and a next attempt would not find it either.
        if status == _NOT_FOUND and error.status.details is not None and error.status.details.name:
            return _AbsentError(message)
        if status == _CONFLICT:
            return _TakenError(message)
        if status == _THROTTLED or status >= _SERVER_ERRORS:
            return RetryableError("CLUSTER_UNAVAILABLE", "The cluster cannot answer now", message)
        return PhaseError("CLUSTER_REFUSED", "The cluster refuses an object", message)
    if isinstance(error, HTTPError | OSError | TimeoutError):
        return RetryableError("CLUSTER_UNAVAILABLE", "The cluster does not answer", f"{what}: {error}")
    return error


def _resource(kind: str) -> Any:
    from lightkube.resources import batch_v1, core_v1, networking_v1  # noqa: PLC0415 -- see the module's docstring

    return {
        "Ingress": networking_v1.Ingress,
        "Job": batch_v1.Job,
        "Namespace": core_v1.Namespace,
        "Pod": core_v1.Pod,
        "ResourceQuota": core_v1.ResourceQuota,
        "Secret": core_v1.Secret,
        "Service": core_v1.Service,
    }[kind]
