"""What the cluster can still tell about a failed attempt: the store's own pods, their logs, and warning events.

The cause of a failed store is usually in the store's namespace, not in the provisioner's log. Everything here is read
once, small, in bounded time, and softly: what cannot be read becomes a sentence in its place, never an error, because
the harvest that asks must go on.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from controlplane.domain.observation import EventView
from controlplane.kube.client import KubeClient
from controlplane.kube.errors import KubeError, KubeUnavailableError
from controlplane.kube.views import event_page
from controlplane.kube.wire import ListOf, StorePod

__all__ = ["ContainerLog", "PodEvidence", "StoreEvidence", "pod_events", "store_evidence"]

_TOTAL_SECONDS: Final = 10.0
_LOG_BYTES: Final = 16 * 1024
_LOG_LINES: Final = 200
_LOG_READ_BYTES: Final = 2**20
"""A limit of bytes cuts the end, not the beginning: more is read than kept, so that the end is among it."""
_LOGS: Final = 8
"""Containers whose logs are read, those that look worst first; a restarted one's earlier run counts as well."""
_AT_ONCE: Final = 4
_PODS: Final = "50"
_EVENTS: Final = 20
_EVENTS_READ: Final = "500"
_MESSAGE_LIMIT: Final = 500

_Answer = TypeVar("_Answer")
_pods: Final = msgspec.json.Decoder(ListOf[StorePod])


@dataclass(frozen=True, slots=True)
class ContainerLog:
    """The end of one container's log."""

    container: str
    is_previous: bool
    """Of the run before the last restart."""
    text: str
    """Empty when it could not be read."""
    unreadable: str = ""
    """Why it could not be read: `not readable: ...`."""


@dataclass(frozen=True, slots=True)
class PodEvidence:
    """A pod of the store."""

    name: str
    state: str
    """Phase and, for each container that does not simply run, why: `Running; medusa: CrashLoopBackOff (4 restarts)`."""
    logs: tuple[ContainerLog, ...]


@dataclass(frozen=True, slots=True)
class StoreEvidence:
    """What a store's namespace shows."""

    pods: tuple[PodEvidence, ...]
    events: tuple[EventView, ...]
    """Warnings, newest first."""
    unreadable: tuple[str, ...]
    """What could not be read at all."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A log to be read."""

    pod: str
    container: str
    is_previous: bool


async def store_evidence(client: KubeClient, namespace: str, *, total_seconds: float = _TOTAL_SECONDS) -> StoreEvidence:
    """Read a store's pods, the ends of their logs and its newest warnings; never raises a `KubeError`.

    Ends after `total_seconds`; what was not read by then says so. Logs are as their programs wrote them: the caller
    redacts before anything leaves the control plane.
    """
    deadline = asyncio.get_running_loop().time() + total_seconds
    (pods, no_pods), (events, no_events) = await asyncio.gather(
        _within(deadline, "pods", _store_pods(client, namespace), []),
        _within(deadline, "events", _warnings(client, namespace), []),
    )
    wanted = _worst(pods)
    gate = asyncio.Semaphore(_AT_ONCE)
    logs = await asyncio.gather(*(_log(client, namespace, each, deadline, gate) for each in wanted))
    told = [
        PodEvidence(
            name=pod.metadata.name,
            state=_state(pod),
            logs=tuple(log for each, log in zip(wanted, logs, strict=True) if each.pod == pod.metadata.name),
        )
        for pod in pods
    ]
    return StoreEvidence(tuple(told), tuple(events), tuple(each for each in (no_pods, no_events) if each))


async def pod_events(client: KubeClient, namespace: str, pod_uid: str) -> tuple[EventView, ...]:
    """Return what was said about one pod, newest first; the cluster forgets it after an hour.

    Raises
    ------
    KubeError
        They could not be read.
    """
    return tuple(await _events(client, namespace, f"involvedObject.uid={pod_uid}"))


async def _within(deadline: float, what: str, reading: Awaitable[_Answer], otherwise: _Answer) -> tuple[_Answer, str]:
    """Return the answer and nothing, or the substitute and why."""
    try:
        async with asyncio.timeout_at(deadline):
            return await reading, ""
    except TimeoutError:
        return otherwise, f"not readable: the {what} did not come in time"
    except KubeError as error:
        return otherwise, f"not readable: {error}"


async def _store_pods(client: KubeClient, namespace: str) -> list[StorePod]:
    raw = await client.read("GET", f"/api/v1/namespaces/{namespace}/pods", query={"limit": _PODS})
    try:
        told = _pods.decode(raw)
    except msgspec.DecodeError as error:
        message = f"the answer is no PodList: {error}"
        raise KubeUnavailableError(message) from error
    return told.items or []


async def _warnings(client: KubeClient, namespace: str) -> list[EventView]:
    return (await _events(client, namespace, "type=Warning"))[:_EVENTS]


async def _events(client: KubeClient, namespace: str, selector: str) -> list[EventView]:
    query = {"fieldSelector": selector, "limit": _EVENTS_READ}
    events, _ = event_page(await client.read("GET", f"/api/v1/namespaces/{namespace}/events", query=query))
    events.sort(key=lambda event: event.last_at.timestamp() if event.last_at else 0.0, reverse=True)
    return events


def _worst(pods: list[StorePod]) -> list[_Wanted]:
    """Return the logs to read: of containers that failed, then of those not ready, then of the rest."""
    ranked: list[tuple[int, _Wanted]] = []
    for pod in pods:
        for container in pod.containers():
            if not container.has_run():
                continue
            rank = 0 if container.has_failed() else 2 if container.ready else 1
            ranked.append((rank, _Wanted(pod.metadata.name, container.name, is_previous=False)))
            if container.restart_count and container.is_begun():
                # The run that failed is the one before; the present one may have said nothing yet. While it waits to
                # be started again, the last run is the one that is read anyway.
                ranked.append((0, _Wanted(pod.metadata.name, container.name, is_previous=True)))
    ranked.sort(key=lambda each: each[0])
    return [wanted for _, wanted in ranked[:_LOGS]]


async def _log(
    client: KubeClient, namespace: str, wanted: _Wanted, deadline: float, gate: asyncio.Semaphore
) -> ContainerLog:
    async def read() -> bytes:
        async with gate:
            return await client.log(
                namespace,
                wanted.pod,
                container=wanted.container,
                tail_lines=_LOG_LINES,
                limit_bytes=_LOG_READ_BYTES,
                is_previous=wanted.is_previous,
            )

    raw, unreadable = await _within(deadline, "log", read(), b"")
    # Postgres stores no NUL.
    text = raw[-_LOG_BYTES:].decode("utf-8", "replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")
    return ContainerLog(wanted.container, wanted.is_previous, text, unreadable)


def _state(pod: StorePod) -> str:
    parts = [pod.status.phase or "no phase"] if pod.status is not None else ["no status"]
    parts += [told for container in pod.containers() if (told := container.trouble())]
    return "; ".join(parts)[:_MESSAGE_LIMIT]
