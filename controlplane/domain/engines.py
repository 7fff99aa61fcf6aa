"""What an engine is: everything the platform knows of one kind of shop, as data. The table itself: `domain.catalogue`.

An engine is a row of that table, a chart and its images; no code asks which one it is. What the provisioner needs of a
row is frozen into each operation's spec, so that a pod of any age does what was ordered.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = [
    "SETUP",
    "Container",
    "Engine",
    "Made",
    "Plan",
    "PlannedEngine",
    "Probes",
    "Proof",
    "Version",
    "hexadecimal",
    "letters",
    "limit_range",
    "quota",
    "text",
]

SETUP: Final = "setup"
"""The part of every engine that is a Job and not always there."""
Made = Mapping[str, str | int]
"""How one value of a store's Secret is made: `{"hex": bytes, "prefix": text}`, `{"letters": characters}` or
`{"text": template}`."""


def hexadecimal(count: int, prefix: str = "") -> Made:
    """Return the recipe of `count` random bytes, written in hexadecimal digits behind a prefix."""
    return {"hex": count, "prefix": prefix}


def letters(count: int) -> Made:
    """Return the recipe of `count` random letters and digits."""
    return {"letters": count}


def text(template: str) -> Made:
    """Return the recipe of a text; `{host}` and the keys of random texts stand for their values."""
    return {"text": template}


@dataclass(frozen=True, slots=True)
class Container:
    """What one part of a shop may use, in Kubernetes' units; each part is a pod with one container."""

    cpu: str
    """Limit: whole cores, or `500m`."""
    memory: str
    """Limit: `512Mi` or `2Gi`."""
    requested_cpu: str
    requested_memory: str
    storage: str = ""
    """Size of its own volume; empty for none."""

    def values(self) -> dict[str, Any]:
        """Return what a chart is given for the part."""
        given: dict[str, Any] = {
            "resources": {
                "requests": {"cpu": self.requested_cpu, "memory": self.requested_memory},
                "limits": {"cpu": self.cpu, "memory": self.memory},
            }
        }
        return given | ({"storage": self.storage} if self.storage else {})


@dataclass(frozen=True, slots=True)
class Plan:
    """A size of shop."""

    parts: Mapping[str, Container]
    """By their names in the chart."""
    volumes: Mapping[str, str] = field(default_factory=dict)
    """Volumes that belong to no part's own set, by their names in the chart: their sizes."""
    tuning: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What a part's program is told to make of its share: values of the chart, by part."""

    @property
    def claims(self) -> list[str]:
        """The sizes of its volumes."""
        return [each.storage for each in self.parts.values() if each.storage] + list(self.volumes.values())

    def values(self) -> dict[str, Any]:
        """Return the chart's values of this size."""
        sized: dict[str, Any] = {name: part.values() for name, part in self.parts.items()}
        sized |= {name: {"storage": size} for name, size in self.volumes.items()}
        for name, tuned in self.tuning.items():
            sized[name] = sized[name] | tuned
        return sized


@dataclass(frozen=True, slots=True)
class Version:
    """One version that can be ordered."""

    version: str
    """Of the shop's software, as its image has it."""
    chart_version: str
    upgrades_from: tuple[str, ...] = ()
    """Versions whose shops can become this one."""


@dataclass(frozen=True, slots=True)
class Probes:
    """Paths by which the kubelet asks the serving pod."""

    alive: str
    """Answers as long as the process does, whatever its database does."""
    ready: str
    """Answers once the shop may be shown to customers."""


@dataclass(frozen=True, slots=True)
class Proof:
    """The question that proves a shop: it is ready when it answers with products."""

    port: int
    """Of the Service that is named like the engine."""
    path: str
    items: str = ""
    """Name of the list of products in the answer; empty when the answer is the list."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent along; `{KEY}` stands for a value of the store's Secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedEngine:
    """One that is announced."""

    name: str
    version: str
    """The line it will begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One kind of shop that can be ordered."""

    name: str
    """Also of its Helm release, and of the Service and the Ingress in its chart."""
    versions: tuple[Version, ...]
    """Oldest first; an order gets the newest."""
    chart: str
    """Folder of its chart in the provisioner's image."""
    images: tuple[str, ...]
    """Names of the images its chart needs; the settings name their references."""
    optional_images: tuple[str, ...] = ()
    """Those the chart can do without."""
    plans: Mapping[str, Plan]
    """Smallest first; an order that names none gets the first."""
    secret: Mapping[str, Made]
    """The keys of the store's Secret."""
    credentials: Mapping[str, str]
    """What the shop's owner may read, by the name it is shown under: a key of the Secret."""
    probes: Probes
    phase_seconds: Mapping[str, int] = field(default_factory=dict)
    """Limits of phases that take longer here than elsewhere."""
    proof: Proof
    storefront_path: str
    storefront_image: str = ""
    """The image without which there is no storefront; empty when there always is one."""
    admin_path: str

    @property
    def newest(self) -> Version:
        """The version an order gets."""
        return self.versions[-1]

    @property
    def default_plan(self) -> str:
        """The plan of an order that names none."""
        return next(iter(self.plans))


_AMOUNT: Final = re.compile(r"([0-9]+)(m|Mi|Gi|)")
_UNITS: Final = {"m": 1, "": 1000, "Mi": 1, "Gi": 1024}
_PODS_BESIDE: Final = 4
"""The setup's second try, two runs of a timetable that overlap, and one more while pods take turns."""


def _of(amount: str) -> int:
    """Return an amount in thousandths of a core, or in Mi."""
    matched = _AMOUNT.fullmatch(amount)
    if matched is None:
        message = f"{amount!r} is no amount: write 500m, 2, 512Mi or 2Gi"
        raise ValueError(message)
    return int(matched[1]) * _UNITS[matched[2]]


def quota(plan: Plan) -> dict[str, str]:
    """Return the hard limits of a store's ResourceQuota: its plan, and room to change it.

    Beside all of its parts, the setup among them, there is room for the largest once more: a pod that ends still
    counts while its successor starts. No address outside the cluster.

    Raises
    ------
    ValueError
        The plan has an amount that is none.
    """
    parts, claims = plan.parts.values(), plan.claims

    def room(amounts: list[int]) -> int:
        return sum(amounts) + max(amounts)

    return {
        "limits.cpu": f"{room([_of(each.cpu) for each in parts])}m",
        "limits.memory": f"{room([_of(each.memory) for each in parts])}Mi",
        "requests.storage": f"{sum(map(_of, claims))}Mi",
        "persistentvolumeclaims": str(len(claims)),
        "pods": str(len(parts) + _PODS_BESIDE),
        "services.nodeports": "0",
        "services.loadbalancers": "0",
    }


def limit_range(plan: Plan) -> list[dict[str, Any]]:
    """Return the limits of a store's single pods, containers and claims; a plan that is larger raises them.

    Raises
    ------
    ValueError
        The plan has an amount that is none.
    """
    smallest = {"cpu": "10m", "memory": "32Mi"}
    parts = plan.parts.values()
    cpu, memory = [each.cpu for each in parts], [each.memory for each in parts]
    return [
        {"type": "Pod", "max": {"cpu": _largest("2", *cpu), "memory": _largest("4Gi", *memory)}, "min": smallest},
        {
            "type": "Container",
            "default": {"cpu": "500m", "memory": "512Mi"},
            "defaultRequest": {"cpu": "100m", "memory": "128Mi"},
            "max": {"cpu": _largest("2", *cpu), "memory": _largest("2Gi", *memory)},
            "min": smallest,
        },
        {
            "type": "PersistentVolumeClaim",
            "min": {"storage": "1Gi"},
            "max": {"storage": _largest("20Gi", *plan.claims)},
        },
    ]


def _largest(*amounts: str) -> str:
    return max(amounts, key=_of)
