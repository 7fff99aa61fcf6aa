"""The no-op image: the provisioner's own with one layer on top, which holds ``tests/support/noop``.

Nothing is built but what the provisioner's image is made of; the layer is written by hand, and its name is made of its
content and of the image below, so that a loaded one is never stale.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devcluster.images.builder import build_all
from devcluster.machine.paths import cache_dir
from devcluster.sources.choice import choose_source

if TYPE_CHECKING:
    from tests.support.cluster import Kube

__all__ = ["noop_archive", "noop_image", "noop_reference"]

_SOURCES = Path(__file__).parent / "noop"
_LAYER = {
    "opt/storeplane/noop.py": _SOURCES / "noop.py",
    "usr/local/bin/storeplane-provision": _SOURCES / "storeplane-provision",
}
_KEPT_ARCHIVES = 2


@functools.cache
def _made() -> tuple[str, Path]:
    """Return reference and archive, made where they are not there yet."""
    below = build_all(["provisioner"])["provisioner"]
    layer = _layer()
    key = hashlib.sha256(below.reference.encode() + layer).hexdigest()[:16]
    reference, archive = f"storeplane.local/noop:{key}", cache_dir("images") / f"noop-{key}.tar"
    if not archive.exists():
        unfinished = archive.with_name(f".{archive.name}.new")
        _write(unfinished, below.archive, layer, reference)
        unfinished.rename(archive)
        older = sorted(cache_dir("images").glob("noop-*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
        for each in older[_KEPT_ARCHIVES:]:
            each.unlink()
    return reference, archive


def noop_reference() -> str:
    """Return the image's name, built if need be."""
    return _made()[0]


def noop_archive() -> Path:
    """Return the image as a docker-archive, built if need be."""
    return _made()[1]


@pytest.fixture(scope="session")
def noop_image(cluster: Kube) -> str:
    """Give the reference of the no-op image, loaded into the run's cluster; its words stand in its module."""
    choose_source(cluster.name).load([noop_archive()])
    return noop_reference()


def _layer() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, source in sorted(_LAYER.items()):
            entry = tarfile.TarInfo(name)
            content = source.read_bytes()
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def _write(target: Path, below: Path, layer: bytes, reference: str) -> None:
    """Copy an archive with one layer more and another name."""
    with tarfile.open(below) as old, tarfile.open(target, mode="w") as new:
        (manifest,) = json.load(_open(old, "manifest.json"))
        config = json.load(_open(old, manifest["Config"]))
        config["rootfs"]["diff_ids"].append(f"sha256:{hashlib.sha256(layer).hexdigest()}")
        config.setdefault("history", []).append({"created_by": "the no-op phases"})
        text = json.dumps(config).encode()
        config_name = f"{hashlib.sha256(text).hexdigest()}.json"
        for name in dict.fromkeys(manifest["Layers"]):
            member = old.getmember(name)
            new.addfile(member, old.extractfile(member) if member.isreg() else None)
        _add(new, "noop-layer.tar", layer)
        _add(new, config_name, text)
        layers = [*manifest["Layers"], "noop-layer.tar"]
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
