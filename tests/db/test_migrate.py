from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest

from controlplane.db.migrate import apply_migrations, read_migrations
from controlplane.domain.errors import MigrationError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.db


async def test_second_run_applies_nothing(empty_database: str) -> None:
    names = [migration.name for migration in read_migrations()]
    assert await apply_migrations(empty_database, read_migrations()) == names
    assert await apply_migrations(empty_database, read_migrations()) == []


async def test_one_of_many_runners_at_once_applies_everything(empty_database: str) -> None:
    runs = await asyncio.gather(*(apply_migrations(empty_database, read_migrations()) for _ in range(5)))
    assert sorted(len(applied) for applied in runs) == [0, 0, 0, 0, len(read_migrations())]


async def test_edited_file_is_refused(empty_database: str, tmp_path: Path) -> None:
    file = tmp_path / "0001_pre_one.sql"
    file.write_text("CREATE TABLE storeplane.one (id int)")
    await apply_migrations(empty_database, read_migrations(tmp_path))
    file.write_text("CREATE TABLE storeplane.one (id bigint)")
    with pytest.raises(MigrationError, match=r"0001_pre_one\.sql was edited"):
        await apply_migrations(empty_database, read_migrations(tmp_path))


async def test_failing_file_leaves_nothing_of_itself(empty_database: str, tmp_path: Path) -> None:
    (tmp_path / "0001_pre_one.sql").write_text("CREATE TABLE storeplane.one (id int)")
    (tmp_path / "0002_pre_two.sql").write_text("CREATE TABLE storeplane.two (id int); SELECT 1/0")
    with pytest.raises(MigrationError, match=r"0002_pre_two\.sql is refused.*division by zero"):
        await apply_migrations(empty_database, read_migrations(tmp_path))
    connection = await asyncpg.connect(empty_database)
    try:
        assert await connection.fetchval("SELECT to_regclass('storeplane.one')::text") == "storeplane.one"
        assert await connection.fetchval("SELECT to_regclass('storeplane.two')") is None
    finally:
        await connection.close()
    (tmp_path / "0002_pre_two.sql").write_text("CREATE TABLE storeplane.two (id int)")
    assert await apply_migrations(empty_database, read_migrations(tmp_path)) == ["0002_pre_two.sql"]


async def test_database_newer_than_the_program_is_refused(empty_database: str, tmp_path: Path) -> None:
    (tmp_path / "0001_pre_one.sql").write_text("SELECT 1")
    older = read_migrations(tmp_path)
    (tmp_path / "0002_pre_two.sql").write_text("SELECT 1")
    await apply_migrations(empty_database, read_migrations(tmp_path))
    assert await apply_migrations(empty_database, older) == [], "what only adds leaves room for the program of before"
    (tmp_path / "0003_post_three.sql").write_text("SELECT 1")
    await apply_migrations(empty_database, read_migrations(tmp_path))
    with pytest.raises(MigrationError, match="use a newer one"):
        await apply_migrations(empty_database, older)


def test_gap_in_the_numbers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0002_pre_two.sql").write_text("SELECT 1")
    with pytest.raises(MigrationError, match="without gaps"):
        read_migrations(tmp_path)
