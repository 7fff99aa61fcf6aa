"""Every chart in every way in which it is installed, rendered by the Helm that ships in the provisioner.

A folder of ``charts/`` whose name is an engine's is given what the provisioner gives to every engine's chart: the plan,
then the preset, then what the order decides. An engine of the catalogue needs nothing more to be taken in.
"""

from __future__ import annotations

import functools
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from controlplane.domain.catalogue import CATALOGUE
from controlplane.domain.engines import Engine
from devcluster.images.helm import helm_binary
from devcluster.machine.paths import checkout
from provisioner_job.chart_values import given_values, written
from tests.support import wishes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "CHARTS",
    "ENGINES",
    "INSTALLATIONS",
    "Installation",
    "claims",
    "containers",
    "differences",
    "helm",
    "leaves",
    "pod_templates",
    "rendered",
]

CHARTS: Final = checkout() / "charts"
ENGINES: Final = tuple(
    name for name, row in sorted(CATALOGUE.items()) if isinstance(row, Engine) and (CHARTS / name).is_dir()
)
"""Engines that have a chart."""
_PLATFORM: Final = "storeplane"
_IMAGE: Final = "storeplane.local/{name}:0123456789abcdef"
_PLATFORM_VALUES: Final[dict[str, Any]] = {
    "image": {
        "controlplane": _IMAGE.format(name="controlplane"),
        "provisioner": "registry.example:5000/provisioner@sha256:" + "0" * 64,
        "postgres": _IMAGE.format(name="postgres"),
        "engines": {"medusa": {name: _IMAGE.format(name=name) for name in ("server", "postgres", "redis")}},
    }
}
_EXTERNAL: Final[dict[str, Any]] = {
    "externalDatabase": {"host": "db.example", "existingSecret": "owner", "caSecret": "db-ca"},
    "ingress": {"host": "api.example"},
}
_TLS: Final = {"className": "nginx", "tlsSecret": "store-tls", "clusterIssuer": "letsencrypt"}
_HELM_SECONDS: Final = 60


@dataclass(frozen=True)
class Installation:
    """One way in which a chart is installed."""

    chart: str
    preset: str
    plan: str
    """Empty for the platform's own chart."""
    is_bare: bool = False
    """Without the images that an engine can do without."""

    def __str__(self) -> str:
        parts = (self.chart, self.preset, self.plan, "bare" if self.is_bare else "")
        return "-".join(each for each in parts if each)

    @property
    def folder(self) -> Path:
        return CHARTS / self.chart

    def files(self, folder: Path) -> list[Path]:
        """Write the values and return their files, in the order in which they are given to Helm."""
        preset = [] if self.preset == "default" else [self.folder / f"values-{self.preset}.yaml"]
        plan, given = folder / "plan.json", folder / "given.json"
        if not self.plan:
            values = _PLATFORM_VALUES | (_EXTERNAL if self.preset == "prod" else {})
            given.write_text(written(values), encoding="utf-8")
            return [*preset, given]
        spec = wishes.spec(self.chart, plan=self.plan)
        row = CATALOGUE[self.chart]
        assert isinstance(row, Engine)
        images = row.images if self.is_bare else (*row.images, *row.optional_images)
        spec["images"] = {name: _IMAGE.format(name=name) for name in images}
        if self.preset == "prod":
            spec["ingress"] = _TLS
        plan.write_text(written(spec["plan_values"]), encoding="utf-8")
        given.write_text(written(given_values(spec)), encoding="utf-8")
        return [plan, *preset, given]


def _installations() -> Iterator[Installation]:
    for chart in (*ENGINES, _PLATFORM):
        row = CATALOGUE.get(chart)
        plans = tuple(row.plans) if isinstance(row, Engine) else ("",)
        presets = sorted(file.stem.removeprefix("values-") for file in (CHARTS / chart).glob("values-*.yaml"))
        if isinstance(row, Engine) and row.optional_images:
            yield Installation(chart, "default", row.default_plan, is_bare=True)
        for preset in ("default", *presets):
            yield from (Installation(chart, preset, plan) for plan in plans)


INSTALLATIONS: Final = tuple(_installations())


def helm(
    command: str, installation: Installation, *words: str, values: Mapping[str, Any] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command of Helm that takes a chart and its values, and return how it ended.

    Parameters
    ----------
    values
        Given last, over everything else.
    """
    with tempfile.TemporaryDirectory(prefix="chart-") as name:
        folder = Path(name)
        files = installation.files(folder)
        if values is not None:
            last = folder / "last.json"
            last.write_text(written(values), encoding="utf-8")
            files.append(last)
        release = [installation.chart] if command == "template" else []
        arguments = [f"--values={file}" for file in files]
        return subprocess.run(
            [helm_binary(), command, *release, str(installation.folder), "--namespace=a-store", *arguments, *words],
            capture_output=True,
            text=True,
            timeout=_HELM_SECONDS,
            check=False,
            env={"HOME": name, "PATH": "/nonexistent"},
        )


@functools.cache
def rendered(installation: Installation) -> dict[str, dict[str, Any]]:
    """Return the objects of an installation by ``Kind/name``, or ``namespace/Kind/name``; not to be changed."""
    ended = helm("template", installation)
    assert ended.returncode == 0, ended.stderr
    documents = [document for document in yaml.safe_load_all(ended.stdout) if document]
    named = {_name(document): document for document in documents}
    assert len(named) == len(documents), "two objects have one name"
    return named


def _name(document: Mapping[str, Any]) -> str:
    metadata = document["metadata"]
    namespace = f"{metadata['namespace']}/" if "namespace" in metadata else ""
    return f"{namespace}{document['kind']}/{metadata['name']}"


def pod_templates(objects: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the pod templates of workloads by the names of their objects."""
    for name, document in objects.items():
        spec = document.get("spec", {})
        if document["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if "containers" in spec.get("template", {}).get("spec", {}):
            yield name, spec["template"]


def containers(objects: Mapping[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield every container, those that run first as well."""
    for _, template in pod_templates(objects):
        yield from [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


def claims(objects: Mapping[str, dict[str, Any]], pod_spec: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the access modes of the claims a pod mounts; none are known of one that the chart does not make."""
    for volume in pod_spec.get("volumes", []):
        if "persistentVolumeClaim" in volume:
            claim = objects.get(f"PersistentVolumeClaim/{volume['persistentVolumeClaim']['claimName']}", {})
            yield claim.get("spec", {}).get("accessModes", [])


def differences(one: Any, other: Any, key: str = "") -> Iterator[str]:
    """Yield the keys under which two documents differ, the requests as a whole."""
    if isinstance(one, dict) and isinstance(other, dict) and key != "requests":
        for each in one.keys() | other.keys():
            yield from differences(one.get(each), other.get(each), each)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for left, right in zip(one, other, strict=True):
            yield from differences(left, right, key)
    elif one != other:
        yield key


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every text and number below a node with its path."""
    if isinstance(node, dict):
        for key, each in node.items():
            yield from leaves(each, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for place, each in enumerate(node):
            yield from leaves(each, f"{path}[{place}]")
    else:
        yield path, node
