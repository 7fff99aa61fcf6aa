"""Rows of the table, each with its target, and whether it was met."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.parts.machine import Noise

__all__ = ["Row", "as_json", "percentile", "print_result", "print_table"]


@dataclass(frozen=True)
class Row:
    """One figure."""

    what: str
    value: float
    unit: str
    target: float | None = None
    is_floor: bool = False
    """Whether the target is the least instead of the most."""
    detail: str = ""
    noise: Noise | None = None

    @property
    def verdict(self) -> str:
        """`ok` or `missed`; empty without a target. A disturbed figure says so, whatever it is."""
        disturbed = " (disturbed)" if self.noise is not None and not self.noise.is_clean else ""
        if self.target is None:
            return disturbed.strip()
        is_met = self.value >= self.target if self.is_floor else self.value <= self.target
        return ("ok" if is_met else "missed") + disturbed


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows as plain values."""
    return [asdict(row) | {"verdict": row.verdict} for row in rows]


def print_result(rows: Sequence[Row], *, began: str, machine: str, is_json: bool) -> None:
    """Print when and where rows were measured, and them: as JSON for a program, as a table for a person."""
    if is_json:
        print(json.dumps({"began": began, "machine": machine, "rows": as_json(rows)}, indent=1))
    else:
        print(f"{began}, {machine}")
        print_table(rows, sys.stdout)


def print_table(rows: Sequence[Row], to: TextIO) -> None:
    """Print one line a figure."""
    for row in rows:
        target = "" if row.target is None else f"{'>=' if row.is_floor else '<='} {row.target:g}"
        noise = "" if row.noise is None else f"load {row.noise.load_before:.1f}, others {row.noise.foreign_share:.0%}"
        print(
            f"{row.what:58} {row.value:9.2f} {row.unit:5} {target:>8} {row.verdict:18} {noise:22} {row.detail}",
            file=to,
            flush=True,
        )
