"""What the build of the medusa image lets into the template that every new store begins with.

That the template makes a store which works is proved by the build itself, on a real Medusa: images/medusa/template.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any, Final

import pytest

from devcluster.machine.paths import checkout

_CONTENT: Final = checkout() / "images" / "medusa" / "template" / "content.js"
_CHECK: Final = "require(process.argv[1]).checkContent(...JSON.parse(process.argv[2]))"
_COMPARABLE: Final = "console.log(JSON.stringify(require(process.argv[1]).comparable(JSON.parse(process.argv[2]))))"
_SQL: Final = "INSERT INTO public.product VALUES ('prod_01M82VHT6GS3P5F8N85ER9YT92', 'Harbour Mug');"
"""Of the dump, as pg_dump writes it."""
_ROWS: Final = {"product": 4, "sales_channel": 1, "mikro_orm_migrations": 183, "api_key": 0, "user": 0}
_SECRET: Final = "0123456789abcdef0123456789abcdef"


def node(program: str, given: Any) -> subprocess.CompletedProcess[str]:
    found = shutil.which("node")
    assert found is not None, "node is missing, which the images are built with"
    return subprocess.run(
        [found, "--eval", program, str(_CONTENT), json.dumps(given)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_template_without_a_tenant_is_let_through() -> None:
    checked = node(_CHECK, [_SQL, _ROWS, [_SECRET]])
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (f"('apk_1', 'pk_{'a1' * 32}')", "an API key"),
        (f"('apk_2', 'sk_{'a1' * 32}')", "an API key"),
        ("""('{"password": "c2NyeXB0AA8AAAAIAAAAAYfxns2vmq2FJJywnk+hbdyyxprWj+MEpD7TA+S/X+uA"}')""", "the hash of a"),
        ("('user_1', 'admin@shop.example')", "a mail address"),
        ("('eyJhbGciOiJIUzI1NiJ9.eyJhY3Rvcl9pZCI6IjEifQ.x')", "a signed token"),
        ("('postgres://store:pw@127.0.0.1/store')", "an address with a password"),
        (f"('{_SECRET}')", "secret number 1 of the build"),
    ],
)
def test_template_with_a_secret_is_refused_and_the_kind_named(row: str, named: str) -> None:
    checked = node(_CHECK, [f"{_SQL}\nINSERT INTO public.any VALUES {row};", _ROWS, [_SECRET]])
    assert checked.returncode != 0
    assert named in checked.stderr
    assert row not in checked.stderr


@pytest.mark.parametrize(
    "table", ["api_key", "user", "auth_identity", "provider_identity", "customer", "cart", "order"]
)
def test_template_with_rows_of_a_tenant_is_refused_and_the_table_named(table: str) -> None:
    checked = node(_CHECK, [_SQL, _ROWS | {table: 1}, [_SECRET]])
    assert checked.returncode != 0
    assert f"1 rows in {table}" in checked.stderr


@pytest.mark.parametrize("table", ["product", "sales_channel", "mikro_orm_migrations"])
def test_template_that_the_scripts_left_empty_is_refused(table: str) -> None:
    checked = node(_CHECK, [_SQL, _ROWS | {table: 0}, [_SECRET]])
    assert checked.returncode != 0
    assert f"no rows in {table}" in checked.stderr


def test_rows_are_compared_but_for_what_every_run_makes_anew() -> None:
    ids = ["user_01M82TGB80E6PZW70YBSQT2VR6", "user_01M82VHTXT5F396M2CVC508BMF", "usr_01M82VHTXT5F396M2CVC508BMF"]
    first, second, other = (json.loads(node(_COMPARABLE, {"id": each, "email": None}).stdout) for each in ids)
    assert first == second
    assert first != other
