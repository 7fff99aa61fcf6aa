"""The words and rules of Storeplane, without I/O, clock or event loop.

Everything above may import this package; it imports nothing of the project.
"""

__all__: list[str] = []
