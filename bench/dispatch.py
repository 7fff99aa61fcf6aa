"""Measures the dispatcher on a real API server and a real Postgres, and prints every figure beside its target.

Usage: ``python bench/dispatch.py [--name bench] [--parts single,burst,...] [--quick] [--json]``. Each part is measured
on a control plane of its own, in its own process, waits for a quiet machine, and is repeated while others disturb it.
A cluster and a Postgres that were not there before are taken down again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from typing import TYPE_CHECKING, Final

from bench.parts.cost import dispatch_rows, event_rows, import_rows, relist_rows
from bench.parts.lab import Lab
from bench.parts.load import load_rows
from bench.parts.machine import Machine, describe
from bench.parts.orders import bursts, single_rows
from bench.parts.scale import memory_rows, sustained_rows
from bench.parts.table import print_result, print_table
from controlplane.kube.client import KubeClient
from devcluster.kubernetes.cluster import Cluster
from devcluster.kubernetes.settings import Wish
from devcluster.machine.cgroups import Cgroup
from devcluster.machine.errors import DevclusterError
from devcluster.postgres import server as postgres
from tests.support.noop_image import noop_archive, noop_reference

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bench.parts.table import Row

_PARTS: Final = ("start", "load", "cost", "single", "burst", "scale", "relist")
_FAKE_NODES: Final = 10
_CONTROLLER_QPS: Final = 200
"""Upstream's 20 requests a second would be all that is measured."""


async def _measure(cluster: Cluster, address: postgres.PostgresAddress, options: argparse.Namespace) -> list[Row]:
    groups = [cluster.cgroup.path, Cgroup(f"postgres-{cluster.name}").path]
    machine = Machine(groups, patience=options.patience, tries=options.tries)
    kube = await KubeClient.connect(cluster.paths.kubeconfig)
    lab = Lab(
        kube=kube,
        kubeconfig=cluster.paths.kubeconfig,
        postgres=address,
        host_address=cluster.status()["host_address"],
        image=noop_reference(),
        machine=machine,
        postgres_cgroup=groups[1],
    )
    rows: list[Row] = []
    try:
        for part in options.parts:
            made = await _part(lab, part, quick=options.quick)
            # As they come, too: a run takes long, and what it had measured before it was ended still counts.
            print_table(made, sys.stderr)
            rows += made
    finally:
        await kube.close()
    return rows


async def _burst(lab: Lab, rounds: int) -> list[Row]:
    rows, recorded = await bursts(lab, rounds)
    return rows + await event_rows(lab, recorded)


async def _scale(lab: Lab, jobs: int, rounds: int, operations: int) -> list[Row]:
    return await sustained_rows(lab, jobs, rounds) + await memory_rows(lab, operations)


def _part(lab: Lab, part: str, *, quick: bool) -> Awaitable[list[Row]]:
    parts: dict[str, Callable[[], Awaitable[list[Row]]]] = {
        "start": lambda: import_rows(lab),
        "load": lambda: load_rows(lab, 3 if quick else 10),
        "cost": lambda: dispatch_rows(lab, 100 if quick else 500),
        "single": lambda: single_rows(lab, 10 if quick else 50),
        "burst": lambda: _burst(lab, 1 if quick else 3),
        "scale": lambda: _scale(lab, *((160, 1, 160) if quick else (400, 3, 1000))),
        "relist": lambda: relist_rows(lab, 500 if quick else 5000),
    }
    return parts[part]()


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--name", default="bench", help="which devcluster (default: bench)")
    parser.add_argument("--parts", default=",".join(_PARTS), help=f"which of {','.join(_PARTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="few repetitions: whether it works, not how fast")
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for a quiet machine (default: 60)")
    parser.add_argument("--tries", type=int, default=3, help="how often a disturbed part is measured (default: 3)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    options.parts = options.parts.split(",")
    if unknown := set(options.parts) - set(_PARTS):
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; known are {', '.join(_PARTS)}")
    cluster = Cluster(options.name)
    existed, had_postgres = cluster.exists, options.name in postgres.names()
    began = time.strftime("%Y-%m-%d %H:%M")
    try:
        cluster.up(Wish(controller_qps=_CONTROLLER_QPS, fake_nodes=_FAKE_NODES))
        address = postgres.up(options.name)
        cluster.share_postgres()
        cluster.load([noop_archive()])
        rows = asyncio.run(_measure(cluster, address, options))
    except DevclusterError as error:
        print(error.render(), file=sys.stderr)
        return 1
    finally:
        if not had_postgres:
            postgres.down(options.name)
        if not existed:
            cluster.down()
    print_result(rows, began=began, machine=describe(), is_json=options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(_main())
