"""HTTP: thin handlers, one table of routes, one table of problems."""

__all__: list[str] = []
