"""One Storeplane for the run, on a cluster of its own: breaking the test cluster must not break a shop being made."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from demo import release
from demo.order import credentials
from demo.platform import Platform, install, kubectl_of, up
from demo.shops import SHOPS
from devcluster.images.builder import build_all
from devcluster.sources.choice import DevclusterSource, choose_source, refuse_foreign_for_tests
from tests.support.shops import placed_at_once

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from demo.kubectl import Kubectl
    from demo.order import Order

_NAME = "shop"
_SETTINGS = {"HARVESTED_TTL_SECONDS": "5"}
"""Short enough to see the Job go by itself; the log must be served all the same."""


@dataclass
class Installer:
    """Upgrades the run's Storeplane in place."""

    kubectl: Kubectl
    is_used: bool = False

    def install(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        images: Mapping[str, str] | None = None,
        engines: Mapping[str, Mapping[str, str]] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> Platform:
        """Install with further settings, other images (named as in images.toml), engines' images or values."""
        self.is_used = True
        built = {name: image.reference for name, image in build_all().items()}
        overrides = _values(settings or {}) | {"image": {"engines": dict(engines or {})}} | dict(values or {})
        return install(_NAME, built | dict(images or {}), overrides)


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
    running = up(_NAME, _values({}))
    # All of the run's shops are one user's.
    query = "UPDATE storeplane.users SET max_stores = 1000"
    psql = ("psql", "--username=storeplane", "--dbname=storeplane", f"--command={query}")
    kubectl.do("exec", "storeplane-postgres-0", f"--namespace={release.NAMESPACE}", "--", *psql)
    yield running
    if fresh:
        source.down()


@pytest.fixture
def installer(platform: Platform) -> Iterator[Installer]:
    """Give what upgrades the platform in place; afterwards it is as it was."""
    made = Installer(kubectl_of(platform.name))
    yield made
    # Half a minute on a busy machine, which most tests that only look would wait for in vain.
    if made.is_used:
        made.install()


@pytest.fixture(scope="session")
def orders(platform: Platform) -> Iterator[dict[str, Order]]:
    """Order one shop of each engine, for everything that only looks at shops or buys in them."""
    with placed_at_once(platform) as made:
        yield made


@pytest.fixture(scope="session")
def order(orders: dict[str, Order]) -> Order:
    """Give the Medusa shop."""
    return orders["medusa"]


@pytest.fixture(scope="session")
def known(platform: Platform, order: Order) -> dict[str, str]:
    """Give what the Medusa shop's owner may know: how to sign in, and its publishable key."""
    return credentials(platform, order)


@pytest.fixture(params=list(SHOPS))
def shop(request: pytest.FixtureRequest, orders: dict[str, Order]) -> Order:
    """Give the shop of each engine in turn."""
    return orders[request.param]
