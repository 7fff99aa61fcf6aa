"""Following the chart's setup Job (migrations, seed, admin user) to its end, and finding the cause when it fails.

The Job's name is made of its inputs, so a new try of the same setup has the name of the failed one, and Helm leaves an
object alone that is as the chart wants it. A failed one therefore goes before Helm runs.
"""

import asyncio
from typing import Any, Final

from provisioner_job.cluster import Cluster
from provisioner_job.errors import PhaseError, RetryableError
from provisioner_job.journal import Journal
from provisioner_job.objects import container_statuses

__all__ = ["failed_container", "remove_failed_setups", "wait_for_setup"]

_ROLE: Final = {"storeplane.dev/role": "setup"}
_POLL_SECONDS: Final = 0.25
"""Two small reads for a few seconds; a watch that is silently dropped would cost more than it saves."""
_CAUSE_LINES: Final = 20
_REMOVAL_SECONDS: Final = 20.0
"""A removed Job is gone at once; only a finalizer of somebody else's holds it."""


async def remove_failed_setups(cluster: Cluster, namespace: str, journal: Journal) -> None:
    """Delete the setup Jobs that failed, with their pods, and return once they are gone.

    Raises
    ------
    RetryableError
        One is still there after 20 s.
    """
    for job in await cluster.list("Job", namespace, _ROLE):
        if "Failed" not in _conditions(job):
            continue
        name = job["metadata"]["name"]
        await cluster.delete("Job", name, namespace)
        try:
            async with asyncio.timeout(_REMOVAL_SECONDS):
                await _gone(cluster, namespace, name)
        except TimeoutError as error:
            detail = f"Job {name} is still there after {_REMOVAL_SECONDS:.0f} s; look at its finalizers"
            raise RetryableError("SETUP_STAYS", "A failed setup cannot be removed", detail) from error
        journal.say("removed the failed setup of an earlier run", phase="release", level="warning", job=name)


async def wait_for_setup(cluster: Cluster, namespace: str, journal: Journal) -> dict[str, Any]:
    """Return once the newest setup Job is complete.

    Raises
    ------
    PhaseError
        It failed; the detail is the end of the failing container's log.
    RetryableError
        It ran out of its own time, or was deleted.
    """
    name = told = ""
    while True:
        job = _followed(await cluster.list("Job", namespace, _ROLE), name)
        name = job["metadata"]["name"]
        conditions = _conditions(job)
        if "Complete" in conditions:
            return {"job": name}
        pods = await cluster.list("Pod", namespace, {"batch.kubernetes.io/job-name": name})
        if conditions.get("Failed") == "DeadlineExceeded":
            # Its pods went with it, so there is no log to show; a slow machine is not a broken store.
            raise RetryableError("SETUP_TIMEOUT", "The store's setup took too long", f"Job {name} ran into its limit")
        if "Failed" in conditions:
            failed = failed_container(pods)
            if failed is None:
                # By hand, by an eviction, with their node: nothing in it was wrong.
                detail = f"the pods of {name or 'the Job'} were removed before they ended; a new attempt makes it again"
                raise RetryableError("SETUP_GONE", "The pods of the store's setup are gone", detail)
            raise PhaseError("SETUP_FAILED", "The store's setup failed", await _cause(cluster, namespace, failed))
        now = _progress(pods)
        if now != told:
            told = now
            journal.say(now, phase="setup")
        await asyncio.sleep(_POLL_SECONDS)


def _followed(jobs: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return the Job with this name, or the newest one as long as no name is known.

    Helm has made the Job before anybody looks for it, so one that is not there was deleted.
    """
    staying = [
        job for job in jobs if not job["metadata"].get("deletionTimestamp") and name in ("", job["metadata"]["name"])
    ]
    if not staying:
        detail = f"{name or 'the Job'} was deleted before it was complete; a new attempt makes it again"
        raise RetryableError("SETUP_GONE", "The Job of the store's setup is gone", detail)
    # After an upgrade there are several; RFC 3339 sorts as text.
    return max(staying, key=lambda item: str(item["metadata"].get("creationTimestamp")))


async def _gone(cluster: Cluster, namespace: str, name: str) -> None:
    while True:
        if await cluster.get("Job", name, namespace) is None:
            return
        await asyncio.sleep(_POLL_SECONDS)


def _conditions(job: dict[str, Any]) -> dict[str, str]:
    """Return the reasons of the conditions that hold, by their types."""
    found = (job.get("status") or {}).get("conditions") or ()
    return {each["type"]: each.get("reason") or "" for each in found if each["status"] == "True"}


def _progress(pods: list[dict[str, Any]]) -> str:
    """Return where the newest pod is, for the log."""
    if not pods:
        return "waiting for the setup pod"
    pod = max(pods, key=lambda item: str(item["metadata"].get("creationTimestamp")))
    for status in container_statuses(pod):
        state = status.get("state") or {}
        if "running" in state:
            return f"running {status['name']}"
        reason = (state.get("waiting") or {}).get("reason", "")
        if reason and reason not in ("PodInitializing", "ContainerCreating"):
            return f"{status['name']} waits: {reason}"
    return f"setup pod is {(pod.get('status') or {}).get('phase', 'unknown').lower()}"


def failed_container(pods: list[dict[str, Any]]) -> tuple[str, str, str] | None:
    """Return pod, container and reason of the newest container that ended with an error, or None."""
    newest_first = sorted(pods, key=lambda item: str(item["metadata"].get("creationTimestamp")), reverse=True)
    for pod in newest_first:
        for status in container_statuses(pod):
            ended = (status.get("state") or {}).get("terminated") or {}
            if ended.get("exitCode"):
                reason = ended.get("reason") or "Error"
                return pod["metadata"]["name"], status["name"], f"{reason}, exit code {ended['exitCode']}"
    return None


async def _cause(cluster: Cluster, namespace: str, failed: tuple[str, str, str]) -> str:
    pod, container, reason = failed
    log = await cluster.log_tail(pod, namespace, container, _CAUSE_LINES)
    return f"{container}: {reason}\n{log.strip()}"
