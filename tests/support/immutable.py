"""What of a chart's objects Kubernetes never lets change, kept from each released version of the chart.

An upgrade that changes any of it is refused for every store that exists, and only there: no new store shows it.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any, Final

import yaml

from devcluster.machine.paths import checkout
from tests.support.charts import CHARTS, INSTALLATIONS, rendered

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["UPDATE", "changes", "frozen_parts", "kept_versions", "now", "version_of"]

UPDATE: Final = "STOREPLANE_TEST_UPDATE"
_FOLDER: Final = checkout() / "tests" / "data" / "charts"
_STATEFUL_SET_MAY_CHANGE: Final = frozenset(
    {
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
        "revisionHistoryLimit",
    }
)

Parts = dict[str, Any]
"""By path inside the object."""


def frozen_parts(document: Mapping[str, Any]) -> Parts:
    """Return what of an object cannot be changed as long as it is there, by path."""
    spec = document.get("spec", {})
    made: Parts = {}
    match document["kind"]:
        case "Deployment":
            made = {"spec.selector": spec["selector"]}
        case "StatefulSet":
            always = {"podManagementPolicy": "OrderedReady", "volumeClaimTemplates": []} | spec
            made = {f"spec.{name}": each for name, each in always.items() if name not in _STATEFUL_SET_MAY_CHANGE}
        case "Service":
            made = {"spec.clusterIP": spec.get("clusterIP", "given by the cluster")}
        case "PersistentVolumeClaim":
            # It may grow where its class allows it, and never shrink: a store's size is its plan's.
            made = {f"spec.{name}": each for name, each in spec.items()}
        case "Job":
            # Long, and nobody reads it: a Job that changes has to have another name.
            text = json.dumps(spec["template"], sort_keys=True)
            made = {"spec.template (SHA-256)": hashlib.sha256(text.encode()).hexdigest()}
        case "RoleBinding" | "ClusterRoleBinding":
            made = {"roleRef": document["roleRef"]}
        case _:
            pass
    return made


def version_of(chart: str) -> str:
    """Return a chart's own version."""
    made: str = yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text())["version"]
    return made


def now(chart: str) -> dict[str, dict[str, Parts]]:
    """Return the frozen parts of a chart as it is: by installation, then by object."""
    made: dict[str, dict[str, Parts]] = {}
    for each in INSTALLATIONS:
        if each.chart == chart:
            objects = rendered(each).items()
            made[str(each)] = {name: parts for name, document in objects if (parts := frozen_parts(document))}
    return made


def kept_versions(chart: str) -> dict[str, dict[str, dict[str, Parts]]]:
    """Return the kept parts of each released version of a chart; first write those of today's, where that is asked for.

    Another version's are never written: what was released stays as it was.
    """
    if os.environ.get(UPDATE) == "1":
        _FOLDER.mkdir(exist_ok=True)
        text = json.dumps(now(chart), indent=1, sort_keys=True) + "\n"
        (_FOLDER / f"{chart}-{version_of(chart)}.json").write_text(text, encoding="utf-8")
    files = sorted(_FOLDER.glob(f"{chart}-[0-9]*.json"))
    return {file.stem.removeprefix(f"{chart}-"): json.loads(file.read_text(encoding="utf-8")) for file in files}


def changes(was: Mapping[str, Mapping[str, Parts]], is_now: Mapping[str, Mapping[str, Parts]]) -> Iterator[str]:
    """Yield a sentence for each part that differs in an object that was and still is; what came or went is free to."""
    for installation, objects in was.items():
        for name, parts in objects.items():
            present = is_now.get(installation, {}).get(name)
            if present is None:
                continue
            for path in sorted(parts.keys() | present.keys()):
                old, new = parts.get(path), present.get(path)
                if old != new:
                    yield f"{installation}: {name} {path} was {json.dumps(old)} and is {json.dumps(new)}"
