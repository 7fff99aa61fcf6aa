"""How the WooCommerce image's build comes by its releases: the pinned ones, or none at all and the stand-in."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from devcluster.machine.paths import checkout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.contract

BUILD = checkout() / "images/woocommerce/build"
RELEASE = b"a release"
GIVEN = {
    "WORDPRESS_URL": "https://releases.example/wordpress.zip",
    "WORDPRESS_SHA256": "0" * 64,
    "WOOCOMMERCE_URL": "https://releases.example/woocommerce.zip",
    "WOOCOMMERCE_SHA256": "1" * 64,
}


class Releases(BaseHTTPRequestHandler):
    """Has one release and nothing else."""

    def do_GET(self) -> None:
        is_there = self.path == "/release.zip"
        self.send_response(200 if is_there else 404)
        self.end_headers()
        if is_there:
            self.wfile.write(RELEASE)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here; the image's build installs its own")
    with ThreadingHTTPServer(("127.0.0.1", 0), Releases) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(timeout=10)


def script(name: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", BUILD / name, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"], "no_proxy": "127.0.0.1", **environment},
    )


def test_releases_are_official_and_none_is_the_stand_in() -> None:
    assert script("flavour.sh", **GIVEN).stdout == "official\n"
    assert script("flavour.sh").stdout == "stand-in\n"
    assert script("flavour.sh", **dict.fromkeys(GIVEN, "")).stdout == "stand-in\n"


@pytest.mark.parametrize("missing", sorted(GIVEN))
def test_part_of_the_arguments_is_a_mistake_and_no_stand_in(missing: str) -> None:
    refused = script("flavour.sh", **{name: text for name, text in GIVEN.items() if name != missing})
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert f"missing: {missing}" in refused.stderr


def test_pinned_release_is_taken(address: str, tmp_path: Path) -> None:
    file = tmp_path / "release.zip"
    fetched = script("fetch.sh", f"{address}/release.zip", hashlib.sha256(RELEASE).hexdigest(), str(file))
    assert fetched.returncode == 0, fetched.stderr
    assert file.read_bytes() == RELEASE


@pytest.mark.parametrize(
    ("path", "digest", "said"),
    [
        ("/release.zip", "0" * 64, f"has the sha256 {hashlib.sha256(RELEASE).hexdigest()}, not {'0' * 64}"),
        ("/gone.zip", "0" * 64, "cannot be fetched"),
        ("/release.zip", "latest", "is no sha256"),
    ],
)
def test_any_other_release_fails_the_build(address: str, tmp_path: Path, path: str, digest: str, said: str) -> None:
    file = tmp_path / "release.zip"
    refused = script("fetch.sh", f"{address}{path}", digest, str(file))
    assert refused.returncode != 0
    assert said in refused.stderr
    assert not file.exists()
