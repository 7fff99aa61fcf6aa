"""Measures many shops ordered at once, of every engine, by two users: when each was ready, and what it costs at rest.

Usage: ``python bench/many.py [--name many-bench] [--shops 10] [--rest-seconds 60] [--json]``. Each user orders half of
them, the engines in turn. What restarted and what every namespace's quota had left is told; the shops are removed
together at the end, which is measured as well. A platform that was not there before is taken down again.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import re
import secrets
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bench.parts.machine import Machine, describe
from bench.parts.table import Row, print_result
from demo.order import call, place, products
from demo.platform import as_new_user, kubectl_of, up
from demo.shops import SHOPS
from devcluster.kubernetes.cluster import Cluster
from devcluster.machine.errors import DevclusterError

if TYPE_CHECKING:
    from demo.kubectl import Kubectl
    from demo.order import Order
    from demo.platform import Platform

_DELETE_SECONDS: Final = 300
_POLL_SECONDS: Final = 0.5
_MIB: Final = 2**20
_UNITS: Final = {"": 1, "m": 0.001, "k": 1e3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@dataclass(frozen=True)
class Resting:
    """One shop, some time after it was made."""

    memory_mib: int
    """What its pods keep, without what the kernel may take back."""
    restarts: int
    fullest: str
    """The share of its quota that is used most."""


def _all_at_once(platforms: list[Platform], engines: list[str]) -> list[tuple[Platform, Order, float]]:
    began = time.monotonic()

    def one(number: int) -> tuple[Platform, Order, float]:
        platform, engine = platforms[number % len(platforms)], engines[number]
        made = place(platform, f"Many {number} {secrets.token_hex(2)}", lambda _line: None, engine=engine)
        ended = time.monotonic() - began
        print(f"{ended:6.1f} s  {engine} {number}: {made.operation['state']}", file=sys.stderr, flush=True)
        return platform, made, ended

    with concurrent.futures.ThreadPoolExecutor(len(engines)) as pool:
        return list(pool.map(one, range(len(engines))))


def _resting(kubectl: Kubectl, namespace: str, memory_mib: int) -> Resting:
    pods = kubectl.list("pods", namespace, "")
    statuses = [each for pod in pods for each in pod["status"].get("containerStatuses") or ()]
    quota = kubectl.get("resourcequota", "store-quota", namespace)
    assert quota is not None
    shares = {
        name: _amount(quota["status"]["used"][name]) / _amount(hard)
        for name, hard in quota["status"]["hard"].items()
        if _amount(hard) and name.startswith("limits.")
    }
    fullest = max(shares, key=lambda name: shares[name])
    return Resting(
        memory_mib,
        sum(each["restartCount"] for each in statuses),
        f"{fullest} {shares[fullest]:.0%}",
    )


def _amount(text: str) -> float:
    matched = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text)
    assert matched is not None, text
    return float(matched[1]) * _UNITS[matched[2]]


def _memory(kubectl: Kubectl) -> Counter[str]:
    """Return what the pods of each namespace keep, in bytes, asked of every node once."""
    kept: Counter[str] = Counter()
    for node in kubectl.list("nodes", "default", ""):
        told = kubectl.do("get", "--raw", f"/api/v1/nodes/{node['metadata']['name']}/proxy/stats/summary")
        for pod in json.loads(told).get("pods") or ():
            kept[pod["podRef"]["namespace"]] += (pod.get("memory") or {}).get("workingSetBytes", 0)
    return kept


def _remove(made: list[tuple[Platform, Order, float]]) -> float:
    began = time.monotonic()
    for platform, order, _ in made:
        call(platform, "DELETE", f"/api/stores/{order.store['id']}")
    left = list(made)
    while left:
        if time.monotonic() - began > _DELETE_SECONDS:
            raise DevclusterError(f"{len(left)} stores are not deleted after {_DELETE_SECONDS} s")
        time.sleep(_POLL_SECONDS)
        left = [each for each in left if _state(*each[:2]) != "deleted"]
    return time.monotonic() - began


def _state(platform: Platform, order: Order) -> Any:
    return call(platform, "GET", f"/api/stores/{order.store['id']}")["store"]["state"]


def _measure(platform: Platform, shops: int, rest_seconds: float) -> list[Row]:
    kubectl = kubectl_of(platform.name)
    users = [as_new_user(platform, f"bench-{secrets.token_hex(3)}", "--max-stores", "100") for _ in range(2)]
    machine = Machine([Cluster(platform.name).cgroup.path], patience=60, tries=1)
    names = list(SHOPS)
    seen = machine.watch()
    # Every user gets every engine.
    made = _all_at_once(users, [names[number // len(users) % len(names)] for number in range(shops)])
    noise = seen()
    rows = []
    time.sleep(rest_seconds)
    kept = _memory(kubectl)
    for user, order, seconds in made:
        told = f"user {users.index(user) + 1}, {order.operation['state']}, {order.operation['attempt']} attempt(s), "
        if order.operation["state"] == "succeeded":
            namespace = order.store["namespace"]
            rest = _resting(kubectl, namespace, kept[namespace] // _MIB)
            told += f"{len(products(user, order))} products, at rest {rest.memory_mib} MiB, {rest.restarts} restarts, "
            told += f"{rest.fullest} of its quota"
        else:
            told += json.dumps(order.operation["error"])
        rows.append(Row(f"{order.store['engine']}: request -> ready", seconds, "s", detail=told))
    rows.sort(key=lambda row: row.value)
    ready = sum(order.operation["state"] == "succeeded" for _, order, _ in made)
    rows.append(Row("ready", ready, "", shops, is_floor=True, noise=noise))
    return [*rows, Row(f"delete of {shops} at once -> gone", _remove(made), "s")]


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--name", default="many-bench", help="which development cluster (default: many-bench)")
    parser.add_argument("--shops", type=int, default=10, help="how many (default: 10)")
    parser.add_argument("--rest-seconds", type=float, default=60, help="before memory is read (default: 60)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    cluster = Cluster(options.name)
    existed, began = cluster.exists, time.strftime("%Y-%m-%d %H:%M")
    try:
        platform = up(options.name, {"controlPlane": {"settings": {"CREATE_RATE_PER_MINUTE": "1000"}}})
        rows = _measure(platform, options.shops, options.rest_seconds)
    except DevclusterError as error:
        print(error.render(), file=sys.stderr)
        return 1
    finally:
        if not existed:
            cluster.down()
    print_result(rows, began=began, machine=describe(), is_json=options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(_main())
