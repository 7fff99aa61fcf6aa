"""A built image as a folder, and its programs run in it: the image itself, with what a pod would give it.

The root is read-only, the user is the pod's, the program is process 1 of its namespace, and only the given folders can
be written to. The network is this machine's, so a test tells every server to listen on the loopback.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster.images.builder import build_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Contained", "ImageRoot", "unpacked"]

_WHITEOUT = ".wh."
_SECONDS = 120
_ENTER = """\
set -eu
root=$1 user=$2 volumes=$3
shift 3
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
while read -r source target; do
  if [ -n "$source" ]; then mount --bind "$source" "$root$target"; fi
done < "$volumes"
exec chroot "$root" setpriv --reuid="$user" --regid="$user" --clear-groups --no-new-privs --bounding-set=-all \\
  --pdeathsig=KILL "$@"
"""
"""With the last word, as the change of user forgets who dies with whom."""


@dataclass(frozen=True)
class Contained:
    """A program that runs in an image's root."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        """Return what it has written so far, to both of its outputs."""
        return self.log.read_text(errors="replace")

    def pid(self) -> int:
        """Return the number, on this machine, of the program itself."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        assert children, "it has not begun yet"
        return int(children[0])

    def kill(self) -> None:
        """End it and everything it has started, without warning."""
        self.process.kill()
        self.process.wait(timeout=10)


@dataclass(frozen=True)
class ImageRoot:
    """An image's file system."""

    folder: Path
    config: Mapping[str, object]
    """As the image says: Labels, Entrypoint, Env and others."""

    @contextlib.contextmanager
    def started(
        self,
        words: Sequence[str],
        *,
        work: Path,
        user: int,
        environment: Mapping[str, str],
        volumes: Mapping[Path, str],
    ) -> Iterator[Contained]:
        """Run a program until the block ends.

        Parameters
        ----------
        words
            The command; the image's own entry point is not added.
        work
            Folder of the test, for the log.
        user
            Number of user and group.
        environment
            All the program gets, beside what the image sets.
        volumes
            Folders of this machine and where the program sees them.
        """
        for source in volumes:
            shutil.chown(source, user, user)
        log = work / f"log-{len(list(work.glob('log-*')))}"
        listed = log.with_name(f"volumes-of-{log.name}")
        listed.write_text("".join(f"{source} {target}\n" for source, target in volumes.items()))
        own = self.config.get("Env")
        settings = [*(own if isinstance(own, list) else []), *(f"{name}={text}" for name, text in environment.items())]
        with log.open("ab") as output:
            # The program opens its outputs again, by their names.
            shutil.chown(log, user, user)
            process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"),
                    *("sh", "-c", _ENTER, "sh", str(self.folder), str(user), str(listed)),
                    *("/usr/bin/env", "-i", *settings, *words),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        contained = Contained(process, log)
        try:
            yield contained
        finally:
            contained.kill()

    def run(
        self,
        words: Sequence[str],
        *,
        work: Path,
        user: int,
        environment: Mapping[str, str],
        volumes: Mapping[Path, str],
    ) -> tuple[int, str]:
        """Run a program to its end and return its exit code and what it wrote."""
        with self.started(words, work=work, user=user, environment=environment, volumes=volumes) as contained:
            code = contained.process.wait(timeout=_SECONDS)
            return code, contained.said()


@contextlib.contextmanager
def unpacked(name: str, folder: Path) -> Iterator[ImageRoot]:
    """Give an image of images.toml, built where it changed, as a folder below ``folder``."""
    archive = build_all([name])[name].archive
    root = folder / f"root-{name}"
    root.mkdir()
    root.chmod(0o755)
    with tarfile.open(archive) as tar:
        (manifest,) = json.loads(_text(tar, "manifest.json"))
        config = json.loads(_text(tar, manifest["Config"]))
        for layer in manifest["Layers"]:
            _lay(tar, layer, root)
    try:
        yield ImageRoot(root, config.get("config", {}))
    finally:
        shutil.rmtree(root)


def _text(tar: tarfile.TarFile, name: str) -> str:
    file = tar.extractfile(name)
    assert file is not None, f"the archive has no {name}"
    return file.read().decode()


def _lay(archive: tarfile.TarFile, layer: str, root: Path) -> None:
    """Put one layer over those below it: what it takes away goes first."""
    file = archive.extractfile(layer)
    assert file is not None, f"the archive has no {layer}"
    with tarfile.open(fileobj=file) as tar:
        members = []
        for member in tar.getmembers():
            path = Path(member.name)
            if not path.name.startswith(_WHITEOUT):
                members.append(member)
                continue
            gone = root / path.parent / path.name.removeprefix(_WHITEOUT)
            if gone.is_dir() and not gone.is_symlink():
                shutil.rmtree(gone)
            else:
                gone.unlink(missing_ok=True)
        # Owners by number: the names are the image's. S202: it is an image that this project has just built.
        tar.extractall(root, members=members, numeric_owner=True, filter="fully_trusted")  # noqa: S202
