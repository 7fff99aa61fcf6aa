"""One Storeplane for the run, on a cluster of its own: breaking the test cluster must not break a shop being made."""

from __future__ import annotations

import base64
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from demo import release
from demo.order import Order, place
from demo.platform import Platform, install, kubectl_of, up
from devcluster.images.builder import build_all
from devcluster.sources.choice import DevclusterSource, choose_source, refuse_foreign_for_tests

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from demo.kubectl import Kubectl

_NAME = "shop"
_SETTINGS = {"HARVESTED_TTL_SECONDS": "5"}
"""Short enough to see the Job go by itself; the log must be served all the same."""


@dataclass(frozen=True)
class Installer:
    """Upgrades the run's Storeplane in place."""

    kubectl: Kubectl

    def install(
        self, *, settings: Mapping[str, str] | None = None, images: Mapping[str, str] | None = None
    ) -> Platform:
        """Install with further settings or other images, named as in images.toml, and wait until it serves."""
        built = {name: image.reference for name, image in build_all().items()}
        return install(_NAME, built | dict(images or {}), _values(settings or {}))


def _values(settings: Mapping[str, str]) -> dict[str, Any]:
    return {"controlPlane": {"settings": _SETTINGS | dict(settings)}}


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """Give a running Storeplane; its cluster is kept between runs as the test cluster is."""
    source = choose_source(_NAME)
    refuse_foreign_for_tests(source)
    if not isinstance(source, DevclusterSource):
        pytest.skip(f"the API and the shops are reached through a devcluster's ports; {source.describe()}")
    fresh = os.environ.get("STOREPLANE_TEST_CLUSTER") == "fresh"
    if fresh:
        source.down()
    source.up()
    kubectl = kubectl_of(_NAME)
    # A fresh database: before a release its migrations change in place, and rows of an earlier run prove nothing.
    release.uninstall(kubectl)
    kubectl.do("delete", "namespaces", "--selector=storeplane.dev/store-id", "--wait=false")
    yield up(_NAME, _values({}))
    if fresh:
        source.down()


@pytest.fixture
def installer(platform: Platform) -> Iterator[Installer]:
    """Give what upgrades the platform in place; afterwards it is as it was."""
    made = Installer(kubectl_of(platform.name))
    yield made
    made.install()


@pytest.fixture(scope="session")
def order(platform: Platform) -> Iterator[Order]:
    """Order one shop for everything that only looks at a shop or buys in it; its namespace goes afterwards."""
    told: list[str] = []
    placed = place(platform, f"Test {secrets.token_hex(3)}", told.append)
    assert placed.operation["state"] == "succeeded", f"{placed.operation['error']}\n" + "\n".join(told)
    yield placed
    kubectl_of(platform.name).do("delete", "namespace", placed.store["namespace"], "--wait=false")


@pytest.fixture(scope="session")
def shop_secrets(platform: Platform, order: Order) -> dict[str, str]:
    """Give what the shop's Secret holds: its publishable key and its administrator's log-in among it."""
    found = kubectl_of(platform.name).get("secret", "store-secrets", order.store["namespace"])
    assert found is not None
    return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}
