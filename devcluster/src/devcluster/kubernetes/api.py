"""A few verified calls to the cluster's API server: readiness and server-side apply. Not a client library."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from devcluster.machine.errors import DevclusterError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from devcluster.kubernetes.pki import Pair

__all__ = ["ApiServer"]

_CALL_SECONDS = 5
"""One cable away: what takes longer is not there."""
_POLL_SECONDS = 0.1
_RESOURCES = {
    "Service": "api/v1/namespaces/{namespace}/services",
    "Node": "api/v1/nodes",
    "EndpointSlice": "apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
    "StorageClass": "apis/storage.k8s.io/v1/storageclasses",
    "IngressClass": "apis/networking.k8s.io/v1/ingressclasses",
    "ClusterRole": "apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
}


@dataclass(frozen=True)
class ApiServer:
    """The API server as the administrator sees it."""

    url: str
    authority: Path
    client: Pair

    def request(self, method: str, path: str, body: object = None, *, content_type: str = "") -> tuple[int, bytes]:
        """Make one call and return its status and body.

        Raises
        ------
        OSError
            If the server cannot be reached, or is not who it should be.
        """
        context = ssl.create_default_context(cafile=str(self.authority))
        context.load_cert_chain(self.client.certificate, self.client.key)
        target = urlsplit(self.url)
        connection = http.client.HTTPSConnection(
            str(target.hostname), target.port, timeout=_CALL_SECONDS, context=context
        )
        try:
            headers = {"Content-Type": content_type} if content_type else {}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise OSError(f"{self.url}: {error!r}") from error
        finally:
            connection.close()

    def is_ready(self) -> bool:
        """Return whether the server says it is ready; unreachable is not ready."""
        try:
            return self.request("GET", "/readyz")[0] == http.HTTPStatus.OK
        except OSError:
            return False

    def get(self, path: str) -> Any:
        """Return the JSON at a path.

        Raises
        ------
        DevclusterError
            If the answer is not 200.
        """
        status, body = self.request("GET", path)
        if status != http.HTTPStatus.OK:
            raise DevclusterError(f"GET {path}: {status} {body[:500].decode(errors='replace')}")
        return json.loads(body)

    def apply(self, manifest: Mapping[str, Any], *, seconds: float = 20) -> None:
        """Apply one object server-side, and again until the server has what it takes (roles are still being made)."""
        metadata = manifest["metadata"]
        folder = _RESOURCES[manifest["kind"]].format(namespace=metadata.get("namespace", ""))
        path = f"/{folder}/{metadata['name']}?fieldManager=devcluster&force=true"
        deadline = time.monotonic() + seconds
        while True:
            status, body = self.request("PATCH", path, manifest, content_type="application/apply-patch+yaml")
            if status in {http.HTTPStatus.OK, http.HTTPStatus.CREATED}:
                return
            if time.monotonic() > deadline:
                raise DevclusterError(f"{manifest['kind']} {metadata['name']}: {status} {body[:500].decode()}")
            time.sleep(_POLL_SECONDS)
