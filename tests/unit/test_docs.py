"""The pages under docs/ and the README against the code: paths, names, numbers, settings, routes and links."""

from __future__ import annotations

import importlib
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from controlplane.api.problem_table import FAILURES, PROBLEMS
from controlplane.api.routes import ROUTES
from controlplane.config import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Those of problems and states have generators and tests of their own, measurements their own dates.
PAGES = [DOCS / "architecture.md", DOCS / "glossary.md", DOCS / "operations.md"]
WRITTEN = [*PAGES, *sorted((DOCS / "adr").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
FOLDERS = ("controlplane", "provisioner_job", "charts", "tests", "docs", "images", "demo", "devcluster", "bench")
SECONDS = {"s": 1, "min": 60, "h": 3600, "days": 86_400}
VALUE = re.compile(r"(\d+(?:\.\d+)?)(?: (s|min|h|days|MiB))?")
PROSE = re.compile(r"(\d+(?:\.\d+)?) (s|min|h|days|MiB)\b")
NAMED = re.compile(r"`([A-Za-z_][\w.]*)`\s+\(`([\w/]+\.py)`\)")
# Of the provisioner's and of the tools beside it: no settings of the service.
OTHER_VARIABLES = {"STOREPLANE_URL", "STOREPLANE_TOKEN", "STOREPLANE_LOG", "STOREPLANE_TEST_CLUSTER"}


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def rows(text: str, *heads: str) -> Iterator[list[str]]:
    """Give the cells of every row below a heading line with these cells."""
    is_inside = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if cells == list(heads):
            is_inside = True
        elif not cells:
            is_inside = False
        elif is_inside and not set(line) <= set("|- "):
            yield cells


def numbers() -> list[list[str]]:
    return list(rows(text_of(DOCS / "architecture.md"), "value", "name", "where", "what for"))


def in_base_units(number: str, unit: str | None) -> float:
    """Return seconds for a time, and the number itself for anything else."""
    return float(number) * SECONDS.get(unit or "", 1)


def spaced(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def value_in_code(name: str, where: str) -> float:
    """Return the value of a constant or of a setting's default."""
    if name.startswith("STOREPLANE_"):
        return float(Settings.model_fields[name.removeprefix("STOREPLANE_").lower()].default)
    found = getattr(importlib.import_module(where.removesuffix(".py").replace("/", ".")), name)
    return found.total_seconds() if isinstance(found, timedelta) else float(found)


@pytest.mark.parametrize("row", numbers(), ids=lambda row: row[1].strip("`")[:40])
def test_number_is_the_codes(row: list[str]) -> None:
    shown, name, where = VALUE.fullmatch(row[0]), row[1].strip("`"), row[2].strip("`")
    assert shown is not None, row[0]
    if re.fullmatch(r"[A-Z_]+", name):
        assert in_base_units(shown[1], shown[2]) == value_in_code(name, where)
    else:
        # A piece of the code itself, with the number in it.
        assert spaced(name) in spaced(text_of(ROOT / where))
        assert re.search(rf"(?<!\d){shown[1]}(?!\d)", name), name


def test_numbers_table_is_read() -> None:
    assert len(numbers()) > len(SECONDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_number_in_prose_stands_in_a_table(page: Path) -> None:
    known = {in_base_units(*match.groups()) for row in numbers() if (match := VALUE.fullmatch(row[0]))}
    prose = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    found = {match[0]: in_base_units(*match.groups()) for match in PROSE.finditer(prose)}
    assert sorted(name for name, value in found.items() if value not in known) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_constant_with_a_number_has_that_number(page: Path) -> None:
    # Two modules may use one name.
    known = {(row[1].strip("`"), in_base_units(*match.groups())) for row in numbers() if (match := VALUE.match(row[0]))}
    told = re.findall(r"`(_?[A-Z][A-Z_]+)` \((\d+(?:\.\d+)?)(?: (s|min|h|MiB))?\)", text_of(page))
    assert [name for name, *shown in told if (name, in_base_units(*shown)) not in known] == []


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_path_exists(page: Path) -> None:
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`", text_of(page))
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_statement_exists(page: Path) -> None:
    sql = ROOT / "controlplane/db/sql"
    named = set(re.findall(r"`(\w+\.sql)`", text_of(page)))
    assert [name for name in sorted(named) if not (sql / name).exists()] == []


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_name_stands_where_the_page_says(page: Path) -> None:
    for name, path in NAMED.findall(text_of(page)):
        found: Any = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        for part in name.split("."):
            assert hasattr(found, part), f"{path} has no {name}"
            found = getattr(found, part)


def test_walk_names_its_places() -> None:
    assert len(NAMED.findall(text_of(DOCS / "architecture.md"))) > len(FOLDERS)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_function_of_the_database_exists(page: Path) -> None:
    migrations = "".join(text_of(path) for path in (ROOT / "controlplane/db/migrations").glob("*.sql"))
    for name in re.findall(r"`storeplane\.(\w+)`", text_of(page)):
        assert f"storeplane.{name}" in migrations, name


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_code_or_constant_in_capitals_exists(page: Path) -> None:
    sources = "".join(
        text_of(path) for folder in FOLDERS[:3] for path in (ROOT / folder).rglob("*") if path.suffix in READABLE
    )
    known = set(PROBLEMS) | set(FAILURES) | set(re.findall(r"\b_?[A-Z][A-Z_]{3,}\b", sources)) | OTHER_VARIABLES
    known |= {f"STOREPLANE_{name.upper()}" for name in Settings.model_fields} | HOUSE_VARIABLES
    named = set(re.findall(r"`(_?[A-Z]+_[A-Z_]+)`", text_of(page)))
    assert sorted(named - known) == []


READABLE = {".py", ".sql", ".yaml", ".jinja", ".json"}
# Of the development cluster and its tests, and of Go.
HOUSE_VARIABLES = {"ALLOW_DESTRUCTIVE"}


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text_of(page)):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_link_within_a_page_leads_to_a_heading(page: Path) -> None:
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", text_of(page))) <= anchors


def test_sentence_of_a_wait_is_one_the_program_says() -> None:
    said = text_of(ROOT / "controlplane/domain/waiting.py")
    found = list(rows(text_of(DOCS / "operations.md"), "the reason begins", "do"))
    pieces = [part.strip() for row in found for told in re.findall(r"`([^`]+)`", row[0]) for part in told.split("…")]
    assert len(found) > 1
    assert [piece for piece in pieces if piece not in said] == []


def test_log_line_is_one_the_program_writes() -> None:
    sources = "".join(text_of(path) for path in (ROOT / "controlplane").rglob("*.py"))
    found = list(rows(text_of(DOCS / "operations.md"), "log line", "meaning", "who acts"))
    assert len(found) > 1
    lines = [line for row in found for line in re.findall(r"`([^`]+)`", row[0])]
    assert [line for line in lines if f'"{line}"' not in sources] == []


def default_of(name: str) -> str:
    field = Settings.model_fields[name]
    if field.is_required():
        return "required"
    value = field.default
    if value is None:
        return "none"
    assert not isinstance(value, SecretStr)
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def test_every_setting_is_documented_with_its_default() -> None:
    found = {row[0].strip("`"): row[1] for row in rows(text_of(DOCS / "operations.md"), "setting", "default", "what")}
    wanted = {
        "DATABASE_URL" if name == "database_url" else f"STOREPLANE_{name.upper()}": default_of(name)
        for name in Settings.model_fields
    }
    assert found == wanted


def test_every_route_is_in_the_readme() -> None:
    told = [tuple(row[0].strip("`").split(" ")) for row in rows(text_of(ROOT / "README.md"), "request", "what")]
    assert sorted(told) == sorted((route.method, route.path) for route in ROUTES)


def test_glossary_is_in_order_and_says_each_word_once() -> None:
    words = [row[0].strip("*").lower() for row in rows(text_of(DOCS / "glossary.md"), *GLOSSARY_HEADS)]
    assert words == sorted(set(words))
    assert len(words) > len(GLOSSARY_HEADS)


GLOSSARY_HEADS = ("word", "what it means here", "not")


def test_layers_are_those_that_are_checked() -> None:
    drawn = " → ".join(re.findall(r"^    (__main__/cli → .*)$", text_of(ROOT / "CONTRIBUTING.md"), re.MULTILINE))
    contract = text_of(ROOT / "pyproject.toml").partition('containers = ["controlplane"]\nlayers = ')[2]
    layers = json.loads(contract.partition("\n]\n")[0].rstrip(",") + "]")
    assert [layer.strip("()") for layer in drawn.split(" → ")] == [f"{layers[0]}/{layers[1]}", *layers[2:]]


@pytest.mark.parametrize("page", sorted((DOCS / "adr").glob("0*.md")), ids=lambda page: page.stem)
def test_decision_has_its_parts(page: Path) -> None:
    text = text_of(page)
    number = int(page.name.partition("-")[0])
    assert text.startswith(f"# {number}. ")
    parts = ["Status:", "## Context", "## Decision", "## Consequences"]
    places = [text.find(f"\n{part}") for part in parts]
    assert -1 not in places
    assert places == sorted(places)
