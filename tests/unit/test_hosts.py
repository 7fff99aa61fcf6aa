"""Hosts of the customers' own."""

from __future__ import annotations

import pytest

from controlplane.domain.errors import InvalidInputError
from controlplane.domain.hosts import validated_host

pytestmark = pytest.mark.unit


def _valid(raw: str) -> str:
    return validated_host(raw, domain="stores.example.com", reserved=("api.example.com",))


@pytest.mark.parametrize("host", ["shop.example.com", "a.b", "xn--bcher-kva.example", "1.a2", "x" * 63 + ".example"])
def test_dns_name_is_taken_as_it_is(host: str) -> None:
    assert _valid(host) == host


@pytest.mark.parametrize(
    "host",
    [
        "",
        "shop",
        "Shop.example.com",
        "shop.example.com.",
        ".example.com",
        "shop..example",
        "-a.example",
        "a-.example",
        "a_b.example",
        "*.example.com",
        "10.0.0.1",
        "[::1]",
        "shop.example.com:80",
        "shop.example.com/x",
        "bücher.example",
        "x" * 64 + ".example",
        ".".join(["abcdefghi"] * 26),
        "shop.example.com\n",
        "storeplane.storeplane.svc",
        "foo.cluster.local",
        "metadata.google.internal",
        "localhost.localdomain",
    ],
)
def test_anything_else_is_refused(host: str) -> None:
    with pytest.raises(InvalidInputError, match="not valid") as caught:
        _valid(host)
    assert caught.value.problems[0].pointer == "#/host"


@pytest.mark.parametrize(
    "host", ["stores.example.com", "a.stores.example.com", "api.example.com", "x.y.api.example.com", "example.com"]
)
def test_platforms_own_hosts_are_refused(host: str) -> None:
    with pytest.raises(InvalidInputError, match="reserved"):
        _valid(host)


def test_name_that_only_ends_alike_is_not_the_platforms() -> None:
    assert _valid("myapi.example.com") == "myapi.example.com"
