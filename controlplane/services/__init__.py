"""What the product does for a caller: one module per subject, no HTTP, no SQL."""

__all__: list[str] = []
