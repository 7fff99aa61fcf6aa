"""A thin layer of HTTP over the cluster's address and credentials.

kubernetes_asyncio knows every way to find a cluster and to authenticate; it is used for that alone, and imported only
when a connection is made, because it costs a second and 60 MB. Calls go through one aiohttp session with explicit
limits: the library's own default waits for ever.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import orjson

from controlplane.domain.errors import ConfigurationError
from controlplane.kube.errors import KubeUnauthorizedError, KubeUnavailableError, error_from_response

__all__ = ["CALL_LIMITS", "KubeClient"]

CALL_LIMITS: Final = aiohttp.ClientTimeout(total=10, sock_connect=3, sock_read=9)
"""A call answers in milliseconds; a server under load may take a few seconds of queueing."""
_LOAD_SECONDS: Final = 20.0
"""Reading a configuration may run an exec plugin."""
_BODY_LIMIT_BYTES: Final = 64 * 2**20
"""Far above a page of 500 Jobs: a body beyond this is not an answer of ours."""
_UNAUTHORIZED: Final = 401
_ERRORS_FROM: Final = 400


class KubeClient:
    """One session to one cluster; safe to share between tasks.

    A token is read anew when the cluster refuses it. Address, CA and client certificate are those of the start: a
    renewed client certificate needs a restart.
    """

    def __init__(
        self,
        base_url: str,
        configuration: Any,
        session: aiohttp.ClientSession,
        *,
        load: Callable[[], Awaitable[Any]] | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._configuration = configuration
        self._session = session
        self._load = load
        self._loading = asyncio.Lock()

    @classmethod
    async def connect(cls, kubeconfig: Path | None) -> Self:
        """Load the configuration and open a session; makes no call.

        `kubeconfig` None means the service account of the pod this runs in.

        Raises
        ------
        ConfigurationError
            The file or a certificate it names cannot be used, or there is no service account here.
        """
        configuration = await _load(kubeconfig)
        connector = aiohttp.TCPConnector(ssl=_tls(configuration), limit=64)
        session = aiohttp.ClientSession(connector=connector, timeout=CALL_LIMITS)
        return cls(configuration.host, configuration, session, load=lambda: _load(kubeconfig))

    async def close(self) -> None:
        """Close the session."""
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        query: dict[str, str] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """Make one call and return the object in its answer.

        Raises
        ------
        KubeError
            One of its classes; `KubeUnavailableError` when it is unknown whether the call had its effect.
        """
        raw = await self.read(method, path, body=body, query=query, content_type=content_type)
        decoded = _decoded(raw)
        # A proxy's page or a Status with 200 is no answer: nobody may take it for an object.
        if not isinstance(decoded, dict) or "kind" not in decoded or decoded["kind"] == "Status":
            message = f"{method} {path}: the answer is not a Kubernetes object"
            raise KubeUnavailableError(message)
        return decoded

    async def read(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        query: dict[str, str] | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        """Make one call and return the bytes of its answer; errors as in `request`."""
        used = self._configuration
        status, raw, retry_after = await self._exchange(method, path, body, query, content_type)
        if status == _UNAUTHORIZED and self._load is not None:
            # A refused call had no effect, so repeating it is safe; a token that is still refused is a wrong one.
            await self._reload(used)
            status, raw, retry_after = await self._exchange(method, path, body, query, content_type)
        if status >= _ERRORS_FROM:
            raise error_from_response(f"{method} {path}", status, _decoded(raw), retry_after)
        return raw

    async def _reload(self, used: Any) -> None:
        """Read the configuration again, unless another call has done so since `used` was refused."""
        async with self._loading:
            if self._configuration is not used or self._load is None:
                return
            try:
                self._configuration = await self._load()
            except ConfigurationError as error:
                message = f"the cluster refuses the credentials, and they cannot be read again: {error}"
                raise KubeUnauthorizedError(message) from error

    async def _exchange(
        self, method: str, path: str, body: bytes | None, query: dict[str, str] | None, content_type: str
    ) -> tuple[int, bytes, str | None]:
        headers = {"Accept": "application/json", **await self._credentials()}
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            async with self._session.request(
                method, self._base_url + path, params=query, data=body, headers=headers, timeout=CALL_LIMITS
            ) as response:
                raw = await response.content.read(_BODY_LIMIT_BYTES)
                # read(n) may return early; a chunked answer needs the rest.
                while not response.content.at_eof() and len(raw) < _BODY_LIMIT_BYTES:
                    raw += await response.content.read(_BODY_LIMIT_BYTES - len(raw))
                return response.status, raw, response.headers.get("Retry-After")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            message = f"{method} {path}: {str(error) or type(error).__name__}"
            raise KubeUnavailableError(message) from error

    async def _credentials(self) -> dict[str, str]:
        """Return the Authorization header.

        Only a service account's configuration has the hook, which reads the token's file again each minute; a
        kubeconfig's token stays what it was until the next reload.
        """
        hook = getattr(self._configuration, "refresh_api_key_hook", None)
        if hook is not None:
            # Loaded already: only the library sets a hook.
            from kubernetes_asyncio.config import ConfigException  # noqa: PLC0415

            try:
                made = hook(self._configuration)
                if asyncio.iscoroutine(made):
                    async with asyncio.timeout(_LOAD_SECONDS):
                        await made
            except (ConfigException, OSError) as error:
                # TimeoutError is an OSError.
                message = f"the service account's token cannot be read: {error}"
                raise KubeUnauthorizedError(message) from error
        token = self._configuration.api_key.get("BearerToken") or self._configuration.api_key.get("authorization")
        if token:
            return {"Authorization": token if " " in token else f"Bearer {token}"}
        return {}


async def _load(kubeconfig: Path | None) -> Any:
    # Imported here: see the module's docstring.
    from kubernetes_asyncio import client, config  # noqa: PLC0415

    configuration = client.Configuration()
    try:
        async with asyncio.timeout(_LOAD_SECONDS):
            if kubeconfig is None:
                config.load_incluster_config(  # type: ignore[no-untyped-call]  # the library has no types
                    client_configuration=configuration
                )
            else:
                await config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
    except (config.ConfigException, OSError, ValueError, KeyError, TypeError, TimeoutError) as error:
        where = "the service account of this pod" if kubeconfig is None else str(kubeconfig)
        message = f"no cluster can be read from {where} ({error}); set STOREPLANE_KUBECONFIG to a kubeconfig file"
        raise ConfigurationError(message) from error
    return configuration


def _tls(configuration: Any) -> ssl.SSLContext | bool:
    if not configuration.host.startswith("https"):
        return True
    if not configuration.verify_ssl:
        message = "the kubeconfig turns certificate verification off; give it the cluster's CA instead"
        raise ConfigurationError(message)
    what = f"the CA file {configuration.ssl_ca_cert}"
    try:
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if configuration.cert_file:
            what = f"the client certificate {configuration.cert_file} with the key {configuration.key_file}"
            context.load_cert_chain(configuration.cert_file, configuration.key_file)
    except OSError as error:
        # ssl.SSLError is one too.
        message = f"the kubeconfig names {what}, which cannot be used: {error.strerror or error}"
        raise ConfigurationError(message) from error
    return context


def _decoded(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
