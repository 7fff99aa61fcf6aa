"""Seeing why a store's pods do not come up, long before the wait for them would end.

A pod without its image, a quota that leaves no room, a container that crashes again and again: a phase that waits for
the shop would wait to its own limit and then know nothing but that. Each kind of hindrance has a time after which it is
believed, because most pass by themselves: a node is added, a claim is bound, a registry answers again.
"""

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self, TypeVar

from provisioner_job.cluster import Cluster
from provisioner_job.errors import PhaseError, ProvisionerError, RetryableError
from provisioner_job.guarded import guarded
from provisioner_job.journal import Journal
from provisioner_job.objects import container_statuses

__all__ = ["Hindrance", "Past", "hindrances", "unhindered"]

_T = TypeVar("_T")
_Object = dict[str, Any]
_Container = tuple[str, str]
"""Its pod's name and its own."""
_BACK_OFF: Final = "ImagePullBackOff"
_POLL_SECONDS: Final = 2.0
_LOG_LINES: Final = 15
_CRASHES: Final = 3
"""Starts again, seen by this run, after which a crash is no accident: half a minute, with the kubelet's pauses."""
_ABSENT: Final = re.compile(
    r"not found|manifest unknown|pull access denied|unauthorized|forbidden|InvalidImageName", re.IGNORECASE
)
"""A registry's or a runtime's answer, as opposed to none: asking again changes nothing."""
_MADE_BY_TIMETABLE: Final = re.compile(r"cron-\d+")
"""The name of a Job of the CronJob `cron`, which every chart calls so: its minute."""
_PULLING: Final = frozenset({"ErrImagePull", _BACK_OFF, "ErrImageNeverPull", "InvalidImageName"})
_CREATING: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})


@dataclass(frozen=True, slots=True)
class Hindrance:
    """What keeps one object of the store from working."""

    code: str
    title: str
    detail: str
    seconds: float
    """For so long it may pass by itself."""
    is_final: bool
    """Another attempt would meet the same."""
    log_of: _Container | None = None
    """Whose log tells more."""

    @property
    def key(self) -> tuple[str, str]:
        """What stays the same while the words change, such as a back-off that grows."""
        return self.code, self.detail.partition(":")[0]


async def unhindered(
    cluster: Cluster, namespace: str, journal: Journal, phase: str, act: Coroutine[Any, Any, _T]
) -> _T:
    """Return what `act` returns, or stop it when the store's pods cannot come up.

    Raises
    ------
    PhaseError, RetryableError
        The hindrance, by whether another attempt would meet it again; the detail names the object and the cause. What
        `act` raises is passed on.
    """
    return await guarded(act, _watch(cluster, namespace, journal, phase))


async def _watch(
    cluster: Cluster, namespace: str, journal: Journal, phase: str, *, clock: Callable[[], float] = time.monotonic
) -> None:
    since: dict[tuple[str, str], float] = {}
    past: Past | None = None
    while True:
        await asyncio.sleep(_POLL_SECONDS)
        believed = None
        # Who cannot see does not judge: the phase itself finds out about a cluster that is away.
        with suppress(ProvisionerError):
            pods, events = await cluster.list("Pod", namespace, {}), await cluster.list("Event", namespace, {})
            past = Past.of(pods, events) if past is None else past.without_tried(pods)
            found = hindrances(pods, events, past)
            now = clock()
            for each in found:
                if each.key not in since:
                    journal.say("a pod does not come up", phase=phase, level="warning", cause=each.detail)
            since = {each.key: since.get(each.key, now) for each in found}
            believed = next((each for each in found if now - since[each.key] >= each.seconds), None)
        if believed is not None:
            raise await _error(cluster, namespace, believed)


async def _error(cluster: Cluster, namespace: str, hindrance: Hindrance) -> ProvisionerError:
    detail = hindrance.detail
    if hindrance.log_of is not None:
        pod, container = hindrance.log_of
        log = await cluster.log_tail(pod, namespace, container, _LOG_LINES)
        detail = f"{detail}\n{log.strip()}"
    kind = PhaseError if hindrance.is_final else RetryableError
    return kind(hindrance.code, hindrance.title, detail)


@dataclass(frozen=True, slots=True)
class Past:
    """What was so when the wait began: it may be mended by now, and nothing of it is held against this run.

    Events stay for an hour, a pod counts its restarts for ever, and the kubelet tries an image again only after
    minutes. What is not over is said, counted and tried again.
    """

    events: frozenset[str] = frozenset()
    """Their versions."""
    restarts: Mapping[_Container, int] = field(default_factory=dict)
    backing_off: frozenset[_Container] = frozenset()
    """Containers whose image is not being tried just now."""

    @classmethod
    def of(cls, pods: list[_Object], events: list[_Object]) -> Self:
        """Return what pods and events tell at the beginning."""
        return cls(
            frozenset(event["metadata"]["resourceVersion"] for event in events),
            {key: status.get("restartCount", 0) for key, status in _containers(pods)},
            frozenset(key for key, status in _containers(pods) if _waiting(status)[0] == _BACK_OFF),
        )

    def without_tried(self, pods: list[_Object]) -> Self:
        """Return the same without the containers whose image has been tried since then."""
        still = {key for key, status in _containers(pods) if _waiting(status)[0] == _BACK_OFF}
        return replace(self, backing_off=self.backing_off & still)


def hindrances(pods: list[_Object], events: list[_Object], past: Past) -> list[Hindrance]:
    """Return what holds up the store now, from its pods and the events of its namespace. Pure."""
    owned = {owner["uid"] for pod in pods for owner in pod["metadata"].get("ownerReferences") or ()}
    # What a timetable starts is no part of what is waited for; the next run does it again.
    pods = [pod for pod in pods if not _is_of_timetable(pod)]
    staying = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    found = [each for pod in staying for each in _of_pod(pod)]
    found += [each for key, status in _containers(staying) for each in _of_container(key, status, past)]
    found += [
        each
        for event in events
        # An owner that has a pod by now has got over what was said about it.
        if event["metadata"]["resourceVersion"] not in past.events
        and event.get("reason") == "FailedCreate"
        and event["involvedObject"].get("uid") not in owned
        and not _MADE_BY_TIMETABLE.fullmatch(event["involvedObject"].get("name") or "")
        for each in _of_refusal(event)
    ]
    # A pod that is refused is refused many times.
    return list({each.key: each for each in found}.values())


def _is_of_timetable(pod: _Object) -> bool:
    return bool((pod["metadata"].get("labels") or {}).get("app.kubernetes.io/component") == "cron")


def _of_pod(pod: _Object) -> Iterator[Hindrance]:
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            message = condition.get("message", "")
            if "persistent" in message.lower():
                # The scheduler's words for a claim without a volume, whatever nodes there are.
                detail = f"pod {name}: claim {', '.join(_claims(pod))}: {message}"
                yield Hindrance("VOLUME_UNAVAILABLE", "A volume of the store cannot be had", detail, 90, is_final=False)
            else:
                detail = f"pod {name}: {message}"
                yield Hindrance("POD_UNSCHEDULABLE", "No node takes a pod of the store", detail, 90, is_final=False)


def _claims(pod: _Object) -> list[str]:
    volumes = (pod.get("spec") or {}).get("volumes") or ()
    return [each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each]


def _containers(pods: list[_Object]) -> Iterator[tuple[_Container, _Object]]:
    for pod in pods:
        for each in container_statuses(pod):
            yield (pod["metadata"]["name"], each["name"]), each


def _waiting(status: _Object) -> tuple[str, str]:
    """Return why a container waits: reason and message, both empty when it does not."""
    waiting = (status.get("state") or {}).get("waiting") or {}
    return waiting.get("reason") or "", waiting.get("message") or ""


def _of_container(key: _Container, status: _Object, past: Past) -> Iterator[Hindrance]:
    (pod, name), (reason, message) = key, _waiting(status)
    where = f"pod {pod}, container {name}"
    restarts = status.get("restartCount", 0) - past.restarts.get(key, 0)
    if reason in _PULLING and key not in past.backing_off:
        detail = f"{where}: {reason} of {status.get('image', '')}: {message}"
        is_final = _ABSENT.search(f"{reason} {message}") is not None
        title = "An image of the store cannot be had"
        yield Hindrance("IMAGE_UNAVAILABLE", title, detail, 10 if is_final else 60, is_final=is_final)
    elif reason in _CREATING:
        title = "A container of the store cannot be made"
        yield Hindrance("CONTAINER_NOT_CREATED", title, f"{where}: {reason}: {message}", 60, is_final=False)
    elif reason == "CrashLoopBackOff" and restarts >= _CRASHES:
        ended = (status.get("lastState") or {}).get("terminated") or {}
        detail = f"{where}: {ended.get('reason', 'Error')}, exit code {ended.get('exitCode', 'unknown')}, "
        detail += f"{restarts} starts again"
        title = "A container of the store crashes again and again"
        yield Hindrance("SHOP_CRASHES", title, detail, 0, is_final=True, log_of=key)


def _of_refusal(event: _Object) -> Iterator[Hindrance]:
    owner, message = event["involvedObject"], event.get("message") or ""
    detail = f"{owner.get('kind')} {owner.get('name')}: {message}"
    if "exceeded quota" in message:
        yield Hindrance("QUOTA_EXCEEDED", "The store's quota leaves no room for a pod", detail, 30, is_final=True)
    elif "forbidden" in message or "denied the request" in message:
        yield Hindrance("POD_REFUSED", "The cluster refuses a pod of the store", detail, 30, is_final=True)
    else:
        yield Hindrance("POD_REFUSED", "The cluster refuses a pod of the store", detail, 60, is_final=False)
