"""Deleting a shop leaves nothing, whatever it is at: serving customers, or half-made."""

from __future__ import annotations

import http.client
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from demo.order import call
from demo.platform import kubectl_of
from demo.release import JOBS_NAMESPACE
from demo.shops import SHOPS
from tests.support.cluster import pod
from tests.support.polling import poll
from tests.support.shop_client import visit
from tests.support.shops import placed_at_once

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demo.order import Order
    from demo.platform import Platform
    from tests.e2e.conftest import Installer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

_COLUMNS = (":kind", ":metadata.namespace", ":metadata.name", ":spec.claimRef.namespace", ":subjects[*].namespace")
_EVERYWHERE = ("persistentvolumes", "clusterrolebindings", "ingresses", "jobs", "cronjobs", "pods", "secrets")

_FILLER = "storeplane-test-filler"
_ROOM_LEFT = 500
"""Thousandths of a processor."""


def _delete(platform: Platform, store: dict[str, Any]) -> None:
    """Delete a store and wait until the API says it is gone."""
    path = f"/api/stores/{store['id']}"
    call(platform, "DELETE", path)
    poll(lambda: call(platform, "GET", path)["store"]["state"] == "deleted", what="the store is deleted", seconds=180)


def _left(platform: Platform, store: dict[str, Any]) -> list[str]:
    """Return what still bears the store's namespace, anywhere in the cluster but among the Jobs' own records."""
    kubectl, namespace = kubectl_of(platform.name), store["namespace"]
    found = kubectl.do("get", "namespace", namespace, "--ignore-not-found", "--output=name").split()
    for kind in _EVERYWHERE:
        columns = f"--output=custom-columns={','.join(_COLUMNS)}"
        lines = kubectl.do("get", kind, "--all-namespaces", "--no-headers", columns).splitlines()
        words = {line: line.replace(",", " ").split() for line in lines}
        found += [line for line in lines if namespace in words[line] and words[line][1] != JOBS_NAMESPACE]
    return found


@pytest.fixture(scope="module")
def doomed(platform: Platform) -> Iterator[dict[str, Order]]:
    with placed_at_once(platform) as made:
        yield made


@pytest.mark.parametrize("engine", list(SHOPS))
def test_nothing_is_left_of_a_shop_that_was_selling(platform: Platform, doomed: dict[str, Order], engine: str) -> None:
    order = doomed[engine]
    assert _left(platform, order.store)
    ended, answered = threading.Event(), [0]

    def shop() -> None:
        while not ended.is_set():
            try:
                page = visit(platform.shops_port, order.store["urls"]["storefront"], "/")
                answered[0] += page.status == http.HTTPStatus.OK
            except (OSError, http.client.HTTPException):
                continue

    visitors = [threading.Thread(target=shop) for _ in range(4)]
    for each in visitors:
        each.start()
    try:
        poll(lambda: answered[0] > 20, what="visitors are served")
        _delete(platform, order.store)
    finally:
        ended.set()
        for each in visitors:
            each.join()
    poll(lambda: not _left(platform, order.store), what=f"{order.store['namespace']} left nothing")
    gone = visit(platform.shops_port, order.store["urls"]["storefront"], "/")
    assert gone.status == http.HTTPStatus.NOT_FOUND


def test_nothing_is_left_of_a_shop_that_could_not_be_made(platform: Platform, installer: Installer) -> None:
    # With what the plan asks for, and not what a small machine's preset makes of it; and no room for that.
    installer.install(values={"stores": {"preset": "default"}})
    installer.kubectl.apply(_filler(installer))
    try:
        _see_it_end(platform)
    finally:
        installer.kubectl.do("delete", "pod", _FILLER, "--namespace=default", "--now", "--ignore-not-found")


def _filler(installer: Installer) -> dict[str, Any]:
    """Return a pod that leaves half a processor of the node: a Job has room there, a large shop has not."""
    (node,) = installer.kubectl.list("nodes", "default", "")
    pods = json.loads(installer.kubectl.do("get", "pods", "--all-namespaces", "--output=json"))["items"]
    asked = [
        container["resources"].get("requests", {}).get("cpu", "0")
        for pod in pods
        if pod["status"]["phase"] in {"Running", "Pending"}
        for container in pod["spec"]["containers"]
    ]
    room = _milli(node["status"]["allocatable"]["cpu"]) - sum(map(_milli, asked)) - _ROOM_LEFT
    made = pod("filler", "exec sleep 3600")
    (container,) = made["spec"]["containers"]
    container["resources"] = {"requests": {"cpu": f"{max(room, 1)}m"}}
    made["metadata"] |= {"name": _FILLER, "namespace": "default"}
    return made


def _milli(amount: str) -> int:
    return int(amount[:-1]) if amount.endswith("m") else int(amount) * 1000


def _see_it_end(platform: Platform) -> None:
    accepted = call(platform, "POST", "/api/stores", {"name": "Too large", "engine": "medusa", "plan": "large"})
    store, path = accepted["store"], f"/api/operations/{accepted['operation']['id']}"

    def first_problem() -> Any:
        return next((each["problem"] for each in call(platform, "GET", path)["attempts"]), None)

    problem = poll(first_problem, what="the first attempt ends", seconds=300)
    assert (problem["code"], problem["phase"]) == ("POD_UNSCHEDULABLE", "setup")
    assert "Insufficient cpu" in problem["detail"]
    assert _left(platform, store)
    # Nodes may be added, so it is tried again: the store is half-made, and what is at it is cancelled.
    assert call(platform, "GET", path)["state"] in {"queued", "running"}
    _delete(platform, store)
    assert call(platform, "GET", path)["state"] == "cancelled"
    poll(lambda: not _left(platform, store), what=f"{store['namespace']} left nothing")
    events = call(platform, "GET", f"/api/stores/{store['id']}/events?limit=200")["items"]
    assert events[-1]["event_type"] == "deleted"
