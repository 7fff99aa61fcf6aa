from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from pathlib import Path


class Stub(Protocol):
    def __call__(self, name: str, script: str) -> Path: ...


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    """Put a shell script on PATH, where nothing else is but ``touch``: the machine's own programs must not answer.

    Each call of the script adds its arguments, one a line and an empty line, to the file that is returned.
    """
    folder = tmp_path / "stubs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    (folder / "touch").symlink_to("/usr/bin/touch")

    def make(name: str, script: str) -> Path:
        calls = tmp_path / f"{name}.calls"
        program = folder / name
        program.write_text(f"#!/bin/sh\n{{ printf '%s\\n' \"$@\"; echo; }} >> {calls}\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        return calls

    return make


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep state and cache of a test out of the user's."""
    monkeypatch.setenv("DEVCLUSTER_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("STOREPLANE_CACHE", str(tmp_path / "cache"))
    for variable in ("CLUSTER", "KUBECONFIG", "ALLOW_DESTRUCTIVE", "DEVCLUSTER_POSTGRES_BIN"):
        monkeypatch.delenv(variable, raising=False)
