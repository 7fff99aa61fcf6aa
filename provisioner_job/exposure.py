"""Seeing that the shop can be reached from outside: its Ingress leads its host to a Service that has a ready pod.

The chart makes both, so there is nothing to do here but to look. Whether an ingress controller serves the Ingress is
the cluster's business, not the store's.
"""

import asyncio
from typing import Any, Final

from provisioner_job.cluster import Cluster
from provisioner_job.errors import PhaseError, RetryableError
from provisioner_job.journal import Journal

__all__ = ["wait_until_exposed"]

_POLL_SECONDS: Final = 0.2


async def wait_until_exposed(
    cluster: Cluster, namespace: str, ingress: str, host: str, journal: Journal
) -> dict[str, Any]:
    """Return once a pod behind the host's Service is ready; the caller's time limit ends the waiting.

    Raises
    ------
    PhaseError
        The Ingress does not lead this host to a Service.
    RetryableError
        Ingress or Service went away; the next attempt's release makes them again.
    """
    service = _service_of(await _found(cluster, "Ingress", ingress, namespace), host)
    selector = (await _found(cluster, "Service", service, namespace))["spec"].get("selector")
    if not selector:
        raise PhaseError("SERVICE_WITHOUT_PODS", "The Service selects no pods", service)
    told = False
    while True:
        if any(_is_ready(pod) for pod in await cluster.list("Pod", namespace, selector)):
            return {"host": host, "service": service}
        if not told:
            told = True
            journal.say("no pod of the Service is ready", phase="expose", service=service)
        await asyncio.sleep(_POLL_SECONDS)


async def _found(cluster: Cluster, kind: str, name: str, namespace: str) -> dict[str, Any]:
    found = await cluster.get(kind, name, namespace)
    if found is None:
        raise RetryableError("OBJECT_GONE", "An object of the store went away", f"{kind} {name}")
    return found


def _service_of(ingress: dict[str, Any], host: str) -> str:
    """Return the Service that the host's root path leads to."""
    rules = (ingress.get("spec") or {}).get("rules") or ()
    for rule in rules:
        for path in (rule.get("http") or {}).get("paths") or ():
            if rule.get("host") == host and path.get("path") == "/":
                service: str = path["backend"]["service"]["name"]
                return service
    hosts = ", ".join(str(rule.get("host")) for rule in rules) or "none"
    raise PhaseError("HOST_NOT_ROUTED", "The Ingress does not lead the shop's host to it", f"{host}; it has {hosts}")


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    is_ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return is_ready and not pod["metadata"].get("deletionTimestamp")
