"""Killing what runs of a cluster on this machine, in a pod or beside, as the kernel would: without a word."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from pathlib import Path

__all__ = ["kill_pod", "kill_process"]

_SANDBOX = "pause"


def kill_pod(uid: str) -> int:
    """Kill every process of the pod's containers with SIGKILL; return how many there were.

    A process is the pod's by its control group, whose path has the pod's uid. The sandbox stays: it is not the
    container that dies then.
    """
    names = (uid, uid.replace("-", "_"))
    killed = 0
    for folder in Path("/proc").iterdir():
        # A process may end while it is looked at.
        with suppress(OSError):
            if not folder.name.isdigit() or not any(name in (folder / "cgroup").read_text() for name in names):
                continue
            if (folder / "comm").read_text().strip() != _SANDBOX:
                os.kill(int(folder.name), signal.SIGKILL)
                killed += 1
    return killed


def kill_process(pid: int) -> None:
    """Kill a process that need not be a child, and return once it has ended."""
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        assert select.select([descriptor], [], [], 10)[0], f"{pid} does not end"
    finally:
        os.close(descriptor)
