"""Handlers of stores."""

from typing import Final

from aiohttp import web
from pydantic import BaseModel, ValidationError

from controlplane.api.context import REQUEST_ID, SERVICES, caller_of, number_in_query, path_id
from controlplane.api.problems import body_problem
from controlplane.api.schemas import AcceptedBody, CreateStoreBody, EventsBody, OperationBody, StoreBody
from controlplane.domain.operation import Operation
from controlplane.domain.store import Store
from controlplane.services.stores import CreateStore

__all__ = ["create_store", "get_store", "json_response", "list_events"]

_PAGE: Final = 50
_PAGE_MOST: Final = 200
_CURSOR_MOST: Final = 2**63 - 1


def json_response(body: BaseModel, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return a model as JSON."""
    text = body.model_dump_json()
    return web.Response(status=status, text=text, content_type="application/json", headers=headers)


def _accepted(store: Store, operation: Operation) -> AcceptedBody:
    return AcceptedBody(store=StoreBody.from_domain(store), operation=OperationBody.from_domain(operation))


async def create_store(request: web.Request) -> web.Response:
    """Order a store: 202 with store and operation, `Location` on the operation."""
    try:
        body = CreateStoreBody.model_validate_json(await request.read())
    except ValidationError as error:
        raise body_problem(error) from None
    services = request.app[SERVICES]
    wish = CreateStore(
        name=body.name,
        engine=body.engine,
        slug=body.slug,
        request_id=request[REQUEST_ID],
        ip=request.remote,
    )
    store, operation = await services.stores.create(wish, caller_of(request))
    services.wake_dispatcher()
    headers = {"Location": f"/api/operations/{operation.id}"}
    return json_response(_accepted(store, operation), status=202, headers=headers)


async def get_store(request: web.Request) -> web.Response:
    """Show a store with its newest operation."""
    found = await request.app[SERVICES].stores.get_with_operation(path_id(request), caller_of(request))
    return json_response(_accepted(*found))


async def list_events(request: web.Request) -> web.Response:
    """Tell a store's history, oldest first; `cursor` and `limit` page through it."""
    limit = number_in_query(request, "limit", default=_PAGE, most=_PAGE_MOST)
    after = number_in_query(request, "cursor", default=0, most=_CURSOR_MOST)
    # One more than asked tells whether there is another page.
    events = await request.app[SERVICES].stores.events(
        path_id(request), caller_of(request), after=after, limit=max(1, limit) + 1
    )
    return json_response(EventsBody.from_domain(events, max(1, limit)))
