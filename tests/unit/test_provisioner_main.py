from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from provisioner_job import __main__ as program
from provisioner_job.contract import Env, ExitCode, OptionalEnv, Outcome, parse_result
from provisioner_job.database import PREFER
from provisioner_job.job_input import JobInput, trace_id_in

pytestmark = pytest.mark.unit

OPERATION = "0198c2a0-0000-7000-8000-000000000001"


@pytest.fixture
def message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "termination-log"
    monkeypatch.setattr(program, "_TERMINATION_MESSAGE", str(file))
    monkeypatch.setattr("sys.argv", ["storeplane-provision", "single"])
    for name in Env:
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv(Env.OPERATION_ID, OPERATION)
    monkeypatch.setenv(Env.ATTEMPT, "2")
    return file


def _exit_code() -> object:
    with pytest.raises(SystemExit) as ended:
        program.main()
    return ended.value.code


def test_incomplete_environment_is_told_in_the_termination_message(
    message: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(Env.DB_PASSWORD)
    assert _exit_code() == ExitCode.PERMANENT
    left = parse_result(message.read_text())
    assert left is not None
    assert (left.operation_id, left.attempt, left.outcome) == (OPERATION, 2, Outcome.PERMANENT)
    assert left.problem is not None
    assert left.problem["detail"] == "missing: DB_PASSWORD"


def test_message_that_could_not_name_its_attempt_is_not_left(message: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(Env.ATTEMPT, "second")
    assert _exit_code() == ExitCode.PERMANENT
    assert not message.exists()


def test_nothing_heavy_is_imported_before_the_handshake() -> None:
    root = Path(program.__file__).parents[1]
    script = (
        f"import sys; sys.path.append({str(root)!r}); import provisioner_job.__main__; print(*sys.modules, sep='\\n')"
    )
    told = subprocess.run(
        # As the image's command runs it, but for where packages are.
        [sys.executable, "-BI", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    # No ssl here: the database's driver imports it.
    heavy = {"asyncio", "asyncpg", "dataclasses", "email", "http.client", "httpx2", "lightkube", "logging"}
    assert heavy.isdisjoint(told.stdout.split())
    assert "provisioner_job.database" in told.stdout.split()


def _given(host: str, port: int) -> dict[str, str]:
    own: dict[str, str] = {Env.STORE_ID: OPERATION, Env.OPERATION_ID: OPERATION, Env.ATTEMPT: "1"}
    return {**os.environ, **{name.value: "x" for name in Env}, **own, Env.DB_HOST: host, Env.DB_PORT: str(port)}


COMMAND = (sys.executable, "-u", "-m", "provisioner_job", "single")
STOPPED = "ERROR: The provisioner was told to stop (cause SIGTERM)"


def test_sigterm_ends_the_waiting_for_a_database_in_order(tmp_path: Path) -> None:
    # A folder without a socket: nothing can listen there.
    given = _given(str(tmp_path), 5432)
    with subprocess.Popen(COMMAND, env=given, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "trying again" in line:
                process.terminate()
                break
        told = process.stdout.read()
        assert process.wait(timeout=60) == ExitCode.RETRYABLE
    assert STOPPED in told


def test_sigterm_ends_a_login_that_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        given = _given("127.0.0.1", silent.getsockname()[1])
        with subprocess.Popen(COMMAND, env=given, stdout=subprocess.PIPE, text=True) as process:
            taken, _ = silent.accept()
            with taken:
                # Now it waits for an answer.
                assert taken.recv(1)
                process.terminate()
                told, _ = process.communicate(timeout=60)
        assert process.returncode == ExitCode.RETRYABLE
    assert STOPPED in told
    assert "trying again" not in told


COMPLETE: dict[str, str] = {
    **{name.value: "1" for name in Env},
    Env.STORE_ID: OPERATION,
    Env.OPERATION_ID: OPERATION,
    Env.DB_PASSWORD: "sesame-open",
    Env.ATTEMPT_TOKEN: "sesame-token",
}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_optional_variables_may_be_missing() -> None:
    given = JobInput.from_environment(COMPLETE)
    assert (given.trace_id, given.pod_namespace, given.database.ssl_mode) == ("", "", PREFER)


def test_secrets_are_not_shown() -> None:
    assert "sesame" not in repr(JobInput.from_environment(COMPLETE))


def test_unknown_encryption_is_refused(message: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OptionalEnv.DB_SSL_MODE, "maybe")
    assert _exit_code() == ExitCode.PERMANENT
    left = parse_result(message.read_text())
    assert left is not None
    assert left.problem is not None
    assert "it may be disable, prefer, require, verify-full" in left.problem["detail"]


@pytest.mark.parametrize(
    ("traceparent", "trace_id"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", TRACE),
        (f"01-{TRACE}-00f067aa0ba902b7-01-more", TRACE),
        (f"00-{TRACE}-00f067aa0ba902b7-01-more", ""),
        (f"ff-{TRACE}-00f067aa0ba902b7-01", ""),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", ""),
        (f"00-{TRACE.upper()}-00f067aa0ba902b7-01", ""),
        (f"00-{TRACE}-00f067aa0ba902b7", ""),
        ("", ""),
    ],
)
def test_trace_id_is_taken_from_a_sound_traceparent(traceparent: str, trace_id: str) -> None:
    assert trace_id_in(traceparent) == trace_id
