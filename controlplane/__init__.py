"""Storeplane's control plane: accepts wishes for stores, creates their Jobs and follows them to the end."""

__all__: list[str] = []
