from __future__ import annotations

from typing import TYPE_CHECKING

from devcluster.images.clients import AptSource, apt_sources, deb822, mounts

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

ONE_LINE = """\
# deb http://commented.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/x.gpg] http://mirror.example/debian bookworm main contrib
deb-src http://mirror.example/debian bookworm main
deb http://other.example/apt cloud-bookworm main
"""
STANZAS = """\
Types: deb
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://mirror.example/security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://mirror.example/ubuntu
Suites: noble
Components: main
"""


def test_apt_sources_reads_both_formats_and_our_suite_alone(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(ONE_LINE)
    (tmp_path / "sources.list.d" / "debian.sources").write_text(STANZAS)
    (tmp_path / "sources.list.d" / "ignored.sources.disabled").write_text(STANZAS.replace("mirror", "disabled"))
    assert apt_sources(tmp_path) == [
        AptSource("http://mirror.example/debian", "bookworm"),
        AptSource("http://mirror.example/debian", "bookworm-updates"),
        AptSource("http://mirror.example/security", "bookworm-security"),
    ]


def test_apt_sources_are_read_again_from_what_deb822_writes(tmp_path: Path) -> None:
    sources = [AptSource("http://a.example/debian", "bookworm"), AptSource("http://b.example/s", "bookworm-security")]
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "x.sources").write_text(deb822(sources))
    assert apt_sources(tmp_path) == sources


def test_another_distribution_lends_no_sources(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://mirror.example/ubuntu noble main\n")
    assert apt_sources(tmp_path) == []


def test_pip_is_lent_the_index_and_the_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "bundle.crt"
    bundle.write_text("certificates")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "/a/folder/of/this/machine")
    lent = {mount.target: mount for mount in mounts(["pip"], tmp_path / "lent")}
    settings = lent["/etc/pip.conf"].source.read_text()
    assert "index-url = https://index.example/simple" in settings
    assert "cert = /run/lent/ca-certificates.crt" in settings
    assert "find-links" not in settings
    assert lent["/run/lent/ca-certificates.crt"].source == bundle


def test_a_build_without_package_clients_is_lent_nothing(tmp_path: Path) -> None:
    assert mounts([], tmp_path / "lent") == []


def test_settings_with_a_token_are_closed_to_other_users(tmp_path: Path) -> None:
    mounts(["npm"], tmp_path / "lent")
    assert (tmp_path / "lent").stat().st_mode & 0o077 == 0


def test_only_caches_are_writable(tmp_path: Path) -> None:
    for mount in mounts(["apt", "pip"], tmp_path / "lent"):
        assert mount.writable is ("/.cache/" in mount.target)
        assert mount.volume().endswith(":rw" if mount.writable else ":ro")
