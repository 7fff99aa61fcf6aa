"""A thin layer of HTTP over the cluster's address and credentials.

kubernetes_asyncio knows every way to find a cluster and to authenticate; it is used for that alone, and imported only
when a connection is made, because it costs a second and 60 MB. Calls go through one aiohttp session with explicit
limits: the library's own default waits for ever. What goes on for long, a watch or a log that is followed, is a
`stream`: limited in its silence instead of its length.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import orjson

from controlplane.domain.errors import ConfigurationError
from controlplane.kube.errors import KubeNotFoundError, KubeUnauthorizedError, KubeUnavailableError, error_from_response

__all__ = ["CALL_LIMITS", "KubeClient", "lines"]

CALL_LIMITS: Final = aiohttp.ClientTimeout(total=10, sock_connect=3, sock_read=9)
"""A call answers in milliseconds; a server under load may take a few seconds of queueing."""
_CONNECTIONS: Final = 256
"""Above every create, watch, harvest and followed log together: a call that queues here looks like a silent cluster."""
_KEEP_SECONDS: Final = 60.0
"""An unused connection is kept for the next call: a TLS handshake costs more than a call. The server's own limit is
longer, so that it is never the server that closes while a call sets out."""
_LOAD_SECONDS: Final = 20.0
"""Reading a configuration may run an exec plugin."""
_OPEN_SECONDS: Final = 9.0
"""A stream begins as fast as a call answers."""
_BODY_LIMIT_BYTES: Final = 64 * 2**20
"""Far above a page of 500 Jobs: a body beyond this is not an answer of ours."""
_LINE_LIMIT_BYTES: Final = 8 * 2**20
"""The API server stores no object of more than 1.5 MiB."""
_LOST_LOG: Final = b"unable to retrieve container logs for "
_LOST_LOG_BYTES: Final = 200
"""The sentence ends with a container's id."""
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
        connector = aiohttp.TCPConnector(ssl=_tls(configuration), limit=_CONNECTIONS, keepalive_timeout=_KEEP_SECONDS)
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
        headers = await self._headers()
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            async with self._session.request(
                method, self._base_url + path, params=query, data=body, headers=headers, timeout=CALL_LIMITS
            ) as response:
                return response.status, await _body(response), response.headers.get("Retry-After")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unavailable(f"{method} {path}", error) from error

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: dict[str, str], silence_seconds: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a GET that goes on, and give its bytes in the pieces they come in; leaving ends it.

        The iterator ends when the server ends the answer.

        Raises
        ------
        KubeError
            One of its classes, on opening. While it is read only `KubeUnavailableError`: the stream was cut, or no
            byte came for `silence_seconds`.
        """
        what = f"GET {path}"
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CALL_LIMITS.sock_connect, sock_read=silence_seconds)
        async with AsyncExitStack() as stack:
            try:
                used = self._configuration
                response = await self._opened(stack, path, query, limits)
                if response.status == _UNAUTHORIZED and self._load is not None:
                    response.close()
                    await self._reload(used)
                    response = await self._opened(stack, path, query, limits)
                if response.status >= _ERRORS_FROM:
                    async with asyncio.timeout(_OPEN_SECONDS):
                        raw = await _body(response)
                    raise error_from_response(what, response.status, _decoded(raw), response.headers.get("Retry-After"))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise _unavailable(what, error) from error
            yield _pieces(what, response)

    async def log(  # noqa: PLR0913 -- the API's own parameters, all by name
        self, namespace: str, pod: str, *, container: str, tail_lines: int, limit_bytes: int, is_previous: bool = False
    ) -> bytes:
        """Return the last lines of a container's log, and of these the first `limit_bytes`.

        Raises
        ------
        KubeNotFoundError
            There is no such pod, or its node has dropped the log.
        KubeInvalidError
            The container has not started.
        KubeError
            As from `read`.
        """
        query = {"container": container, "tailLines": str(tail_lines), "limitBytes": str(limit_bytes)}
        if is_previous:
            query["previous"] = "true"
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        raw = await self.read("GET", path, query=query)
        if raw.startswith(_LOST_LOG) and len(raw) < _LOST_LOG_BYTES:
            # A kubelet says this with 200, as if it were the log.
            message = f"GET {path}: the node no longer has this log"
            raise KubeNotFoundError(message)
        return raw

    def follow_log(
        self, namespace: str, pod: str, *, container: str, silence_seconds: float
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Give a container's log from its beginning, and what it writes from now on, as `stream` does.

        A container that works without writing is silent too: the limit is the longest rest the caller grants it.
        `KubeInvalidError` means that it has not started; of a pod without a node the log is empty and ends at once.
        """
        query = {"container": container, "follow": "true"}
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        return self.stream(path, query=query, silence_seconds=silence_seconds)

    async def _opened(
        self, stack: AsyncExitStack, path: str, query: dict[str, str], limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        headers = await self._headers()
        async with asyncio.timeout(_OPEN_SECONDS):
            return await stack.enter_async_context(
                self._session.get(self._base_url + path, params=query, headers=headers, timeout=limits)
            )

    async def _headers(self) -> dict[str, str]:
        # Compressing a list costs the server and us more than its bytes cost a cluster's network.
        return {"Accept": "application/json", "Accept-Encoding": "identity", **await self._credentials()}

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


async def lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Give the complete lines of a stream, without their ends and without empty ones.

    Raises
    ------
    KubeUnavailableError
        The stream ended inside a line, or a line is longer than anything the API server stores.
    """
    rest = b""
    async for piece in pieces:
        *complete, rest = (rest + piece).split(b"\n")
        for line in complete:
            if line:
                yield line
        if len(rest) > _LINE_LIMIT_BYTES:
            message = f"a line of the stream is longer than {_LINE_LIMIT_BYTES} bytes"
            raise KubeUnavailableError(message)
    if rest:
        message = f"the stream ended inside a line, after {len(rest)} bytes of it"
        raise KubeUnavailableError(message)


async def _pieces(what: str, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for piece in response.content.iter_any():
            yield piece
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise _unavailable(what, error) from error


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """Return the body, cut at the limit."""
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size >= _BODY_LIMIT_BYTES:
            break
    return b"".join(pieces)[:_BODY_LIMIT_BYTES]


def _unavailable(what: str, error: Exception) -> KubeUnavailableError:
    return KubeUnavailableError(f"{what}: {str(error) or type(error).__name__}")


def _decoded(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
