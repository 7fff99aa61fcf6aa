from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from controlplane import telemetry
from provisioner_job.journal import Journal, Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.unit


def _journal(*, as_json: bool) -> tuple[Journal, io.StringIO]:
    out = io.StringIO()
    return Journal(Redactor(), as_json=as_json, out=out, operation_id="op-1"), out


@pytest.mark.parametrize("as_json", [False, True])
def test_learned_secrets_never_reach_the_output(*, as_json: bool) -> None:
    journal, out = _journal(as_json=as_json)
    journal.redactor.learn('top"secret', "top")
    journal.say("helm said", cause='cannot connect with top"secret\nto postgres://medusa:hunter2@db:5432/x')
    assert "secret" not in out.getvalue()
    assert "hunter2" not in out.getvalue()
    assert out.getvalue().count("[redacted]") == 2


def test_password_in_a_learned_url_is_blanked_wherever_it_stands() -> None:
    redactor = Redactor()
    redactor.learn("postgres://medusa:hunter%2F22@db:5432/x")
    assert redactor.clean("login with hunter%2F22 or hunter/22") == "login with [redacted] or [redacted]"


def test_every_text_of_a_value_is_cleaned() -> None:
    redactor = Redactor()
    redactor.learn("sesame-open")
    value = {"a": "sesame-open", "b": [{"c": "not sesame-open"}, 3], "d": None}
    assert redactor.cleaned(value) == {"a": "[redacted]", "b": [{"c": "not [redacted]"}, 3], "d": None}


def test_json_lines_are_objects_with_ids() -> None:
    journal, out = _journal(as_json=True)
    journal.say("done in 1.2 s", phase="release", revision=1, cause="a\nb")
    (line,) = out.getvalue().splitlines()
    told = json.loads(line)
    assert told["operation_id"] == "op-1"
    assert (told["event"], told["phase"], told["revision"], told["cause"]) == ("done in 1.2 s", "release", 1, "a\nb")


def test_text_lines_are_for_a_person() -> None:
    journal, out = _journal(as_json=False)
    journal.say("done in 1.2 s", phase="release", revision=1)
    journal.say("it failed", phase="setup", level="error", cause="first\nsecond")
    first, second, third = out.getvalue().splitlines()
    assert first.endswith("Z  release    done in 1.2 s (revision 1)")
    assert "setup      ERROR: it failed (cause first" in second
    assert third == " " * 37 + "second)"


def test_service_blanks_secret_fields_and_urls() -> None:
    line = telemetry.redact(
        {"event": "x", "db_password": "a", "error": "Authorization: Bearer abc.def at postgresql://u:pw@h/d"}
    )
    assert line["db_password"] == "[redacted]"
    assert line["error"] == "Authorization: Bearer [redacted] at postgresql://u:[redacted]@h/d"


@pytest.fixture
def service_lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Give what the service has logged since the last call; the library's settings are restored at the end."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, telemetry._Threshold.level  # noqa: SLF001 -- to be put back
    yield lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    root.handlers[:], telemetry._Threshold.level = before[0], before[2]  # noqa: SLF001 -- as above
    root.setLevel(before[1])


def test_service_lines_carry_the_ids_that_are_bound(service_lines: Callable[[], list[dict[str, Any]]]) -> None:
    telemetry.configure_logging("info")
    log = telemetry.get_logger("some.module")
    with telemetry.bound(operation_id=7), telemetry.bound(attempt=2):
        log.info("done", seconds=1.5, token="t")
        log.debug("a call")
        logging.getLogger("library").warning("it said %s", "so")
    log.warning("after")
    done, library, after = service_lines()
    assert done.pop("ts").endswith("Z")
    assert done == {
        "event": "done",
        "operation_id": "7",
        "attempt": "2",
        "seconds": 1.5,
        "token": "[redacted]",
        "level": "info",
        "logger": "some.module",
    }
    assert (library["event"], library["logger"], library["operation_id"]) == ("it said so", "library", "7")
    assert "operation_id" not in after


def test_service_tells_tracebacks_without_secrets(service_lines: Callable[[], list[dict[str, Any]]]) -> None:
    telemetry.configure_logging("error")
    log = telemetry.get_logger("some.module")
    try:
        raise ValueError("no login at postgresql://u:pw@h/d")  # noqa: TRY301 -- to have a traceback
    except ValueError:
        log.exception("it failed", said="half a character: \ud800")
    (line,) = service_lines()
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: no login at postgresql://u:[redacted]@h/d")
