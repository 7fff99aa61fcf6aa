"""Installing the chart with Helm: values as one file, no shell, no --wait, no lock left behind.

A run that was killed leaves its release `pending-…`, and Helm refuses to go on. Nobody else works on this release: the
handshake has seen to that. So the lock is taken off first, by marking the revision as failed.
"""

import base64
import binascii
import gzip
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Final

from provisioner_job.chart_values import given_values, written
from provisioner_job.cluster import Cluster
from provisioner_job.errors import PhaseError, RetryableError
from provisioner_job.journal import Journal
from provisioner_job.refusals import TakenError
from provisioner_job.runner import run
from provisioner_job.setup import remove_failed_setups

__all__ = ["install", "is_outage", "marked_failed"]

_CHARTS: Final = Path("/charts")
_LIMIT_SECONDS: Final = 80.0
_HISTORY: Final = "10"
_ERROR_LINES: Final = 15
_UNANSWERED: Final = re.compile(
    r'\b(?:Get|Head|Post|Put|Patch|Delete) "https?://[^"\s]+": (?!.*(?:x509:|tls: failed to verify))'
)
"""A call that had no answer at all: refused, reset, EOF, a timeout. A certificate that is wrong stays so; an EOF alone
may be a template's."""
_LATER: Final = (
    "connection refused",
    "connection reset by peer",
    "i/o timeout",
    "TLS handshake timeout",
    "http2: client connection",
    "context deadline exceeded",
    "etcdserver:",
    "too many requests",
    "Too many requests",
    "storage is (re)initializing",
    "apiserver is shutting down",
    "Internal error occurred",
    "an error on the server (",
    "the server is currently unable to handle the request",
    "the server was unable to return a response in the time allotted",
    "request timed out",
    "Timeout: request did not complete within",
)
"""What Helm says when the cluster and not the chart is the trouble: the first of them without an answer, the others for
429, 500, 503 and 504, with a body that is a Status and without."""


async def install(cluster: Cluster, namespace: str, spec: dict[str, Any], journal: Journal) -> dict[str, Any]:
    """Install or upgrade the release and return its revision.

    Raises
    ------
    PhaseError
        The chart or its values are refused.
    RetryableError
        The cluster did not answer, Helm took too long, or a failed setup cannot be removed.
    """
    release: str = spec["engine"]
    found = await _newest(cluster, namespace, release)
    if found is not None:
        marks = found["metadata"]["labels"]
        journal.say(
            "found the release of an earlier run; what it made stays where the chart wants it so",
            phase="release",
            revision=marks.get("version"),
            state=marks.get("status"),
        )
    unlocked = await _unlock(cluster, namespace, release, journal)
    await remove_failed_setups(cluster, namespace, journal)
    chart = _CHARTS / spec["chart"]
    with tempfile.TemporaryDirectory(prefix="helm-") as folder:
        # The plan first, then what this kind of cluster makes of it, then what nobody but the order decides.
        files = (
            _written(folder, "plan", spec["plan_values"]),
            *_preset(chart, spec.get("preset", "default")),
            _written(folder, "given", given_values(spec)),
        )
        finished = await run(
            [
                "helm",
                "upgrade",
                "--install",
                release,
                str(chart),
                f"--namespace={namespace}",
                *(f"--values={file}" for file in files),
                f"--history-max={_HISTORY}",
                "--output=json",
            ],
            environment=_environment(folder),
            limit_seconds=_LIMIT_SECONDS,
            redactor=journal.redactor,
        )
    if finished.exit_code != 0:
        detail = finished.last_lines(_ERROR_LINES)
        if is_outage(detail):
            raise RetryableError("HELM_INTERRUPTED", "Helm could not reach the cluster", detail)
        raise PhaseError("HELM_FAILED", "Helm refuses the chart", detail)
    return {
        "release": release,
        "revision": _revision(finished.output),
        "existed": found is not None,
        "unlocked": unlocked,
    }


def is_outage(output: str) -> bool:
    """Say whether Helm's last lines tell of a cluster that could not answer, and not of a chart it refuses."""
    return _UNANSWERED.search(output) is not None or any(sign in output for sign in _LATER)


def _written(folder: str, name: str, values: dict[str, Any]) -> Path:
    file = Path(folder) / f"{name}.json"
    # Created for us alone before a byte is in it.
    file.touch(mode=0o600)
    file.write_text(written(values), encoding="utf-8")
    return file


def _preset(chart: Path, name: str) -> list[Path]:
    """Return the chart's own file for this kind of cluster; none for the default."""
    if name == "default":
        return []
    file = chart / f"values-{name}.yaml"
    if not file.is_file():
        raise PhaseError("PRESET_MISSING", "The chart has no such preset", file.name)
    return [file]


def _environment(folder: str) -> dict[str, str]:
    """Return what Helm needs and nothing of ours: neither the database's password nor the attempt's token."""
    kept = ("PATH", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "KUBECONFIG")
    made = {name: os.environ[name] for name in kept if name in os.environ}
    homes = {f"HELM_{kind}_HOME": f"{folder}/{kind.lower()}" for kind in ("CACHE", "CONFIG", "DATA")}
    return made | homes | {"HOME": folder, "TMPDIR": folder}


def _revision(output: str) -> int:
    """Return the revision in Helm's answer; warnings may stand before the JSON."""
    start = output.find("{")
    try:
        return int(json.loads(output[start:])["version"])
    except (ValueError, KeyError, TypeError):
        return 0


async def _unlock(cluster: Cluster, namespace: str, release: str, journal: Journal) -> bool:
    """Mark the newest revision as failed if a killed run left it pending."""
    locked = await _locked(cluster, namespace, release)
    if locked is None:
        return False
    try:
        await cluster.replace_secret(marked_failed(locked))
    except TakenError:
        # The answer to a first try may have been lost: what counts is whether the lock is off.
        if await _locked(cluster, namespace, release) is not None:
            raise
    journal.say("took the lock of a killed run off the release", phase="release", level="warning")
    return True


async def _locked(cluster: Cluster, namespace: str, release: str) -> dict[str, Any] | None:
    """Return the Secret of the newest revision if that is pending."""
    newest = await _newest(cluster, namespace, release)
    if newest is None or not newest["metadata"]["labels"].get("status", "").startswith("pending-"):
        return None
    return newest


async def _newest(cluster: Cluster, namespace: str, release: str) -> dict[str, Any] | None:
    """Return the Secret in which Helm keeps the newest revision."""
    found = await cluster.list("Secret", namespace, {"owner": "helm", "name": release})
    return max(found, key=lambda item: int(item["metadata"]["labels"].get("version", "0")), default=None)


def marked_failed(secret: dict[str, Any]) -> dict[str, Any]:
    """Return Helm's stored revision with the state `failed`.

    The release is JSON, compressed, encoded by Helm and once more as every Secret is.

    Raises
    ------
    PhaseError
        It is stored in another way.
    """
    try:
        stored = base64.b64decode(base64.b64decode(secret["data"]["release"]))
        release = json.loads(gzip.decompress(stored))
        release["info"]["status"] = "failed"
        release["info"]["description"] = "The run that installed this revision was killed"
    except (KeyError, TypeError, ValueError, OSError, binascii.Error) as error:
        raise PhaseError("RELEASE_UNREADABLE", "The locked release cannot be read", str(error)) from error
    packed = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(release).encode()))).decode()
    labels = secret["metadata"]["labels"] | {"status": "failed"}
    return secret | {"metadata": secret["metadata"] | {"labels": labels}, "data": {"release": packed}}
