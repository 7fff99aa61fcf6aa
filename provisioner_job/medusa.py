"""What a Medusa shop needs beside its chart: secrets, values and the question that proves it.

Pure but for randomness. The chart names Ingress, Service, port and Secret keys; both sides of this are tested.
"""

import json
import secrets
from collections.abc import Mapping
from typing import Any, Final

__all__ = [
    "INGRESS",
    "KEY_HEADER",
    "PORT",
    "PRODUCTS_PATH",
    "RELEASE",
    "SECRET_NAME",
    "new_secrets",
    "service_host",
    "values",
    "written",
]

RELEASE: Final = "medusa"
INGRESS: Final = "medusa"
SECRET_NAME: Final = "store-secrets"  # noqa: S105 -- the Secret's name
PORT: Final = 9000
PRODUCTS_PATH: Final = "/store/products"
KEY_HEADER: Final = "x-publishable-api-key"
_DATABASE: Final = "medusa"


def new_secrets(host: str) -> dict[str, str]:
    """Return a fresh set of a shop's secrets; hexadecimal, so that no URL needs to escape them."""
    postgres, redis = secrets.token_hex(24), secrets.token_hex(24)
    return {
        "POSTGRES_PASSWORD": postgres,
        "REDIS_PASSWORD": redis,
        "JWT_SECRET": secrets.token_hex(32),
        "COOKIE_SECRET": secrets.token_hex(32),
        "ADMIN_EMAIL": f"admin@{host}",
        "ADMIN_PASSWORD": secrets.token_urlsafe(18),
        "PUBLISHABLE_KEY": f"pk_{secrets.token_hex(32)}",
        "DATABASE_URL": f"postgres://{_DATABASE}:{postgres}@postgres:5432/{_DATABASE}?sslmode=disable",
        "REDIS_URL": f"redis://:{redis}@redis:6379",
    }


def values(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the chart's values for a frozen spec; one without an image for a storefront has none."""
    given: dict[str, Any] = {
        "image": {name: spec["images"][name] for name in ("server", "postgres", "redis")},
        "secretName": SECRET_NAME,
        "host": spec["host"],
        "publicUrl": spec["public_url"],
    }
    if "storefront" in spec["images"]:
        given["image"]["storefront"] = spec["images"]["storefront"]
        given["storefront"] = {"enabled": True, "title": spec.get("name", "")}
    return given


def service_host(namespace: str) -> str:
    """Return the cluster's name for the shop's Service."""
    return f"medusa.{namespace}.svc.cluster.local"


def written(made: Mapping[str, Any]) -> str:
    """Return values as the file that Helm reads: JSON, with every character as itself.

    Helm reads it as YAML, which knows no pairs of escapes: an escaped character beyond U+FFFF is refused.
    """
    return json.dumps(made, ensure_ascii=False)
