from __future__ import annotations

import io
import json

import pytest

from controlplane import telemetry
from provisioner_job.journal import Journal, Redactor

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
    event = telemetry.redact(
        None,
        "info",
        {"event": "x", "db_password": "a", "error": "Authorization: Bearer abc.def at postgresql://u:pw@h/d"},
    )
    assert event["db_password"] == "[redacted]"
    assert event["error"] == "Authorization: Bearer [redacted] at postgresql://u:[redacted]@h/d"
