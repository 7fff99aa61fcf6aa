"""From what the cluster shows to the end of an attempt, its log and its operation."""

from controlplane.reconciler.reconciler import Reconciler

__all__ = ["Reconciler"]
