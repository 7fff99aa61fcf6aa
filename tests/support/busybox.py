"""A tiny image for test pods: Debian's static busybox on nothing, written without an image builder."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from devcluster.images.archive import write_archive
from devcluster.machine.paths import cache_dir

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["busybox_archive", "busybox_reference"]

_APPLETS = (
    "cat",
    "echo",
    "env",
    "false",
    "httpd",
    "id",
    "ls",
    "mkdir",
    "nslookup",
    "sh",
    "sleep",
    "stat",
    "true",
    "wget",
)
# wget's -T crashes in Debian's static build: scripts leave it out, the pod's own limit holds.
_LAYOUT = 1
"""Raised when the image changes although busybox did not."""
_APT_SECONDS = 180


@functools.cache
def busybox_reference() -> str:
    """Return the image's name; its tag is made from its content, so a loaded one is never stale."""
    content = hashlib.sha256(_busybox().read_bytes() + " ".join(_APPLETS).encode() + bytes([_LAYOUT]))
    return f"storeplane.local/busybox:{content.hexdigest()[:16]}"


def busybox_archive() -> Path:
    """Return the image as a docker-archive, made on first use."""
    reference = busybox_reference()
    archive = cache_dir("images") / f"busybox-{reference.rpartition(':')[2]}.tar"
    if not archive.exists():
        links = {f"bin/{applet}": "busybox" for applet in _APPLETS}
        entrypoint = ["/bin/sh", "-c"]
        write_archive(
            archive, reference=reference, files={"bin/busybox": _busybox()}, entrypoint=entrypoint, links=links
        )
    return archive


def _busybox() -> Path:
    """Return a static busybox, unpacked from Debian's package without installing it."""
    folder = cache_dir("busybox")
    program = folder / "busybox"
    if program.exists():
        return program
    download = folder / f"download-{os.getpid()}"
    download.mkdir(exist_ok=True)
    try:
        if _apt("download", "busybox-static", folder=download) != 0:
            # A fresh machine has no package lists yet.
            assert _apt("update", folder=download) == 0, "apt-get update failed; its words are above"
            assert _apt("download", "busybox-static", folder=download) == 0, "busybox-static cannot be downloaded"
        package = next(download.glob("*.deb"))
        subprocess.run(["dpkg-deb", "-x", str(package), str(download)], check=True, timeout=_APT_SECONDS)
        (download / "bin/busybox").rename(program)
    finally:
        shutil.rmtree(download)
    return program


def _apt(*words: str, folder: Path) -> int:
    # Without the sandbox user, which could not write into the folder.
    command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", *words]
    return subprocess.run(command, cwd=folder, timeout=_APT_SECONDS, check=False).returncode
