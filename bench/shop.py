"""Measures a shop: from the request to its products, phase by phase, beside the same chart installed by hand.

Usage: ``python bench/shop.py [--name shop-bench] [--engine NAME] [--rounds 3] [--json]``. Ours and by hand in turn, one
at a time, on the same cluster with the same images and values; both end when a client outside the cluster got the
products. By hand is what a person would script: namespace, quota, limits and Secret by kubectl, the chart by Helm, then
asking. The removal is measured too. A platform that was not there before is taken down again.
"""

from __future__ import annotations

import argparse
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
from bench.parts.table import Row, print_result
from controlplane.domain.catalogue import CATALOGUE
from controlplane.domain.engines import Engine, limit_range, quota
from demo.kubectl import Kubectl, run
from demo.order import call, credentials, place
from demo.platform import Platform, kubectl_of, up
from demo.shops import SHOPS
from devcluster.images.helm import helm_binary
from devcluster.kubernetes.cluster import Cluster
from devcluster.machine.errors import DevclusterError
from devcluster.machine.paths import checkout, write_private
from provisioner_job import objects
from provisioner_job.chart_values import given_values, written
from provisioner_job.store_secrets import new_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bench.parts.machine import Noise

_PRODUCTS_SECONDS: Final = 300
_DELETE_SECONDS: Final = 180
_POLL_SECONDS: Final = 0.1
_TARGET_SECONDS: Final = {"medusa": 30, "woocommerce": 15}
_TARGET_RATIO: Final = 1.1
_DELETE_TARGET_SECONDS: Final = 12


@dataclass(frozen=True)
class Made:
    """One shop of ours."""

    seconds: float
    phases: dict[str, float]
    deleted_seconds: float


def _products(platform: Platform, engine: str, host: str, known: Mapping[str, str]) -> int:
    shop = SHOPS[engine]
    headers = {"Host": host} | {header: known[name] for header, name in shop.credentials.items()}
    connection = http.client.HTTPConnection("127.0.0.1", platform.shops_port, timeout=10)
    try:
        connection.request("GET", shop.products_path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        return len(shop.products_in(json.loads(body))) if answer.status == http.HTTPStatus.OK else 0
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


def _ours(platform: Platform, engine: str) -> Made:
    began = time.monotonic()
    placed = place(platform, f"Bench {secrets.token_hex(3)}", lambda _line: None, engine=engine)
    if placed.operation["state"] != "succeeded":
        raise DevclusterError(f"the shop was not made: {json.dumps(placed.operation['error'], indent=1)}")
    host = placed.store["urls"]["api"].partition("://")[2].rstrip("/")
    known = credentials(platform, placed) if SHOPS[engine].credentials else {}
    _await("the products", lambda: _products(platform, engine, host, known), _PRODUCTS_SECONDS)
    seconds = time.monotonic() - began
    began = time.monotonic()
    accepted = call(platform, "DELETE", f"/api/stores/{placed.store['id']}")
    path = f"/api/operations/{accepted['operation']['id']}"
    _await("the removal", lambda: call(platform, "GET", path)["state"] == "succeeded", _DELETE_SECONDS)
    return Made(seconds, placed.phases, time.monotonic() - began)


def _by_hand(platform: Platform, kubectl: Kubectl, engine: str, images: dict[str, str]) -> float:
    """Install the chart as a person would script it; return seconds to the products."""
    row = CATALOGUE[engine]
    assert isinstance(row, Engine)
    plan = row.plans[row.default_plan]
    store_id, slug = uuid.uuid4(), f"hand-{secrets.token_hex(3)}"
    namespace, host = f"bench-{slug}", f"{slug}.localhost:{platform.shops_port}"
    bare = host.partition(":")[0]
    texts = new_texts(row.secret, bare)
    known = {name: texts[key] for name, key in row.credentials.items()}
    spec = {"name": slug, "images": images, "host": bare, "public_url": f"http://{host}", "ingress": {}}
    chart = checkout() / "charts" / row.chart
    began = time.monotonic()
    try:
        kubectl.apply(objects.namespace(namespace, store_id))
        kubectl.apply(objects.quota(namespace, store_id, quota(plan)))
        kubectl.apply(objects.limit_range(namespace, store_id, limit_range(plan)))
        kubectl.apply(objects.secret(namespace, store_id, objects.SECRET_NAME, texts))
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            sizes, given = Path(folder) / "plan.json", Path(folder) / "given.json"
            write_private(sizes, written(plan.values()))
            write_private(given, written(given_values(spec)))
            words = ["upgrade", "--install", engine, str(chart), f"--namespace={namespace}"]
            values = [f"--values={file}" for file in (sizes, chart / "values-local.yaml", given)]
            run([str(helm_binary()), *words, *values], environment=kubectl.environment, seconds=120)
        _await("the products", lambda: _products(platform, engine, host, known), _PRODUCTS_SECONDS)
        return time.monotonic() - began
    finally:
        kubectl.do("delete", "namespace", namespace, "--ignore-not-found", seconds=_DELETE_SECONDS)


def _images(kubectl: Kubectl, engine: str) -> dict[str, str]:
    """Return what the platform freezes into an order, as its environment says."""
    deployment = kubectl.get("deployment", "storeplane", "storeplane")
    assert deployment is not None
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    found = {each["name"]: each.get("value", "") for each in container["env"]}
    images: dict[str, str] = json.loads(found["STOREPLANE_ENGINE_IMAGES"])[engine]
    return images


def _rows(engine: str, ours: list[Made], by_hand: list[float], noise: Noise) -> list[Row]:
    seconds = [made.seconds for made in ours]
    ratio = statistics.median(each / other for each, other in zip(seconds, by_hand, strict=True))
    shown = ", ".join(f"{each:.1f}" for each in seconds)
    hand = ", ".join(f"{each:.1f}" for each in by_hand)
    deleted = [made.deleted_seconds for made in ours]
    rows = [
        Row(
            f"{engine}: request -> products",
            statistics.median(seconds),
            "s",
            _TARGET_SECONDS[engine],
            detail=shown,
            noise=noise,
        ),
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


def _measure(platform: Platform, engine: str, rounds: int) -> list[Row]:
    kubectl = kubectl_of(platform.name)
    images = _images(kubectl, engine)
    machine = Machine([Cluster(platform.name).cgroup.path], patience=60, tries=1)
    ours: list[Made] = []
    by_hand: list[float] = []
    # One ahead, whose figures do not count: it makes images and caches warm for both.
    _ours(platform, engine)
    seen = machine.watch()
    for number in range(rounds):
        by_hand.append(_by_hand(platform, kubectl, engine, images))
        ours.append(_ours(platform, engine))
        print(f"{engine}, round {number + 1}: {ours[-1].seconds:.1f} s, by hand {by_hand[-1]:.1f} s", file=sys.stderr)
    return _rows(engine, ours, by_hand, seen())


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--name", default="shop-bench", help="which development cluster (default: shop-bench)")
    parser.add_argument("--engine", action="append", choices=list(SHOPS), help="one kind of shop (default: each)")
    parser.add_argument("--rounds", type=int, default=3, help="shops of each kind (default: 3)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    cluster = Cluster(options.name)
    existed, began = cluster.exists, time.strftime("%Y-%m-%d %H:%M")
    try:
        platform = up(options.name, {"controlPlane": {"settings": {"CREATE_RATE_PER_MINUTE": "1000"}}})
        rows = [row for engine in options.engine or SHOPS for row in _measure(platform, engine, options.rounds)]
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
