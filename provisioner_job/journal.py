"""The log of a run: lines for a person under `kubectl logs`, or JSON when asked.

Every line passes the redactor first: secrets are given to it when they are made or read, and their text never
reaches the output, whoever prints it.
"""

import json
import re
import sys
from datetime import UTC, datetime
from typing import Final, TextIO

__all__ = ["Journal", "Redactor"]

_URL_PASSWORD: Final = re.compile(r"(://[^:/@\s]{0,256}):[^@\s]{1,512}@")
"""Begins with fixed characters and is bounded: a long line without a URL must not cost its length squared."""
_SHORTEST_SECRET: Final = 6
"""A shorter text is no secret and would blank half of every line."""
_MARK: Final = "[redacted]"


class Redactor:
    """Knows the secrets of this run and blanks them."""

    def __init__(self) -> None:
        self._secrets: list[str] = []

    def learn(self, *secrets: str) -> None:
        """Blank these texts from now on."""
        self._secrets += [secret for secret in secrets if len(secret) >= _SHORTEST_SECRET]
        # Longest first: one secret may contain another.
        self._secrets.sort(key=len, reverse=True)

    def clean(self, text: str) -> str:
        """Return the text without secrets and without passwords in URLs."""
        for secret in self._secrets:
            text = text.replace(secret, _MARK)
        return _URL_PASSWORD.sub(rf"\1:{_MARK}@", text)


class Journal:
    """Writes one line per thing that happened, at once."""

    def __init__(self, redactor: Redactor, *, as_json: bool, out: TextIO | None = None, **ids: object) -> None:
        self.redactor = redactor
        self._as_json = as_json
        self._out = out if out is not None else sys.stdout
        self._ids = {key: str(value) for key, value in ids.items()}

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
            text = json.dumps({key: self._cleaned(value) for key, value in line.items()}, ensure_ascii=False)
        else:
            told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items())
            mark = "" if level == "info" else f"{level.upper()}: "
            # One line is one line, whatever an error message holds.
            body = f"{mark}{message}" + (f" ({told})" if told else "")
            text = self.redactor.clean(f"{now}  {phase:<10} " + body.replace("\n", "\n" + " " * 37)).rstrip()
        self._out.write(text + "\n")
        self._out.flush()

    def _cleaned(self, value: object) -> object:
        return self.redactor.clean(value) if isinstance(value, str) else value
