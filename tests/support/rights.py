"""Every right that an installation gives, as tables, and the form in which they are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "CONTROL_PLANE_ANYWHERE",
    "CONTROL_PLANE_IN_JOBS",
    "PROVISIONER_ANYWHERE",
    "RULE_KEYS",
    "STORE_ADMIN",
    "STORE_OBSERVER",
    "flattened",
    "granted",
]

RULE_KEYS = frozenset({"apiGroups", "resources", "verbs", "resourceNames"})
_ALL = "get list watch create update patch delete"

# API group/resource, or API group/resource/object where objects are named; the core group has no name.
CONTROL_PLANE_IN_JOBS = {
    "batch/jobs": "create get list watch patch delete",
    "/pods": "get list watch delete",
    "/pods/log": "get",
    "/events": "list watch",
}
CONTROL_PLANE_ANYWHERE = {"/namespaces": "get list"}
PROVISIONER_ANYWHERE = {
    "/namespaces": "get list watch create patch delete",
    "rbac.authorization.k8s.io/rolebindings": "get create",
    "rbac.authorization.k8s.io/clusterroles:storeplane-store-admin": "bind",
    "rbac.authorization.k8s.io/clusterroles:storeplane-store-observer": "bind",
}
STORE_ADMIN = {
    "/resourcequotas": "get list watch create patch",
    "/limitranges": "get list watch create patch",
    "/secrets": _ALL,
    "/configmaps": _ALL,
    "/services": _ALL,
    "/serviceaccounts": _ALL,
    "/persistentvolumeclaims": _ALL,
    "apps/deployments": _ALL,
    "apps/statefulsets": _ALL,
    "batch/jobs": _ALL,
    "batch/cronjobs": _ALL,
    "networking.k8s.io/ingresses": _ALL,
    "networking.k8s.io/networkpolicies": _ALL,
    "/pods": "get list watch",
    "/events": "get list watch",
    "/pods/log": "get",
}
STORE_OBSERVER = {
    "/pods": "get list watch",
    "/events": "get list watch",
    "/pods/log": "get",
    "/secrets:store-credentials": "get",
}


def granted(*tables: Mapping[str, str], name: str = "storeplane") -> set[str]:
    """Return what tables grant, one entry a verb, for an installation of this name."""
    rights = {f"{verb} {what}" for table in tables for what, verbs in table.items() for verb in verbs.split()}
    return {right.replace(":storeplane-", f":{name}-") for right in rights}


def flattened(rules: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return what RBAC rules grant, in the form of ``granted``."""
    return {
        f"{verb} {group}/{resource}{name}"
        for rule in rules
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in [f":{each}" for each in rule.get("resourceNames", [])] or [""]
    }
