"""One Postgres on the data at a time, also where a pod was removed by force: as the charts start the local image."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devcluster.machine.paths import checkout
from devcluster.postgres.binaries import os_user
from tests.support.charts import INSTALLATIONS, rendered
from tests.support.polling import poll
from tests.support.postgres import chosen

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.contract

ENTRYPOINT = checkout() / "images/local/postgres/entrypoint.sh"
READY_LINE = 8
CHARTS = ("medusa", "storeplane")
"""Those with a Postgres of their own."""


def command(chart: str) -> list[str]:
    """Return what the chart has the container run, before its arguments."""
    installation = next(each for each in INSTALLATIONS if each.chart == chart)
    (container,) = next(
        each["spec"]["template"]["spec"]["containers"]
        for name, each in rendered(installation).items()
        if name.startswith("StatefulSet/") and name.endswith("postgres")
    )
    made: list[str] = container["command"]
    return made


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder of the server's user; its path is short enough for a socket."""
    made = Path(tempfile.mkdtemp(prefix="sp-image-"))
    user = os_user()
    made.chmod(0o755)
    if user is not None:
        shutil.chown(made, user, user)
    shutil.copy(ENTRYPOINT, made / "docker-entrypoint.sh")
    (made / "docker-entrypoint.sh").chmod(0o755)
    yield made
    shutil.rmtree(made)


@contextmanager
def started(folder: Path, chart: str) -> Iterator[subprocess.Popen[bytes]]:
    user = os_user()
    process = subprocess.Popen(
        [*command(chart), "-k", str(folder), "-c", "listen_addresses="],
        env={
            "PATH": f"{folder}:{chosen()[0].postgres.parent}:{os.defpath}",
            "PGDATA": str(folder / "data"),
            "POSTGRES_PASSWORD": "of-a-test",
        },
        cwd="/",
        user=user,
        group=user,
        extra_groups=[] if user else None,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)


def serves(folder: Path, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the server has ended"
    file = folder / "data/postmaster.pid"
    lines = file.read_text().splitlines() if file.exists() else []
    return len(lines) >= READY_LINE and lines[0] == str(process.pid) and lines[READY_LINE - 1].strip() == "ready"


def waits_for_the_lock(process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "it did not wait"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return any(Path(f"/proc/{child}/comm").read_text().strip() == "flock" for child in children)


@pytest.mark.parametrize("chart", CHARTS)
def test_next_server_waits_until_the_one_before_has_left_the_data(folder: Path, chart: str) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(started(folder, chart))
        poll(lambda: serves(folder, first), what="the first server is ready")
        second = stack.enter_context(started(folder, chart))
        poll(lambda: waits_for_the_lock(second), what="the second one waits")
        assert serves(folder, first)
        first.kill()
        first.wait(timeout=10)
        poll(lambda: serves(folder, second), what="the second server has taken over")


def test_charts_start_it_the_same_way() -> None:
    assert command("medusa") == command("storeplane")


def test_without_a_lock_there_is_no_server(folder: Path) -> None:
    """Such as in an image whose flock knows no limit of time."""
    flock = folder / "flock"
    flock.write_text("#!/bin/sh\nexit 64\n")
    flock.chmod(0o755)
    with started(folder, "medusa") as process:
        assert process.wait(timeout=60) == 1
    assert not (folder / "data").exists()
