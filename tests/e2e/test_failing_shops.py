"""Shops that cannot be made end with their cause, and what is killed on the way goes on where it was."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from demo.order import call
from demo.release import JOBS_NAMESPACE, NAMESPACE
from devcluster.sources.choice import choose_source
from provisioner_job import objects
from tests.support.layered_image import layered
from tests.support.pod_processes import kill_pod
from tests.support.polling import poll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from demo.platform import Platform
    from tests.e2e.conftest import Installer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

_ENDED = frozenset({"succeeded", "failed", "cancelled"})
_IN_FLIGHT = 4
"""As values-local has it."""


class Shop:
    """One order that is looked at while it is being carried out."""

    def __init__(self, platform: Platform, installer: Installer) -> None:
        self._platform = platform
        self._kubectl = installer.kubectl
        accepted = call(platform, "POST", "/api/stores", {"name": f"Test {secrets.token_hex(3)}", "engine": "medusa"})
        self.store, self.id = accepted["store"], accepted["operation"]["id"]
        self.namespace: str = self.store["namespace"]

    def operation(self) -> Any:
        return call(self._platform, "GET", f"/api/operations/{self.id}")

    def is_in(self, attempt: int, phase: str) -> bool:
        """Return whether this attempt has begun this phase and not ended it."""
        found = [each for each in self.operation()["attempts"] if each["number"] == attempt]
        phases = {each["phase"]: each for made in found for each in made["phases"]}
        return phase in phases and phases[phase]["finished_at"] is None

    def pods(self, namespace: str, selector: str) -> list[Any]:
        return [pod for pod in self._kubectl.list("pods", namespace, selector) if pod["status"]["phase"] == "Running"]

    def kill_provisioner(self) -> None:
        """Kill the provisioner of the living attempt."""
        (pod,) = self.pods(JOBS_NAMESPACE, f"operation-id={self.id}")
        assert kill_pod(pod["metadata"]["uid"]) > 0

    def has_killed_setup(self) -> bool:
        """Kill the setup if it runs; return whether there was something to kill."""
        return any(kill_pod(pod["metadata"]["uid"]) for pod in self.pods(self.namespace, "storeplane.dev/role=setup"))

    def cancel(self) -> None:
        call(self._platform, "POST", f"/api/operations/{self.id}/cancel", {})

    def end(self) -> Any:
        poll(lambda: self.operation()["state"] in _ENDED, what=f"{self.id} has ended", seconds=600)
        return self.operation()

    def remove(self) -> None:
        self._kubectl.do("delete", "namespace", self.namespace, "--wait=false", "--ignore-not-found")


def _limit(installer: Installer, in_flight: int) -> None:
    """Set how many attempts may be under way; 0 keeps orders waiting."""
    words = ["storeplane", "clusters", "limit", "default", "--in-flight", str(in_flight)]
    installer.kubectl.do("exec", "--namespace", NAMESPACE, "deploy/storeplane", "--", *words)


@pytest.fixture
def order(platform: Platform, installer: Installer) -> Iterator[Callable[[], Shop]]:
    """Order shops, whose namespaces go afterwards."""
    made: list[Shop] = []

    def one() -> Shop:
        made.append(Shop(platform, installer))
        return made[-1]

    yield one
    for shop in made:
        shop.remove()


def test_shop_is_made_whatever_is_killed_on_the_way(installer: Installer, order: Callable[[], Shop]) -> None:
    shop = order()
    poll(lambda: shop.is_in(1, "release"), what="the first attempt runs Helm", seconds=120)
    shop.kill_provisioner()
    poll(shop.has_killed_setup, what="the setup runs, and is killed", seconds=180)
    # Whatever of these it is at: how far the killed setup's next pod has come by then, the machine decides.
    at_work = ("release", "setup", "verify")
    poll(lambda: any(shop.is_in(2, each) for each in at_work), what="the second attempt is at work", seconds=120)
    shop.kill_provisioner()

    ended = shop.end()

    assert (ended["state"], ended["attempt"]) == ("succeeded", 3), ended["error"]
    first, second, third = ended["attempts"]
    assert {first["state"], second["state"]} == {"failed"}
    # What the killed ones had done is found, not made again.
    assert [each["phase"] for each in third["phases"]] == [
        "namespace",
        "policies",
        "secrets",
        "release",
        "setup",
        "verify",
        "expose",
    ]
    details = {each["phase"]: each["detail"] for each in third["phases"]}
    assert (details["namespace"]["existed"], details["secrets"]["existed"], details["release"]["existed"]) == (
        True,
    ) * 3
    releases = installer.kubectl.list("secrets", shop.namespace, "owner=helm,status=deployed")
    assert len(releases) == 1


def test_image_that_cannot_be_had_is_told_soon_with_its_name(installer: Installer, order: Callable[[], Shop]) -> None:
    installer.install(engines={"medusa": {"server": "storeplane.local/no-such-image:1"}})
    shop = order()
    poll(lambda: any(each["problem"] for each in shop.operation()["attempts"]), what="an attempt ends", seconds=300)
    operation = shop.operation()
    problem = operation["attempts"][0]["problem"]
    assert (problem["code"], problem["phase"]) == ("IMAGE_UNAVAILABLE", "setup")
    assert "storeplane.local/no-such-image:1" in problem["detail"]
    # A registry that does not answer may do so later.
    assert operation["state"] in {"queued", "running"}
    shop.cancel()
    assert shop.end()["state"] == "cancelled"


def test_setup_that_crashes_fails_with_its_last_words(
    platform: Platform, installer: Installer, order: Callable[[], Shop]
) -> None:
    said = b"console.error('migration 20260101 failed: relation \"price\" exists'); process.exit(1)\n"
    broken, archive = layered("broken-medusa", "medusa", {"server/bin/store.js": said})
    choose_source(platform.name).load([archive])
    installer.install(images={"medusa": broken})
    shop = order()
    ended = shop.end()
    assert (ended["state"], ended["attempt"]) == ("failed", 1)
    assert ended["error"]["code"] == "SETUP_FAILED"
    assert 'relation "price" exists' in ended["error"]["detail"]
    poll(lambda: shop.operation()["attempts"][0]["diagnosis"], what="the attempt is harvested")
    assert shop.operation()["attempts"][0]["diagnosis"]["store"]["pods"]


def test_quota_without_room_fails_with_the_clusters_words(installer: Installer, order: Callable[[], Shop]) -> None:
    _limit(installer, 0)
    shop = order()
    # Made ahead of the provisioner, which takes a namespace of this store's for one that an earlier attempt made.
    namespace = objects.namespace(shop.namespace, UUID(shop.store["id"]))
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small", "namespace": shop.namespace}}
    both = [namespace, quota | {"spec": {"hard": {"pods": "1"}}}]
    installer.kubectl.apply({"apiVersion": "v1", "kind": "List", "items": both})
    _limit(installer, _IN_FLIGHT)
    ended = shop.end()
    assert (ended["state"], ended["attempt"]) == ("failed", 1)
    assert ended["error"]["code"] == "QUOTA_EXCEEDED"
    assert "exceeded quota: small" in ended["error"]["detail"]
