"""Measures a shop: from the request to its products, phase by phase, beside the same chart installed by hand.

Usage: ``python bench/shop.py [--name shop-bench] [--rounds 3] [--json]``. Ours and by hand in turn, one at a time, on
the same cluster with the same images and values; both end when a client outside the cluster got the products. By hand
is what a person would script: namespace, quota, limits and Secret by kubectl, the chart by Helm, then asking. The
removal is measured too. A platform that was not there before is taken down again.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import secrets
import statistics
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.parts.machine import Machine, describe
from bench.parts.table import Row, as_json, print_table
from demo.kubectl import Kubectl, run
from demo.order import Order, call, place
from demo.platform import Platform, kubectl_of, up
from devcluster.images.helm import helm_binary
from devcluster.kubernetes.cluster import Cluster
from devcluster.machine.errors import DevclusterError
from devcluster.machine.paths import checkout, write_private
from provisioner_job import medusa, objects

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.parts.machine import Noise

_PRODUCTS_SECONDS: Final = 300
_DELETE_SECONDS: Final = 180
_POLL_SECONDS: Final = 0.1
_TARGET_SECONDS: Final = 30
_TARGET_RATIO: Final = 1.1
_DELETE_TARGET_SECONDS: Final = 12


@dataclass(frozen=True)
class Made:
    """One shop of ours."""

    seconds: float
    phases: dict[str, float]
    deleted_seconds: float


def _products(platform: Platform, host: str, key: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", platform.shops_port, timeout=10)
    try:
        connection.request("GET", medusa.PRODUCTS_PATH, headers={"Host": host, medusa.KEY_HEADER: key})
        answer = connection.getresponse()
        body = answer.read()
        return len(json.loads(body)["products"]) if answer.status == http.HTTPStatus.OK else 0
    except (OSError, http.client.HTTPException, ValueError):
        return 0
    finally:
        connection.close()


def _await(what: str, probe: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > deadline:
            raise DevclusterError(f"{what} did not come within {seconds:g} s")
        time.sleep(_POLL_SECONDS)


def _ours(platform: Platform, kubectl: Kubectl) -> Made:
    began = time.monotonic()
    placed = place(platform, f"Bench {secrets.token_hex(3)}", lambda _line: None)
    if placed.operation["state"] != "succeeded":
        raise DevclusterError(f"the shop was not made: {json.dumps(placed.operation['error'], indent=1)}")
    namespace = placed.store["namespace"]
    kept = kubectl.get("secret", medusa.SECRET_NAME, namespace)
    assert kept is not None
    key = base64.b64decode(kept["data"]["PUBLISHABLE_KEY"]).decode()
    host = placed.store["urls"]["api"].partition("://")[2].rstrip("/")
    _await("the products", lambda: _products(platform, host, key), _PRODUCTS_SECONDS)
    seconds = time.monotonic() - began
    phases = _phases(platform, placed)
    began = time.monotonic()
    accepted = call(platform, "DELETE", f"/api/stores/{placed.store['id']}")
    path = f"/api/operations/{accepted['operation']['id']}"
    _await("the removal", lambda: call(platform, "GET", path)["state"] == "succeeded", _DELETE_SECONDS)
    return Made(seconds, phases, time.monotonic() - began)


def _phases(platform: Platform, placed: Order) -> dict[str, float]:
    operation = call(platform, "GET", f"/api/operations/{placed.operation['id']}")
    return {
        phase["phase"]: float(phase["detail"].get("duration_seconds", 0.0))
        for attempt in operation["attempts"]
        for phase in attempt["phases"]
    }


def _by_hand(platform: Platform, kubectl: Kubectl, images: dict[str, str]) -> float:
    """Install the chart as a person would script it; return seconds to the products."""
    store_id, slug = uuid.uuid4(), f"hand-{secrets.token_hex(3)}"
    namespace, host = f"bench-{slug}", f"{slug}.localhost:{platform.shops_port}"
    texts = medusa.new_secrets(host.partition(":")[0])
    spec = {"images": images, "host": host.partition(":")[0], "public_url": f"http://{host}"}
    chart = checkout() / "charts" / "medusa"
    began = time.monotonic()
    try:
        kubectl.apply(objects.namespace(namespace, store_id))
        for made in (objects.quota, objects.limit_range):
            kubectl.apply(made(namespace, store_id))
        kubectl.apply(objects.secret(namespace, store_id, texts))
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            file = Path(folder) / "values.json"
            write_private(file, json.dumps(medusa.values(spec)))
            words = ["upgrade", "--install", medusa.RELEASE, str(chart), f"--namespace={namespace}"]
            values = [f"--values={chart / 'values-local.yaml'}", f"--values={file}"]
            run([str(helm_binary()), *words, *values], environment=kubectl.environment, seconds=120)
        _await("the products", lambda: _products(platform, host, texts["PUBLISHABLE_KEY"]), _PRODUCTS_SECONDS)
        return time.monotonic() - began
    finally:
        kubectl.do("delete", "namespace", namespace, "--ignore-not-found", seconds=_DELETE_SECONDS)


def _images(kubectl: Kubectl) -> dict[str, str]:
    """Return what the platform freezes into an order, as its environment says."""
    deployment = kubectl.get("deployment", "storeplane", "storeplane")
    assert deployment is not None
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    found = {each["name"]: each.get("value", "") for each in container["env"]}
    names = {"server": "", "postgres": "_POSTGRES", "redis": "_REDIS", "storefront": "_STOREFRONT"}
    settings = {name: found.get(f"STOREPLANE_MEDUSA{part}_IMAGE", "") for name, part in names.items()}
    return {name: image for name, image in settings.items() if image}


def _rows(ours: list[Made], by_hand: list[float], noise: Noise) -> list[Row]:
    seconds = [made.seconds for made in ours]
    ratio = statistics.median(each / other for each, other in zip(seconds, by_hand, strict=True))
    shown = ", ".join(f"{each:.1f}" for each in seconds)
    hand = ", ".join(f"{each:.1f}" for each in by_hand)
    deleted = [made.deleted_seconds for made in ours]
    rows = [
        Row("request -> products", statistics.median(seconds), "s", _TARGET_SECONDS, detail=shown, noise=noise),
        Row("the same chart by hand -> products", statistics.median(by_hand), "s", detail=hand, noise=noise),
        Row("ours / by hand", ratio, "x", _TARGET_RATIO, detail=f"{len(ours)} rounds", noise=noise),
    ]
    rows += [
        Row(f"  phase {phase}", statistics.median(made.phases[phase] for made in ours), "s") for phase in ours[0].phases
    ]
    told = ", ".join(f"{each:.1f}" for each in deleted)
    return [
        *rows,
        Row("delete -> gone", statistics.median(deleted), "s", _DELETE_TARGET_SECONDS, detail=told, noise=noise),
    ]


def _measure(platform: Platform, rounds: int) -> list[Row]:
    kubectl = kubectl_of(platform.name)
    images = _images(kubectl)
    machine = Machine([Cluster(platform.name).cgroup.path], patience=60, tries=1)
    ours: list[Made] = []
    by_hand: list[float] = []
    # One ahead, whose figures do not count: it makes images and caches warm for both.
    _ours(platform, kubectl)
    seen = machine.watch()
    for number in range(rounds):
        by_hand.append(_by_hand(platform, kubectl, images))
        ours.append(_ours(platform, kubectl))
        print(f"round {number + 1}: {ours[-1].seconds:.1f} s, by hand {by_hand[-1]:.1f} s", file=sys.stderr)
    return _rows(ours, by_hand, seen())


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--name", default="shop-bench", help="which development cluster (default: shop-bench)")
    parser.add_argument("--rounds", type=int, default=3, help="shops of each kind (default: 3)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    cluster = Cluster(options.name)
    existed, began = cluster.exists, time.strftime("%Y-%m-%d %H:%M")
    try:
        platform = up(options.name, {"controlPlane": {"settings": {"CREATE_RATE_PER_MINUTE": "1000"}}})
        rows = _measure(platform, options.rounds)
    except DevclusterError as error:
        print(error.render(), file=sys.stderr)
        return 1
    finally:
        if not existed:
            cluster.down()
    if options.json:
        print(json.dumps({"began": began, "machine": describe(), "rows": as_json(rows)}, indent=1))
    else:
        print(f"{began}, {describe()}")
        print_table(rows, sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(_main())
