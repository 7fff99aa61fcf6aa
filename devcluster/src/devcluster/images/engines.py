"""The two programs that build images: Docker's engine where one runs, else buildah with a storage of its own.

Buildah works in a folder of the cache and in mount and process namespaces of each command's own: a killed build
leaves no mount and no process, and nothing of the machine's own containers is seen or touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Protocol

from devcluster.images.bases import base_key, make_base
from devcluster.images.clients import mounts
from devcluster.machine.docker import docker_answers
from devcluster.machine.errors import DevclusterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from devcluster.images.catalogue import Image

__all__ = ["Buildah", "Docker", "Engine", "choose"]

_BUILD_SECONDS = 30 * 60
"""Three times the slowest image on two busy cores with empty caches."""
_COMMAND_SECONDS = 10 * 60
_INFO_SECONDS = 20
_STORAGE_LIMIT_BYTES = 20 * 1024**3
"""The storage holds layers of earlier builds; beyond this it begins anew, which costs one cold build."""


class Engine(Protocol):
    """What builds images; not shared between processes (the caller holds a lock)."""

    def base_keys(self, bases: Sequence[str]) -> dict[str, str]:
        """Return what identifies the content of each foreign base."""
        ...

    def prepare(self, bases: Sequence[str]) -> None:
        """Make the bases available to builds, and clear what a killed build left."""
        ...

    def has(self, reference: str) -> bool:
        """Return whether the image is in the engine's storage."""
        ...

    def read(self, archive: Path) -> None:
        """Put an archive's image into the engine's storage."""
        ...

    def build(self, image: Image, *, reference: str, context: Path, arguments: Mapping[str, str], log: Path) -> None:
        """Build one image."""
        ...

    def write(self, reference: str, archive: Path, log: Path) -> None:
        """Write an image as an archive."""
        ...

    def remove(self, reference: str) -> None:
        """Forget an image; absent is fine."""
        ...


def choose(work: Path, *, lock: int) -> Engine:
    """Return Docker when its engine answers, else buildah.

    Parameters
    ----------
    work
        Folder for buildah's storage and unfinished work.
    lock
        Descriptor of the held lock; children inherit it, so that an orphan of a killed build keeps the next one out.

    Raises
    ------
    DevclusterError
        If neither can work here.
    """
    if docker_answers():
        return Docker()
    if shutil.which("buildah") is None:
        raise DevclusterError(
            "there is neither a running Docker engine nor buildah to build images with",
            remedy="apt-get install -y buildah debootstrap",
        )
    if os.geteuid() != 0:
        raise DevclusterError("building images without Docker needs root", remedy="run the command with sudo")
    return Buildah(work, lock=lock)


class Docker:
    """A running Docker engine. It pulls the bases itself and brings its own package-client settings."""

    def base_keys(self, bases: Sequence[str]) -> dict[str, str]:
        """Return the tags themselves: what Docker pulls under them is Docker's affair."""
        return {base: f"docker {base}" for base in bases}

    def prepare(self, bases: Sequence[str]) -> None:
        """Do nothing: the engine keeps itself clean."""

    def has(self, reference: str) -> bool:
        """Return whether the engine has the image."""
        return _ok(["docker", "image", "inspect", reference])

    def read(self, archive: Path) -> None:
        """Load an archive."""
        _run(["docker", "load", "--quiet", "--input", str(archive)], log=_beside(archive))

    def build(self, image: Image, *, reference: str, context: Path, arguments: Mapping[str, str], log: Path) -> None:
        """Build with the engine's default builder."""
        command = ["docker", "build", "--tag", reference, "--file", str(context / image.dockerfile)]
        for name, value in arguments.items():
            command += ["--build-arg", f"{name}={value}"]
        _run([*command, str(context)], log=log, seconds=_BUILD_SECONDS)

    def write(self, reference: str, archive: Path, log: Path) -> None:
        """Save the image."""
        _run(["docker", "save", "--output", str(archive), reference], log=log)

    def remove(self, reference: str) -> None:
        """Untag the image."""
        _ok(["docker", "image", "rm", reference])


class Buildah:
    """Buildah as root, chroot isolation, overlay storage in a folder of our own, bases made on this machine."""

    def __init__(self, work: Path, *, lock: int) -> None:
        self._storage = work / "storage"
        self._run_root = work / "run"
        self._scratch = work / "unfinished"
        self._lock = lock

    def base_keys(self, bases: Sequence[str]) -> dict[str, str]:
        """Return the key of each base's recipe."""
        return {base: base_key(base) for base in bases}

    def prepare(self, bases: Sequence[str]) -> None:
        """Clear what a killed build left, and make the bases that are missing."""
        for leftover in (self._run_root, self._scratch):
            shutil.rmtree(leftover, ignore_errors=True)
        if self._storage.exists() and _size(self._storage) > _STORAGE_LIMIT_BYTES:
            shutil.rmtree(self._storage)
        for folder in (self._storage, self._run_root, self._scratch):
            folder.mkdir(parents=True, exist_ok=True)
        # Also the reason a base is found by its own name: nothing asks a registry, on any machine.
        (self._storage.parent / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{self._storage}"\nrunroot = "{self._run_root}"\n'
            '[storage.options.overlay]\nskip_mount_home = "true"\n'
        )
        self._buildah(["rm", "--all"], log=self._scratch / "rm.log")
        for base in bases:
            make_base(base, self, self._scratch)

    def has(self, reference: str) -> bool:
        """Return whether the storage has the image."""
        return _ok(["buildah", "inspect", "--type", "image", reference], environment=self._environment())

    def read(self, archive: Path) -> None:
        """Load an archive into the storage."""
        self._buildah(["pull", f"docker-archive:{archive}"], log=_beside(archive))

    def build(self, image: Image, *, reference: str, context: Path, arguments: Mapping[str, str], log: Path) -> None:
        """Build with the machine's package-client settings lent to it."""
        clients = self._scratch / f"clients-{image.name}"
        try:
            lent = mounts(image.clients, clients)
            options = [
                *(word for mount in lent for word in ("--volume", mount.volume())),
                *(word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")),
            ]
            self.bud(context, context / image.dockerfile, reference, log=log, options=options)
        finally:
            shutil.rmtree(clients, ignore_errors=True)

    def bud(self, context: Path, dockerfile: Path, reference: str, *, log: Path, options: Sequence[str] = ()) -> None:
        """Build a Dockerfile under a name; layers of earlier builds are used again."""
        command = ["bud", "--isolation", "chroot", "--network", "host", "--pull-never", "--layers"]
        self._buildah(
            [*command, *options, "--tag", reference, "--file", str(dockerfile), str(context)],
            log=log,
            seconds=_BUILD_SECONDS,
        )

    def tag(self, reference: str, name: str) -> None:
        """Give an image one more name."""
        self._buildah(["tag", reference, name], log=self._scratch / "tag.log")

    def write(self, reference: str, archive: Path, log: Path) -> None:
        """Write the image uncompressed: it is read from a local disk, where compression only costs time."""
        self._buildah(["push", "--quiet", reference, f"docker-archive:{archive}:{reference}"], log=log)

    def remove(self, reference: str) -> None:
        """Remove the image from the storage."""
        _ok(["buildah", "rmi", reference], environment=self._environment())

    def _environment(self) -> dict[str, str]:
        temporary = self._scratch / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        return {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(self._storage.parent / "storage.conf"),
            "TMPDIR": str(temporary),  # else whole layers go to /var/tmp
        }

    def _buildah(self, words: Sequence[str], *, log: Path, seconds: int = _COMMAND_SECONDS) -> None:
        own_namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        _run(
            [*own_namespaces, "buildah", *words],
            log=log,
            seconds=seconds,
            environment=self._environment(),
            keep_open=[self._lock],
        )


def _run(
    command: Sequence[str],
    *,
    log: Path,
    seconds: int = _COMMAND_SECONDS,
    environment: Mapping[str, str] | None = None,
    keep_open: Sequence[int] = (),
) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        output.write(f"$ {' '.join(command)}\n".encode())
        output.flush()
        try:
            finished = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=keep_open,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DevclusterError(
                f"{command[0]} took more than {seconds} s and was ended", log=log, remedy="see the log, then try again"
            ) from error
    if finished.returncode != 0:
        raise DevclusterError(
            f"a build command failed with exit code {finished.returncode}", log=log, remedy="mend what the log names"
        )


def _ok(command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> bool:
    asked = subprocess.run(command, capture_output=True, env=environment, timeout=_COMMAND_SECONDS, check=False)
    return asked.returncode == 0


def _beside(archive: Path) -> Path:
    return archive.parent / "log" / f"{archive.stem}.read.log"


def _size(folder: Path) -> int:
    counted = subprocess.run(["du", "-sb", str(folder)], capture_output=True, timeout=_COMMAND_SECONDS, check=False)
    return int(counted.stdout.split()[0]) if counted.stdout else 0
