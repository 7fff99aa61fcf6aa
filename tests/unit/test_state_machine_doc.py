"""docs/state-machine.md against the code; STOREPLANE_TEST_UPDATE=1 writes what is generated of it anew."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest

from controlplane.domain import decision
from controlplane.domain.attempt import AttemptOutcome
from controlplane.domain.retry_policy import Retry, next_step
from controlplane.domain.step import Decision
from controlplane.domain.transitions import (
    ATTEMPT_TRANSITIONS,
    OPERATION_TRANSITIONS,
    STORE_TRANSITIONS,
    AttemptState,
    OperationState,
    StoreState,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

pytestmark = pytest.mark.unit

DOC = Path(__file__).parents[2] / "docs" / "state-machine.md"
DIAGRAMS: dict[str, tuple[str, Mapping[Any, frozenset[Any]]]] = {
    "store": (StoreState.PROVISIONING, STORE_TRANSITIONS),
    "operation": (OperationState.QUEUED, OPERATION_TRANSITIONS),
    "attempt": (AttemptState.CREATED, ATTEMPT_TRANSITIONS),
}
OUTCOMES = "How an attempt ends, and what follows"
STEPS = "The reconciler's steps"
USUAL_MIB = 512
ENDLESS = 20


def diagram(first: str, table: Mapping[Any, frozenset[Any]]) -> str:
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first}"]
    for state, following in table.items():
        # The order of the enum, as the rows have it.
        lines += [f"    {state} --> {new}" for new in table if new in following] or [f"    {state} --> [*]"]
    return "\n".join([*lines, "```"])


def consequence(outcome: AttemptOutcome) -> tuple[str, str, str]:
    """Return what follows an outcome, how many such attempts there are at most, and the pauses before the next ones."""
    memory_mib, pauses = USUAL_MIB, []
    for count in range(1, ENDLESS):
        step = next_step([outcome] * count, seconds_left=None, memory_mib=memory_mib, spread=0.5)
        if not isinstance(step, Retry):
            break
        memory_mib = step.memory_mib
        pauses.append(f"{step.seconds:g} s")
    else:
        return "the next attempt", "no limit", "0 s"
    if outcome is AttemptOutcome.SUCCEEDED:
        return "the operation succeeds", "1", ""
    if outcome is AttemptOutcome.CANCELLED:
        return "the operation ends as cancelled", "1", ""
    if not pauses:
        return "the operation fails", "1", ""
    more = f" with {memory_mib} MiB" if memory_mib != USUAL_MIB else ""
    return f"the next attempt{more}", str(len(pauses) + 1), ", ".join(pauses)


def section(text: str, heading: str) -> str:
    """Return what stands under a heading, down to the next."""
    _, found, rest = text.partition(f"\n## {heading}\n")
    assert found, f"no section {heading}"
    return rest.partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of every row that names something; the names without their backticks."""
    found = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip().strip("`") for cell in row] for row in found]


def drawn(text: str, name: str, first: str, table: Mapping[Any, frozenset[Any]]) -> str:
    pattern = re.compile(rf"<!-- {name} -->\n(?:\n```mermaid\n.*?\n```\n)?", re.DOTALL)
    assert len(pattern.findall(text)) == 1, name
    return pattern.sub(f"<!-- {name} -->\n\n{diagram(first, table)}\n", text)


def filled(text: str, heading: str, cells: Mapping[str, Sequence[str]], *, first: int) -> str:
    """Write the cells from column `first` on into the rows of a section, by the rows' names."""
    old = section(text, heading)
    lines = old.splitlines(keepends=True)
    for index, line in enumerate(lines):
        row = rows(line)
        if row and row[0][0] in cells:
            kept = [f"`{row[0][0]}`", *row[0][1:]]
            new = cells[row[0][0]]
            lines[index] = f"| {' | '.join([*kept[:first], *new, *kept[first + len(new) :]])} |\n"
    return text.replace(old, "".join(lines))


def generated(text: str) -> str:
    for name, (first, table) in DIAGRAMS.items():
        text = drawn(text, name, first, table)
    text = filled(text, OUTCOMES, {outcome: consequence(outcome) for outcome in AttemptOutcome}, first=2)
    return filled(text, STEPS, {name: [f"{seconds:g}"] for name, seconds in patiences().items()}, first=1)


def patiences() -> dict[str, float]:
    values = {name: getattr(decision, name) for name in decision.__all__}
    return {name: value.total_seconds() for name, value in values.items() if isinstance(value, timedelta)}


def test_document_is_what_the_code_does() -> None:
    text = DOC.read_text(encoding="utf-8")
    if os.environ.get("STOREPLANE_TEST_UPDATE") == "1":
        text = generated(text)
        DOC.write_text(text, encoding="utf-8")
    assert text == generated(text)


@pytest.mark.parametrize(
    ("heading", "names"),
    [
        ("Store", list(StoreState)),
        ("Operation", list(OperationState)),
        ("Attempt", list(AttemptState)),
        (OUTCOMES, list(AttemptOutcome)),
        (STEPS, [*(step.__name__ for step in get_args(Decision)), *patiences()]),
    ],
)
def test_each_has_its_row_with_one_sentence(heading: str, names: list[str]) -> None:
    found = rows(section(DOC.read_text(encoding="utf-8"), heading))
    assert sorted(row[0] for row in found) == sorted(names)
    for row in found:
        sentence = next(cell for cell in row[1:] if cell.endswith("."))
        assert re.fullmatch(r"[A-Z][^.]*\.", sentence), f"{row[0]} is not told in one sentence"
