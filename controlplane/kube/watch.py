"""What the cluster has now: list, then watch, of one kind with our label.

A hint that is made good again and again, never the truth: the watch brings news within milliseconds, a list on a timer
corrects whatever it missed, and `age_seconds` says how old the last complete list is, so that a reader can tell
absence from silence. Memory holds the last view of each uid and nothing else. Decides nothing and writes nowhere.
"""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from typing_extensions import override

from controlplane.domain.observation import JobView, PodView
from controlplane.kube import labels
from controlplane.kube.client import KubeClient, lines
from controlplane.kube.errors import KubeError, KubeGoneError, KubeUnavailableError
from controlplane.kube.views import PODS, Change, Kind
from controlplane.telemetry import get_logger

__all__ = ["Clock", "Pace", "Watched", "WatchedPods"]

_PAGE: Final = 100
"""Objects a page, of some 10 KiB each: nothing else of this process runs while they are decoded and made views of, and
the bytes of a page that came in one piece are put together."""
_RELIST_SECONDS: Final = 60.0
"""With a list's own ten seconds, an end the watch never told is seen within ninety."""
_WATCH_SECONDS: Final = 240
"""Asked of the server, so that it ends the watch in order, before its history of five minutes is over."""
_SILENCE_SECONDS: Final = 90.0
"""Above the server's bookmarks, one a minute: a watch that is more silent than that is dead."""
_AT_ONCE_SECONDS: Final = 5.0
"""A watch that ends so early and brought nothing is a fault, whatever its status was."""
_RESTARTS: Final = 3
"""How often one list begins anew because its continuation has expired."""
_FIRST_WAIT_SECONDS: Final = 1.0
_LONGEST_WAIT_SECONDS: Final = 15.0
_LONGEST_OBEYED_SECONDS: Final = 60.0
"""A Retry-After beyond this is no sensible order."""

_JITTER: Final = 1.2
"""Waits are up to a fifth longer than said, so that replicas do not call in step."""

_View = TypeVar("_View", JobView, PodView)
_OnChange = Callable[[_View | None, _View | None], None]

_log = get_logger(__name__)


class Clock:
    """Time as this process passes it; a test passes it faster."""

    def now(self) -> float:
        """Return seconds on the monotonic clock."""
        return time.monotonic()

    async def pause(self, seconds: float) -> None:
        """Sleep."""
        await asyncio.sleep(seconds)


class Pace:
    """How long to wait before the next try: a second at least, longer and longer while it fails."""

    def __init__(self) -> None:
        self._failures = 0

    def heard(self) -> None:
        """Begin anew: the server said something that makes sense."""
        self._failures = 0

    def after_success(self, lasted_seconds: float) -> float:
        """Return the rest of the second since the pass began."""
        self._failures = 0
        return max(0.0, _jittered(_FIRST_WAIT_SECONDS) - lasted_seconds)

    def after_failure(self, retry_after_seconds: float | None) -> float:
        """Return the wait after a failed pass, no shorter than the server asked for."""
        wait = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2**self._failures)
        # Bounded, or the power grows with every failure of a long outage.
        self._failures = min(self._failures + 1, 10)
        return max(_jittered(wait), min(retry_after_seconds or 0.0, _LONGEST_OBEYED_SECONDS))


class Watched(Generic[_View]):
    """The objects of one kind in one namespace that carry our label.

    `on_change(old, new)` is called in order, once for every view that really changed: `old` None for a new object,
    `new` None for one that is gone. It must neither block nor raise. An object that is told as gone was seen in its
    last state first, if that was news.
    """

    def __init__(
        self,
        client: KubeClient,
        kind: Kind[_View],
        namespace: str,
        *,
        on_change: _OnChange[_View] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._client = client
        self._kind: Kind[_View] = kind
        self._path = kind.path.format(namespace)
        self._on_change: _OnChange[_View] | None = on_change
        self._clock = clock or Clock()
        self._views: dict[str, _View] = {}
        self._names: dict[str, str] = {}
        self._version = ""
        """Where the next watch goes on; empty when only a list can tell."""
        self._listing = asyncio.Lock()
        self._told: set[str] = set()
        """Uids the watch spoke of since the running list began: of those it may know more than the list."""
        self._removed: set[str] = set()
        """Uids the watch told as gone since the last list: a uid never comes back, an event of it is a replay."""
        self._listed_at = -math.inf
        self._watching = Pace()
        self.synced = asyncio.Event()
        """Set once the first list is complete; before, absence means nothing."""

    def snapshot(self) -> dict[str, _View]:
        """Return a copy of all views, by uid."""
        return dict(self._views)

    def by_name(self, name: str) -> _View | None:
        """Return the object that has the name now."""
        uid = self._names.get(name)
        return self._views[uid] if uid is not None else None

    def age_seconds(self) -> float:
        """Return how long ago the last complete list was begun; infinite before the first.

        Above some ninety seconds the cluster is not answering, and what is missing here need not be gone.
        """
        return self._clock.now() - self._listed_at

    async def run(self) -> None:
        """Follow for ever; a refusal or an outage is logged and waited out. To be cancelled and supervised."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._forever("watch", self.follow, self._watching))
            group.create_task(self._forever("list", self._relist_on_time, Pace()))

    async def relist(self) -> None:
        """Read the whole list and correct by it what is known; what is not in it is told as gone.

        Raises
        ------
        KubeError
            What the pages read so far showed is kept, and nothing is told as gone.
        """
        async with self._listing:
            began = self._clock.now()
            self._told.clear()
            known_before = set(self._views)
            seen, version = await self._list()
            for done, uid in enumerate(known_before - seen):
                if uid not in self._told:
                    self._drop(uid)
                if done % _PAGE == _PAGE - 1:
                    # Thousands may end at once.
                    await asyncio.sleep(0)
            self._removed &= self._told
            # Whatever replays have done to the names: the list is one moment, in which each has one owner.
            self._names = {view.name: uid for uid, view in self._views.items()}
            # A watch goes on from what it has heard itself, which may be more than the list knew.
            self._version = self._version or version
            self._listed_at = began
            self.synced.set()

    async def follow(self) -> None:
        """Watch once, to the stream's end; list before that where the watch cannot go on from the last one.

        Raises
        ------
        KubeGoneError
            The version is forgotten; the next call lists.
        KubeError
            The next call goes on where this one ended.
        """
        if not self._version:
            await self.relist()
        began, first = self._clock.now(), self._version
        query = {
            "labelSelector": labels.SELECTOR,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": first,
            "timeoutSeconds": str(round(_jittered(_WATCH_SECONDS) / _JITTER)),
        }
        has_heard = False
        try:
            async with self._client.stream(self._path, query=query, silence_seconds=_SILENCE_SECONDS) as pieces:
                async for line in lines(pieces):
                    self._take(self._kind.change(line))
                    self._watching.heard()
                    has_heard = True
        except KubeGoneError:
            self._version = ""
            raise
        if not has_heard and self._clock.now() - began < _AT_ONCE_SECONDS:
            message = f"the watch of {self._kind.name}s ended at once and without a word"
            raise KubeUnavailableError(message)

    async def _relist_on_time(self) -> None:
        await self._clock.pause(_RELIST_SECONDS / _jittered(1.0))
        await self.relist()

    async def _forever(self, name: str, one_pass: Callable[[], Awaitable[None]], pace: Pace) -> None:
        while True:
            began = self._clock.now()
            try:
                await one_pass()
                wait = pace.after_success(self._clock.now() - began)
            except KubeGoneError as error:
                wait = pace.after_failure(None)
                _log.info("watch begins anew", loop=name, kind=self._kind.name, error=str(error))
            except KubeError as error:
                wait = pace.after_failure(error.retry_after_seconds)
                _log.warning("cluster not followed", loop=name, kind=self._kind.name, error=str(error), wait=wait)
            await self._clock.pause(wait)

    async def _list(self) -> tuple[set[str], str]:
        """Take up every page; return the uids of the list and its version."""
        first = {"labelSelector": labels.SELECTOR, "limit": str(_PAGE)}
        seen: set[str] = set()
        query, restarts = first, 0
        while True:
            try:
                raw = await self._client.read("GET", self._path, query=query)
            except KubeGoneError:
                # The continuation has expired: the pages belong to one moment, which the server has forgotten.
                restarts += 1
                if query is first or restarts > _RESTARTS:
                    raise
                query, seen = first, set()
                continue
            page = self._kind.page(raw)
            for view in page.views:
                seen.add(view.uid)
                if view.uid not in self._told:
                    self._put(view)
            if not page.rest:
                return seen, page.version
            query = first | {"continue": page.rest}
            # A page that was in the buffer already would follow without a pause.
            await asyncio.sleep(0)

    def _take(self, change: Change[_View]) -> None:
        self._version = change.version or self._version
        view = change.view
        if view is None:
            return
        if self._listing.locked():
            self._told.add(view.uid)
        if view.uid in self._removed:
            return
        if not change.is_removed or view.uid in self._views:
            # The last state comes with the removal, and may be the only word of an end.
            self._put(view)
        if change.is_removed:
            self._removed.add(view.uid)
            self._drop(view.uid)

    def _put(self, view: _View) -> None:
        known = self._views.get(view.uid)
        later = view if known is None else self._kind.latest(known, view)
        if known is None:
            # News of an old object, such as its removal, does not take the name back from its successor.
            self._names[view.name] = view.uid
        if later != known:
            self._views[view.uid] = later
            self._changed(known, later)

    def _drop(self, uid: str) -> None:
        view = self._views.pop(uid, None)
        if view is None:
            return
        if self._names.get(view.name) == uid:
            del self._names[view.name]
        self._changed(view, None)

    def _changed(self, old: _View | None, new: _View | None) -> None:
        if self._on_change is not None:
            self._on_change(old, new)


class WatchedPods(Watched[PodView]):
    """The provisioner's pods, also by the Job they belong to."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        *,
        on_change: _OnChange[PodView] | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(client, PODS, namespace, on_change=on_change, clock=clock)
        self._of_job: dict[str, set[str]] = {}

    def of_job(self, job_uid: str) -> list[PodView]:
        """Return the Job's pods, newest first."""
        pods = [self._views[uid] for uid in self._of_job.get(job_uid, ())]
        pods.sort(key=lambda pod: (pod.created_at.timestamp() if pod.created_at else 0.0, pod.name), reverse=True)
        return pods

    @override
    def _changed(self, old: PodView | None, new: PodView | None) -> None:
        if old is None and new is not None and new.job_uid is not None:
            self._of_job.setdefault(new.job_uid, set()).add(new.uid)
        elif new is None and old is not None and old.job_uid in self._of_job:
            self._of_job[old.job_uid].discard(old.uid)
            if not self._of_job[old.job_uid]:
                del self._of_job[old.job_uid]
        super()._changed(old, new)


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(1.0, _JITTER)  # noqa: S311 -- spreads calls, keeps no secret
