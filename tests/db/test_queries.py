from __future__ import annotations

import re
from typing import TYPE_CHECKING

import asyncpg
import pytest

from controlplane.db.errors import CONSTRAINT_ERRORS
from controlplane.db.migrate import read_migrations
from controlplane.db.queries import Query, all_queries
from controlplane.domain.transitions import AttemptState, OperationState, StoreState

if TYPE_CHECKING:
    from controlplane.db.pool import Database

pytestmark = pytest.mark.db


@pytest.mark.parametrize("query", all_queries(), ids=lambda query: query.name)
async def test_statement_is_accepted_by_the_server(query: Query, database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        prepared = await connection.prepare(query.text)
        types = {number: kind.name for number, kind in enumerate(prepared.get_parameters(), 1)}
        assert types == _casts(query.text), "every parameter says its type, and the server agrees"
        legend = [f"${number}:" in query.text for number in range(1, len(prepared.get_parameters()) + 1)]
        assert all(legend), f"the header of {query.name} explains only {sum(legend)} of {len(legend)} parameters"
    finally:
        await connection.close()


_NAMES = {
    "integer": "int4",
    "bigint": "int8",
    "boolean": "bool",
    "double precision": "float8",
}


def _casts(text: str) -> dict[int, str]:
    """Return each parameter's type as the statement casts it, in the server's words."""
    body = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
    found = re.findall(r"\$(\d+)(?:::([a-z]+(?: precision)?(?:\[\])?))?", body)
    assert all(kind for _, kind in found), f"a parameter without a cast: {[n for n, kind in found if not kind]}"
    kinds: dict[int, set[str]] = {}
    for number, kind in found:
        base = kind.removesuffix("[]")
        kinds.setdefault(int(number), set()).add(_NAMES.get(base, base) + kind[len(base) :])
    assert all(len(each) == 1 for each in kinds.values()), f"a parameter with two types: {kinds}"
    return {number: each.pop() for number, each in kinds.items()}


async def test_constraints_that_carry_errors_exist(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch("SELECT relname AS name FROM pg_class UNION SELECT conname FROM pg_constraint")
    finally:
        await connection.close()
    assert set(CONSTRAINT_ERRORS) <= {row["name"] for row in rows}


@pytest.mark.parametrize(
    ("constraint", "states"),
    [
        ("stores_state_known", StoreState),
        ("operations_state_known", OperationState),
        ("attempts_state_known", AttemptState),
    ],
)
async def test_states_of_table_and_program_are_the_same(
    constraint: str, states: type[StoreState | OperationState | AttemptState], database_url: str
) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        text = await connection.fetchval(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = $1", constraint
        )
    finally:
        await connection.close()
    assert set(text.split("'")[1::2]) == {state.value for state in states}


async def test_schema_version_is_the_newest_migration(database: Database) -> None:
    row = await database.fetch_one("schema_version")
    assert row is not None
    assert row["number"] == len(read_migrations())
