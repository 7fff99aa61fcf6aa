"""The ways a person looks in, and who is kept out."""

from __future__ import annotations

import http.client
import re
import select
import socket
import ssl
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.support.cluster import pod

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cluster import Kube, Namespace

pytestmark = pytest.mark.cluster

_LINE_SECONDS = 30


@contextmanager
def _following(namespace: Namespace, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a kubectl command that does not end by itself, and end it."""
    command = namespace.kube.command("--request-timeout=0", "-n", namespace.name, *words)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1) as process:
        try:
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    """Return the next line; fail when none comes."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], _LINE_SECONDS)
    assert ready, "no line came"
    return process.stdout.readline()


def test_exec_runs_a_command_and_carries_input_output_and_exit_code(namespace: Namespace) -> None:
    namespace.apply(pod("box", "sleep 600"))
    namespace.wait("condition=Ready", "pod/box")
    assert namespace.do("exec", "-i", "box", "--", "cat", stdin="there and back") == "there and back"
    assert namespace.kube.run("-n", namespace.name, "exec", "box", "--", "sh", "-c", "exit 7").returncode == 7


def test_logs_are_followed_while_they_are_written(namespace: Namespace) -> None:
    namespace.apply(pod("talks", "echo first; exec sleep 600"))
    namespace.wait("condition=Ready", "pod/talks")
    with _following(namespace, "logs", "-f", "talks") as process:
        assert _line(process) == "first\n"
        namespace.do("exec", "talks", "--", "sh", "-c", "echo second > /proc/1/fd/1")
        assert _line(process) == "second\n"


def test_port_forward_carries_a_request(namespace: Namespace) -> None:
    namespace.run_web("through the tunnel")
    with _following(namespace, "port-forward", "service/web", ":8000") as process:
        found = re.search(r"127\.0\.0\.1:(\d+)", line := _line(process))
        assert found, line
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=10)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"through the tunnel\n"
        connection.close()


def test_kubelet_refuses_who_does_not_say_who_they_are(devcluster: Kube) -> None:
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE  # what is asked is whether the *client* is checked
    for address in devcluster.status()["nodes"].values():
        connection = http.client.HTTPSConnection(address, 10250, timeout=10, context=unverified)
        connection.request("GET", "/pods")
        assert connection.getresponse().status == http.HTTPStatus.UNAUTHORIZED
        connection.close()


def test_anonymous_may_not_read_and_unknown_authorities_are_not_trusted(cluster: Kube) -> None:
    settings = cluster.json("config", "view", "--raw")
    (entry,) = settings["clusters"]
    assert "insecure-skip-tls-verify" not in entry["cluster"]
    server = urlsplit(entry["cluster"]["server"])
    assert server.scheme == "https"
    address = (str(server.hostname), int(server.port or 443))
    machine_only = ssl.create_default_context()
    with socket.create_connection(address, timeout=10) as plain, pytest.raises(ssl.SSLCertVerificationError):
        machine_only.wrap_socket(plain, server_hostname=address[0])
    nobody = ["--kubeconfig=/dev/null", f"--server={entry['cluster']['server']}", "--insecure-skip-tls-verify"]
    asked = subprocess.run(
        [cluster.program, *nobody, "--token=invalid", "get", "secrets", "-A"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert asked.returncode != 0
    assert "Unauthorized" in asked.stderr or "must be logged in" in asked.stderr
