"""Whether a Docker engine runs here. The client alone, which many machines have, is not enough."""

from __future__ import annotations

import json
import shutil
import subprocess

__all__ = ["docker_answers", "parse_info"]

_DOCKER_SECONDS = 10


def docker_answers() -> bool:
    """Return whether an engine answers."""
    if shutil.which("docker") is None:
        return False
    try:
        asked = subprocess.run(
            ["docker", "info", "--format", "{{json .}}"],
            capture_output=True,
            text=True,
            timeout=_DOCKER_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0 and parse_info(asked.stdout)


def parse_info(text: str) -> bool:
    """Return whether ``docker info`` speaks of an engine: without one, clients may still exit with 0 and print JSON."""
    try:
        info = json.loads(text)
    except ValueError:
        return False
    return isinstance(info, dict) and bool(info.get("ServerVersion")) and not info.get("ServerErrors")
