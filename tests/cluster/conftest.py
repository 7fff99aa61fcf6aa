from __future__ import annotations

import pytest

from tests.support.cluster import cluster, devcluster, namespace
from tests.support.installation import installed, store

__all__ = ["cluster", "devcluster", "installed", "namespace", "store"]


@pytest.fixture(scope="session")
def cluster_name() -> str:
    """Another than the other layers': these tests break it and heal it."""
    return "ground"
