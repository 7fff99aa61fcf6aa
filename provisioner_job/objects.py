"""Kubernetes objects of a store that no chart makes: namespace, rights, quota, limits, Secret. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from provisioner_job.contract import STORE_LABEL

__all__ = [
    "LIMITS_NAME",
    "OWNED_BY",
    "QUOTA_NAME",
    "SECRET_NAME",
    "container_statuses",
    "labels",
    "limit_range",
    "namespace",
    "quota",
    "role_binding",
    "secret",
]

OWNED_BY: Final = {"app.kubernetes.io/managed-by": "storeplane"}
QUOTA_NAME: Final = "store-quota"
LIMITS_NAME: Final = "store-limits"
SECRET_NAME: Final = "store-secrets"  # noqa: S105 -- the Secret's name
"""What the chart reads; nobody outside of the namespace can."""
_ROLE_PREFIX: Final = "storeplane-"
"""The ClusterRoles of a store are the platform's, `storeplane-store-admin` and `storeplane-store-observer`."""


def container_statuses(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what a pod that was read says of its containers, those that run first as well."""
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def labels(store_id: UUID) -> dict[str, str]:
    """Return what everything of a store is labelled with."""
    return {**OWNED_BY, STORE_LABEL: str(store_id)}


def namespace(name: str, store_id: UUID) -> dict[str, Any]:
    """Return the store's namespace: pods in it are held to the restricted standard."""
    marked = labels(store_id) | {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/warn": "restricted",
    }
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": marked}}


def role_binding(name: str, store_id: UUID, *, role: str, subject: tuple[str, str]) -> dict[str, Any]:
    """Return a binding `role` of the platform's ClusterRole for it.

    Parameters
    ----------
    subject
        Namespace and name of the service account that gets the rights in the store's namespace.
    """
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": role, "namespace": name, "labels": labels(store_id)},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": _ROLE_PREFIX + role},
        "subjects": [{"kind": "ServiceAccount", "namespace": subject[0], "name": subject[1]}],
    }


def quota(name: str, store_id: UUID, hard: Mapping[str, str]) -> dict[str, Any]:
    """Return the store's quota."""
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": QUOTA_NAME, "namespace": name, "labels": labels(store_id)},
        "spec": {"hard": dict(hard)},
    }


def limit_range(name: str, store_id: UUID, limits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the limits of a single pod, container and claim."""
    return {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": LIMITS_NAME, "namespace": name, "labels": labels(store_id)},
        "spec": {"limits": list(limits)},
    }


def secret(name: str, store_id: UUID, secret_name: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Return a Secret with these texts."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret_name, "namespace": name, "labels": labels(store_id)},
        "type": "Opaque",
        "stringData": dict(texts),
    }
