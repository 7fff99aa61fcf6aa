from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devcluster.kubernetes import network
from devcluster.machine.errors import DevclusterError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.devcluster.conftest import Stub

pytestmark = pytest.mark.unit

_SHOWS = """[{"ifname": "lo"}, {"ifname": "node1"}]"""
_BURIED = """[{"ifname": "lo"}]"""


def _stand_in(stub: Stub, folder: Path, *, then: str) -> None:
    """Have the interface listed once, its removal refused, and something else listed after."""
    seen = folder / "seen"
    stub(
        "nsenter",
        f"""case "$*" in
        *-batch*) echo 'Cannot find device "node1"' >&2; exit 1 ;;
        *) if [ -e {seen} ]; then echo '{then}'; else touch {seen}; echo '{_SHOWS}'; fi ;;
        esac""",
    )


def test_cable_that_is_buried_while_it_is_removed_is_removed(stub: Stub, tmp_path: Path) -> None:
    _stand_in(stub, tmp_path, then=_BURIED)
    network._remove("node1", pid=1)  # noqa: SLF001 -- a moment that only the kernel chooses


def test_cable_that_cannot_be_removed_is_told(stub: Stub, tmp_path: Path) -> None:
    _stand_in(stub, tmp_path, then=_SHOWS)
    with pytest.raises(DevclusterError, match="Cannot find device"):
        network._remove("node1", pid=1)  # noqa: SLF001 -- as above
