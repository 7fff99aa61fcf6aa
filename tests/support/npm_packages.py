"""Packages of npm for a test, as their lock file has them, in the cache and keyed by its content."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from typing import TYPE_CHECKING

from devcluster.machine.locks import exclusive
from devcluster.machine.paths import cache_dir

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["installed"]

_INSTALL_SECONDS = 300
_MANIFESTS = ("package.json", "package-lock.json")


def installed(folder: Path) -> Path:
    """Return the ``node_modules`` of a folder with a manifest and a lock file; made at the first call.

    No package's own scripts run, and npm compares everything with the hashes of the lock file.
    """
    key = hashlib.sha256(b"".join((folder / name).read_bytes() for name in _MANIFESTS)).hexdigest()[:16]
    place = cache_dir("npm") / key
    with exclusive(cache_dir("npm") / f"{key}.lock", "installing packages of npm"):
        if not place.exists():
            unfinished = place.with_name(f".{key}.new")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            for name in _MANIFESTS:
                shutil.copyfile(folder / name, unfinished / name)
            ended = subprocess.run(
                ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=unfinished,
                capture_output=True,
                text=True,
                timeout=_INSTALL_SECONDS,
                check=False,
            )
            assert ended.returncode == 0, f"npm ci in {folder}: {ended.stderr}"
            unfinished.rename(place)
    return place / "node_modules"
