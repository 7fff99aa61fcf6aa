"""From Jobs in the cluster to settled attempts: observe, decide, apply; conclude, harvest, sweep."""

from controlplane.reconciler.reconciler import Reconciler

__all__ = ["Reconciler"]
