"""A small stage for network policies: four pods in two namespaces that serve and ask, and what came of asking.

A line of a test's table, ``friend>web:8000``, is packets: the pod before the sign asks what stands after it. ``open``
needs the asked pod's own answer and ``refused`` the node's explicit word for it, so neither can be mistaken for a
server that is not up or a packet that is late. The ports ``udp``, ``ping``, ``name`` and ``served`` stand for more than
TCP to a number: see ``_Ask``.
"""

from __future__ import annotations

import json
import os
import re
import socketserver
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cluster import RUN_LABEL, Namespace, pod, service
from tests.support.polling import poll

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.support.cluster import Kube

__all__ = ["OPEN", "PORTS", "REFUSED", "Stage", "fetch", "policy", "serving_pod", "stage", "verdict"]

OPEN, REFUSED = "open", "refused"
PORTS = (8000, 8001, 8002)
"""Every pod answers its own name on each of them."""
_HERE, _THERE = ["web", "friend"], ["stranger", "loner"]
_CONTAINER_PORTS = {"web": 8000, "friend": 8001, "stranger": 8002}
"""What the name "shop" stands for on each pod."""
_APPS = {"stranger": "friend"}
"""The stranger carries the friend's label, in another namespace."""
_ANSWERS_BY_PORT = ("node", "host", "api", "dns")
"""Stand for no pod: what answers there is known by its port, not by its words."""
_API_NAME = "kubernetes.default.svc.cluster.local."
_ASK_SECONDS = 20
_NO_ROUTE = "No route to host"


def policy(selector: Mapping[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """Return the spec of a policy; without a selector it is for every pod of its namespace."""
    return {"podSelector": selector or {}, **spec}


def serving_pod(name: str, **labels: str) -> dict[str, Any]:
    """Return a pod that answers its own name on every port."""
    servers = "; ".join(f"httpd -p {port} -h /www" for port in PORTS)
    script = f"mkdir -p /tmp /www; echo {name} > /www/index.html; {servers}; exec sleep 86400"
    named = [{"name": "shop", "containerPort": _CONTAINER_PORTS[name]}] if name in _CONTAINER_PORTS else []
    serving = pod(name, script, container={"ports": named})
    serving["metadata"]["labels"] = {"app": _APPS.get(name, name), "pod": name, **labels}
    return serving


def fetch(address: str, port: int) -> str:
    """Return a shell command that asks for a pod's name; its complaint is on stdout too."""
    return f"busybox timeout {_ASK_SECONDS} wget -q -O - http://{address}:{port}/ 2>&1"


def verdict(output: str, *, wanted: str) -> str:
    """Return what a fetch's output says: open when it is the answer, refused when the node said so, else itself."""
    if output.strip() == wanted:
        return OPEN
    return REFUSED if _NO_ROUTE in output else output.strip() or "silence"


@dataclass(frozen=True)
class _Ask:
    """One line of a table."""

    source: str
    target: str
    port: str

    @classmethod
    def parse(cls, line: str) -> _Ask:
        words = re.fullmatch(r"(\w+)>([\w-]+):(\w+)", line)
        assert words, f"{line!r} is not SOURCE>TARGET:PORT"
        return cls(*words.groups())

    def script(self, addresses: Mapping[str, str]) -> str:
        """Return the shell command; its complaint is on stdout too.

        ``udp`` asks port 53 of a pod that has no server there, ``ping`` is ICMP, ``name`` asks for a name, ``served``
        is the port of the stage's own server on the host.
        """
        address = addresses[self.target]
        if self.port == "udp":
            return f"busybox timeout {_ASK_SECONDS} nslookup x. {address} 2>&1"
        if self.port == "name":
            return f"busybox timeout {_ASK_SECONDS} nslookup {_API_NAME} {address} 2>&1"
        if self.port == "ping":
            return f"busybox timeout {_ASK_SECONDS} busybox ping -c 1 -W 3 {address} 2>&1"
        port = addresses.get(self.port, self.port)
        if self.target in _ANSWERS_BY_PORT:
            return f"busybox nc -w {_ASK_SECONDS} {address} {port} < /dev/null 2>&1 && echo connected"
        return fetch(address, int(port))

    def judge(self, output: str, addresses: Mapping[str, str]) -> str:
        if self.port == "udp":
            # The pod's own kernel says that nobody listens: the packet was there.
            return OPEN if "Connection refused" in output else verdict(output, wanted="")
        if self.port == "name":
            return OPEN if f"Address: {addresses['api']}" in output else verdict(output, wanted="")
        if self.port == "ping":
            return OPEN if " 0% packet loss" in output else REFUSED if "100% packet loss" in output else output
        if self.target in _ANSWERS_BY_PORT:
            return OPEN if "connected" in output.split() else verdict(output, wanted="")
        return verdict(output, wanted=self.target.removesuffix("-service"))


@dataclass(frozen=True)
class Stage:
    """The four pods; ``here`` is the namespace that gets the policies."""

    here: Namespace
    there: Namespace
    addresses: Mapping[str, str]
    """Of each pod by its name; of ``web-service`` and ``friend-service``, on the same ports; of the ``node``, the
    ``host``, the services ``api`` and ``dns``; and ``served``, the port of a server on the host.
    """

    def namespace(self, name: str) -> Namespace:
        return self.there if name in _THERE else self.here

    def ask(self, *lines: str) -> dict[str, str]:
        """Send the packets of each line at once and return what came of them."""
        asks = {line: _Ask.parse(line) for line in lines}
        sources = sorted({each.source for each in asks.values()})
        with ThreadPoolExecutor(len(sources)) as threads:
            found = threads.map(
                lambda source: self._ask_from(source, {line: a for line, a in asks.items() if a.source == source}),
                sources,
            )
            return {line: said for each in found for line, said in each.items()}

    def _ask_from(self, source: str, asks: Mapping[str, _Ask]) -> dict[str, str]:
        # Side by side, each into its own file: a refused connection takes a second.
        targets = [each.script(self.addresses) for each in asks.values()]
        started = " ".join(f"( {script} ) > /tmp/{number} &" for number, script in enumerate(targets))
        shown = " ".join(f"cat /tmp/{number}; echo =;" for number in range(len(targets)))
        script = f"{started} wait; {shown}"
        output = self.namespace(source).do("exec", source, "--", "/bin/sh", "-c", script)
        return {
            line: asks[line].judge(said, self.addresses) for line, said in zip(asks, output.split("=\n"), strict=False)
        }

    def expect(self, expected: Mapping[str, str]) -> None:
        """Wait until the packets of every line fare as expected."""

        def same() -> bool:
            seen = self.ask(*expected)
            assert seen == expected, {line: said for line, said in seen.items() if said != expected[line]}
            return True

        poll(same, what="packets fare as the policies say", seconds=30)

    def apply(self, *specs: Mapping[str, Any]) -> None:
        """Put policies into the namespace ``here``; "@web" in them stands for that pod's address."""
        text = json.dumps(specs)
        for name, address in self.addresses.items():
            text = text.replace(f'"@{name}"', f'"{address}/32"')
        for number, spec in enumerate(json.loads(text)):
            self.here.apply(
                {
                    "apiVersion": "networking.k8s.io/v1",
                    "kind": "NetworkPolicy",
                    "metadata": {"name": f"p{number}"},
                    "spec": spec,
                }
            )

    def clear(self) -> None:
        """Remove every policy."""
        self.here.do("delete", "networkpolicies", "--all")


@contextmanager
def _host_server(address: str) -> Iterator[int]:
    """Serve connections on the host's end of the cluster's cable, which end at once; give the port."""
    with socketserver.ThreadingTCPServer((address, 0), socketserver.BaseRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def stage(kube: Kube) -> Iterator[Stage]:
    """Set the stage, and clear it away in the background at the end.

    Skips where policies are not enforced, with what ``devcluster status`` says.
    """
    if not kube.is_devcluster:
        pytest.skip("proves the policies of a devcluster; others enforce with an agent of their own")
    status = kube.status()
    if status["network_policies"] != "enforced":
        pytest.skip(f"network policies: {status['network_policies']}")
    run = uuid.uuid4().hex[:10]
    names = {"here": f"test-{run}-here", "there": f"test-{run}-there"}
    for side, name in names.items():
        labels = {RUN_LABEL: str(os.getpid()), "side": side}
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    try:
        here, there = (Namespace(kube, name).settled() for name in names.values())
        here.apply(*map(serving_pod, _HERE))
        there.apply(*map(serving_pod, _THERE))
        ports = [{"name": f"p{port}", "port": port, "targetPort": port} for port in PORTS]
        here.apply(*(service(name, 0, ports=ports) for name in _HERE))
        addresses = {}
        for namespace, pods in ((here, _HERE), (there, _THERE)):
            for name in pods:
                namespace.wait("condition=Ready", f"pod/{name}")
                addresses[name] = namespace.json("get", "pod", name)["status"]["podIP"]
        for name in _HERE:
            addresses[f"{name}-service"] = here.json("get", "service", name)["spec"]["clusterIP"]
        addresses |= {"node": status["nodes"]["node-1"], "host": status["host_address"]}
        for name, words in {"api": ("default", "kubernetes"), "dns": ("kube-system", "kube-dns")}.items():
            addresses[name] = kube.json("-n", words[0], "get", "service", words[1])["spec"]["clusterIP"]
        with _host_server(addresses["host"]) as port:
            yield Stage(here, there, {**addresses, "served": str(port)})
    finally:
        kube.do("delete", "namespace", *names.values(), "--wait=false")
