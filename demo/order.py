"""Places one order with a running Storeplane, as any client would, and tells what happens while it happens."""

import http.client
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from demo.platform import Platform
from demo.shops import SHOPS
from devcluster.machine.errors import DevclusterError

__all__ = ["Order", "call", "credentials", "place", "products"]

_CALL_SECONDS = 10
_ORDER_SECONDS = 900
"""The product's own deadline for making a store."""
_POLL_SECONDS = 0.25
_BUSY_SECONDS = 30
_AGAIN_SECONDS = 1
_ENDED = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True)
class Order:
    """One store, ordered and finished."""

    store: dict[str, Any]
    """The body's ``store``: id, name, engine, state, urls, namespace."""
    operation: dict[str, Any]
    """The body's ``operation``: id, kind, state, attempt, waiting, error, times."""
    phases: dict[str, float]
    """Seconds of each phase of the last attempt, in their order."""
    seconds: float
    """From the request to the end seen through the API."""

    @property
    def job_name(self) -> str:
        """The Job of the operation's last attempt."""
        return f"store-{self.operation['kind']}-{self.operation['id']}-{self.operation['attempt']}"


def place(
    platform: Platform, name: str, say: Callable[[str], None], *, engine: str = "medusa", plan: str | None = None
) -> Order:
    """Order a store, follow its events to the end, and return it.

    Parameters
    ----------
    plan
        None for the engine's smallest.
    say
        Receives one line for each event as it becomes known.

    Raises
    ------
    DevclusterError
        If the API refuses, does not answer, or the operation has not ended after 15 minutes.
    """
    started = time.monotonic()
    accepted = call(platform, "POST", "/api/stores", {"name": name, "engine": engine, "plan": plan})
    store, operation = accepted["store"], accepted["operation"]
    say(f"202 accepted: store {store['id']}, operation {operation['id']}")
    cursor = ""
    while True:
        # The operation first and the events after it: what led to an end is then always told before the end.
        operation = call(platform, "GET", f"/api/operations/{operation['id']}")
        page = call(platform, "GET", f"/api/stores/{store['id']}/events?limit=100{cursor}")
        for event in page["items"]:
            say(f"{event['message']}")
            cursor = f"&cursor={event['id']}"
        if operation["state"] in _ENDED:
            break
        if time.monotonic() - started > _ORDER_SECONDS:
            raise DevclusterError(
                f"operation {operation['id']} is still {operation['state']} after {_ORDER_SECONDS} s",
                remedy=f"GET /api/operations/{operation['id']} says why it waits",
            )
        time.sleep(_POLL_SECONDS)
    store = call(platform, "GET", f"/api/stores/{store['id']}")["store"]
    return Order(store, operation, _phases(operation), time.monotonic() - started)


def _phases(operation: Mapping[str, Any]) -> dict[str, float]:
    last = operation["attempts"][-1]["phases"] if operation["attempts"] else []
    return {each["phase"]: float((each["detail"] or {}).get("duration_seconds", 0.0)) for each in last}


def credentials(platform: Platform, order: Order) -> dict[str, str]:
    """Ask the API for what the store's owner may know: how to sign in, and keys of its programs."""
    found: dict[str, str] = call(platform, "GET", f"/api/stores/{order.store['id']}/credentials")["credentials"]
    return found


def products(platform: Platform, order: Order) -> list[dict[str, Any]]:
    """Ask the shop itself for its products, by its own host name through the cluster's router."""
    shop = SHOPS[order.store["engine"]]
    address = urlsplit(order.store["urls"]["storefront"] or order.store["urls"]["api"])
    known = credentials(platform, order) if shop.credentials else {}
    # Connected to by number: not every machine resolves names below localhost.
    headers = {"Host": address.netloc} | {header: known[name] for header, name in shop.credentials.items()}
    status, body = _request("GET", f"http://127.0.0.1:{platform.shops_port}{shop.products_path}", headers)
    if status != http.HTTPStatus.OK:
        raise DevclusterError(f"the shop answered {status}: {body[:500].decode(errors='replace')}")
    return shop.products_in(json.loads(body))


def call(
    platform: Platform, method: str, path: str, body: Mapping[str, Any] | None = None, *, text: bool = False
) -> Any:
    """Ask the API as the platform's user and return its JSON, or its text.

    Asks again while the API says that something of its own is busy; an order is one order all the same.

    Raises
    ------
    DevclusterError
        If it refuses (with the problem it answers) or does not answer, or is busy for half a minute.
    """
    headers = {"Authorization": f"Bearer {platform.token}"}
    if method == "POST" and path == "/api/stores":
        headers["Idempotency-Key"] = secrets.token_hex(16)
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        status, answer = _request(method, platform.url + path, headers, body)
        if status != http.HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
            break
        time.sleep(_AGAIN_SECONDS)
    if status >= http.HTTPStatus.BAD_REQUEST:
        raise DevclusterError(f"{method} {path}: {status} {answer[:1000].decode(errors='replace')}")
    return answer.decode() if text else json.loads(answer)


def _request(
    method: str, url: str, headers: Mapping[str, str], body: Mapping[str, Any] | None = None
) -> tuple[int, bytes]:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=_CALL_SECONDS)
    try:
        content = json.dumps(body) if body is not None else None
        kind = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, f"{address.path}?{address.query}", content, {**headers, **kind})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise DevclusterError(
            f"{method} {url}: {error!r}", remedy="`devcluster status` shows what does not run"
        ) from error
    finally:
        connection.close()
