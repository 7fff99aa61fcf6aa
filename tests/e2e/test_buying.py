"""Somebody buys: Medusa's own SDK places an order, and the storefront gives a browser what it needs for the same."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.npm_packages import installed
from tests.support.shop_client import visit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from demo.order import Order
    from demo.platform import Platform
    from tests.support.shop_client import Page

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

CLIENT = Path(__file__).parent / "client"
BUYER = "ada@example.com"
SERVER_PATHS = ["/health", "/app/", "/store/products", "/admin/orders", "/auth/user/emailpass"]


def _buy(folder: Path, order: Order, known: Mapping[str, str]) -> Any:
    shutil.copy(CLIENT / "buy.mjs", folder)
    (folder / "node_modules").symlink_to(installed(CLIENT))
    wish = {
        "url": order.store["urls"]["api"],
        "publishableKey": known["publishable_key"],
        "email": BUYER,
        "admin": {"email": known["username"], "password": known["password"]},
    }
    ended = subprocess.run(
        ["node", "buy.mjs"],
        cwd=folder,
        input=json.dumps(wish),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def _get(platform: Platform, order: Order, path: str) -> Page:
    return visit(platform.shops_port, order.store["urls"]["storefront"], path)


def test_a_client_buys_and_the_administrator_finds_the_order(
    tmp_path: Path, order: Order, known: Mapping[str, str]
) -> None:
    bought = _buy(tmp_path, order, known)

    assert len(bought["products"]) == 4
    assert all(
        variant["calculated_price"]["calculated_amount"] > 0 and variant["calculated_price"]["currency_code"] == "eur"
        for product in bought["products"]
        for variant in product["variants"]
    )
    price = bought["products"][0]["variants"][0]["calculated_price"]["calculated_amount"]
    delivery = bought["shippingOptions"][0]["amount"]
    assert delivery > 0
    placed = bought["order"]
    assert placed["total"] == 2 * price + delivery
    assert placed["email"] == BUYER
    (seen,) = [each for each in bought["adminOrders"] if each["id"] == placed["id"]]
    assert (seen["total"], seen["email"], seen["currency_code"]) == (placed["total"], BUYER, "eur")
    assert [item["quantity"] for item in seen["items"]] == [2]


def test_storefront_is_given_its_own_shops_key_and_name(
    platform: Platform, order: Order, known: Mapping[str, str]
) -> None:
    page, config = _get(platform, order, "/"), _get(platform, order, "/config.json")

    assert (page.status, config.status) == (200, 200)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    assert json.loads(config.text) == {"publishableKey": known["publishable_key"], "title": order.store["name"]}
    parts = re.findall(r'(?:src|href)="([\w./]+\.\w+)"', page.text)
    assert {"shop.js", "shop.css"} <= set(parts)
    assert {part: _get(platform, order, f"/{part}").status for part in parts} == dict.fromkeys(parts, 200)
    assert _get(platform, order, "/no-such-page").status == 404


def test_server_keeps_its_paths_beside_the_storefront(platform: Platform, order: Order) -> None:
    found = {path: _get(platform, order, path) for path in SERVER_PATHS}

    # The header of the storefront's server; Medusa sends none.
    assert [path for path, answer in found.items() if answer.headers.get("Server") == "nginx"] == []
    assert found["/health"].text == "OK"
    assert "<html" in found["/app/"].text
    assert json.loads(found["/store/products"].text)["message"].startswith("Publishable API key required")
    assert found["/admin/orders"].status == 401
