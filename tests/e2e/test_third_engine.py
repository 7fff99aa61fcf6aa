"""An engine nobody has shipped: a row of the catalogue, a chart and an image make it sell."""

from __future__ import annotations

import json
import py_compile
from typing import TYPE_CHECKING

import pytest

from demo.order import call, place
from devcluster.machine.paths import checkout
from devcluster.sources.choice import choose_source
from tests.support.busybox import busybox_archive, busybox_reference
from tests.support.layered_image import layered, layered_on

if TYPE_CHECKING:
    from pathlib import Path

    from demo.platform import Platform
    from tests.e2e.conftest import Installer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

_ENGINE = checkout() / "tests" / "data" / "engines" / "tiny"
_PRODUCTS = {"goods": [{"name": name} for name in ("Thimble", "Acorn", "Matchbox")]}
_MODULE = "opt/storeplane/controlplane/domain"


def _catalogue(folder: Path) -> dict[str, bytes]:
    """Return the files of the catalogue with a row more; images run compiled modules, whatever the sources say."""
    own, compiled = folder / "catalogue.py", folder / "catalogue.pyc"
    own.write_text("\n".join(path.read_text() for path in (_source(), _ENGINE / "row.py.in")))
    py_compile.compile(str(own), cfile=str(compiled), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    return {
        f"{_MODULE}/catalogue.py": own.read_bytes(),
        f"{_MODULE}/__pycache__/catalogue.cpython-311.pyc": compiled.read_bytes(),
    }


def _source() -> Path:
    return checkout() / "controlplane" / "domain" / "catalogue.py"


def _chart() -> dict[str, bytes]:
    files = [path for path in _ENGINE.rglob("*.yaml") if path.is_file()]
    return {f"charts/tiny/{path.relative_to(_ENGINE)}": path.read_bytes() for path in files}


def test_row_chart_and_image_are_all_that_an_engine_is(
    platform: Platform, installer: Installer, tmp_path: Path
) -> None:
    controlplane_image, first = layered("tiny-controlplane", "controlplane", _catalogue(tmp_path))
    provisioner_image, second = layered("tiny-provisioner", "provisioner", _chart())
    products = {"shop/products.json": json.dumps(_PRODUCTS).encode()}
    shop_image, third = layered_on("tiny-shop", busybox_reference(), busybox_archive(), products)
    choose_source(platform.name).load([first, second, third])
    installer.install(
        images={"controlplane": controlplane_image, "provisioner": provisioner_image},
        engines={"tiny": {"server": shop_image}},
    )

    offered = [each["name"] for each in call(platform, "GET", "/api/engines")["supported"]]
    told: list[str] = []
    order = place(platform, "Third", told.append, engine="tiny")
    try:
        assert offered == ["medusa", "tiny", "woocommerce"]
        assert order.operation["state"] == "succeeded", f"{order.operation['error']}\n" + "\n".join(told)
        assert order.operation["result"]["product_count"] == len(_PRODUCTS["goods"])
    finally:
        call(platform, "DELETE", f"/api/stores/{order.store['id']}")
