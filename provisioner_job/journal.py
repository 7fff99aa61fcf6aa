"""The log of a run: lines for a person under `kubectl logs`, or JSON when asked.

Every line passes the redactor first: secrets are given to it when they are made or read, and their text never
reaches the output, whoever prints it.
"""

import json
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final, TextIO

__all__ = ["Journal", "Redactor"]

_URL_PASSWORD: Final = re.compile(r"(://[^:/@\s]{0,256}):([^@\s]{1,512})@")
"""Begins with fixed characters and is bounded: a long line without a URL must not cost its length squared."""
_SHORTEST_SECRET: Final = 6
"""A shorter text is no secret and would blank half of every line."""
_MARK: Final = "[redacted]"


class Redactor:
    """Knows the secrets of this run and blanks them."""

    def __init__(self) -> None:
        self._secrets: list[str] = []

    def learn(self, *secrets: str) -> None:
        """Blank these texts from now on, and the password in each that is a URL."""
        inside = [found[2] for secret in secrets for found in _URL_PASSWORD.finditer(secret)]
        known = {*secrets, *inside}
        if inside:
            from urllib.parse import unquote  # noqa: PLC0415 -- no URL is known before the handshake

            # As the URL writes it and as a program says it.
            known |= {unquote(password) for password in inside}
        self._secrets += [secret for secret in known if len(secret) >= _SHORTEST_SECRET]
        # Longest first: one secret may contain another.
        self._secrets.sort(key=len, reverse=True)

    def clean(self, text: str) -> str:
        """Return the text without secrets and without passwords in URLs."""
        for secret in self._secrets:
            text = text.replace(secret, _MARK)
        return _URL_PASSWORD.sub(rf"\1:{_MARK}@", text)

    def cleaned(self, value: Any) -> Any:
        """Return a JSON value with every text in it cleaned."""
        if isinstance(value, str):
            return self.clean(value)
        if isinstance(value, dict):
            return {key: self.cleaned(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.cleaned(each) for each in value]
        return value


class Journal:
    """Writes one line per thing that happened, at once."""

    def __init__(self, redactor: Redactor, *, as_json: bool, out: TextIO | None = None, **ids: object) -> None:
        self.redactor = redactor
        self._as_json = as_json
        self._out = out if out is not None else sys.stdout
        # What is not known has no field.
        self._ids = {key: str(value) for key, value in ids.items() if value not in (None, "")}

    def say(self, message: str, *, phase: str = "", level: str = "info", **facts: object) -> None:
        """Write a line. `message` is a short phrase; facts are shown behind it, or as fields."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if self._as_json:
            line: dict[str, object] = {"ts": now, "level": level, "event": message, **self._ids}
            if phase:
                line["phase"] = phase
            line |= {
                key: value if isinstance(value, int | float | bool) else str(value) for key, value in facts.items()
            }
            # Cleaned as text: a secret inside an escaped string is found in its plain form first.
            text = json.dumps(self.redactor.cleaned(line), ensure_ascii=False)
        else:
            told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items())
            mark = "" if level == "info" else f"{level.upper()}: "
            # One line is one line, whatever an error message holds.
            body = f"{mark}{message}" + (f" ({told})" if told else "")
            text = self.redactor.clean(f"{now}  {phase:<10} " + body.replace("\n", "\n" + " " * 37)).rstrip()
        self._out.write(text + "\n")
        self._out.flush()
