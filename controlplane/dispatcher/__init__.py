"""From a queued operation to a Job in the cluster."""

from controlplane.dispatcher.dispatcher import Dispatcher

__all__ = ["Dispatcher"]
