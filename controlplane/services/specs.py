"""What an operation freezes, so that every attempt renders and installs the same, whatever the settings are by then.

Keys of a spec: `version`, `engine`, `engine_version`, `chart`, `chart_version`, `preset`, `plan`, `images` (by the
chart's names), `provisioner_image`, `namespace`, `host`, `public_url`, `observer` {`namespace`, `service_account`},
`network` {`ingress_namespace`, `ingress_cidrs`, `dns_cidr`, `denied_cidrs`}, `name`, `traceparent`.
"""

from dataclasses import dataclass
from typing import Any, Final

from controlplane.config import Settings
from controlplane.domain.engines import CATALOGUE, Engine

__all__ = ["Place", "for_delete", "for_retry", "frozen", "spec_changes", "urls"]

_PLAN: Final = "standard"
"""The only plan so far: the chart's own resources."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store lives; never changes."""

    namespace: str
    host: str
    public_url: str


def frozen(engine: Engine, name: str, place: Place, settings: Settings, traceparent: str) -> dict[str, Any]:
    """Return the complete spec of a new store."""
    return {
        "version": 1,
        **_resolved(engine, settings),
        **_own(settings),
        "plan": _PLAN,
        "name": name,
        "namespace": place.namespace,
        "host": place.host,
        "public_url": place.public_url,
        "traceparent": traceparent,
    }


def for_delete(newest: dict[str, Any], settings: Settings, traceparent: str) -> dict[str, Any]:
    """Return the spec of a delete: what the store's newest operation froze, done by today's provisioner.

    The engine is left as it was: a store of one that is not offered any more can still be deleted.
    """
    return newest | _own(settings) | {"traceparent": traceparent}


def for_retry(old: dict[str, Any], settings: Settings, traceparent: str, *, is_fresh: bool) -> dict[str, Any]:
    """Return the spec of a retry: the old one, or with `is_fresh` what an order would freeze now at the same place."""
    new = old | {"traceparent": traceparent}
    if not is_fresh:
        return new
    engine = CATALOGUE.get(str(old.get("engine")))
    return new | ({} if engine is None else _resolved(engine, settings)) | _own(settings) | {"plan": _PLAN}


def urls(spec: dict[str, Any]) -> dict[str, str | None]:
    """Return where browsers and programs find the store that this spec makes."""
    public_url = spec["public_url"]
    return {
        "storefront": f"{public_url}/" if "storefront" in spec["images"] else None,
        "admin": f"{public_url}/app",
        "api": public_url,
    }


def spec_changes(old: dict[str, Any], new: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what differs, as `field` (a dotted path), `old` and `new`, by field; the trace context is no change."""
    before, after = _flat(old), _flat(new)
    return [
        {"field": field, "old": before.get(field), "new": after.get(field)}
        for field in sorted(before.keys() | after.keys())
        if before.get(field) != after.get(field) and field != "traceparent"
    ]


def _resolved(engine: Engine, settings: Settings) -> dict[str, Any]:
    return {
        "engine": engine.name,
        "engine_version": engine.version,
        "chart": engine.chart,
        "chart_version": engine.chart_version,
        "preset": settings.store_preset,
        "images": settings.engine_images(engine.name),
    }


def _own(settings: Settings) -> dict[str, Any]:
    return {
        "provisioner_image": settings.provisioner_image,
        "observer": {
            "namespace": settings.observer_namespace,
            "service_account": settings.observer_service_account,
        },
        "network": {
            "ingress_namespace": settings.store_ingress_namespace,
            "ingress_cidrs": list(settings.store_ingress_cidrs or ()),
            "dns_cidr": settings.store_dns_cidr,
            "denied_cidrs": list(settings.store_denied_cidrs or ()),
        },
    }


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, each in value.items():
        found |= _flat(each, f"{prefix}{name}.") if isinstance(each, dict) else {f"{prefix}{name}": each}
    return found
