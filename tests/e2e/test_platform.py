"""The product as it is installed: twice the same, in place without losing a request, and mended after a crash."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import pytest

from demo.release import NAMESPACE
from devcluster.images.helm import helm_binary
from devcluster.machine.paths import checkout
from devcluster.machine.ports import free_port
from tests.support.polling import poll

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from demo.kubectl import Kubectl
    from demo.platform import Platform
    from tests.e2e.conftest import Installer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

_CONTROL_PLANE = "app.kubernetes.io/component=controlplane"
_MIGRATE = "app.kubernetes.io/component=migrate"
_MISSING = "storeplane.local/controlplane:0000000000000000"


def _pods(kubectl: Kubectl) -> set[str]:
    """Return the uids of the control plane's pods that are not on their way out."""
    pods = kubectl.list("pods", NAMESPACE, _CONTROL_PLANE)
    return {pod["metadata"]["uid"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}


class Asker:
    """Asks the API without a pause, each time on a new connection, and keeps what was not answered as it should be."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answered = 0
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        address = urlsplit(self._platform.url)
        while not self._ended.is_set():
            connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)
            try:
                headers = {"Authorization": f"Bearer {self._platform.token}"}
                connection.request("GET", "/api/operations/00000000-0000-0000-0000-000000000000", headers=headers)
                # Authenticated and looked up: the answer needs the database.
                status = connection.getresponse().status
                if status == http.HTTPStatus.NOT_FOUND:
                    self.answered += 1
                else:
                    self.failures.append(str(status))
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
            finally:
                connection.close()


@pytest.fixture
def asker(platform: Platform) -> Iterator[Asker]:
    with Asker(platform) as asker:
        yield asker


def test_two_replicas_serve_beside_a_database_with_a_claim(installer: Installer) -> None:
    assert len(_pods(installer.kubectl)) == 2
    claims = installer.kubectl.list("persistentvolumeclaims", NAMESPACE, "app.kubernetes.io/component=postgres")
    assert [claim["status"]["phase"] for claim in claims] == ["Bound"]


def test_exports_for_the_shell_lead_to_the_api(platform: Platform) -> None:
    command = [sys.executable, "-m", "demo", "env", "--name", platform.name]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=checkout()).stdout
    words = dict(word.split("=", maxsplit=1) for word in shlex.split(printed) if "=" in word)
    assert (words["STOREPLANE_URL"], words["STOREPLANE_TOKEN"]) == (platform.url, platform.token)
    assert words["KUBECONFIG"] == str(platform.kubeconfig)


def test_installing_again_changes_nothing(platform: Platform, installer: Installer) -> None:
    before = _pods(installer.kubectl)
    assert installer.install().token == platform.token
    assert _pods(installer.kubectl) == before


def test_an_upgrade_in_place_loses_no_request(installer: Installer, asker: Asker) -> None:
    before = _pods(installer.kubectl)

    installer.install(settings={"LOG_LEVEL": "debug"})

    poll(lambda: len(_pods(installer.kubectl)) == 2, what="the replicas of the earlier version have left")
    assert not before & _pods(installer.kubectl)
    assert asker.answered > 0
    assert asker.failures == []


def test_a_version_that_cannot_start_leaves_the_running_one_alone_and_a_killed_helm_is_mended(
    platform: Platform, installer: Installer, asker: Asker, tmp_path: Path
) -> None:
    kubectl = installer.kubectl
    before = _pods(kubectl)
    values: dict[str, Any] = json.loads(_helm(kubectl, "get", "values", "storeplane", "--output=json"))
    values["image"]["controlplane"] = _MISSING
    file = tmp_path / "values.json"
    file.write_text(json.dumps(values))
    helm = subprocess.Popen(
        [
            *(helm_binary(), "upgrade", "storeplane", checkout() / "charts" / "storeplane", "--wait"),
            *("--namespace", NAMESPACE, "--force-conflicts", "--values", file),
        ],
        env=kubectl.environment,
    )
    try:
        locked = "owner=helm,name=storeplane,status=pending-upgrade"
        poll(lambda: kubectl.list("secrets", NAMESPACE, locked), what="Helm has locked the release")
        poll(lambda: _waits_for_an_image(kubectl), what="the migrations of the new version cannot start")
    finally:
        helm.send_signal(signal.SIGKILL)
        helm.wait(timeout=30)
    assert before < _pods(kubectl)

    assert installer.install().token == platform.token

    assert _pods(kubectl) == before
    assert asker.failures == []


def _waits_for_an_image(kubectl: Kubectl) -> bool:
    statuses = [
        status["state"].get("waiting", {}).get("reason", "")
        for pod in kubectl.list("pods", NAMESPACE, _MIGRATE)
        for status in pod["status"].get("containerStatuses", [])
    ]
    return any(reason in {"ErrImagePull", "ImagePullBackOff"} for reason in statuses)


def _helm(kubectl: Kubectl, *words: str) -> str:
    command = [str(helm_binary()), *words, "--namespace", NAMESPACE]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=kubectl.environment)
    return ended.stdout


def test_a_platform_that_is_not_there_is_told_with_the_next_step() -> None:
    command = [sys.executable, "-m", "demo", "env", "--name", f"none-{os.getpid()}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=checkout())
    assert ended.returncode == 1
    assert "make up NAME=none-" in ended.stderr


def test_settings_let_a_process_of_this_machine_take_the_services_place(
    platform: Platform, installer: Installer
) -> None:
    port = free_port()
    forwarding = subprocess.Popen(
        [installer.kubectl.program, "-n", NAMESPACE, "port-forward", "service/storeplane-postgres", f"{port}:5432"],
        env=installer.kubectl.environment,
        stdout=subprocess.DEVNULL,
    )
    try:
        ports = ["--database-port", str(port)]
        command = [sys.executable, "-m", "demo", "settings", "--name", platform.name, *ports]
        printed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=checkout()).stdout
        words = dict(word.split("=", maxsplit=1) for word in shlex.split(printed) if "=" in word)
        assert words["STOREPLANE_KUBECONFIG"] == str(platform.kubeconfig)
        program = [sys.executable, "-m", "controlplane", "await-schema", "--seconds", "60"]
        subprocess.run(program, timeout=120, check=True, env=words | {"PATH": os.environ["PATH"]}, cwd=checkout())
    finally:
        forwarding.terminate()
        forwarding.wait(timeout=30)
