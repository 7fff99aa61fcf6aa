"""A shop's visitor: one request at a time, by the shop's own host name, connected to by number."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Page", "visit"]

_SECONDS = 30


@dataclass(frozen=True)
class Page:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    """The last of each name."""
    cookies: tuple[str, ...]
    """Each as `name=value`."""
    text: str


def visit(  # noqa: PLR0913 -- a request has that many parts
    shops_port: int,
    url: str,
    path: str,
    *,
    method: str = "GET",
    form: str | None = None,
    cookies: tuple[str, ...] = (),
) -> Page:
    """Ask the shop at `url` for a path, follow no redirect.

    Raises
    ------
    OSError, http.client.HTTPException
        Nobody answered.
    """
    connection = http.client.HTTPConnection("127.0.0.1", shops_port, timeout=_SECONDS)
    try:
        headers = {"Host": urlsplit(url).netloc}
        if cookies:
            headers["Cookie"] = "; ".join(cookies)
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request(method, path, form, headers)
        response = connection.getresponse()
        given = tuple(each.partition(";")[0] for each in response.headers.get_all("Set-Cookie") or ())
        return Page(response.status, dict(response.headers), given, response.read().decode("utf-8", "replace"))
    finally:
        connection.close()
