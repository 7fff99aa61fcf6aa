"""Short programs, and kubectl among them, with their errors as sentences."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devcluster.machine.errors import DevclusterError

__all__ = ["Kubectl", "run"]

_COMMAND_SECONDS = 60
_FIELD_MANAGER = "storeplane-demo"


def run(
    command: list[str], *, text: str = "", environment: Mapping[str, str], seconds: float = _COMMAND_SECONDS
) -> str:
    """Run a short program in this environment and return what it printed.

    Raises
    ------
    DevclusterError
        If it fails, with its own words, or takes longer than `seconds`.
    """
    try:
        ended = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env=dict(environment),
        )
    except subprocess.TimeoutExpired as error:
        raise DevclusterError(f"`{' '.join(command)}` did not end within {seconds:g} s") from error
    if ended.returncode != 0:
        raise DevclusterError(f"`{' '.join(command)}` failed: {(ended.stderr or ended.stdout).strip()}")
    return ended.stdout


@dataclass(frozen=True)
class Kubectl:
    """kubectl on one cluster. Every method raises ``DevclusterError`` if it fails or takes too long."""

    program: Path
    kubeconfig: Path

    @property
    def environment(self) -> dict[str, str]:
        """Return what programs that speak to this cluster need, and no more."""
        return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "KUBECONFIG": str(self.kubeconfig)}

    def do(self, *words: str, text: str = "", seconds: float = _COMMAND_SECONDS) -> str:
        """Run it and return what it printed."""
        return run([str(self.program), *words], text=text, environment=self.environment, seconds=seconds)

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
        """Return one object, or None when there is none."""
        found = self.do("--namespace", namespace, "get", kind, name, "--ignore-not-found", "--output=json")
        return dict(json.loads(found)) if found.strip() else None

    def list(self, kind: str, namespace: str, selector: str) -> list[dict[str, Any]]:
        """Return the objects with these labels."""
        found = self.do("--namespace", namespace, "get", kind, f"--selector={selector}", "--output=json")
        return list(json.loads(found)["items"])

    def apply(self, manifest: Mapping[str, Any]) -> None:
        """Make an object what the manifest says, whoever set its fields before."""
        options = ["--server-side", "--force-conflicts", f"--field-manager={_FIELD_MANAGER}"]
        self.do("apply", *options, "--filename=-", text=json.dumps(manifest))
