"""Reading a store's credentials: the one Secret in a store's namespace that the control plane may get.

It is asked for by its name, by the right that a binding in that namespace gives; there is no right to list Secrets, nor
to get another one. What the Secret holds is in no error and no log line: an error of the transport may quote a piece of
the answer, so its words stay inside as well.
"""

from typing import Final
from uuid import UUID

import msgspec

from controlplane.domain.credentials import Credentials, NoCredentials
from controlplane.kube.client import KubeClient
from controlplane.kube.errors import (
    KubeError,
    KubeForbiddenError,
    KubeNotFoundError,
    KubeUnauthorizedError,
    KubeUnavailableError,
)
from controlplane.kube.wire import Namespace, Secret
from controlplane.telemetry import get_logger
from provisioner_job.contract import CREDENTIALS_SECRET, STORE_LABEL

__all__ = ["read_credentials"]

_AWAY: Final = "The cluster does not answer, and the credentials are only there; try again shortly"
_NOT_KNOWN: Final = (
    "The cluster does not know the control plane, and the credentials are only there; whoever runs the platform: check "
    "the service account or kubeconfig"
)
_secret: Final = msgspec.json.Decoder(Secret)
_namespace: Final = msgspec.json.Decoder(Namespace)

_log = get_logger(__name__)


async def read_credentials(client: KubeClient, namespace: str, store_id: UUID) -> Credentials | NoCredentials:
    """Return what the store's Secret holds, or why there is nothing to return.

    Two calls at most, each within the client's own limits.

    Raises
    ------
    KubeError
        The cluster does not answer, or not as a cluster does; the message repeats nothing of the answer.
    """
    try:
        raw = await _secret_or_reason(client, namespace)
    except KubeError as error:
        # Only the kind of its cause: the transport's words may quote what it could not read.
        cause = type(error.__cause__ or error).__name__
        _log.warning("credentials not read", namespace=namespace, reason=error.reason, cause=cause)
        if isinstance(error, KubeUnauthorizedError):
            raise KubeUnauthorizedError(_NOT_KNOWN, reason=error.reason) from None
        raise KubeUnavailableError(_AWAY, reason=error.reason) from None
    return raw if isinstance(raw, NoCredentials) else _held(raw, store_id)


async def _secret_or_reason(client: KubeClient, namespace: str) -> bytes | NoCredentials:
    place = f"/api/v1/namespaces/{namespace}"
    try:
        return await client.read("GET", f"{place}/secrets/{CREDENTIALS_SECRET}")
    except (KubeForbiddenError, KubeNotFoundError) as error:
        # The right is in the namespace: where that is gone the answer is a refusal, as where a binding is missing.
        if await _is_gone(client, place):
            return NoCredentials.NO_NAMESPACE
        return NoCredentials.NO_RIGHT if isinstance(error, KubeForbiddenError) else NoCredentials.NO_SECRET


async def _is_gone(client: KubeClient, place: str) -> bool:
    try:
        found = _namespace.decode(await client.read("GET", place))
    except KubeNotFoundError:
        return True
    except msgspec.DecodeError as error:
        message = f"GET {place}: the answer is no Namespace"
        raise KubeUnavailableError(message) from error
    return found.metadata.deletion_timestamp is not None


def _held(raw: bytes, store_id: UUID) -> Credentials | NoCredentials:
    try:
        secret = _secret.decode(raw)
    except msgspec.DecodeError:
        # A proxy's page, or a Status with 200: nobody may take it for the Secret.
        raise KubeUnavailableError(_AWAY) from None
    if (secret.metadata.labels or {}).get(STORE_LABEL) != str(store_id):
        return NoCredentials.FOREIGN
    try:
        texts = {name: value.decode() for name, value in (secret.data or {}).items()}
    except UnicodeDecodeError:
        return NoCredentials.UNREADABLE
    return Credentials(texts) if texts else NoCredentials.UNREADABLE
