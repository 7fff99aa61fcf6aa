"""One WooCommerce store of plain processes: the two images, run as the chart runs them, on this machine's loopback."""

from __future__ import annotations

import contextlib
import http.client
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from devcluster.machine.ports import free_port
from tests.support.polling import poll

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.image_root import Contained, ImageRoot

__all__ = ["HOST", "POD", "Answer", "Store"]

HOST = "shop.example"
POD = "10.0.0.1:8080"
"""Where the kubelet asks: by the pod's address, and for probes alone."""
_MARIADB_USER = 999
_WEB_USER = 33
_ENTRY = "/srv/store/store"
_ACCOUNTS = {
    "MARIADB_USER": "wordpress",
    "MARIADB_DATABASE": "wordpress",
    "MARIADB_PASSWORD": "password0of0a0test",
    "MARIADB_ROOT_PASSWORD": "root0of0a0test",
}
_KEYS = {
    f"{purpose}_{kind}": f"{purpose}{kind}".ljust(64, "0")
    for purpose in ("AUTH", "SECURE_AUTH", "LOGGED_IN", "NONCE")
    for kind in ("KEY", "SALT")
}


@dataclass(frozen=True)
class Answer:
    """What the web server said."""

    status: int
    headers: Mapping[str, str]
    body: str


@dataclass
class Store:
    """A store's parts; each is started by its own method and ends with its block."""

    image: ImageRoot
    mariadb: ImageRoot
    work: Path
    """Short, for a socket, and readable by everybody."""
    title: str = "Shop of a test"
    revision: str = "first"
    database_port: int = field(default_factory=free_port)
    web_port: int = field(default_factory=free_port)

    @property
    def data(self) -> Path:
        """The database's files."""
        return self.work / "mysql-data"

    def environment(self, **changed: str) -> dict[str, str]:
        """Return what a pod of the store is given."""
        return {
            **_KEYS,
            "MARIADB_PASSWORD": _ACCOUNTS["MARIADB_PASSWORD"],
            "DB_HOST": f"127.0.0.1:{self.database_port}",
            "PUBLIC_URL": f"http://{HOST}",
            "STORE_HOST": HOST,
            "SETUP_REVISION": self.revision,
            "LISTEN": f"127.0.0.1:{self.web_port}",
            "TITLE": self.title,
            "ADMIN_USER": "admin",
            "ADMIN_EMAIL": f"admin@{HOST}",
            "ADMIN_PASSWORD": "admin0of0a0test",
            **changed,
        }

    @contextlib.contextmanager
    def database(self) -> Iterator[Contained]:
        """Run the database until the block ends."""
        with self.mariadb.started(
            [
                *("/usr/local/bin/docker-entrypoint.sh", "--bind-address=127.0.0.1", f"--port={self.database_port}"),
                *("--skip-name-resolve", "--innodb-flush-log-at-trx-commit=2"),
            ],
            work=self.work,
            user=_MARIADB_USER,
            environment=_ACCOUNTS,
            volumes=self._folders("mysql", data="/var/lib/mysql", run="/run/mysqld", tmp="/tmp"),  # noqa: S108 -- its own
        ) as running:
            yield running

    def ask_database(self, statement: str) -> str:
        """Return what the database answers to a statement, tabs between columns; waits until it answers at all."""

        def asked() -> tuple[int, str] | None:
            answer = self.mariadb.run(
                [
                    *("mariadb", "--no-defaults", "--socket=/run/mysqld/mysqld.sock", "--user=wordpress"),
                    f"--password={_ACCOUNTS['MARIADB_PASSWORD']}",
                    *(
                        "--batch",
                        "--skip-column-names",
                        "--default-character-set=utf8mb4",
                        "wordpress",
                        "-e",
                        statement,
                    ),
                ],
                work=self.work,
                user=_MARIADB_USER,
                environment={},
                volumes=self._folders("mysql", run="/run/mysqld"),
            )
            assert "Can't connect" not in answer[1], answer[1]
            return answer

        code, said = poll(asked, what="the database answers") or (1, "")
        assert code == 0, said
        return said.strip()

    @contextlib.contextmanager
    def setting_up(self, **changed: str) -> Iterator[Contained]:
        """Run the setup until the block ends."""
        with self.image.started(
            [_ENTRY, "setup"],
            work=self.work,
            user=_WEB_USER,
            environment=self.environment(**changed),
            volumes=self._folders("setup", uploads="/srv/wp/wp-content/uploads", tmp="/tmp"),  # noqa: S108 -- its own
        ) as running:
            yield running

    def set_up(self, **changed: str) -> tuple[int, str]:
        """Run the setup to its end and return its exit code and its log."""
        with self.setting_up(**changed) as running:
            return running.process.wait(timeout=120), running.said()

    def cron(self) -> tuple[int, str]:
        """Run what is due and return exit code and log."""
        return self.image.run(
            [_ENTRY, "cron"],
            work=self.work,
            user=_WEB_USER,
            environment=self.environment(),
            volumes=self._folders("cron", uploads="/srv/wp/wp-content/uploads", tmp="/tmp"),  # noqa: S108 -- its own
        )

    @contextlib.contextmanager
    def serving(self, **changed: str) -> Iterator[Contained]:
        """Run the web server until the block ends; it listens when the block begins."""
        volumes = self._folders("web", uploads="/srv/wp/wp-content/uploads", run="/run/apache2", tmp="/tmp")  # noqa: S108
        with self.image.started(
            [_ENTRY, "server"],
            work=self.work,
            user=_WEB_USER,
            environment=self.environment(**changed),
            volumes=volumes,
        ) as running:
            poll(lambda: self._listens(running), what="the web server listens")
            yield running

    def get(self, path: str, host: str = HOST, **headers: str) -> Answer:
        """Ask the web server; header names are given with an underscore for each dash."""
        connection = http.client.HTTPConnection("127.0.0.1", self.web_port, timeout=30)
        try:
            named = {name.replace("_", "-"): text for name, text in headers.items()}
            connection.request("GET", path, headers={"Host": host, **named})
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read().decode())
        finally:
            connection.close()

    def is_open(self) -> bool:
        """Return whether the store calls itself ready."""
        return self.get("/readyz", POD).status == http.client.OK

    def _listens(self, running: Contained) -> bool:
        assert running.process.poll() is None, running.said()
        try:
            return self.get("/healthz", POD).status == http.client.OK
        except OSError:
            return False

    def _folders(self, part: str, **targets: str) -> dict[Path, str]:
        folders = {}
        for name, target in targets.items():
            folder = self.work / f"{part}-{name}"
            folder.mkdir(exist_ok=True)
            folders[folder] = target
        return folders
