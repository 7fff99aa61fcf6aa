"""States of pods, Jobs and events as a real API server told them, by what had been done to each."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from controlplane.kube.views import JOBS, PODS, event_page

__all__ = ["event_views", "job_view_of", "pod_state", "pod_view_of"]

_FILE = Path(__file__).parents[1] / "data" / "cluster_states.json"


@cache
def _states() -> Any:
    return json.loads(_FILE.read_text())


def pod_state(name: str) -> dict[str, Any]:
    """Return a pod's object, to be bent."""
    found: dict[str, Any] = json.loads(json.dumps(_states()["pods"][name]))
    return found


def pod_view_of(state: str | dict[str, Any]) -> Any:
    """Return the view of a pod in a state, decoded from bytes as a list has them."""
    pod = pod_state(state) if isinstance(state, str) else state
    page = {"kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": [pod]}
    (view,) = PODS.page(orjson.dumps(page)).views
    return view


def job_view_of(state: str) -> Any:
    """Return the view of a Job, decoded from bytes as a watch tells it."""
    return JOBS.change(orjson.dumps({"type": "MODIFIED", "object": _states()["jobs"][state]})).view


def event_views(object_uid: str) -> list[Any]:
    """Return what was said about an object."""
    page = {"kind": "EventList", "metadata": {"resourceVersion": "1"}, "items": _states()["events"]}
    events, _ = event_page(orjson.dumps(page))
    return [event for event in events if event.object_uid == object_uid]
