from __future__ import annotations

from tests.support.cluster import cluster, devcluster, namespace

__all__ = ["cluster", "devcluster", "namespace"]
