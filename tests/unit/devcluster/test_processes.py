"""Processes that outlive the command that started them: found, compared, ended, and never mistaken for another."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devcluster.machine.errors import DevclusterError
from devcluster.machine.processes import ProcessSpec, ensure, is_running, running_pid, stop
from tests.support.polling import poll

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = "sleeper"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "run"
    stop(_NAME, run=tmp_path / "run")


def _ensure(run: Path, *words: str, configuration: str = "") -> bool:
    spec = ProcessSpec(_NAME, words or ("sleep", "300"), configuration=configuration)
    return ensure(spec, run=run, logs=run.parent / "log")


def test_second_ensure_leaves_the_process_alone(run: Path) -> None:
    assert _ensure(run)
    pid = running_pid(_NAME, run=run)

    assert not _ensure(run)
    assert running_pid(_NAME, run=run) == pid


def test_changed_command_or_configuration_replaces_the_process(run: Path) -> None:
    _ensure(run)
    first = running_pid(_NAME, run=run)

    assert _ensure(run, "sleep", "301")
    second = running_pid(_NAME, run=run)
    assert _ensure(run, "sleep", "301", configuration="changed")

    assert len({first, second, running_pid(_NAME, run=run)}) == 3


def test_killed_process_is_seen_dead_and_started_again(run: Path) -> None:
    _ensure(run)
    pid = running_pid(_NAME, run=run)
    assert pid is not None

    os.kill(pid, signal.SIGKILL)

    poll(lambda: not is_running(_NAME, run=run), what="the killed process is seen dead, though nobody has reaped it")
    assert _ensure(run)


def test_recycled_pid_is_neither_running_nor_ended(run: Path) -> None:
    """The record names this very test's pid with another start time: a stranger that must not be touched."""
    run.mkdir()
    _ensure(run)
    record = json.loads((run / f"{_NAME}.json").read_text())
    stop(_NAME, run=run)
    (run / f"{_NAME}.json").write_text(json.dumps(record | {"pid": os.getpid()}))

    assert not is_running(_NAME, run=run)
    stop(_NAME, run=run)


def test_half_written_record_counts_as_absent(run: Path) -> None:
    run.mkdir()
    (run / f"{_NAME}.json").write_text('{"pid": 1')

    assert not is_running(_NAME, run=run)


def test_process_that_ignores_sigterm_is_killed(run: Path) -> None:
    _ensure(run, "sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done")
    log = run.parent / "log" / f"{_NAME}.log"
    poll(lambda: "deaf" in log.read_text(), what="the process ignores SIGTERM")

    stop(_NAME, run=run, grace_seconds=0.1)

    poll(lambda: not is_running(_NAME, run=run), what="the process is gone")


def test_missing_program_is_an_error_with_the_next_step(run: Path) -> None:
    with pytest.raises(DevclusterError, match="no-such-program is not installed") as caught:
        _ensure(run, "no-such-program")

    assert "doctor" in caught.value.render()


def test_process_that_dies_at_once_never_counts_as_running(run: Path) -> None:
    """Whether its death is seen while it is recorded or after it, it is an error or dead, never alive."""
    for number in range(20):
        with contextlib.suppress(DevclusterError):
            _ensure(run, "sh", "-c", f"exit {number % 2}")
        poll(lambda: not is_running(_NAME, run=run), what="a process that has ended is seen dead", seconds=5)


def test_record_of_a_process_never_seen_alive_is_of_none(run: Path) -> None:
    run.mkdir()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (run / f"{_NAME}.json").write_text(json.dumps({"pid": 2**22 + 1, "started": None, "boot": boot, "digest": ""}))

    assert not is_running(_NAME, run=run)


def test_nothing_of_the_callers_environment_leaks_in(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "of the caller")
    _ensure(run, "sh", "-c", "env; echo end; exec sleep 300")
    log = run.parent / "log" / f"{_NAME}.log"

    poll(lambda: "end" in log.read_text(), what="the process has printed its environment")

    assert "A_SECRET" not in log.read_text()
