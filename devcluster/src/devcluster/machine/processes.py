"""Processes that outlive the command that started them, known by pid *and* start time, never by name.

There is no supervising daemon to lose: ``ensure`` compares what runs with what should run, and starts what is
missing. A record (pid, start time, boot, digest of the command) makes a recycled pid harmless, and a changed
command a restart.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster.machine.errors import DevclusterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devcluster.machine.cgroups import Cgroup

__all__ = ["ProcessSpec", "ensure", "forget", "identity", "is_running", "running_pid", "stop"]

_TERM_SECONDS = 3.0
"""What ends well ends within it; what does not is stateless (API server) or made for it (etcd, Postgres)."""


@dataclass(frozen=True)
class ProcessSpec:
    """One long-running process of a cluster."""

    name: str
    """Unique in the cluster; names the record and the log."""
    argv: Sequence[str]
    """The command; its first word is found on PATH."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to a minimal environment of PATH and HOME; nothing of the caller's leaks in."""
    configuration: str = ""
    """The text of its configuration files: another text is another command, and a restart."""
    user: str | None = None
    """The OS user to run as; None keeps the caller."""
    netns_of: int | None = None
    """Run in the network namespace of this pid; None stays on the host's network."""
    mntns_of: int | None = None
    """Run in the mount namespace of this pid as well."""

    def command(self) -> list[str]:
        """Return the full argument list: the entry into the namespaces and the change of user in front."""
        entry: list[str] = []
        if self.netns_of is not None:
            entry += [f"--net=/proc/{self.netns_of}/ns/net"]
        if self.mntns_of is not None:
            entry += [f"--mount=/proc/{self.mntns_of}/ns/mnt"]
        # setpriv and not Popen's own user: the process must join its cgroup while it is still root.
        drop = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", "--"] if self.user else []
        return [*(["nsenter", *entry, "--"] if entry else []), *drop, *self.argv]

    def digest(self) -> str:
        """Return what identifies the command: another digest means the running process is not the wanted one."""
        parts = [self.command(), sorted(self.environment.items()), self.configuration, self.user]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def ensure(spec: ProcessSpec, *, run: Path, logs: Path, cgroup: Cgroup | None = None) -> bool:
    """Start the process unless it already runs with this very command.

    Parameters
    ----------
    run, logs
        Folders for the record and the log.
    cgroup
        The group to put it into before it executes; None where the machine lets us make none.

    Returns
    -------
    bool
        Whether it was started now.

    Raises
    ------
    DevclusterError
        If the program is not installed, or ends at once.
    """
    record = _read_record(run, spec.name)
    if record is not None and _alive(record) and record["digest"] == spec.digest():
        return False
    stop(spec.name, run=run)
    run.mkdir(parents=True, exist_ok=True)
    logs.mkdir(parents=True, exist_ok=True)
    join_files = [str(file) for file in cgroup.join_files()] if cgroup else []
    environment = {"PATH": os.environ["PATH"], "HOME": str(Path.home()), **spec.environment}
    with (logs / f"{spec.name}.log").open("ab") as log:
        try:
            process = subprocess.Popen(
                spec.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd="/",
                start_new_session=True,
                # Runs in the forked child before it executes: nothing it forks can be outside the group.
                preexec_fn=lambda: _join(join_files),  # noqa: PLW1509 - opens and writes only, takes no lock
            )
        except FileNotFoundError as error:
            raise DevclusterError(f"{spec.argv[0]} is not installed", remedy="run `devcluster doctor`") from error
    started = _start_ticks(process.pid)
    if started is None:
        raise DevclusterError(
            f"{spec.name} ended at once with {process.wait()}",
            log=logs / f"{spec.name}.log",
            remedy="mend what the log names, then run the command again",
        )
    _write_record(run, spec.name, {"pid": process.pid, "started": started, "digest": spec.digest()})
    process.returncode = 0  # it outlives us on purpose: no warning about an unreaped child
    return True


def running_pid(name: str, *, run: Path) -> int | None:
    """Return the pid of a recorded process that is alive and still the same process, else None."""
    record = _read_record(run, name)
    return int(record["pid"]) if record is not None and _alive(record) else None


def identity(name: str, *, run: Path) -> str | None:
    """Return what tells a recorded process from any other, past or future, on this machine; None if it is not alive."""
    record = _read_record(run, name)
    return f"{record['boot']}/{record['pid']}/{record['started']}" if record is not None and _alive(record) else None


def is_running(name: str, *, run: Path) -> bool:
    """Return whether the recorded process is alive and still the same process."""
    return running_pid(name, run=run) is not None


def stop(name: str, *, run: Path, grace_seconds: float = _TERM_SECONDS) -> None:
    """End a recorded process: SIGTERM, then SIGKILL after the grace; absent is fine. Forgets the record."""
    record = _read_record(run, name)
    if record is not None:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(int(record["pid"]))
            try:
                # The descriptor pins the process, so this check and the signals speak of the same one.
                if _alive(record):
                    _end(descriptor, grace_seconds)
            finally:
                os.close(descriptor)
    forget(name, run=run)


def forget(name: str, *, run: Path) -> None:
    """Remove a process's record without touching the process."""
    (run / f"{name}.json").unlink(missing_ok=True)


def _end(descriptor: int, grace_seconds: float) -> None:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, _TERM_SECONDS)):
        signal.pidfd_send_signal(descriptor, number)
        if poller.poll(int(seconds * 1000)):
            return


def _join(files: list[str]) -> None:
    for file in files:
        descriptor = os.open(file, os.O_WRONLY)
        os.write(descriptor, b"0")
        os.close(descriptor)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_ticks(pid: int) -> str | None:
    """Return when a process started, in ticks since boot; None when it is gone or only waits to be reaped."""
    try:
        # The command in parentheses may hold spaces: count fields after the last one.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def _alive(record: dict[str, str | int]) -> bool:
    # A record without a start time is of a process that was never seen alive: it equals no other.
    return record["boot"] == _boot_id() and record["started"] in {_start_ticks(int(record["pid"]))} - {None}


def _read_record(run: Path, name: str) -> dict[str, str | int] | None:
    try:
        record = json.loads((run / f"{name}.json").read_text())
    except FileNotFoundError:
        return None
    except ValueError:  # a crash in the middle of the write: the cgroup still knows the process
        return None
    return record if isinstance(record, dict) and {"pid", "started", "boot", "digest"} <= record.keys() else None


def _write_record(run: Path, name: str, record: dict[str, str | int]) -> None:
    temporary = run / f"{name}.json.new"
    temporary.write_text(json.dumps(record | {"boot": _boot_id()}))
    temporary.replace(run / f"{name}.json")
