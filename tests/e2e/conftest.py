"""One Storeplane for the run, on a cluster of its own: breaking the test cluster must not break a shop being made."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from demo import release
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
