"""Which images there are, what each is made of, and the name that follows from that content."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devcluster.machine.errors import DevclusterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Image", "content_key", "foreign_bases", "input_files", "load", "stage_context"]

_FORMAT = b"images/1"
"""Change it when the builder itself changes what comes out of the same inputs."""
_FROM = re.compile(r"^FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?\s*$", re.IGNORECASE | re.MULTILINE)
_NOT_CONTENT = frozenset({"__pycache__", "node_modules", ".DS_Store"})
_STAMP = 1_577_836_800
"""2020-01-01: one time for every staged file, so that two checkouts of one content are one content."""


@dataclass(frozen=True)
class Image:
    """One entry of images.toml."""

    name: str
    dockerfile: str
    """Path of the Dockerfile, relative to the checkout."""
    inputs: Sequence[str]
    """Files and folders that the Dockerfile copies, relative to the checkout."""
    clients: Sequence[str]
    """Package clients used by the build: apt, go, npm, pip."""
    parents: Mapping[str, str]
    """Build argument to the name of the image it stands for."""
    pods: bool
    """Whether pods run it; the others are parts of images."""


def load(root: Path) -> dict[str, Image]:
    """Return the images of ``images/images.toml`` below ``root``, parents before children.

    Raises
    ------
    DevclusterError
        If the file names an unknown key or parent, a file that is not there, or a circle of parents.
    """
    entries = tomllib.loads((root / "images" / "images.toml").read_text())
    known = {"dockerfile", "inputs", "clients", "parents", "pods"}
    images: dict[str, Image] = {}
    for name, entry in entries.items():
        if unknown := set(entry) - known:
            raise DevclusterError(
                f"images.toml: {name} has unknown keys {sorted(unknown)}", remedy=f"use {sorted(known)}"
            )
        image = Image(
            name=name,
            dockerfile=entry.get("dockerfile", f"images/{name}/Dockerfile"),
            inputs=tuple(entry["inputs"]),
            clients=tuple(entry.get("clients", ())),
            parents=dict(entry.get("parents", {})),
            pods=entry.get("pods", True),
        )
        for path in (image.dockerfile, *image.inputs):
            if not (root / path).exists():
                raise DevclusterError(
                    f"images.toml: {name} names {path}, which is not there", remedy="correct the path"
                )
        images[name] = image
    return _parents_first(images)


def _parents_first(images: Mapping[str, Image]) -> dict[str, Image]:
    ordered: dict[str, Image] = {}
    waiting = dict(images)
    while waiting:
        free = [image for image in waiting.values() if all(parent in ordered for parent in image.parents.values())]
        if not free:
            names = ", ".join(sorted(waiting))
            raise DevclusterError(f"images.toml: parents are missing or go in a circle: {names}", remedy="correct them")
        for image in free:
            ordered[image.name] = waiting.pop(image.name)
    return ordered


def input_files(root: Path, image: Image) -> list[Path]:
    """Return every file of the build context and the Dockerfile, relative to ``root``, sorted."""
    found = {path.relative_to(root) for name in (image.dockerfile, *image.inputs) for path in _files(root / name)}
    return sorted(found)


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        for entry in path.iterdir():
            if entry.name not in _NOT_CONTENT:
                yield from _files(entry)
    elif path.suffix != ".pyc":
        yield path


def content_key(root: Path, image: Image, *, bases: Mapping[str, str], parents: Mapping[str, str]) -> str:
    """Return 16 hexadecimal digits that change when anything the image is made of changes.

    Parameters
    ----------
    root
        The checkout.
    bases
        Foreign base image to the key of its recipe; only those the Dockerfile names count.
    parents
        Image name to its reference, for at least the image's own parents.
    """
    digest = hashlib.sha256(_FORMAT)
    for path in input_files(root, image):
        file = root / path
        executable = b"x" if file.stat().st_mode & 0o100 else b"-"
        digest.update(b"\0".join([b"", str(path).encode(), executable, hashlib.sha256(file.read_bytes()).digest()]))
    for base in foreign_bases(root, image):
        digest.update(f"\0base {base} {bases[base]}".encode())
    for argument, name in sorted(image.parents.items()):
        digest.update(f"\0parent {argument} {parents[name]}".encode())
    return digest.hexdigest()[:16]


def foreign_bases(root: Path, image: Image) -> list[str]:
    """Return the images that the Dockerfile starts from and that are neither its own stages nor its parents."""
    stages: set[str] = set()
    bases: list[str] = []
    for base, stage in _FROM.findall((root / image.dockerfile).read_text()):
        if base != "scratch" and base not in stages and not base.startswith("$") and base not in bases:
            bases.append(base)
        stages.add(stage)
    return bases


def stage_context(root: Path, image: Image, target: Path) -> None:
    """Copy the image's inputs to ``target``, at their paths: the context holds what the key covers, and no more."""
    for path in input_files(root, image):
        copy = target / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, copy)
        copy.chmod(0o755 if (root / path).stat().st_mode & 0o100 else 0o644)
        _stamp(copy)
    for folder in sorted(target.rglob("*"), reverse=True):
        if folder.is_dir():
            folder.chmod(0o755)
            _stamp(folder)


def _stamp(path: Path) -> None:
    os.utime(path, (_STAMP, _STAMP))
