"""The builder against a recorded Docker client: what it asks for, and what it keeps. Buildah runs in `make images`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devcluster.images.builder import BuiltImage, build_all
from devcluster.machine.errors import DevclusterError

if TYPE_CHECKING:
    from pathlib import Path

DOCKER = """\
#!/bin/sh
echo "$@" >> "$CALLS"
case "$1" in
  info) echo '{"ServerVersion": "28.0"}' ;;
  build) [ ! -e "$BROKEN" ] || { echo "no space left"; exit 1; } ;;
  image) [ "$2" = rm ] || exit 1 ;;
  save) echo archive > "$3" ;;
esac
"""
CATALOGUE = """\
[helper]
inputs = ["images/helper"]
pods = false
[app]
inputs = ["images/app"]
parents = { HELPER = "helper" }
"""


class Docker:
    """A checkout of two images, and what the client was asked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = folder / "checkout"
        self.calls_file = folder / "calls"
        self.broken = folder / "broken"
        self.cache = folder / "cache" / "images"
        for name, base in (("helper", "scratch"), ("app", "debian:bookworm-slim")):
            (self.root / "images" / name).mkdir(parents=True)
            (self.root / "images" / name / "Dockerfile").write_text(f"FROM {base}\n")
        (self.root / "images" / "images.toml").write_text(CATALOGUE)
        program = folder / "bin" / "docker"
        program.parent.mkdir()
        program.write_text(DOCKER)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
        monkeypatch.setenv("CALLS", str(self.calls_file))
        monkeypatch.setenv("BROKEN", str(self.broken))
        monkeypatch.setenv("STOREPLANE_CACHE", str(folder / "cache"))

    def build(self, *names: str) -> dict[str, BuiltImage]:
        self.calls_file.write_text("")
        return build_all(names or None, root=self.root)

    def built(self) -> list[str]:
        """Return the names of the images that were built since the last call of ``build``, in order."""
        calls = [line.split() for line in self.calls_file.read_text().splitlines()]
        return [words[2].rpartition("/")[2].partition(":")[0] for words in calls if words[0] == "build"]

    def change(self, name: str, text: str) -> None:
        (self.root / "images" / name / "content").write_text(text)


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    return Docker(tmp_path, monkeypatch)


def test_images_are_built_parents_first_and_only_those_of_pods_are_returned(docker: Docker) -> None:
    images = docker.build()
    assert docker.built() == ["helper", "app"]
    assert list(images) == ["app"]
    name, _, tag = images["app"].reference.partition(":")
    assert name == "storeplane.local/app"
    assert len(tag) == 16
    assert images["app"].archive.read_text() == "archive\n"


def test_nothing_is_built_when_nothing_changed(docker: Docker) -> None:
    first = docker.build()
    assert docker.build() == first
    assert docker.built() == []


def test_only_what_changed_is_built(docker: Docker) -> None:
    first = docker.build()
    docker.change("app", "1")
    assert docker.build()["app"].reference != first["app"].reference
    assert docker.built() == ["app"]


def test_a_changed_parent_builds_its_children(docker: Docker) -> None:
    docker.build()
    docker.change("helper", "1")
    docker.build()
    assert docker.built() == ["helper", "app"]


def test_a_missing_parent_is_not_built_when_no_child_needs_it(docker: Docker) -> None:
    docker.build()
    for archive in docker.cache.glob("helper-*.tar"):
        archive.unlink()
    docker.build()
    assert docker.built() == []


def test_a_failed_build_names_the_image_and_its_log_and_leaves_no_archive(docker: Docker) -> None:
    docker.broken.touch()
    with pytest.raises(DevclusterError) as failed:
        docker.build("helper")
    assert "helper" in failed.value.message
    assert "no space left" in failed.value.render()
    assert list(docker.cache.glob("*.tar")) == []
    docker.broken.unlink()
    assert docker.build("helper")["helper"].archive.exists()


def test_the_newest_three_archives_are_kept(docker: Docker) -> None:
    kept = []
    for number in range(5):
        docker.change("helper", str(number))
        kept.append(docker.build("helper")["helper"].archive)
    assert set(docker.cache.glob("helper-*.tar")) == set(kept[-3:])


def test_an_unknown_name_is_refused_with_the_list(docker: Docker) -> None:
    with pytest.raises(DevclusterError) as refused:
        docker.build("nope")
    assert "nope" in refused.value.message
    assert "app" in refused.value.remedy
