"""A rolling upgrade from another image while shops are being ordered: no order is lost, none is done twice."""

from __future__ import annotations

import http.client
import json
import threading
import time
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import pytest

from demo.platform import as_new_user
from demo.release import JOBS_NAMESPACE
from devcluster.sources.choice import choose_source
from tests.support.layered_image import layered
from tests.support.noop_image import noop_archive, noop_reference
from tests.support.polling import poll

if TYPE_CHECKING:
    from demo.platform import Platform
    from tests.e2e.conftest import Installer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

_PAUSE_SECONDS = 1.5
"""Faster than a replica is replaced, slower than the Jobs keep the processors from doing that."""
_PATIENCE_SECONDS = 60


class Orderer:
    """Orders shop after shop, each under a key of its own, and asks again with the key when the answer was lost."""

    def __init__(self, platform: Platform) -> None:
        self._address = urlsplit(platform.url)
        self._token = platform.token
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.operations: list[str] = []
        self.refusals: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(str(self._address.hostname), self._address.port, timeout=10)
        try:
            given = {"Authorization": f"Bearer {self._token}"} | headers
            connection.request(method, path, None if body is None else json.dumps(body), given)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def _run(self) -> None:
        number = 0
        while not self._ended.wait(_PAUSE_SECONDS):
            number += 1
            self._order(number)

    def _order(self, number: int) -> None:
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                wish = {"name": f"noop {number}", "engine": "medusa"}
                status, body = self.ask("POST", "/api/stores", wish, **{"Idempotency-Key": f"rolling-{number}"})
            except (OSError, http.client.HTTPException) as error:
                status, body = 0, repr(error)
            if status == http.HTTPStatus.ACCEPTED:
                self.operations.append(body["operation"]["id"])
                return
            is_worth_asking = status in {0, http.HTTPStatus.SERVICE_UNAVAILABLE} and time.monotonic() < until
            if not is_worth_asking:
                self.refusals.append(f"{status}: {body}")
                return
            # As the answer says; the key makes it the same order.
            self._ended.wait(_PAUSE_SECONDS)


def _ended(orderer: Orderer, path: str) -> dict[str, Any]:
    def ended() -> dict[str, Any]:
        found: dict[str, Any] = orderer.ask("GET", path)[1]
        return found if found["state"] not in {"queued", "running"} else {}

    return poll(ended, what=f"{path} has ended", seconds=120)


def test_orders_survive_a_rolling_upgrade(platform: Platform, installer: Installer) -> None:
    previous, archive = layered("previous", "controlplane", {"opt/storeplane/PREVIOUS": b"another version\n"})
    choose_source(platform.name).load([archive, noop_archive()])
    settings = {"CREATE_RATE_PER_MINUTE": "1000"}
    installer.install(images={"controlplane": previous, "provisioner": noop_reference()}, settings=settings)
    kubectl = installer.kubectl
    user = as_new_user(platform, "rolling", "--max-stores", "1000")

    with Orderer(user) as orderer:
        poll(lambda: len(orderer.operations) > 3, what="the earlier version accepts orders")
        installer.install(images={"provisioner": noop_reference()}, settings=settings)
        after = len(orderer.operations)
        poll(lambda: len(orderer.operations) > after + 3, what="the later version accepts orders")

    assert orderer.refusals == []
    assert len(orderer.operations) == len(set(orderer.operations))
    for operation_id in orderer.operations:
        operation = _ended(orderer, f"/api/operations/{operation_id}")
        assert (operation["state"], operation["attempt"]) == ("succeeded", 1), operation
    jobs = kubectl.list("jobs", JOBS_NAMESPACE, "app=store-provisioner")
    names = [job["metadata"]["labels"]["operation-id"] for job in jobs]
    assert len(names) == len(set(names))
