"""Measures a development cluster and prints one table: how fast it takes Jobs, how fast they end, what it weighs.

Usage: ``python bench/cluster.py [--name bench] [--json]``. Everything is bounded in number and time, has a namespace of
its own and is removed afterwards. A cluster that was not there before is brought down again.
"""

from __future__ import annotations

import argparse
import http.client
import json
import ssl
import statistics
import sys
import tempfile
import threading
import time
import uuid
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from devcluster.kubernetes.cluster import Cluster
from devcluster.kubernetes.settings import Wish
from devcluster.machine.errors import DevclusterError
from tests.support.busybox import busybox_archive
from tests.support.cluster import job

if TYPE_CHECKING:
    from collections.abc import Iterator

_POSTS = 400
_CONNECTIONS = 16
_LATENCIES = 5
_MANY = 30
_CONTROLLER_QPS = 200
"""Upstream's 20 requests a second would be all that is measured."""
_CALL_SECONDS = 30
_COMPLETE_SECONDS = 180


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    value: float
    unit: str
    detail: str = ""


class Api:
    """One kept-alive, verified connection to the API server."""

    def __init__(self, kubeconfig: dict[str, Any]) -> None:
        server = urlsplit(kubeconfig["clusters"][0]["cluster"]["server"])
        context = ssl.create_default_context(
            cadata=b64decode(kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
        )
        user = kubeconfig["users"][0]["user"]
        with tempfile.NamedTemporaryFile() as pair:  # the ssl module reads client keys from files only
            pair.write(b64decode(user["client-certificate-data"]) + b64decode(user["client-key-data"]))
            pair.flush()
            context.load_cert_chain(pair.name)
        self._connection = http.client.HTTPSConnection(
            str(server.hostname), server.port, timeout=_CALL_SECONDS, context=context
        )

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Make one call and return the JSON of a successful answer."""
        headers = {"Content-Type": "application/json"}
        self._connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        assert response.status < http.HTTPStatus.BAD_REQUEST, f"{method} {path}: {answer}"
        return answer

    def watch(self, path: str, *, seconds: int) -> Iterator[dict[str, Any]]:
        """Yield watch events until the server ends the watch; the connection is used up."""
        self._connection.timeout = seconds + _CALL_SECONDS
        self._connection.request("GET", f"{path}?watch=true&timeoutSeconds={seconds}")
        response = self._connection.getresponse()
        while line := response.readline():
            yield json.loads(line)


class Bench:
    """The measurements, each in a number of Jobs of its own in one namespace."""

    def __init__(self, cluster: Cluster, kubeconfig: dict[str, Any]) -> None:
        self.cluster = cluster
        self.kubeconfig = kubeconfig
        self.namespace = f"bench-{uuid.uuid4().hex[:8]}"
        self.jobs = f"/apis/batch/v1/namespaces/{self.namespace}/jobs"

    def api(self) -> Api:
        """Return a connection of the caller's own."""
        return Api(self.kubeconfig)

    def run(self) -> list[Row]:
        """Measure everything; the namespace goes whatever happens."""
        api = self.api()
        api.call("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        try:
            idle = self.memory("memory before any Job")
            latency = self.latency()
            many = self.many()
            # Last: thousands of suspended Jobs would sit in the controllers' queues before the others.
            rates = [self.rate(1), self.rate(_CONNECTIONS)]
            return [*rates, latency, many, idle, self.memory("memory after all")]
        finally:
            self.api().call("DELETE", f"/api/v1/namespaces/{self.namespace}")

    def rate(self, connections: int) -> Row:
        """POST suspended Jobs, which nothing runs."""
        each = _POSTS // connections
        gate = threading.Barrier(connections + 1)

        def post(worker: int) -> list[float]:
            api = self.api()
            names = [f"rate-{connections}-{worker}-{number}" for number in range(each)]
            bodies = [job(name, "true", suspend=True) for name in names]
            api.call("GET", "/version")  # the TLS handshake is not what is measured
            gate.wait(_CALL_SECONDS)
            taken = []
            for body in bodies:
                started = time.perf_counter()
                api.call("POST", self.jobs, body)
                taken.append(time.perf_counter() - started)
            return taken

        with ThreadPoolExecutor(connections) as pool:
            workers = [pool.submit(post, worker) for worker in range(connections)]
            gate.wait(_CALL_SECONDS)
            started = time.perf_counter()
            taken = sorted(seconds for worker in workers for seconds in worker.result())
            total = time.perf_counter() - started
        p50, p99 = (1000 * taken[int(len(taken) * share)] for share in (0.5, 0.99))
        what = f"POST Job, {connections} connection{'s' if connections > 1 else ''}"
        return Row(what, len(taken) / total, "/s", f"{len(taken)} Jobs, p50 {p50:.1f} ms, p99 {p99:.1f} ms")

    def latency(self) -> Row:
        """Time single Jobs from POST to Complete, one after the other."""
        taken = []
        for number in range(_LATENCIES):
            started = time.perf_counter()
            self.api().call("POST", self.jobs, job(f"latency-{number}", "/bin/true"))
            self.await_complete({f"latency-{number}"})
            taken.append(time.perf_counter() - started)
        detail = f"{len(taken)} Jobs, {min(taken):.2f} to {max(taken):.2f} s"
        return Row("POST to Complete, one /bin/true Job", statistics.median(taken), "s", detail)

    def many(self) -> Row:
        """Time a handful of Jobs, posted at once, until the last is Complete."""
        names = {f"many-{number}" for number in range(_MANY)}
        started = time.perf_counter()
        api = self.api()
        for name in sorted(names):
            api.call("POST", self.jobs, job(name, "/bin/true"))
        self.await_complete(names)
        total = time.perf_counter() - started
        return Row("Jobs to Complete", _MANY / total, "/s", f"{_MANY} Jobs in {total:.1f} s")

    def await_complete(self, names: set[str]) -> None:
        """Watch until every named Job is Complete; a Failed one, or the end of the time, is an error."""
        missing = set(names)
        for event in self.api().watch(self.jobs, seconds=_COMPLETE_SECONDS):
            conditions = {each["type"]: each["status"] for each in event["object"]["status"].get("conditions", [])}
            name = event["object"]["metadata"]["name"]
            assert conditions.get("Failed") != "True", f"Job {name} failed"
            if conditions.get("Complete") == "True":
                missing.discard(name)
            if not missing:
                return
        raise AssertionError(f"{len(missing)} Jobs are not Complete after {_COMPLETE_SECONDS} s")

    def memory(self, what: str) -> Row:
        """Add up the cluster's processes, shared pages counted once among their sharers (PSS)."""
        pids = self.cluster.cgroup.pids()
        kibibytes = sum(_pss(pid) for pid in pids)
        return Row(what, kibibytes / 2**20, "GiB", f"PSS of {len(pids)} processes")


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--name", default="bench", help="which devcluster (default: bench)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    cluster = Cluster(options.name)
    existed = cluster.exists
    started = time.perf_counter()
    try:
        cluster.up(Wish(controller_qps=_CONTROLLER_QPS))
        up = Row("up", time.perf_counter() - started, "s", "healed" if existed else "made anew")
        cluster.load([busybox_archive()])
        rows = [up, *Bench(cluster, _kubeconfig(cluster)).run()]
    except DevclusterError as error:
        print(error.render(), file=sys.stderr)
        return 1
    finally:
        if not existed:
            cluster.down()
    if options.json:
        print(json.dumps([vars(row) for row in rows], indent=1))
        return 0
    for row in rows:
        print(f"{row.what:38} {row.value:9.2f} {row.unit:4} {row.detail}")
    return 0


def _kubeconfig(cluster: Cluster) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(cluster.paths.kubeconfig.read_text())
    return content


if __name__ == "__main__":
    raise SystemExit(_main())
