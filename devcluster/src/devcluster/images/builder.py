"""Builds the project's container images when their content changed, and keeps them as archives.

An image's tag is the hash of everything it is made of, and its archive stays in the cache: nothing changed means
nothing is built, in a fresh checkout as well. Loading archives into a cluster is the caller's part.
"""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devcluster.images.catalogue import Image, content_key, foreign_bases, load, stage_context
from devcluster.images.engines import choose
from devcluster.machine.errors import DevclusterError
from devcluster.machine.locks import exclusive
from devcluster.machine.paths import cache_dir, checkout
from devcluster.machine.progress import note, step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from devcluster.images.engines import Engine

__all__ = ["BuiltImage", "build_all"]

_REGISTRY = "storeplane.local"
"""No such host exists: a pod that asks for an image that was not loaded fails at once instead of pulling another."""
_KEPT_ARCHIVES = 3
_PARALLEL_BUILDS = 2
"""A build waits for the network about as long as it computes; more than two only fight for two cores."""


@dataclass(frozen=True)
class BuiltImage:
    """An image that is ready to be loaded."""

    name: str
    """As in images.toml."""
    reference: str
    """As pods name it: ``storeplane.local/<name>:<16 hexadecimal digits>``."""
    archive: Path
    """As ``docker save`` writes it, uncompressed."""


def build_all(names: Sequence[str] | None = None, *, root: Path | None = None) -> dict[str, BuiltImage]:
    """Return the images by name, built where their content changed since the archive in the cache.

    Parameters
    ----------
    names
        Which ones; None means every image that pods run.
    root
        The checkout to build; None means the one this package is installed from.

    Raises
    ------
    DevclusterError
        If a name is unknown, no engine can build, or a build fails (with the end of its log).
    """
    root = root or checkout()
    catalogue = load(root)
    if unknown := set(names or ()) - set(catalogue):
        raise DevclusterError(f"no image is called {sorted(unknown)}", remedy=f"use some of {list(catalogue)}")
    wanted = [name for name, image in catalogue.items() if (name in names if names is not None else image.pods)]
    # Two builds would share one storage, and the second usually finds its work done.
    with exclusive(cache_dir("images") / "lock", "building images") as lock:
        engine = choose(cache_dir("images"), lock=lock.fileno())
        planned = _plan(root, catalogue, engine)
        missing = _missing(wanted, catalogue, planned)
        if missing:
            bases = list(dict.fromkeys(base for name in missing for base in foreign_bases(root, catalogue[name])))
            engine.prepare(bases)
            with step(f"build the images {', '.join(missing)}"):
                _build(missing, root, catalogue, planned, engine)
            shutil.rmtree(cache_dir("images", "unfinished"))
        for name in wanted:
            os.utime(planned[name].archive)  # the least recently used go first
        for name in missing:
            _prune(name, engine)
    return {name: planned[name] for name in wanted}


def _plan(root: Path, catalogue: Mapping[str, Image], engine: Engine) -> dict[str, BuiltImage]:
    bases = engine.base_keys(sorted({base for image in catalogue.values() for base in foreign_bases(root, image)}))
    planned: dict[str, BuiltImage] = {}
    for name, image in catalogue.items():
        parents = {parent: planned[parent].reference for parent in image.parents.values()}
        key = content_key(root, image, bases=bases, parents=parents)
        planned[name] = BuiltImage(name, f"{_REGISTRY}/{name}:{key}", cache_dir("images") / f"{name}-{key}.tar")
    return planned


def _missing(wanted: Sequence[str], catalogue: Mapping[str, Image], planned: Mapping[str, BuiltImage]) -> list[str]:
    """Return what must be built, parents first: a parent only when a child that is built needs it."""
    needed: set[str] = set()
    for name in reversed(list(catalogue)):
        child_is_built = any(name in catalogue[child].parents.values() for child in needed)
        if (name in wanted or child_is_built) and not planned[name].archive.exists():
            needed.add(name)
    return [name for name in catalogue if name in needed]


def _build(
    missing: Sequence[str],
    root: Path,
    catalogue: Mapping[str, Image],
    planned: Mapping[str, BuiltImage],
    engine: Engine,
) -> None:
    """Build each image as soon as its parents are there; the first failure lets running builds end and stops."""
    waiting = list(missing)
    with concurrent.futures.ThreadPoolExecutor(_PARALLEL_BUILDS) as pool:
        running: dict[concurrent.futures.Future[None], str] = {}
        while waiting or running:
            unfinished = {*waiting, *running.values()}
            for name in [name for name in waiting if not unfinished & set(catalogue[name].parents.values())]:
                waiting.remove(name)
                running[pool.submit(_build_one, root, catalogue[name], planned, engine)] = name
            done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                name = running.pop(future)
                if future.exception() is not None and running:
                    note(f"building the image {name} failed; letting {', '.join(running.values())} end")
                future.result()


def _build_one(root: Path, image: Image, planned: Mapping[str, BuiltImage], engine: Engine) -> None:
    started = time.monotonic()
    built = planned[image.name]
    log = cache_dir("images", "log") / f"{built.archive.stem}.log"
    log.unlink(missing_ok=True)
    context = cache_dir("images", "unfinished") / f"context-{image.name}"
    shutil.rmtree(context, ignore_errors=True)
    stage_context(root, image, context)
    arguments: dict[str, str] = {}
    for argument, parent in image.parents.items():
        arguments[argument] = planned[parent].reference
        if not engine.has(planned[parent].reference):
            engine.read(planned[parent].archive)
    try:
        engine.build(image, reference=built.reference, context=context, arguments=arguments, log=log)
        unfinished = built.archive.with_suffix(".unfinished")
        unfinished.unlink(missing_ok=True)
        engine.write(built.reference, unfinished, log)
    except DevclusterError as error:
        raise DevclusterError(f"building the image {image.name} failed", log=log, remedy=error.remedy) from error
    unfinished.replace(built.archive)
    shutil.rmtree(context)
    size = built.archive.stat().st_size / 1e6
    note(f"  {time.monotonic() - started:5.1f} s  image {image.name}, {size:.0f} MB")


def _prune(name: str, engine: Engine) -> None:
    kept = cache_dir("images")
    archives = [path for path in kept.glob(f"{name}-*.tar") if len(path.stem) == len(name) + 17]
    for archive in sorted(archives, key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT_ARCHIVES:]:
        engine.remove(f"{_REGISTRY}/{name}:{archive.stem[-16:]}")
        archive.unlink()
