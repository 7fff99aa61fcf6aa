"""The local MariaDB image: prepared data, accounts that follow the environment, one server on the data at a time."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devcluster.machine.ports import free_port
from tests.support.image_root import Contained, ImageRoot, unpacked
from tests.support.polling import poll

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.contract

USER = 999
ENTRYPOINT = "/usr/local/bin/docker-entrypoint.sh"
SOCKET = "--socket=/run/mysqld/mysqld.sock"
ACCOUNTS = {
    "MARIADB_USER": "wordpress",
    "MARIADB_DATABASE": "wordpress",
    "MARIADB_PASSWORD": "it's 'quoted' \\ and more",
    "MARIADB_ROOT_PASSWORD": "root-of-a-test",
}


@pytest.fixture(scope="module")
def image() -> Iterator[ImageRoot]:
    folder = Path(tempfile.mkdtemp(prefix="sp-mariadb-"))
    folder.chmod(0o755)
    with unpacked("mariadb", folder) as root:
        yield root
    shutil.rmtree(folder)


class Server:
    """One volume, and servers on it."""

    def __init__(self, image: ImageRoot, work: Path) -> None:
        self._image = image
        self._work = work
        self.data = work / "data"
        self.data.mkdir()

    def volumes(self, run: Path) -> dict[Path, str]:
        tmp = run.with_name(f"{run.name}-tmp")
        for folder in (run, tmp):
            folder.mkdir(exist_ok=True)
        return {self.data: "/var/lib/mysql", run: "/run/mysqld", tmp: "/tmp"}  # noqa: S108 -- the image's own

    @contextmanager
    def started(self, name: str = "first", **changed: str) -> Iterator[Contained]:
        """Start a server as a pod of its own would be."""
        words = [ENTRYPOINT, "--bind-address=127.0.0.1", f"--port={free_port()}", "--skip-name-resolve"]
        with self._image.started(
            words,
            work=self._work,
            user=USER,
            environment=ACCOUNTS | changed,
            volumes=self.volumes(self._work / name),
        ) as server:
            yield server

    def answer(self, statement: str, *account: str, name: str = "first") -> tuple[int, str]:
        """Ask the server of that name, as one of its own machine."""
        return self._image.run(
            ["mariadb", "--no-defaults", SOCKET, *account, "--batch", "--skip-column-names", "-e", statement],
            work=self._work,
            user=USER,
            environment={},
            volumes=self.volumes(self._work / name),
        )

    def run(self, *words: str, **environment: str) -> tuple[int, str]:
        return self._image.run(
            words, work=self._work, user=USER, environment=environment, volumes=self.volumes(self._work / "run")
        )

    def is_ready(self, server: Contained, name: str = "first") -> bool:
        assert server.process.poll() is None, server.said()
        # Said before anybody can be asked in its place: two servers would share neither folder nor log.
        return "ready for connections" in server.said() and self.answer("SELECT 1", name=name)[0] == 0


@pytest.fixture
def server(image: ImageRoot) -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="sp-mariadb-"))
    folder.chmod(0o755)
    yield Server(image, folder)
    shutil.rmtree(folder)


def wordpress(password: str = ACCOUNTS["MARIADB_PASSWORD"]) -> tuple[str, ...]:
    return ("--user=wordpress", f"--password={password}")


def test_first_start_makes_the_accounts_that_the_environment_names(server: Server) -> None:
    with server.started() as running:
        poll(lambda: server.is_ready(running), what="the server is ready")
        assert server.answer("CREATE TABLE wordpress.t (a int)", *wordpress()) == (0, "")
        # Nobody else, and nobody without a password but the one that only its own system user can be.
        code, accounts = server.answer(
            "SELECT CONCAT(user, '@', host, ' ', plugin, ' ', authentication_string <> '') FROM mysql.user ORDER BY 1",
            "--user=root",
            f"--password={ACCOUNTS['MARIADB_ROOT_PASSWORD']}",
        )
        assert (code, accounts.splitlines()) == (
            0,
            [
                "mariadb.sys@localhost mysql_native_password 0",
                "mysql@localhost unix_socket 0",
                "root@localhost mysql_native_password 1",
                "wordpress@% mysql_native_password 1",
            ],
        )
        assert server.answer("SELECT 1", "--user=root")[0] != 0
        # It owns its database, and sees no other.
        assert server.answer("SELECT 1 FROM mysql.user", *wordpress())[0] != 0
        assert server.answer("CREATE DATABASE wordpressX", *wordpress())[0] != 0


def test_locked_account_of_the_views_lets_nobody_in(server: Server) -> None:
    with server.started() as running:
        poll(lambda: server.is_ready(running), what="the server is ready")
        assert server.answer("SELECT 1", "--user=mariadb.sys")[0] != 0


def test_password_follows_the_environment_and_data_stays(server: Server) -> None:
    with server.started() as running:
        poll(lambda: server.is_ready(running), what="the server is ready")
        assert server.answer("CREATE TABLE wordpress.kept (a int)", *wordpress()) == (0, "")
        os.kill(running.pid(), signal.SIGTERM)
        assert running.process.wait(timeout=60) == 0
    with server.started("second", MARIADB_PASSWORD="another") as running:
        poll(lambda: server.is_ready(running, "second"), what="it is ready again")
        kept = server.answer("SHOW TABLES FROM wordpress", *wordpress("another"), name="second")
        assert kept == (0, "kept\n")
        assert server.answer("SELECT 1", *wordpress(), name="second")[0] != 0


def test_next_server_waits_until_the_one_before_has_left_the_data(server: Server) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(server.started())
        poll(lambda: server.is_ready(first), what="the first server is ready")
        second = stack.enter_context(server.started("second"))
        poll(lambda: waits_for_the_lock(second), what="the second one waits")
        assert server.is_ready(first)
        first.kill()
        poll(lambda: server.is_ready(second, "second"), what="the second server has taken over")


def waits_for_the_lock(server: Contained) -> bool:
    assert server.process.poll() is None, server.said()
    pid = server.pid()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return any(Path(f"/proc/{child}/comm").read_text().strip() == "flock" for child in children)


def test_server_without_the_entrypoint_is_kept_out_by_the_files_own_locks(server: Server, image: ImageRoot) -> None:
    # What guards the data where the official image runs, whose entry point takes no lock of its own.
    with ExitStack() as stack:
        first = stack.enter_context(server.started())
        poll(lambda: server.is_ready(first), what="the first server is ready")
        words = ["mariadbd", "--no-defaults", "--datadir=/var/lib/mysql", "--skip-networking", SOCKET]
        volumes = server.volumes(server.data.with_name("second"))
        work = server.data.parent
        second = stack.enter_context(image.started(words, work=work, user=USER, environment={}, volumes=volumes))
        poll(lambda: "lock" in second.said().lower(), what="it says that the files are locked")
        assert "ready for connections" not in second.said()
        assert server.answer("SELECT 1", *wordpress()) == (0, "1\n")


def test_copy_that_was_killed_half_way_begins_anew(server: Server) -> None:
    (server.data / ".unfinished").touch()
    (server.data / "mysql").mkdir()
    (server.data / "ibdata1").write_bytes(b"half of it")
    for left in server.data.iterdir():
        shutil.chown(left, USER, USER)
    with server.started() as running:
        poll(lambda: server.is_ready(running), what="the server is ready")
        assert server.answer("SELECT 1", *wordpress()) == (0, "1\n")
    assert not (server.data / ".unfinished").exists()


def test_volume_that_holds_something_else_is_left_alone(server: Server) -> None:
    letter = server.data / "letter.txt"
    letter.write_text("dear")
    code, said = server.run(ENTRYPOINT, "mariadbd", **ACCOUNTS)
    assert code == 1
    assert said.strip().endswith("use an empty volume")
    assert letter.read_text() == "dear"


@pytest.mark.parametrize("missing", sorted(ACCOUNTS))
def test_server_that_would_be_open_does_not_start(server: Server, missing: str) -> None:
    code, said = server.run(ENTRYPOINT, **(ACCOUNTS | {missing: ""}))
    assert code == 2
    assert missing in said


def test_other_commands_run_as_they_are(server: Server) -> None:
    assert server.run(ENTRYPOINT, "echo", "as it is") == (0, "as it is\n")
