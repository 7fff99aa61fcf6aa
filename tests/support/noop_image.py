"""The no-op image: the provisioner's own with one layer on top, which holds ``tests/support/noop``.

Nothing is built but what the provisioner's image is made of; the layer is written by hand, and its name is made of its
content and of the image below, so that a loaded one is never stale.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devcluster.sources.choice import choose_source
from tests.support.layered_image import layered

if TYPE_CHECKING:
    from tests.support.cluster import Kube

__all__ = ["noop_archive", "noop_image", "noop_reference"]

_SOURCES = Path(__file__).parent / "noop"
_LAYER = {
    "opt/storeplane/noop.py": _SOURCES / "noop.py",
    "usr/local/bin/storeplane-provision": _SOURCES / "storeplane-provision",
}


@functools.cache
def _made() -> tuple[str, Path]:
    """Return reference and archive, made where they are not there yet."""
    return layered("noop", "provisioner", {name: source.read_bytes() for name, source in _LAYER.items()})


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
