"""Handlers of stores and engines."""

from typing import Final

from aiohttp import web
from pydantic import BaseModel

from controlplane.api.answers import AcceptedBody, CredentialsBody, EnginesBody, EventsBody, StoresBody
from controlplane.api.context import SERVICES, origin_of
from controlplane.api.inputs import idempotency_key, page_in, path_id, read_body, read_query
from controlplane.api.schemas import CreateStoreBody, EventsQuery, NoQuery, StoresQuery
from controlplane.domain.operation import Operation
from controlplane.domain.store import Store
from controlplane.services.stores import CreateStore

__all__ = [
    "accepted",
    "create_store",
    "delete_store",
    "get_credentials",
    "get_store",
    "json_response",
    "list_engines",
    "list_events",
    "list_stores",
]

_CREATE: Final = "POST /api/stores"


def json_response(body: BaseModel, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return a model as JSON."""
    text = body.model_dump_json()
    return web.Response(status=status, text=text, content_type="application/json", headers=headers)


def accepted(store: Store, operation: Operation) -> web.Response:
    """Return a 202 that names the operation to follow."""
    headers = {"Location": f"/api/operations/{operation.id}"}
    return json_response(AcceptedBody.from_domain(store, operation), status=202, headers=headers)


async def create_store(request: web.Request) -> web.Response:
    """Order a store.

    Answers before anything is created: follow `Location`. With an `Idempotency-Key`, asking again gives the first
    answer again, byte for byte, for a day.
    """
    read_query(request, NoQuery)
    body = await read_body(request, CreateStoreBody)
    origin, services = origin_of(request), request.app[SERVICES]
    made = await services.stores.create(
        CreateStore(name=body.name, engine=body.engine, slug=body.slug, plan=body.plan, host=body.host, tls=body.tls),
        origin,
        lambda store, operation: AcceptedBody.from_domain(store, operation).model_dump_json(),
        key=idempotency_key(request, origin.caller, _CREATE, body),
    )
    headers = {"Location": f"/api/operations/{made.operation_id}"}
    if made.is_replay:
        headers["Idempotency-Replayed"] = "true"
    if made.rate is not None:
        services.wake_dispatcher()
        headers |= {
            "RateLimit-Limit": str(made.rate.per_minute),
            "RateLimit-Remaining": str(made.rate.left),
            "RateLimit-Reset": str(made.rate.reset_seconds),
        }
    return web.Response(status=202, text=made.body, content_type="application/json", headers=headers)


async def list_stores(request: web.Request) -> web.Response:
    """List stores, newest first: yours, or everybody's for operators and admins."""
    query = read_query(request, StoresQuery)
    # One more than asked tells whether there is another page.
    found = await request.app[SERVICES].stores.list_stores(
        origin_of(request), page_in(query.cursor, query.limit + 1), state=query.state, engine=query.engine
    )
    return json_response(StoresBody.from_domain(found, query.limit))


async def get_store(request: web.Request) -> web.Response:
    """Show a store with its newest operation; a deleted one is shown too."""
    read_query(request, NoQuery)
    found = await request.app[SERVICES].stores.get_with_operation(path_id(request), origin_of(request))
    return json_response(AcceptedBody.from_domain(*found))


async def get_credentials(request: web.Request) -> web.Response:
    """Tell a store's credentials to its owner or an admin.

    Every time it is written down who was told, before the answer; and who was refused.
    """
    read_query(request, NoQuery)
    found = await request.app[SERVICES].credentials.read(path_id(request), origin_of(request))
    return json_response(CredentialsBody.from_domain(*found), headers={"Cache-Control": "no-store"})


async def delete_store(request: web.Request) -> web.Response:
    """Delete a store with everything in it.

    Whatever the store is busy with is cancelled; the delete waits behind it.
    """
    read_query(request, NoQuery)
    services = request.app[SERVICES]
    found = await services.stores.delete(path_id(request), origin_of(request))
    services.wake_dispatcher()
    services.wake_reconciler()
    return accepted(*found)


async def list_events(request: web.Request) -> web.Response:
    """Tell a store's history, oldest first."""
    query = read_query(request, EventsQuery)
    events = await request.app[SERVICES].stores.events(
        path_id(request), origin_of(request), after=query.cursor, limit=query.limit + 1
    )
    return json_response(EventsBody.from_domain(events, query.limit))


async def list_engines(request: web.Request) -> web.Response:
    """List the engines that can be ordered, and those that are announced."""
    read_query(request, NoQuery)
    return json_response(EnginesBody.catalogue(request.app[SERVICES].engines))
