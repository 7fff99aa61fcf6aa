"""Builds what a first run needs, side by side: compiling keeps the cores busy while downloads wait."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from devcluster.images.builder import build_all
from devcluster.kubernetes.tools import Tools

if TYPE_CHECKING:
    from devcluster.images.builder import BuiltImage

__all__ = ["build_everything"]


def build_everything() -> dict[str, BuiltImage]:
    """Return the images that pods run, with the cluster's programs built as well.

    Raises
    ------
    DevclusterError
        If a build fails; the other is waited for, so that nothing goes on unseen.
    """
    with ThreadPoolExecutor(max_workers=1) as beside:
        programs = beside.submit(_build_programs)
        images = build_all()
        programs.result()
    return images


def _build_programs() -> None:
    tools = Tools()
    _ = tools.devkube, tools.pause, tools.policies_plugin
