"""An API server that can be told to fail, for what a real one cannot be made to do on demand.

Its normal answers about Jobs and pods (create, get, list, watch, patch, delete) are those of a real server, and the
tests that say so run against both. A fault answers in place of the normal answer: once, or until it is healed.
"""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections import Counter, deque
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
from aiohttp import web
from aiohttp.test_utils import TestServer

from controlplane.kube.client import KubeClient
from tests.support.faulty_cluster import Credentials, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

__all__ = ["FakeApiServer", "event_line", "fake_apiserver", "page", "refuses", "says"]

_KINDS = {"jobs": ("Job", "batch/v1"), "pods": ("Pod", "v1"), "events": ("Event", "v1")}


class FakeApiServer:
    """Jobs and pods of one namespace or more, with the history a watch goes on from."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        """By what was asked: ``list jobs``, ``continue jobs``, ``watch pods``, ``POST jobs``."""
        self.watched_from: list[str] = []
        """The version each watch asked for, refused ones too."""
        self._version = 100
        self._objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._history: list[tuple[int, str, str, dict[str, Any]]] = []
        self._forgotten = 0
        self._news = asyncio.Condition()
        self._pages: dict[str, tuple[list[dict[str, Any]], str]] = {}
        self._faults: dict[str, deque[Answer]] = {}
        self._lasting: dict[str, Answer] = {}

    def fails(self, what: str, *answers: Answer) -> None:
        """Give these answers to the next such calls, in order."""
        self._faults.setdefault(what, deque()).extend(answers)

    def fails_until_healed(self, what: str, answer: Answer) -> None:
        self._lasting[what] = answer

    def heal(self) -> None:
        self._faults.clear()
        self._lasting.clear()

    def forget(self) -> None:
        """Compact: a watch from any earlier version is refused."""
        self._forgotten = self._version

    @property
    def version(self) -> str:
        return str(self._version)

    async def put(self, resource: str, made: dict[str, Any]) -> dict[str, Any]:
        """Create or replace an object, as a controller would; give it what a server adds."""
        key = resource, made["metadata"].setdefault("namespace", "storeplane-jobs"), made["metadata"]["name"]
        known = self._objects.get(key)
        stored = copy.deepcopy(made)
        stored["metadata"].setdefault("uid", known["metadata"]["uid"] if known else str(uuid.uuid4()))
        stored["metadata"].setdefault("creationTimestamp", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        await self._record("ADDED" if known is None else "MODIFIED", key, stored)
        return stored

    async def remove(self, resource: str, name: str, namespace: str = "storeplane-jobs") -> None:
        key = resource, namespace, name
        await self._record("DELETED", key, copy.deepcopy(self._objects[key]))

    def lose(self, resource: str, name: str, namespace: str = "storeplane-jobs") -> None:
        """Remove an object without a word to any watch."""
        del self._objects[resource, namespace, name]

    async def _record(self, change: str, key: tuple[str, str, str], stored: dict[str, Any]) -> None:
        self._version += 1
        stored["metadata"]["resourceVersion"] = str(self._version)
        if change == "DELETED":
            del self._objects[key]
        else:
            self._objects[key] = stored
        async with self._news:
            self._history.append((self._version, change, "/".join(key[:2]), stored))
            self._news.notify_all()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.split("/namespaces/", 1)[1].split("/")
        namespace, resource, name = parts[0], parts[1], parts[2] if len(parts) > 2 else ""
        what = self._what(request, resource, name)
        self.calls[what] += 1
        if what.startswith("watch"):
            self.watched_from.append(request.query.get("resourceVersion", ""))
        if self._faults.get(what):
            return await self._faults[what].popleft()(request)
        if what in self._lasting:
            return await self._lasting[what](request)
        verb = what.split()[0]
        if verb == "watch":
            return await self._watch(request, resource, namespace)
        if verb in {"list", "continue"}:
            return self._list(request, resource, namespace)
        return await self._single(request, (resource, namespace, name))

    @staticmethod
    def _what(request: web.Request, resource: str, name: str) -> str:
        if request.method != "GET" or name:
            return f"{request.method} {resource}"
        if request.query.get("watch"):
            return f"watch {resource}"
        return f"continue {resource}" if "continue" in request.query else f"list {resource}"

    async def _single(self, request: web.Request, key: tuple[str, str, str]) -> web.StreamResponse:
        resource, namespace, name = key
        if request.method == "POST":
            return await self._create(resource, namespace, await request.json())
        known = self._objects.get(key)
        if known is None:
            return _refused(404, "NotFound", f'{resource} "{name}" not found')
        if request.method == "DELETE":
            return await self._delete(key, known, await request.json() if request.can_read_body else {})
        if request.method == "PATCH":
            merged = _merged(known, await request.json())
            if merged["metadata"]["uid"] != known["metadata"]["uid"]:
                return _refused(422, "Invalid", "metadata.uid: field is immutable")
            known = await self.put(resource, merged)
        return web.json_response(_whole(resource, known))

    async def _create(self, resource: str, namespace: str, wanted: dict[str, Any]) -> web.StreamResponse:
        name = wanted["metadata"]["name"]
        wanted["metadata"]["namespace"] = namespace
        if (resource, namespace, name) in self._objects:
            return _refused(409, "AlreadyExists", f'{resource} "{name}" already exists')
        return web.json_response(_whole(resource, await self.put(resource, wanted)), status=201)

    async def _delete(
        self, key: tuple[str, str, str], known: dict[str, Any], options: dict[str, Any]
    ) -> web.StreamResponse:
        uid = known["metadata"]["uid"]
        if options.get("preconditions", {}).get("uid") not in {None, uid}:
            return _refused(409, "Conflict", "the uid in the precondition is not the uid in record")
        await self.remove(key[0], key[2], key[1])
        return web.json_response({"kind": "Status", "status": "Success", "details": {"name": key[2], "uid": uid}})

    def _list(self, request: web.Request, resource: str, namespace: str) -> web.StreamResponse:
        token = request.query.get("continue")
        if token is None:
            keys = sorted(key for key in self._objects if key[:2] == (resource, namespace))
            items = [self._objects[key] for key in keys if _is_selected(request, self._objects[key])]
            version = self.version
        else:
            items, version = self._pages.pop(token)
        limit = int(request.query.get("limit", "0")) or len(items)
        metadata = {"resourceVersion": version}
        if items[limit:]:
            metadata["continue"] = uuid.uuid4().hex
            self._pages[metadata["continue"]] = items[limit:], version
        kind, api = _KINDS[resource]
        return web.json_response(
            {"kind": f"{kind}List", "apiVersion": api, "metadata": metadata, "items": items[:limit]}
        )

    async def _watch(self, request: web.Request, resource: str, namespace: str) -> web.StreamResponse:
        response = await _begun(request)
        told = int(request.query["resourceVersion"])
        if told < self._forgotten:
            await response.write(event_line("ERROR", refusal("Expired", "too old resource version") | {"code": 410}))
            return response
        while True:
            news = [each for each in self._history if each[0] > told and each[2] == f"{resource}/{namespace}"]
            for told, change, _, stored in news:  # noqa: B007 -- the last one told is where the next look begins
                if _is_selected(request, stored):
                    await response.write(event_line(change, _whole(resource, stored)))
            async with self._news:
                if self._version <= told:
                    await self._news.wait()
                elif not news:
                    told = self._version


def event_line(change: str, about: dict[str, Any]) -> bytes:
    """Return a line of a watch."""
    return orjson.dumps({"type": change, "object": about}) + b"\n"


def refuses(status: int, reason: str, **headers: str) -> Answer:
    """Answer as a server does that will not."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0)
        return _refused(status, reason, f"told to answer {status}", **headers)

    return answer


def page(status: int) -> Answer:
    """Answer as a proxy does that has lost its server."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0)
        text = "<html>\n<body>Service unavailable</body>\n</html>\n"
        return web.Response(text=text, status=status, content_type="text/html")

    return answer


def says(*pieces: bytes, then: str = "ends", after: asyncio.Event | None = None) -> Answer:
    """Stream these bytes; then it ends in order, is ``cut`` off, or ``stalls`` until the caller goes.

    A cut may overtake bytes that the caller has not read yet; one that must not comes ``after`` an event.
    """

    async def answer(request: web.Request) -> web.StreamResponse:
        response = await _begun(request)
        for piece in pieces:
            await response.write(piece)
        if then == "stalls":
            await asyncio.Event().wait()
        if after is not None:
            await after.wait()
        if then == "cut" and request.transport is not None:
            request.transport.close()
        return response

    return answer


async def _begun(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    return response


def _refused(status: int, reason: str, message: str, **headers: str) -> web.StreamResponse:
    return web.json_response(refusal(reason, message) | {"code": status}, status=status, headers=headers)


def _whole(resource: str, stored: dict[str, Any]) -> dict[str, Any]:
    kind, api = _KINDS[resource]
    return {"kind": kind, "apiVersion": api, **stored}


def _is_selected(request: web.Request, stored: dict[str, Any]) -> bool:
    marks = stored["metadata"].get("labels", {})
    wanted = request.query.get("labelSelector", "")
    return all(marks.get(key) == value for key, _, value in (each.partition("=") for each in wanted.split(",") if each))


def _merged(known: Any, patch: Any) -> Any:
    if not isinstance(patch, dict) or not isinstance(known, dict):
        return patch
    merged = {key: value for key, value in known.items() if patch.get(key, value) is not None}
    return merged | {key: _merged(known.get(key, {}), value) for key, value in patch.items() if value is not None}


@asynccontextmanager
async def fake_apiserver() -> AsyncIterator[tuple[FakeApiServer, KubeClient]]:
    """Give such a server and a client of it."""
    made = FakeApiServer()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", made.answer)
    async with TestServer(application) as server, aiohttp.ClientSession() as session:
        yield made, KubeClient(str(server.make_url("")), Credentials(), session)
