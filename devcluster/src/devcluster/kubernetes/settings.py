"""What a cluster was asked to be: written at its first ``up``, read by every later command."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from devcluster.machine.errors import DevclusterError, WrongUsageError
from devcluster.machine.paths import write_if_changed
from devcluster.machine.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Settings", "Wish"]

_FIXED_PORTS = (8080, 8081)
"""The ports of the cluster named ``dev``: what README and people remember. Other clusters take free ones."""


@dataclass(frozen=True)
class Wish:
    """What an ``up`` asks for; None keeps what the cluster has, or takes the default."""

    nodes: int | None = None
    fake_nodes: int | None = None
    controller_qps: int | None = None


@dataclass(frozen=True)
class Settings:
    """The shape of one cluster."""

    api_port: int
    shops_port: int
    api_target: str = ""
    """HOST:PORT that the API's port leads to; empty for the product's NodePort inside the cluster."""
    nodes: int = 1
    fake_nodes: int = 0
    controller_qps: int = 20
    """Upstream's default."""

    @classmethod
    def read(cls, file: Path) -> Settings | None:
        """Return a cluster's settings, or None when it has never been up."""
        try:
            return cls(**json.loads(file.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            name = file.parent.name
            raise DevclusterError(
                f"{file} cannot be read: {error}",
                remedy=f"remove the cluster with `devcluster down --name {name}`, then `devcluster up --name {name}`",
            ) from error

    @classmethod
    def first(cls, name: str) -> Settings:
        """Return the settings of a new cluster: fixed ports for ``dev``, free ones for the others."""
        api_port, shops_port = _FIXED_PORTS if name == "dev" else (free_port(), free_port())
        return cls(api_port=api_port, shops_port=shops_port)

    def granting(self, wish: Wish) -> Settings:
        """Return the settings with what the wish names changed.

        Raises
        ------
        WrongUsageError
            If the wish would take a node away.
        """
        if wish.nodes is not None and wish.nodes < self.nodes:
            raise WrongUsageError(
                f"the cluster has {self.nodes} nodes; nodes are not taken away",
                remedy="take the cluster down with `devcluster down --name NAME`, then up",
            )
        changed = {key: value for key, value in asdict(wish).items() if value is not None}
        return replace(self, **changed)

    def write(self, file: Path) -> None:
        """Keep the settings."""
        write_if_changed(file, json.dumps(asdict(self), indent=1))
