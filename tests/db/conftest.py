"""The database layer runs on the oldest and on the newest Postgres there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.ledger import Ledger
from tests.support.postgres import chosen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from devcluster.postgres.binaries import Binaries


@pytest.fixture(scope="session", params=chosen(), ids=lambda binaries: f"pg{binaries.major}")
def postgres_binaries(request: pytest.FixtureRequest) -> Binaries:
    """Give each version in turn."""
    binaries: Binaries = request.param
    return binaries


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    """Give the owner's view of the database; afterwards its counters must be what they count."""
    made = await Ledger.open(database_url)
    yield made
    kept, real = await made.counters()
    await made.close()
    assert kept == real, "the budget's counters are not what they count"
