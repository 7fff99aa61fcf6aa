"""`python -m controlplane` is the `storeplane` command."""

from controlplane.cli import main

__all__: list[str] = []

main()
