"""Makes the base images that Dockerfiles start from, where no registry can be asked for them.

``debian:bookworm-slim`` comes from debootstrap; ``node`` and ``golang`` are that plus this machine's own Node and Go,
at the paths of the official images. So the Dockerfiles are the same as on Docker.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from devcluster.images.clients import DEBIAN_SUITE, debian_mirror
from devcluster.machine.errors import DevclusterError
from devcluster.machine.paths import cache_dir
from devcluster.machine.progress import step

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["base_key", "make_base"]

_RECIPE = "bases/1"
"""Change it when a recipe below changes: everything above the base is then made anew."""
_DEBIAN = f"debian:{DEBIAN_SUITE}-slim"
_NODE = f"node:20-{DEBIAN_SUITE}-slim"
_GOLANG = f"golang:1.26-{DEBIAN_SUITE}"
_COMMAND_SECONDS = 15 * 60
_VERSION_SECONDS = 60

_SLIM = """\
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/groff/*
path-exclude /usr/share/info/*
path-exclude /usr/share/linda/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
"""
"""What the official slim image leaves out, so that packages installed later leave it out too."""

_GO_RECIPE = "go/2"
"""The same for the golang base alone."""

_BOOTSTRAP = """\
set -eu
root=$1 archive=$2 suite=$3 slim=$4 mirror=$5
debootstrap --variant=minbase "$suite" "$root" ${mirror:+"$mirror"}
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/dev/* "$root"/tmp/*
rm -rf "$root"/usr/share/groff "$root"/usr/share/info/* "$root"/usr/share/lintian "$root"/usr/share/locale/*
rm -rf "$root"/usr/share/man/*
find "$root"/usr/share/doc -mindepth 2 -not -name copyright -not -type d -delete
rm -f "$root"/etc/resolv.conf "$root"/etc/hostname
cp "$slim" "$root"/etc/dpkg/dpkg.cfg.d/slim
tar --create --numeric-owner --file "$archive" --directory "$root" .
rm -rf "$root"
"""


class Builder(Protocol):
    """What this module needs of the engine."""

    def has(self, reference: str) -> bool:
        """Return whether the storage has the image."""
        ...

    def bud(self, context: Path, dockerfile: Path, reference: str, *, log: Path, options: Sequence[str] = ()) -> None:
        """Build a Dockerfile under a name."""
        ...

    def tag(self, reference: str, name: str) -> None:
        """Give an image one more name."""
        ...


def base_key(base: str) -> str:
    """Return what identifies the content of a base made on this machine.

    Raises
    ------
    DevclusterError
        If there is no recipe for it, or the program it is made of is not installed.
    """
    parts = [_RECIPE, base, _SLIM, _BOOTSTRAP]
    if base == _NODE:
        parts.append(_version(["node", "--version"], "install Node >= 20.19"))
        parts.append(_version(["npm", "--version"], "install npm"))
    elif base == _GOLANG:
        parts += [_GO_RECIPE, _version(["go", "env", "GOVERSION", "GOARCH"], "install Go >= 1.26")]
    elif base != _DEBIAN:
        raise DevclusterError(
            f"there is no recipe for the base image {base}", remedy=f"start from one of {_DEBIAN}, {_NODE}, {_GOLANG}"
        )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def make_base(base: str, engine: Builder, scratch: Path) -> None:
    """Make a base unless it is there, and give it the name that Dockerfiles use.

    Parameters
    ----------
    base
        As in a Dockerfile's FROM.
    engine
        Builds and keeps it.
    scratch
        Folder for unfinished work; what is left in it is removed by the next build.
    """
    reference = f"storeplane.local/base/{base.partition(':')[0]}:{base_key(base)}"
    if not engine.has(reference):
        if base != _DEBIAN:
            make_base(_DEBIAN, engine, scratch)
        log = cache_dir("images", "log") / f"base-{reference.rpartition('/')[2].replace(':', '-')}.log"
        log.write_text("")
        context = scratch / f"base-{base.partition(':')[0]}"
        context.mkdir(parents=True)
        with step(f"base image {base}"):
            makers = {_DEBIAN: _debian, _NODE: _node, _GOLANG: _golang}
            (context / "Dockerfile").write_text(makers[base](context, log))
            engine.bud(context, context / "Dockerfile", reference, log=log)
        shutil.rmtree(context)
    engine.tag(reference, f"docker.io/library/{base}")


def _debian(context: Path, log: Path) -> str:
    slim = context / "slim"
    slim.write_text(_SLIM)
    # Without a mirror debootstrap asks Debian's own; it writes the one it used into the system it makes.
    arguments = [context / "root", context / "root.tar", DEBIAN_SUITE, slim, debian_mirror() or ""]
    # In namespaces of its own: debootstrap mounts /proc into the new system, and a killed one would leave it there.
    entry = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with log.open("ab") as output:
        finished = subprocess.run(
            [*entry, "sh", "-c", _BOOTSTRAP, "sh", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
    if finished.returncode != 0:
        raise DevclusterError("making the Debian base image failed", log=log, remedy="mend what the log names")
    return 'FROM scratch\nADD root.tar /\nCMD ["bash"]\n'


def _node(context: Path, _log: Path) -> str:
    node = Path(_which("node")).resolve()
    npm = Path(_which("npm")).resolve().parents[1]  # …/npm/bin/npm-cli.js
    shutil.copy2(node, context / "node")
    shutil.copytree(npm, context / "npm", symlinks=True)
    return (
        f"FROM {_DEBIAN}\n"
        "COPY node /usr/local/bin/node\n"
        "COPY npm /usr/local/lib/node_modules/npm\n"
        "RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm"
        " && ln -s ../lib/node_modules/npm/bin/npx-cli.js /usr/local/bin/npx && node --version && npm --version\n"
        'CMD ["node"]\n'
    )


def _golang(context: Path, _log: Path) -> str:
    root = Path(_version(["go", "env", "GOROOT"], "install Go >= 1.26"))
    # Only at the top: the library has packages of these names.
    left_out = {root / name for name in ("api", "doc", "test")}
    shutil.copytree(
        root,
        context / "go",
        symlinks=True,
        ignore=lambda folder, names: {name for name in names if Path(folder) / name in left_out},
    )
    return (
        f"FROM {_DEBIAN}\n"
        "COPY go /usr/local/go\n"
        "ENV PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        " GOPATH=/go GOTOOLCHAIN=local\n"
        "WORKDIR /go\n"
        "RUN go version\n"
    )


def _which(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise DevclusterError(f"{program} is not installed", remedy="`devcluster doctor` names the command")
    return found


def _version(command: Sequence[str], remedy: str) -> str:
    if shutil.which(command[0]) is None:
        raise DevclusterError(f"{command[0]} is not installed", remedy=remedy)
    said = subprocess.run(
        command, capture_output=True, text=True, timeout=_VERSION_SECONDS, check=True, cwd="/", env=os.environ
    )
    return said.stdout.strip()
