"""Writes image archives without a builder: a few files on nothing, as ``docker save`` would write them."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from typing import TYPE_CHECKING

from devcluster.machine.errors import WrongUsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["references", "write_archive"]

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_archive(
    target: Path,
    *,
    reference: str,
    files: Mapping[str, Path],
    entrypoint: Sequence[str],
    links: Mapping[str, str] | None = None,
) -> Path:
    """Write an image of one layer; the same input gives the same bytes.

    Parameters
    ----------
    reference
        The image's name and tag.
    files
        Path in the image (without a leading slash) to a file of the machine; all become executable.
    entrypoint
        The command.
    links
        Path in the image to the target of a symbolic link.
    """
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name, source in sorted(files.items()):
            _add(tar, name, source.read_bytes(), mode=0o755)
        for name, link in sorted((links or {}).items()):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, link
            tar.addfile(entry)
    content = layer.getvalue()
    config = json.dumps(
        {
            "architecture": _ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint), "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(content).hexdigest()}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [reference], "Layers": ["layer.tar"]}]
    unfinished = target.with_name(f".{target.name}.new")
    with tarfile.open(unfinished, mode="w") as tar:
        _add(tar, "layer.tar", content)
        _add(tar, config_name, config)
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    unfinished.rename(target)
    return target


def references(archive: Path) -> list[str]:
    """Return the image names in an archive.

    Raises
    ------
    WrongUsageError
        If it is no archive as ``docker save`` writes them.
    """
    try:
        with tarfile.open(archive) as tar:
            manifest = tar.extractfile("manifest.json")
            listed = json.load(manifest) if manifest is not None else []
            return [tag for image in listed for tag in image["RepoTags"] or []]
    except (tarfile.TarError, KeyError, TypeError, ValueError) as error:
        raise WrongUsageError(
            f"{archive} is not an image archive: {error}", remedy="make one with `docker save` or `buildah push`"
        ) from error


def _add(tar: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))
