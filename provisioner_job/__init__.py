"""What runs in the pod of a Job: provisions exactly one store. Knows nothing of the control plane's code."""

__all__: list[str] = []
