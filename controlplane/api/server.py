"""HTTP below the application: what the library refuses before there is a request is answered as a problem too.

A request line or header that cannot be read, or a body in an encoding nobody asked for, never reaches a middleware. The
library would answer in plain text and log a traceback for what a stranger sent. One thing is left to it: an Expect
header on a path that does not exist.
"""

from typing import Final

from aiohttp import web
from typing_extensions import override
from uuid_utils.compat import uuid7

from controlplane.api.problems import Problem, from_http_error
from controlplane.telemetry import get_logger

__all__ = ["Runner", "refuse_expectation"]

_CODES: Final = {400: "BAD_REQUEST", 413: "BODY_TOO_LARGE", 417: "EXPECTATION_FAILED"}
_CONTINUE: Final = "100-continue"

_log = get_logger(__name__)


class _Connection(web.RequestHandler):
    """One connection; what is wrong with it is answered once, and it is closed."""

    @override
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            told = "the answer had begun, nothing more can be told"
            raise ConnectionError(told)
        request_id = str(uuid7())
        code = _CODES.get(status, "INTERNAL")
        if code == "INTERNAL":
            _log.error("request failed below the application", request_id=request_id, exc_info=exc)
            detail = "Something went wrong on our side; the request id finds it in the log"
        else:
            # The library's message repeats what was sent, which may be a secret in the wrong place: it stays here.
            _log.info("request refused", request_id=request_id, status=status, reason=type(exc).__name__)
            detail = "The request line, a header or the body's encoding cannot be read"
        response = Problem(code, detail).response(request_id)
        response.headers["X-Request-ID"] = request_id
        response.force_close()
        return response


class _Server(web.Server):
    @override
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs the application on connections that answer with problems."""

    @override
    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        # The application makes its server itself and takes no other class; this one has the same state.
        made.__class__ = _Server
        return made


async def refuse_expectation(request: web.Request) -> web.StreamResponse | None:
    """Answer an Expect header: go on with the body, or a problem for what is not offered."""
    if request.headers.get("Expect", "").lower() != _CONTINUE:
        # Before the middlewares, which would give it its id and its line in the log.
        request_id = str(uuid7())
        _log.info("request refused", request_id=request_id, status=417, reason="Expect")
        response = from_http_error(web.HTTPExpectationFailed(), request_id)
        response.headers["X-Request-ID"] = request_id
        return response
    if request.version >= (1, 1):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # What follows is the answer, not the rest of one.
        request.writer.output_size = 0
    return None
