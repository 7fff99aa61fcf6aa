"""The Helm that the checkout pins, as a program for this machine: chart tests and a person's inspection use it.

The provisioner's image builds the same module with the same flags, so both are one Helm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devcluster.machine.build import go_binary
from devcluster.machine.paths import checkout

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["helm_binary"]

_PACKAGE = "helm.sh/helm/v4/cmd/helm"


def helm_binary() -> Path:
    """Return the path of the static ``helm``, built on first use.

    Raises
    ------
    DevclusterError
        If there is no Go, or the build fails.
    """
    folder = checkout() / "images" / "helm"
    # The module proxy cannot know a version that only the release build stamps.
    ldflags = (folder / "ldflags").read_text().strip()
    return go_binary(folder, _PACKAGE, ldflags=ldflags)
