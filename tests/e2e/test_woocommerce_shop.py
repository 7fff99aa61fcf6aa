"""A WooCommerce shop as its visitors and its merchant meet it, and what a stranger meets while it is being made."""

from __future__ import annotations

import http
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from demo.order import call, credentials
from demo.platform import kubectl_of
from devcluster.machine.errors import DevclusterError
from tests.support.polling import poll
from tests.support.shop_client import visit

if TYPE_CHECKING:
    from demo.order import Order
    from demo.platform import Platform

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

_WIZARDS = ("/wp-admin/install.php", "/wp-admin/setup-config.php", "//wp-admin//install.php?step=1", "/")
_WIZARD_WORDS = ("weblog_title", "language-chooser", "&rsaquo; Installation", "&rsaquo; Setup Configuration")
_WIZARD_PLACES = ("install.php", "setup-config.php")
_INSIDE = """
[$host, $paths] = [$argv[1], array_slice($argv, 2)];
$context = stream_context_create(["http" => ["ignore_errors" => true, "follow_location" => 0, "timeout" => 5,
                                             "header" => "Host: $host"]]);
foreach ($paths as $path) {
    $page = @file_get_contents("http://127.0.0.1:8080$path", false, $context);
    echo $path, " ", implode("\n", $http_response_header ?? []), "\n", $page, "\n";
}
"""
"""Asks the pod's own server, past Service and ingress."""


@pytest.fixture
def woocommerce(orders: dict[str, Order]) -> Order:
    return orders["woocommerce"]


def test_visitor_sees_products_with_prices(platform: Platform, woocommerce: Order) -> None:
    urls = woocommerce.store["urls"]
    front = visit(platform.shops_port, urls["storefront"], "/")
    shop = visit(platform.shops_port, urls["storefront"], "/shop/")
    assert (front.status, shop.status) == (200, 200)
    assert woocommerce.store["name"] in front.text
    assert "Enamel mug" in shop.text


def test_merchant_signs_in_with_the_credentials(platform: Platform, woocommerce: Order) -> None:
    known, url = credentials(platform, woocommerce), woocommerce.store["urls"]["admin"]
    form = urlencode({"log": known["username"], "pwd": known["password"], "testcookie": "1"})
    cookies = ("wordpress_test_cookie=WP%20Cookie%20check",)
    signed_in = visit(platform.shops_port, url, "/wp-login.php", method="POST", form=form, cookies=cookies)
    assert signed_in.status == 302, signed_in.text[:500]
    admin = visit(platform.shops_port, url, "/wp-admin/", cookies=signed_in.cookies)
    assert admin.status == 200
    assert "Dashboard" in admin.text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/wp-json/wp/v2/users", 404),
        ("/?rest_route=/wp/v2/users", 404),
        ("/?author=1", 404),
        ("/author/admin/", 404),
        # The front page, as for every sitemap that is not there.
        ("/wp-sitemap-users-1.xml", 200),
        ("/readyz", 404),
        ("/xmlrpc.php", 403),
        ("/wp-cron.php", 403),
    ],
)
def test_stranger_learns_nothing_of_the_merchant(
    platform: Platform, woocommerce: Order, path: str, status: int
) -> None:
    page = visit(platform.shops_port, woocommerce.store["urls"]["storefront"], path)
    assert page.status == status
    assert '"admin"' not in page.text
    assert "/author/" not in page.text


def test_stranger_meets_no_wizard_while_the_shop_is_made(platform: Platform) -> None:
    kubectl = kubectl_of(platform.name)
    wish = {"name": f"Wizard {secrets.token_hex(3)}", "engine": "woocommerce"}
    accepted = call(platform, "POST", "/api/stores", wish)
    store, operation = accepted["store"], f"/api/operations/{accepted['operation']['id']}"
    answers: set[tuple[str, int]] = set()
    inside: list[str] = []
    wizards: list[str] = []

    def is_made() -> bool:
        for path in _WIZARDS:
            page = visit(platform.shops_port, store["urls"]["storefront"], path)
            answers.add((path, page.status))
            wizards.extend(f"{path}: {word}" for word in _WIZARD_WORDS if word in page.text)
            place = page.headers.get("Location", "")
            wizards.extend(f"{path} leads to {place}" for word in _WIZARD_PLACES if word in place)
        # The pod itself, whether or not it may be reached yet.
        with suppress(DevclusterError):
            words = ("exec", "deployment/woocommerce", f"--namespace={store['namespace']}", "--", "php", "-r", _INSIDE)
            inside.append(kubectl.do(*words, "--", store["urls"]["storefront"].split("/")[2], *_WIZARDS))
        return bool(call(platform, "GET", operation)["state"] == "succeeded")

    try:
        poll(is_made, what="the shop is ready", seconds=300)
    finally:
        kubectl.do("delete", "namespace", store["namespace"], "--wait=false", "--ignore-not-found")
    assert wizards == []
    assert not [each for each in answers if each[0] != "/" and each[1] == http.HTTPStatus.OK]
    # It was met before it was there.
    assert {status for _, status in answers} & {http.HTTPStatus.NOT_FOUND, http.HTTPStatus.SERVICE_UNAVAILABLE}
    assert inside
    assert not [word for word in _WIZARD_WORDS if word in "".join(inside)]
