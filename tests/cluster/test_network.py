"""Names, addresses and the fence around them."""

from __future__ import annotations

import functools
import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest
from typing_extensions import override

from tests.support.cluster import pod
from tests.support.polling import poll

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cluster import Kube, Namespace

pytestmark = pytest.mark.cluster


def test_service_is_found_and_answers_by_its_dns_name(namespace: Namespace) -> None:
    namespace.run_web("hello from web")
    host = f"web.{namespace.name}.svc.cluster.local"
    address = namespace.json("get", "service", "web")["spec"]["clusterIP"]
    answer = namespace.run_pod(f"nslookup {host}. && wget -q -O - http://web:8000/")
    assert f"Address: {address}" in answer
    assert "hello from web" in answer


def test_node_port_answers_from_the_host(devcluster: Kube, namespace: Namespace) -> None:
    namespace.run_web("by node port", type="NodePort")
    port = namespace.json("get", "service", "web")["spec"]["ports"][0]["nodePort"]
    for address in devcluster.status()["nodes"].values():
        url = f"http://{address}:{port}/"
        assert poll(functools.partial(_fetch, url), what=f"{url} answers") == "by node port\n"


class _Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"hello from the host"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def host_server(devcluster: Kube) -> Iterator[str]:
    """Serve on the host's end of the cluster's cable; give the URL."""
    address = devcluster.status()["host_address"]
    with ThreadingHTTPServer((address, 0), _Hello) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{address}:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_pod_reaches_a_server_on_the_host(host_server: str, namespace: Namespace) -> None:
    assert namespace.run_pod(f"wget -q -O - {host_server}") == "hello from the host"


@pytest.mark.usefixtures("devcluster")
def test_packet_to_the_outside_is_refused_and_does_not_hang(namespace: Namespace) -> None:
    # Nobody has this address: a packet that left the machine would vanish, and wget would still be trying after two
    # minutes, which is beyond the pod's time.
    answer = namespace.run_pod("wget -O - http://192.0.2.1/ 2>&1 || true")
    assert "unreachable" in answer or "No route to host" in answer


def test_router_serves_an_ingress_by_its_host_name(devcluster: Kube, namespace: Namespace) -> None:
    namespace.run_web("the shop")
    host = f"{namespace.name}.localhost"
    backend = {"service": {"name": "web", "port": {"number": 8000}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    ingress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "web"},
        "spec": {"rules": [{"host": host, "http": {"paths": [path]}}]},
    }
    port = devcluster.status()["shops_port"]
    assert _ask(port, host)[0] == http.HTTPStatus.NOT_FOUND
    namespace.apply(ingress)
    poll(lambda: _ask(port, host) == (http.HTTPStatus.OK, "the shop\n"), what="the router serves the shop")
    assert _ask(port, f"other-{host}")[0] == http.HTTPStatus.NOT_FOUND


def test_pod_can_reach_itself_through_its_service(namespace: Namespace) -> None:
    namespace.run_web("myself")
    assert namespace.do("exec", "web", "--", "wget", "-q", "-O", "-", "http://web:8000/") == "myself\n"


def test_pods_on_one_network_reach_each_other_by_address(namespace: Namespace) -> None:
    namespace.run_web("neighbour")
    address = namespace.json("get", "pod", "web")["status"]["podIP"]
    namespace.apply(pod("asks", "sleep 600"))
    namespace.wait("condition=Ready", "pod/asks")
    answer = namespace.do("exec", "asks", "--", "wget", "-q", "-O", "-", f"http://{address}:8000/")
    assert answer == "neighbour\n"


def _fetch(url: str) -> str:
    try:
        with urlopen(url, timeout=5) as response:  # noqa: S310 - an address of the cluster, built by the test
            return str(response.read().decode())
    except OSError:
        return ""


def _ask(port: int, host: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/", headers={"Host": host})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()
