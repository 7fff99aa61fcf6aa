"""Storeplane's chart, installed with the Helm that the checkout pins, and what the chart leaves to its installer.

The cluster is the only memory: the Secret made at the first installation is found again by every later one. A run that
was killed is mended by the next: a release it left locked is unlocked, a migration that failed is tried again.
"""

import base64
import json
import secrets
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demo.kubectl import Kubectl, run
from devcluster.images.helm import helm_binary
from devcluster.machine.errors import DevclusterError
from devcluster.machine.paths import checkout, write_private
from devcluster.machine.progress import step

__all__ = ["JOBS_NAMESPACE", "NAMESPACE", "administrator_token", "install", "settings", "uninstall"]

NAMESPACE = "storeplane"
JOBS_NAMESPACE = "storeplane-jobs"

_RELEASE = "storeplane"
_SECRET = "storeplane-secrets"  # noqa: S105 -- the Secret's name
_DATABASE_SECRET = "storeplane-provisioner-db"  # noqa: S105 -- the Secret's name
_OWNED_BY = {"app.kubernetes.io/managed-by": "storeplane-demo"}
_MIGRATE = "app.kubernetes.io/component=migrate"
_CONTROL_PLANE = "app.kubernetes.io/component=controlplane"
_LOCKED = f"owner=helm,name={_RELEASE},status in (pending-install,pending-upgrade,pending-rollback)"
_HELM_SECONDS = 120
_ROLLOUT_SECONDS = 300
_REMOVAL_SECONDS = 180
_POLL_SECONDS = 0.3
_LOG_LINES = "30"


def administrator_token(kubectl: Kubectl) -> str | None:
    """Return the API's token of the user admin, or None when nothing is installed."""
    kept = _kept(kubectl)
    return kept["ADMIN_TOKEN"] if kept is not None else None


def install(kubectl: Kubectl, values: Mapping[str, Any], *, preset: str = "values-local.yaml") -> None:
    """Install the chart, or upgrade it in place, and return once the wished version serves.

    Parameters
    ----------
    values
        Of the chart, beside the preset's; at least the images.

    Raises
    ------
    DevclusterError
        If the chart is refused, a migration fails or the control plane does not become ready, with the end of its log.
    """
    kubectl.apply(_namespace())
    kept = _kept(kubectl) or _new_secret(kubectl)
    _unlock(kubectl)
    with step("install Storeplane"):
        _helm_upgrade(kubectl, values, preset)
    # After the chart, which makes the namespace; Jobs wait for it.
    kubectl.apply(_secret(_DATABASE_SECRET, JOBS_NAMESPACE, {"password": kept["PROVISIONER_PASSWORD"]}))
    with step("wait for the control plane"):
        _await_migrations(kubectl)
        _await_rollout(kubectl)
        _await_leaving(kubectl)


def settings(kubectl: Kubectl, *, database_port: int) -> dict[str, str]:
    """Return the environment of the installed service as a process of this machine needs it.

    Parameters
    ----------
    database_port
        Where the installation's Postgres is led to on the loopback.

    Raises
    ------
    DevclusterError
        If nothing is installed.
    """
    deployment = kubectl.get("deployment", _RELEASE, NAMESPACE)
    kept = _kept(kubectl)
    if deployment is None or kept is None:
        raise DevclusterError("Storeplane is not installed on this cluster", remedy="run `make up`")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    found = {
        each["name"]: kept[each["valueFrom"]["secretKeyRef"]["key"]]
        if "valueFrom" in each
        # An empty one has no field. The chart has doubled the dollars for Kubernetes.
        else each.get("value", "").replace("$$", "$")
        for each in container["env"]
    }
    path = found["DATABASE_URL"].rpartition("/")[2]
    found["DATABASE_URL"] = f"postgresql://storeplane_app@127.0.0.1:{database_port}/{path}"
    return found | {"STOREPLANE_KUBECONFIG": str(kubectl.kubeconfig)}


def uninstall(kubectl: Kubectl) -> None:
    """Remove the installation with its database and its secrets; stores' namespaces stay."""
    _helm(kubectl, "uninstall", _RELEASE, "--ignore-not-found", f"--namespace={NAMESPACE}")
    with step("remove Storeplane"):
        namespaces = ("namespace", NAMESPACE, JOBS_NAMESPACE)
        kubectl.do("delete", *namespaces, "--ignore-not-found", seconds=_REMOVAL_SECONDS)


def _namespace() -> dict[str, Any]:
    labels = _OWNED_BY | {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/warn": "restricted",
    }
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}


def _secret(name: str, namespace: str, texts: Mapping[str, str]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "labels": _OWNED_BY}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": dict(texts)}


def _kept(kubectl: Kubectl) -> dict[str, str] | None:
    found = kubectl.get("secret", _SECRET, NAMESPACE)
    if found is None:
        return None
    return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}


def _new_secret(kubectl: Kubectl) -> dict[str, str]:
    texts = {
        "TOKEN_KEY": secrets.token_hex(32),
        "ADMIN_TOKEN": secrets.token_urlsafe(32),
        "APP_PASSWORD": secrets.token_hex(16),
        "PROVISIONER_PASSWORD": secrets.token_hex(16),
        "POSTGRES_PASSWORD": secrets.token_hex(16),
    }
    # Created, not applied: a second installer at the same time must not change what the first has given out.
    kubectl.do("create", "--filename=-", text=json.dumps(_secret(_SECRET, NAMESPACE, texts)))
    return texts


def _unlock(kubectl: Kubectl) -> None:
    """Take away what an earlier run left: Helm's lock, and migrations that did not come to their end.

    Helm leaves a failed Job alone that is as the chart wants it, and forgets one that a killed or failed upgrade made.
    A migration may be ended at any time: what it has not committed it has not done.
    """
    kubectl.do("--namespace", NAMESPACE, "delete", "secret", f"--selector={_LOCKED}")
    for job in kubectl.list("jobs", NAMESPACE, _MIGRATE):
        if not _has_condition(job, "Complete"):
            kubectl.do("--namespace", NAMESPACE, "delete", "job", job["metadata"]["name"])


def _helm_upgrade(kubectl: Kubectl, values: Mapping[str, Any], preset: str) -> None:
    chart = checkout() / "charts" / "storeplane"
    with tempfile.TemporaryDirectory(prefix="storeplane-") as folder:
        file = Path(folder) / "values.json"
        write_private(file, json.dumps(values))
        given = [f"--values={chart / preset}", f"--values={file}"]
        # What somebody changed by hand, such as the number of replicas, is set back.
        options = ["--install", "--force-conflicts", "--history-max=5", f"--timeout={_HELM_SECONDS}s"]
        _helm(kubectl, "upgrade", _RELEASE, str(chart), f"--namespace={NAMESPACE}", *options, *given)


def _helm(kubectl: Kubectl, *words: str) -> None:
    run([str(helm_binary()), *words], environment=kubectl.environment, seconds=_HELM_SECONDS + 30)


def _await_migrations(kubectl: Kubectl) -> None:
    deadline = time.monotonic() + _ROLLOUT_SECONDS
    while True:
        jobs = [job for job in kubectl.list("jobs", NAMESPACE, _MIGRATE) if "deletionTimestamp" not in job["metadata"]]
        if jobs and all(_has_condition(job, "Complete") for job in jobs):
            return
        is_failed = any(_has_condition(job, "Failed") for job in jobs)
        if is_failed or time.monotonic() > deadline:
            raise DevclusterError(
                f"the database was not prepared{'' if is_failed else f' within {_ROLLOUT_SECONDS} s'}:\n"
                + _told(kubectl, _MIGRATE),
                remedy="mend what the log names, then run the command again; `make down` begins anew",
            )
        time.sleep(_POLL_SECONDS)


def _await_rollout(kubectl: Kubectl) -> None:
    waiting = ["rollout", "status", f"deployment/{_RELEASE}", f"--timeout={_ROLLOUT_SECONDS}s"]
    try:
        kubectl.do("--namespace", NAMESPACE, *waiting, seconds=_ROLLOUT_SECONDS + 30)
    except DevclusterError as error:
        raise DevclusterError(
            f"the control plane is not ready: {error}\n{_told(kubectl, _CONTROL_PLANE)}",
            remedy=f"`kubectl -n {NAMESPACE} describe pods` tells more",
        ) from error


def _await_leaving(kubectl: Kubectl) -> None:
    """Wait until the replicas of before are gone: one that ends serves for a moment yet, by its own settings."""
    deadline = time.monotonic() + _ROLLOUT_SECONDS
    while any("deletionTimestamp" in pod["metadata"] for pod in kubectl.list("pods", NAMESPACE, _CONTROL_PLANE)):
        if time.monotonic() > deadline:
            raise DevclusterError(
                f"replicas of the version before do not end within {_ROLLOUT_SECONDS} s",
                remedy=f"`kubectl -n {NAMESPACE} get pods` shows them",
            )
        time.sleep(_POLL_SECONDS)


def _told(kubectl: Kubectl, selector: str) -> str:
    """Return how the pods are and the end of their logs, as far as that can be had."""
    where = ("--namespace", NAMESPACE)
    parts = []
    for words in (("get", "pods"), ("logs", "--all-containers", "--prefix", f"--tail={_LOG_LINES}")):
        try:
            parts.append(kubectl.do(*where, *words, f"--selector={selector}"))
        except DevclusterError as error:
            parts.append(str(error))
    return "\n".join(parts)


def _has_condition(job: Mapping[str, Any], kind: str) -> bool:
    conditions = job.get("status", {}).get("conditions", [])
    return any(each["type"] == kind and each["status"] == "True" for each in conditions)
