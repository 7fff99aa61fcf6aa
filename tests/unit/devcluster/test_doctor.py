"""One line for each finding, and an exit code that a script can trust."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devcluster.machine import doctor as module
from devcluster.machine.doctor import Finding, doctor, findings

if TYPE_CHECKING:
    from .conftest import Stub

pytestmark = pytest.mark.unit


def _of(what: str) -> Finding:
    return next(finding for finding in findings() if finding.what == what)


@pytest.mark.parametrize(("version", "good"), [("go1.26.0", True), ("go1.30.1", True), ("go1.25.9", False)])
def test_go_is_judged_by_its_version(stub: Stub, version: str, *, good: bool) -> None:
    stub("go", f"echo {version}")
    assert _of("Go").good is good


@pytest.mark.parametrize(("version", "good"), [("v20.19.0", True), ("v22.1.0", True), ("v20.18.3", False), ("", False)])
def test_node_is_judged_by_its_version(stub: Stub, version: str, *, good: bool) -> None:
    stub("node", f"echo {version}")
    assert _of("Node.js").good is good


def test_missing_prerequisite_names_where_to_get_it(stub: Stub) -> None:
    stub("unrelated", "true")
    line = _of("Go").line()
    assert line.startswith("MISSING Go: not on PATH")
    assert "go.dev/dl" in line


@pytest.mark.parametrize(("needed", "code", "word"), [(True, 1, "MISSING"), (False, 0, "low")])
def test_exit_code_is_one_only_when_something_needed_is_missing(
    monkeypatch: pytest.MonkeyPatch, *, needed: bool, code: int, word: str
) -> None:
    lacking = Finding("thing", good=False, detail="absent", remedy="apt-get install thing", needed=needed)
    monkeypatch.setattr(module, "findings", lambda: [Finding("other", good=True, detail="there"), lacking])
    said: list[str] = []
    assert doctor(said.append) == code
    assert said == ["ok      other: there", f"{word:8}thing: absent  ->  apt-get install thing"]
