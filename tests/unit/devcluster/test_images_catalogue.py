from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from devcluster.images.bases import base_key
from devcluster.images.catalogue import Image, content_key, foreign_bases, input_files, load, stage_context
from devcluster.machine.errors import DevclusterError
from devcluster.machine.paths import checkout

if TYPE_CHECKING:
    from pathlib import Path

DOCKERFILE = """\
ARG PARENT
FROM ${PARENT} AS first
FROM --platform=linux/amd64 debian:bookworm-slim AS build
FROM build
COPY images/app/run.sh /run.sh
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images" / "app"
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "run.sh").write_text("#!/bin/sh\n")
    return tmp_path


def write_catalogue(root: Path, text: str) -> None:
    (root / "images" / "images.toml").write_text(text)


def app(root: Path, parent: str = "") -> Image:
    write_catalogue(root, f'[app]\ninputs = ["images/app"]\n{parent}')
    return load(root)["app"]


def key(root: Path, *, base: str = "b1", parent: str = "p1") -> str:
    image = Image("app", "images/app/Dockerfile", ("images/app",), (), {"PARENT": "parent"}, pods=True)
    return content_key(root, image, bases={"debian:bookworm-slim": base}, parents={"parent": parent})


def test_foreign_bases_are_neither_stages_nor_parents(root: Path) -> None:
    assert foreign_bases(root, app(root)) == ["debian:bookworm-slim"]


def test_key_stays_when_nothing_that_counts_changed(root: Path) -> None:
    before = key(root)
    os.utime(root / "images/app/run.sh", (1, 1))
    (root / "images/app/__pycache__").mkdir()
    (root / "images/app/__pycache__/x.pyc").write_bytes(b"x")
    (root / "elsewhere.txt").write_text("not an input")
    assert key(root) == before


def test_key_changes_with_everything_the_image_is_made_of(root: Path) -> None:
    keys = [key(root), key(root, base="b2"), key(root, parent="p2")]
    (root / "images/app/run.sh").chmod(0o755)
    keys.append(key(root))
    (root / "images/app/run.sh").write_text("#!/bin/sh\nexit 1\n")
    keys.append(key(root))
    (root / "images/app/run.sh").rename(root / "images/app/walk.sh")
    keys.append(key(root))
    (root / "images/app/Dockerfile").write_text(DOCKERFILE + "USER 1\n")
    keys.append(key(root))
    assert len(set(keys)) == len(keys)


def test_staged_context_holds_the_inputs_alone_with_one_time_for_all(root: Path, tmp_path: Path) -> None:
    (root / "secret.txt").write_text("not an input")
    image = app(root)
    target = tmp_path / "context"
    stage_context(root, image, target)
    staged = sorted(path.relative_to(target) for path in target.rglob("*") if path.is_file())
    assert staged == input_files(root, image)
    assert {path.stat().st_mtime for path in target.rglob("*")} == {1_577_836_800}


def test_parents_come_first(root: Path) -> None:
    write_catalogue(
        root, '[child]\ndockerfile="images/app/Dockerfile"\ninputs=[]\nparents={A="app"}\n[app]\ninputs=[]\n'
    )
    assert list(load(root)) == ["app", "child"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[app]\ninputs = ["images/none"]\n', "images/none, which is not there"),
        ("[app]\ninputs = []\nimputs = []\n", "unknown keys ['imputs']"),
        ('[app]\ninputs = []\nparents = { A = "app" }\n', "go in a circle: app"),
        ('[app]\ninputs = []\nparents = { A = "none" }\n', "parents are missing"),
    ],
)
def test_catalogue_is_refused_with_the_cause_when_it_is_wrong(root: Path, text: str, said: str) -> None:
    write_catalogue(root, text)
    with pytest.raises(DevclusterError) as refused:
        load(root)
    assert said in refused.value.message


def test_every_base_of_the_checkout_has_a_recipe() -> None:
    with pytest.raises(DevclusterError, match="no recipe"):
        base_key("alpine:3")
    bases = {base for image in load(checkout()).values() for base in foreign_bases(checkout(), image)}
    assert all(base.partition(":")[0] in {"debian", "node", "golang"} for base in bases)
    assert len(base_key("debian:bookworm-slim")) == 16


def test_every_image_runs_as_a_numeric_user_that_is_not_root() -> None:
    # Kubernetes can only check "not root" when the image's user is a number.
    for image in load(checkout()).values():
        lines = (checkout() / image.dockerfile).read_text().splitlines()
        users = [line.split()[1] for line in lines if line.startswith("USER ")]
        assert users, image.name
        assert int(users[-1].partition(":")[0]) > 0


def test_lock_files_name_no_address() -> None:
    assert '"resolved"' not in (checkout() / "images/medusa/package-lock.json").read_text()
