"""The values that every engine's chart takes, from an operation's frozen spec. Pure.

They are the same for all engines: a chart asks for what it needs of them and for nothing else.
"""

import json
from collections.abc import Mapping
from typing import Any

from provisioner_job.objects import SECRET_NAME

__all__ = ["given_values", "written"]


def given_values(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the order decides; sizes come with the plan."""
    return {
        "image": dict(spec["images"]),
        "secretName": SECRET_NAME,
        "host": spec["host"],
        "publicUrl": spec["public_url"],
        "title": spec.get("name", ""),
        "ingress": dict(spec["ingress"]),
    }


def written(values: Mapping[str, Any]) -> str:
    """Return values as the file that Helm reads: JSON, with every character as itself.

    Helm reads it as YAML, which knows no pairs of escapes: an escaped character beyond U+FFFF is refused.
    """
    return json.dumps(values, ensure_ascii=False)
