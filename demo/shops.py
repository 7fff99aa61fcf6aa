"""What a customer's program asks a shop, by its kind: demonstrations and benchmarks stand in for such programs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["SHOPS", "Shop"]


@dataclass(frozen=True)
class Shop:
    """One kind of shop, seen from outside."""

    products_path: str
    products_in: Callable[[Any], list[dict[str, Any]]]
    """Picks the products out of the answer."""
    title: str
    """Name of a product's own name."""
    credentials: Mapping[str, str] = field(default_factory=dict)
    """Headers that customers' programs send, by the name that the store's credentials have for their text."""


SHOPS = {
    "medusa": Shop(
        "/store/products",
        lambda answer: list(answer["products"]),
        title="title",
        credentials={"x-publishable-api-key": "publishable_key"},
    ),
    "woocommerce": Shop("/wp-json/wc/store/v1/products", list, title="name"),
}
