"""Killing what runs in a pod of a cluster on this machine, as a lost node or the kernel would: without a word."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

__all__ = ["kill_pod"]

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
