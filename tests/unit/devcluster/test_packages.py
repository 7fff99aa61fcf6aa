"""What is found missing, and the command that is named or run. apt is a stand-in script."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from devcluster.machine import packages
from devcluster.machine.errors import DevclusterError
from devcluster.machine.packages import Package, ensure_packages, missing_packages

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Stub

pytestmark = pytest.mark.unit

_COMMAND = "sudo apt-get update && sudo apt-get install -y --no-install-recommends made-up"


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Move the file that package scripts ask away from the machine's own."""
    file = tmp_path / "policy-rc.d"
    monkeypatch.setattr(packages, "_POLICY", file)
    return file


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def test_package_is_known_by_its_programs_and_files(stub: Stub, tmp_path: Path) -> None:
    stub("made-up-program", "true")
    there, absent = str(tmp_path), str(tmp_path / "absent")
    wanted = [
        Package("by-program", programs=("made-up-program",)),
        Package("by-file", files=(there,)),
        Package("half", programs=("made-up-program", "made-up-other")),
        Package("no-file", files=(there, absent)),
    ]
    assert missing_packages(wanted) == ["half", "no-file"]


@pytest.mark.usefixtures("as_root")
def test_nothing_is_run_when_nothing_is_missing(stub: Stub) -> None:
    calls = stub("apt-get", "true")
    assert ensure_packages([Package("core", programs=("touch",))]) == []
    assert not calls.exists()


def test_command_is_named_when_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(DevclusterError, match="missing on this machine: made-up") as refused:
        ensure_packages([Package("made-up", files=("/absent",))])
    assert refused.value.remedy == _COMMAND


@pytest.mark.usefixtures("as_root")
def test_missing_package_is_installed_with_services_forbidden_meanwhile(
    stub: Stub, policy: Path, tmp_path: Path
) -> None:
    brought, seen = tmp_path / "brought", tmp_path / "seen"
    calls = stub(
        "apt-get", f'{policy}; echo "policy says $?" >> {seen}; case "$*" in *install*) touch {brought};; esac'
    )
    assert ensure_packages([Package("made-up", files=(str(brought),))]) == ["made-up"]
    assert [call.split("\n")[2:] for call in calls.read_text().strip().split("\n\n")] == [
        ["update"],
        ["install", "-y", "--no-install-recommends", "made-up"],
    ]
    assert seen.read_text() == "policy says 101\n" * 2
    assert not policy.exists()


@pytest.mark.usefixtures("as_root")
def test_policy_left_by_a_killed_run_is_removed_and_a_foreign_one_kept(
    stub: Stub, policy: Path, tmp_path: Path
) -> None:
    brought = tmp_path / "brought"
    wanted = [Package("made-up", files=(str(brought),))]
    stub("apt-get", f"touch {brought}")
    policy.write_text(packages._POLICY_TEXT)  # noqa: SLF001 - what a killed run leaves
    ensure_packages(wanted)
    assert not policy.exists()
    brought.unlink()
    policy.write_text("#!/bin/sh\nexit 0\n")
    ensure_packages(wanted)
    assert policy.read_text() == "#!/bin/sh\nexit 0\n"


@pytest.mark.usefixtures("as_root")
def test_failure_of_apt_shows_the_end_of_its_log_and_lifts_the_policy(stub: Stub, policy: Path) -> None:
    stub("apt-get", "echo 'E: Unable to fetch some archives'; exit 100")
    with pytest.raises(DevclusterError, match=r"exit code 100") as failed:
        ensure_packages([Package("made-up", files=("/absent",))])
    assert "E: Unable to fetch some archives" in failed.value.render()
    assert not policy.exists()


@pytest.mark.usefixtures("as_root")
def test_package_that_does_not_bring_its_programs_is_told(stub: Stub, policy: Path) -> None:
    stub("apt-get", "true")
    with pytest.raises(DevclusterError, match="programs of made-up are missing"):
        ensure_packages([Package("made-up", files=("/absent",))])
    assert not policy.exists()
