"""Lends this machine's package-client settings to an image build, without leaving them in the image.

A build fetches packages where this machine does: the same mirrors, proxies and certificate authorities. Everything
is lent as a file or folder mounted for the build's duration; nothing becomes a layer or an environment variable of
the image. Caches are lent too, so that a second build is quick.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DEBIAN_SUITE", "AptSource", "Mount", "apt_sources", "certificates", "deb822", "debian_mirror", "mounts"]

DEBIAN_SUITE = "bookworm"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_SYSTEM_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_LENT_BUNDLE = "/run/lent/ca-certificates.crt"
"""Not the system's path: a build may install the package that writes there, and cannot replace a mounted file."""
_SETTING_SECONDS = 60
_BUILD_HOME = "/root"
"""Home of the user that a Dockerfile's commands run as, inside the image."""
_BUNDLE_VARIABLES = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
_PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout", "retries")
_NPM_NOT_LENT = ("cafile", "nodedir", "cache", "prefix", "globalconfig", "userconfig")
_GO_SETTINGS = ("GOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE", "GONOPROXY", "GOINSECURE")


@dataclass(frozen=True)
class Mount:
    """A file or folder of this machine that a build sees at ``target``."""

    source: Path
    target: str
    writable: bool = False

    def volume(self) -> str:
        """Return it as ``buildah --volume`` takes it."""
        return f"{self.source}:{self.target}:{'rw' if self.writable else 'ro'}"


@dataclass(frozen=True)
class AptSource:
    """One place that Debian packages come from."""

    uri: str
    suite: str


def mounts(clients: Sequence[str], folder: Path) -> list[Mount]:
    """Return what to lend to a build that uses the given package clients.

    Parameters
    ----------
    clients
        Any of apt, go, npm, pip.
    folder
        Where generated settings are written, for the caller alone, since they may hold a registry's token. It must
        live as long as the build, and no longer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    lent: list[Mount] = []
    bundle = certificates()
    if bundle is not None and clients:
        lent.append(Mount(bundle, _LENT_BUNDLE))
    makers = {"apt": _apt, "go": _go, "npm": _npm, "pip": _pip}
    for client in clients:
        lent += makers[client](folder, bundle)
    return lent


def certificates() -> Path | None:
    """Return the machine's bundle of certificate authorities, or None when it has none."""
    named = (os.environ.get(variable, "") for variable in _BUNDLE_VARIABLES)
    for candidate in (*named, _SYSTEM_BUNDLE, "/etc/pki/tls/certs/ca-bundle.crt"):
        if candidate and Path(candidate).is_file():
            return Path(candidate).resolve()
    return None


def apt_sources(folder: Path = Path("/etc/apt")) -> list[AptSource]:
    """Return the machine's package sources for the suite of our images; empty on another distribution."""
    found: list[AptSource] = []
    for file in [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*.list"))]:
        if file.is_file():
            lines = (re.sub(r"\[.*?\]", "", line).split() for line in file.read_text().splitlines())
            found += [AptSource(words[1], words[2]) for words in lines if words[:1] == ["deb"] and len(words) > 2]  # noqa: PLR2004 - deb URI SUITE
    for file in sorted((folder / "sources.list.d").glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", file.read_text()):
            fields = {key: value.split() for key, value in re.findall(r"(?m)^(\w[\w-]*):[ \t]*(.*)$", stanza)}
            if "no" not in fields.get("Enabled", []) and "deb" in fields.get("Types", []):
                found += [AptSource(uri, suite) for uri in fields.get("URIs", []) for suite in fields.get("Suites", [])]
    ours = {DEBIAN_SUITE, f"{DEBIAN_SUITE}-updates", f"{DEBIAN_SUITE}-security"}
    return list(dict.fromkeys(source for source in found if source.suite in ours))


def debian_mirror() -> str | None:
    """Return the machine's own mirror of the suite of our images; None on another distribution."""
    return next((source.uri for source in apt_sources() if source.suite == DEBIAN_SUITE), None)


def deb822(sources: Sequence[AptSource]) -> str:
    """Return package sources in apt's own format, signed by Debian's keyring."""
    return "\n".join(
        f"Types: deb\nURIs: {source.uri}\nSuites: {source.suite}\nComponents: main\nSigned-By: {_KEYRING}\n"
        for source in sources
    )


def _apt(folder: Path, bundle: Path | None) -> list[Mount]:
    lent: list[Mount] = []
    if sources := apt_sources():
        listed = folder / "sources.list.d"
        listed.mkdir(exist_ok=True)
        (listed / "debian.sources").write_text(deb822(sources))
        lent.append(Mount(listed, "/etc/apt/sources.list.d"))
        # In place of the base's own list, or apt would warn about every line twice.
        (folder / "sources.list").write_text("")
        lent.append(Mount(folder / "sources.list", "/etc/apt/sources.list"))
    settings = folder / "90machine"
    kept = []
    for file in sorted(Path("/etc/apt/apt.conf.d").glob("*")):
        # Only how to fetch: the machine's hooks name programs that an image does not have.
        kept += [line for line in file.read_text().splitlines() if re.match(r"\s*Acquire::[\w:-]+\s+\S.*;", line)]
    if bundle is not None:
        kept.append(f'Acquire::https::CaInfo "{_LENT_BUNDLE}";')
    settings.write_text("\n".join([*kept, ""]))
    lent.append(Mount(settings, "/etc/apt/apt.conf.d/90machine"))
    return lent


def _go(folder: Path, bundle: Path | None) -> list[Mount]:
    go = shutil.which("go")
    if go is None:
        return []
    settings = folder / "go-env"
    values = {name: _output([go, "env", name]) for name in (*_GO_SETTINGS, "GOMODCACHE", "GOCACHE")}
    settings.write_text("".join(f"{name}={values[name]}\n" for name in _GO_SETTINGS if values[name]))
    lent = [Mount(settings, f"{_BUILD_HOME}/.config/go/env")]
    if bundle is not None:  # Go looks at the system's path alone
        lent.append(Mount(bundle, _SYSTEM_BUNDLE))
    for name, target in (("GOMODCACHE", "/go/pkg/mod"), ("GOCACHE", f"{_BUILD_HOME}/.cache/go-build")):
        Path(values[name]).mkdir(parents=True, exist_ok=True)
        lent.append(Mount(Path(values[name]), target, writable=True))
    return lent


def _npm(folder: Path, bundle: Path | None) -> list[Mount]:
    own = Path.home() / ".npmrc"
    lines = own.read_text().splitlines() if own.is_file() else []
    kept = [line for line in lines if line.partition("=")[0].strip() not in _NPM_NOT_LENT]
    if bundle is not None:
        kept.append(f"cafile={_LENT_BUNDLE}")
    settings = folder / "npmrc"
    settings.write_text("\n".join([*kept, ""]))
    lent = [Mount(settings, f"{_BUILD_HOME}/.npmrc")]
    npm = shutil.which("npm")
    if npm is not None:
        cache = Path(_output([npm, "config", "get", "cache"]))
        cache.mkdir(parents=True, exist_ok=True)
        lent.append(Mount(cache, f"{_BUILD_HOME}/.npm", writable=True))
    return lent


def _pip(folder: Path, bundle: Path | None) -> list[Mount]:
    listed = _output([sys.executable, "-m", "pip", "config", "list"])
    values: dict[str, str] = {}
    for line in listed.splitlines():  # global.index-url='…' or :env:.index-url='…', the environment last
        name, _, value = line.partition("=")
        setting = name.rpartition(".")[2]
        if setting in _PIP_SETTINGS:
            values[setting] = value.strip("'\"")
    if bundle is not None:
        values["cert"] = _LENT_BUNDLE
    settings = folder / "pip.conf"
    settings.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in values.items()))
    cache = Path(os.environ.get("PIP_CACHE_DIR", Path.home() / ".cache" / "pip"))
    cache.mkdir(parents=True, exist_ok=True)
    return [Mount(settings, "/etc/pip.conf"), Mount(cache, f"{_BUILD_HOME}/.cache/pip", writable=True)]


def _output(command: Sequence[str]) -> str:
    """Return what a client says about its settings; a client that cannot say has none to lend."""
    finished = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=_SETTING_SECONDS, check=False
    )
    return finished.stdout.strip() if finished.returncode == 0 else ""
