"""The catalogue of engines: what can be ordered, what is announced, and what an order freezes.

The references of images come from the settings; this module only says which names an engine needs.
"""

from dataclasses import dataclass
from typing import Final

from controlplane.domain.errors import EnginePlannedError, EngineUnsupportedError

__all__ = ["CATALOGUE", "PLANNED", "Engine", "engine_named"]


@dataclass(frozen=True, slots=True)
class Engine:
    """One kind of shop that can be ordered."""

    name: str
    version: str
    """Of the shop's software, as its image and chart have it."""
    chart: str
    """Folder of its chart in the provisioner's image."""
    chart_version: str
    images: tuple[str, ...]
    """Image names its chart asks for; each has a setting."""


CATALOGUE: Final = {
    "medusa": Engine(
        name="medusa",
        version="2.21.2",
        chart="medusa",
        chart_version="0.1.0",
        images=("server", "postgres", "redis"),
    )
}
PLANNED: Final = {"woocommerce": "10", "magento": "2.4"}
"""Announced engines with the version line they begin with."""


def engine_named(name: str) -> Engine:
    """Return the engine called `name`.

    Raises
    ------
    EnginePlannedError
        It is announced.
    EngineUnsupportedError
        It is unknown.
    """
    supported = tuple(sorted(CATALOGUE))
    if name in CATALOGUE:
        return CATALOGUE[name]
    if name in PLANNED:
        raise EnginePlannedError(name, supported)
    raise EngineUnsupportedError(supported)
