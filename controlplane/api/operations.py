"""Handlers of operations."""

import asyncio
from typing import Final

from aiohttp import web

from controlplane.api.answers import AcceptedBody, AttemptBody, OperationDetailBody, OperationsBody, RetriedBody
from controlplane.api.context import REQUEST_ID, SERVICES, TIME_LIMIT, origin_of
from controlplane.api.inputs import page_in, path_id, read_body, read_query
from controlplane.api.schemas import EmptyBody, LogsQuery, NoQuery, OperationsQuery, RetryBody
from controlplane.api.stores import accepted, json_response

__all__ = ["cancel_operation", "get_logs", "get_operation", "list_operations", "reattach_operation", "retry_operation"]

_WRITE_SECONDS: Final = 30.0
"""For a reader of a followed log to take a piece of it."""


async def list_operations(request: web.Request) -> web.Response:
    """List operations, newest first: yours, or everybody's for operators and admins."""
    query = read_query(request, OperationsQuery)
    # One more than asked tells whether there is another page.
    found = await request.app[SERVICES].operations.list_operations(
        origin_of(request),
        page_in(query.cursor, query.limit + 1),
        store_id=query.store,
        state=query.state,
        kind=query.kind,
    )
    return json_response(OperationsBody.from_domain(found, query.limit))


async def get_operation(request: web.Request) -> web.Response:
    """Show an operation with its attempts and phases; a failed one is a 200 with its `error`."""
    read_query(request, NoQuery)
    operation, attempts = await request.app[SERVICES].operations.get_with_attempts(path_id(request), origin_of(request))
    listed = [AttemptBody.from_domain(each) for each in attempts]
    return json_response(OperationDetailBody.of(operation, attempts=listed))


async def cancel_operation(request: web.Request) -> web.Response:
    """Stop an operation.

    It ends at once when nothing runs, else when its pod has ended; a finish that came first wins.
    """
    read_query(request, NoQuery)
    await read_body(request, EmptyBody)
    services = request.app[SERVICES]
    found = await services.operations.cancel(path_id(request), origin_of(request))
    services.wake_reconciler()
    return accepted(*found)


async def retry_operation(request: web.Request) -> web.Response:
    """Try an operation again.

    A failed or cancelled one leads to a new operation; of a running one the attempt is ended and the next begun.
    """
    read_query(request, NoQuery)
    body = await read_body(request, RetryBody)
    services, origin = request.app[SERVICES], origin_of(request)
    retried = await services.retries.retry(path_id(request), origin, is_fresh=body.refresh_spec)
    services.wake_dispatcher()
    services.wake_reconciler()
    store, operation = await services.operations.get_with_store(retried.operation_id, origin)
    answer = RetriedBody.model_validate(
        dict(AcceptedBody.from_domain(store, operation)) | {"spec_changes": retried.spec_changes}
    )
    return json_response(answer, status=202, headers={"Location": f"/api/operations/{operation.id}"})


async def reattach_operation(request: web.Request) -> web.Response:
    """Bind a living Job to its open attempt again, after asking the cluster."""
    read_query(request, NoQuery)
    await read_body(request, EmptyBody)
    services, origin, operation_id = request.app[SERVICES], origin_of(request), path_id(request)
    await services.reattach.reattach(operation_id, origin)
    services.wake_reconciler()
    return accepted(*await services.operations.get_with_store(operation_id, origin))


async def get_logs(request: web.Request) -> web.StreamResponse:
    """Return the provisioner's log: the stored one, or the living pod's."""
    query = read_query(request, LogsQuery)
    logs, origin = request.app[SERVICES].logs, origin_of(request)
    found = await logs.find(path_id(request), origin, number=query.attempt, is_followed=query.follow)
    if found.pod_name is None:
        return web.Response(text=found.text, content_type="text/plain")
    async with logs.followed(found.pod_name, origin) as pieces:
        # Set before the first byte: the middleware only sees the answer when it has ended.
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/plain; charset=utf-8",
                "X-Request-ID": request[REQUEST_ID],
                "X-Content-Type-Options": "nosniff",
            }
        )
        limit = request[TIME_LIMIT]
        if isinstance(limit, asyncio.Timeout):
            limit.reschedule(None)
        await response.prepare(request)
        try:
            async for piece in pieces:
                async with asyncio.timeout(_WRITE_SECONDS):
                    await response.write(piece)
            async with asyncio.timeout(_WRITE_SECONDS):
                await response.write_eof()
        except (ConnectionError, TimeoutError):
            # The reader has gone, or does not read: it asks again.
            if request.transport is not None:
                request.transport.abort()
    return response
