from __future__ import annotations

from tests.support.cluster import cluster, namespace

__all__ = ["cluster", "namespace"]
