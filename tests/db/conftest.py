"""The database layer runs on the oldest and on the newest Postgres there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.postgres import chosen

if TYPE_CHECKING:
    from devcluster.postgres.binaries import Binaries


@pytest.fixture(scope="session", params=chosen(), ids=lambda binaries: f"pg{binaries.major}")
def postgres_binaries(request: pytest.FixtureRequest) -> Binaries:
    """Give each version in turn."""
    binaries: Binaries = request.param
    return binaries
