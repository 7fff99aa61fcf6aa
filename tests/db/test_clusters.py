"""How much a cluster is asked for, as an operator sets it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from controlplane.domain.errors import InvalidInputError
from controlplane.services.clusters import Clusters

if TYPE_CHECKING:
    from controlplane.db.pool import Database

pytestmark = pytest.mark.db


async def test_limits_are_set_one_by_one_and_the_others_stay(database: Database) -> None:
    clusters = Clusters(database)
    first = await clusters.limit("default", in_flight=7, rate=None, burst=None)
    second = await clusters.limit("default", in_flight=None, rate=2.5, burst=4)
    assert (first.in_flight, second.in_flight, second.rate, second.burst) == (7, 7, 2.5, 4)


async def test_cluster_that_is_not_known_is_added(database: Database) -> None:
    made = await Clusters(database).limit("eu-1", in_flight=3, rate=None, burst=None)
    assert made.in_flight == 3


async def test_name_that_is_no_label_is_refused(database: Database) -> None:
    with pytest.raises(InvalidInputError, match="DNS label"):
        await Clusters(database).limit("EU 1", in_flight=3, rate=None, burst=None)
