"""Kubernetes objects of a store that no chart makes: namespace, rights, quota, limits, Secret. Pure."""

from typing import Any, Final
from uuid import UUID

from provisioner_job import medusa

__all__ = [
    "LIMITS_NAME",
    "OWNED_BY",
    "QUOTA_NAME",
    "STORE_LABEL",
    "labels",
    "limit_range",
    "namespace",
    "quota",
    "role_binding",
    "secret",
]

OWNED_BY: Final = {"app.kubernetes.io/managed-by": "storeplane"}
STORE_LABEL: Final = "storeplane.dev/store-id"
QUOTA_NAME: Final = "store-quota"
LIMITS_NAME: Final = "store-limits"
_ROLE_PREFIX: Final = "storeplane-"
"""The ClusterRoles of a store are the platform's, `storeplane-store-admin` and `storeplane-store-observer`."""


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


def quota(name: str, store_id: UUID) -> dict[str, Any]:
    """Return the store's quota: room for the shop and its setup Job, and no address outside the cluster."""
    hard = {
        "limits.cpu": "4",
        "limits.memory": "4Gi",
        "pods": "10",
        "persistentvolumeclaims": "2",
        "services.nodeports": "0",
        "services.loadbalancers": "0",
    }
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": QUOTA_NAME, "namespace": name, "labels": labels(store_id)},
        "spec": {"hard": hard},
    }


def limit_range(name: str, store_id: UUID) -> dict[str, Any]:
    """Return the limits of a single pod, container and claim."""
    small = {"cpu": "10m", "memory": "32Mi"}
    limits = [
        {"type": "Pod", "max": {"cpu": "2", "memory": "4Gi"}, "min": small},
        {
            "type": "Container",
            "default": {"cpu": "500m", "memory": "512Mi"},
            "defaultRequest": {"cpu": "100m", "memory": "128Mi"},
            "max": {"cpu": "2", "memory": "2Gi"},
            "min": small,
        },
        {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "20Gi"}},
    ]
    return {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": LIMITS_NAME, "namespace": name, "labels": labels(store_id)},
        "spec": {"limits": limits},
    }


def secret(name: str, store_id: UUID, texts: dict[str, str]) -> dict[str, Any]:
    """Return the Secret the chart reads."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": medusa.SECRET_NAME, "namespace": name, "labels": labels(store_id)},
        "type": "Opaque",
        "stringData": texts,
    }
