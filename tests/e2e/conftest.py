"""One Storeplane for the run, on a cluster of its own: breaking the test cluster must not break a shop being made."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from demo.platform import Platform, up
from devcluster.kubernetes.cluster import Cluster
from devcluster.postgres import server as postgres
from devcluster.sources.choice import DevclusterSource, choose_source, refuse_foreign_for_tests

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = "shop"
_HARVESTED_TTL_SECONDS = "5"
"""Short enough to see the Job go by itself; the log must be served all the same."""


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """Give a running Storeplane, kept between runs as the test cluster is."""
    source = choose_source(_NAME)
    refuse_foreign_for_tests(source)
    if not isinstance(source, DevclusterSource):
        pytest.skip(f"the control plane runs beside the cluster, which works on a devcluster only; {source.describe()}")
    fresh = os.environ.get("STOREPLANE_TEST_CLUSTER") == "fresh"
    if fresh:
        source.down()
    # A fresh database: before a release its migrations change in place, and rows of an earlier run prove nothing.
    postgres.down(_NAME)
    yield up(_NAME, {"STOREPLANE_HARVESTED_TTL_SECONDS": _HARVESTED_TTL_SECONDS})
    if fresh:
        Cluster(_NAME).down()
