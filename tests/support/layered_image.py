"""An image of the project with one layer more, written by hand: nothing is built but what lies below it.

Its name is made of its content and of the image below, so that a loaded one is never stale.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

from devcluster.images.builder import build_all
from devcluster.machine.paths import cache_dir

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["layered", "layered_on"]

_KEPT_ARCHIVES = 2


def layered(name: str, below: str, files: Mapping[str, bytes]) -> tuple[str, Path]:
    """Return reference and archive of the image `name`: the project's image `below` with these files on top."""
    parent = build_all([below])[below]
    return layered_on(name, parent.reference, parent.archive, files)


def layered_on(name: str, below: str, below_archive: Path, files: Mapping[str, bytes]) -> tuple[str, Path]:
    """Return reference and archive of the image `name`: any image with these files on top."""
    layer = _layer(files)
    key = hashlib.sha256(below.encode() + layer).hexdigest()[:16]
    reference, archive = f"storeplane.local/{name}:{key}", cache_dir("images") / f"{name}-{key}.tar"
    if not archive.exists():
        unfinished = archive.with_name(f".{archive.name}.new")
        _write(unfinished, below_archive, layer, reference)
        unfinished.rename(archive)
        older = sorted(cache_dir("images").glob(f"{name}-*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
        for each in older[_KEPT_ARCHIVES:]:
            each.unlink()
    return reference, archive


def _layer(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def _write(target: Path, below: Path, layer: bytes, reference: str) -> None:
    """Copy an archive with one layer more and another name."""
    with tarfile.open(below) as old, tarfile.open(target, mode="w") as new:
        (manifest,) = json.load(_open(old, "manifest.json"))
        config = json.load(_open(old, manifest["Config"]))
        config["rootfs"]["diff_ids"].append(f"sha256:{hashlib.sha256(layer).hexdigest()}")
        config.setdefault("history", []).append({"created_by": "a layer of the tests"})
        text = json.dumps(config).encode()
        config_name = f"{hashlib.sha256(text).hexdigest()}.json"
        for name in dict.fromkeys(manifest["Layers"]):
            member = old.getmember(name)
            new.addfile(member, old.extractfile(member) if member.isreg() else None)
        _add(new, "added-layer.tar", layer)
        _add(new, config_name, text)
        layers = [*manifest["Layers"], "added-layer.tar"]
        _add(
            new,
            "manifest.json",
            json.dumps([{"Config": config_name, "RepoTags": [reference], "Layers": layers}]).encode(),
        )


def _open(archive: tarfile.TarFile, name: str) -> Any:
    found = archive.extractfile(name)
    assert found is not None, f"the archive has no {name}"
    return found


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
