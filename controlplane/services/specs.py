"""What an operation freezes, so that every attempt renders and installs the same, whatever the settings are by then.

Keys of a spec: `version`, `engine`, `engine_version`, `chart`, `chart_version`, `preset`, `images` (by the chart's
names), `plan`, `plan_values`, `quota`, `limits`, `secret` and `credentials` (as the catalogue has them), `proof`
{`service`, `port`, `path`, `items`, `headers`}, `phase_seconds`, `paths` {`storefront`, `admin`}, `provisioner_image`,
`namespace`, `host`, `public_url`, `ingress` {`className`, `tlsSecret`, `clusterIssuer`}, `observer` {`namespace`,
`service_account`}, `network` {`ingress_namespace`, `ingress_cidrs`, `dns_cidr`, `denied_cidrs`}, `name`, `traceparent`.
"""

from dataclasses import dataclass
from typing import Any, Final

from controlplane.config import Settings
from controlplane.domain.catalogue import CATALOGUE
from controlplane.domain.engines import Engine, limit_range, quota
from provisioner_job.contract import SPEC_VERSION

__all__ = ["Place", "RefreshError", "for_delete", "frozen", "place", "refreshed", "repeated", "spec_changes", "urls"]

_TLS_SECRET: Final = "store-tls"  # noqa: S105 -- the Secret's name


class RefreshError(ValueError):
    """What was ordered cannot be ordered any more."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store lives; never changes."""

    namespace: str
    host: str
    public_url: str
    has_tls: bool
    """A certificate of its own, in its own namespace."""


def place(namespace: str, host: str, settings: Settings, *, has_tls: bool) -> Place:
    """Return the place of a store and where browsers find it."""
    if has_tls:
        return Place(namespace, host, f"https://{host}", has_tls=True)
    # The platform's own certificate covers the hosts that it gives out itself.
    is_given = host.endswith(f".{settings.store_domain}")
    scheme = settings.store_url_scheme if is_given else "http"
    port = settings.store_url_port if scheme == settings.store_url_scheme else 0
    return Place(namespace, host, f"{scheme}://{host}" + (f":{port}" if port else ""), has_tls=False)


def frozen(  # noqa: PLR0913 -- what an order consists of
    engine: Engine, at: Place, settings: Settings, *, plan: str, name: str, traceparent: str
) -> dict[str, Any]:
    """Return the complete spec of a new store."""
    return {
        **_resolved(engine, plan, settings),
        **_own(settings),
        "name": name,
        "namespace": at.namespace,
        "host": at.host,
        "public_url": at.public_url,
        "ingress": _ingress(settings, has_tls=at.has_tls),
        "traceparent": traceparent,
    }


def for_delete(newest: dict[str, Any], settings: Settings, traceparent: str) -> dict[str, Any]:
    """Return the spec of a delete: what the store's newest operation froze, done by today's provisioner.

    The engine is left as it was: a store of one that is not offered any more can still be deleted.
    """
    return newest | _own(settings) | {"traceparent": traceparent}


def repeated(old: dict[str, Any], traceparent: str) -> dict[str, Any]:
    """Return the spec of a retry: the old one, whatever the settings are by now."""
    return old | {"traceparent": traceparent}


def refreshed(old: dict[str, Any], settings: Settings, traceparent: str) -> dict[str, Any]:
    """Return the spec of a creation's fresh retry: what an order of the same would freeze now, at the same place.

    Raises
    ------
    RefreshError
        The same cannot be ordered any more; the message says why.
    """
    name = str(old.get("engine"))
    engine = CATALOGUE.get(name)
    if not isinstance(engine, Engine) or name not in settings.engine_images:
        message = f"the engine {name} is not offered any more; retry without refresh_spec, or have its images set"
        raise RefreshError(message)
    # Those of version 1 had no plan to choose.
    plan = str(old["plan"]) if old.get("version") == SPEC_VERSION else engine.default_plan
    if plan not in engine.plans:
        message = f"the plan {plan} is not offered any more; retry without refresh_spec, or order anew"
        raise RefreshError(message)
    has_tls = bool((old.get("ingress") or {}).get("tlsSecret"))
    if has_tls and not settings.store_cluster_issuer:
        message = "it has a certificate of its own, and no issuer is set up any more; retry without refresh_spec"
        raise RefreshError(message)
    ingress = {"ingress": _ingress(settings, has_tls=has_tls)}
    return repeated(old, traceparent) | _resolved(engine, plan, settings) | _own(settings) | ingress


def urls(spec: dict[str, Any]) -> dict[str, str | None]:
    """Return where browsers and programs find the store that this spec makes."""
    public_url, paths = spec["public_url"], spec["paths"]
    return {
        "storefront": None if paths["storefront"] is None else public_url + paths["storefront"],
        "admin": public_url + paths["admin"],
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


def _resolved(engine: Engine, plan: str, settings: Settings) -> dict[str, Any]:
    images, size, version = settings.engine_images[engine.name], engine.plans[plan], engine.newest
    has_storefront = not engine.storefront_image or engine.storefront_image in images
    return {
        "version": SPEC_VERSION,
        "engine": engine.name,
        "engine_version": version.version,
        "chart": engine.chart,
        "chart_version": version.chart_version,
        "preset": settings.store_preset,
        "images": images,
        "plan": plan,
        "plan_values": size.values(),
        "quota": quota(size),
        "limits": limit_range(size),
        "secret": {key: dict(made) for key, made in engine.secret.items()},
        "credentials": dict(engine.credentials),
        "proof": {
            "service": engine.name,
            "port": engine.proof.port,
            "path": engine.proof.path,
            "items": engine.proof.items,
            "headers": dict(engine.proof.headers),
        },
        "phase_seconds": dict(engine.phase_seconds),
        "paths": {"storefront": engine.storefront_path if has_storefront else None, "admin": engine.admin_path},
    }


def _ingress(settings: Settings, *, has_tls: bool) -> dict[str, str]:
    return {
        "className": settings.store_ingress_class or "",
        "tlsSecret": _TLS_SECRET if has_tls else "",
        "clusterIssuer": (settings.store_cluster_issuer or "") if has_tls else "",
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
