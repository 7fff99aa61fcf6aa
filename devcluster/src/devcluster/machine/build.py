"""Builds Go programs into the cache, keyed by the content they are made of."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from devcluster.machine.errors import DevclusterError
from devcluster.machine.locks import exclusive
from devcluster.machine.paths import cache_dir
from devcluster.machine.progress import step

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["go_binary"]

_BUILD_SECONDS = 30 * 60
"""Nothing here takes a third of it, even on two busy cores with empty caches."""
_KEPT_BUILDS = 3


def go_binary(folder: Path, package: str, *, ldflags: str = "") -> Path:
    """Return the static binary of a Go package, built only when its sources, the toolchain or the flags changed.

    Parameters
    ----------
    folder
        The folder of the ``go.mod``.
    package
        What to build, as ``go build`` takes it: ``./cmd/pause``, or an import path that go.mod requires.
    ldflags
        More linker flags, beside the ones that strip symbols.

    Raises
    ------
    DevclusterError
        If there is no Go, or the build fails (with the end of its log).
    """
    go = shutil.which("go")
    if go is None:
        raise DevclusterError("Go is not installed", remedy="install Go >= 1.26; `devcluster doctor` names the command")
    name = package.rstrip("/").rpartition("/")[2]
    binaries = cache_dir("bin")
    binary = binaries / f"{name}-{_key(go, folder, package, ldflags)}"
    if binary.exists():
        os.utime(binary)  # the oldest unused are pruned
        return binary
    with exclusive(binaries / f"{name}.lock", f"building {name}"):
        if not binary.exists():
            _build(go, folder, package, ldflags, binary)
            _prune(binaries, name)
    return binary


def _build(go: str, folder: Path, package: str, ldflags: str, binary: Path) -> None:
    log = cache_dir("log") / f"build-{binary.name}.log"
    unfinished = binary.with_name(f".{binary.name}.{os.getpid()}")
    command = [
        go,
        "build",
        "-trimpath",
        "-buildvcs=false",
        "-ldflags",
        f"-s -w {ldflags}",
        "-o",
        str(unfinished),
        package,
    ]
    try:
        with step(f"build {binary.name.rpartition('-')[0]}"), log.open("wb") as output:
            finished = subprocess.run(
                command,
                cwd=folder,
                env={**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=_BUILD_SECONDS,
                check=False,
            )
        if finished.returncode != 0:
            raise DevclusterError(f"building {package} failed", log=log, remedy="mend what the log names")
        unfinished.rename(binary)
    finally:
        unfinished.unlink(missing_ok=True)


def _key(go: str, folder: Path, package: str, ldflags: str) -> str:
    version = subprocess.run([go, "env", "GOVERSION", "GOARCH"], capture_output=True, check=True, timeout=60).stdout
    digest = hashlib.sha256(b"\0".join([version, package.encode(), ldflags.encode()]))
    sources = [file for file in folder.rglob("*") if file.suffix == ".go" or file.name in {"go.mod", "go.sum"}]
    for file in sorted(sources):
        digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _prune(binaries: Path, name: str) -> None:
    built = sorted(binaries.glob(f"{name}-" + "[0-9a-f]" * 16), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in built[_KEPT_BUILDS:]:
        file.unlink(missing_ok=True)
