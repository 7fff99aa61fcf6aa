"""Brings up all of Storeplane for development: a cluster, the images, and the chart installed in it.

Every step looks first and does only what is missing, so that a second run takes seconds and a run after a crash mends.
"""

import http.client
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from demo import release
from demo.kubectl import Kubectl
from devcluster.kubernetes.cluster import Cluster
from devcluster.kubernetes.control_plane import API_PORT
from devcluster.kubernetes.prebuild import build_everything
from devcluster.machine.errors import DevclusterError
from devcluster.machine.locks import exclusive
from devcluster.machine.packages import ensure_packages
from devcluster.machine.progress import note
from devcluster.sources.choice import DevclusterSource, choose_source

__all__ = ["Platform", "as_new_user", "current", "install", "kubectl_of", "up"]

_ENGINES = {
    "medusa": {"server": "medusa", "postgres": "postgres", "redis": "redis", "storefront": "medusa-storefront"},
    "woocommerce": {"server": "woocommerce", "mariadb": "mariadb"},
}
"""By engine and by its chart's name for an image: the image's name in images.toml."""
_READY_SECONDS = 30
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Platform:
    """A running Storeplane."""

    name: str
    url: str
    """Of the API."""
    token: str = field(repr=False)
    """The administrator's."""
    shops_port: int
    """The loopback port that every shop's host name is served on."""
    kubeconfig: Path
    kubectl: Path


def kubectl_of(name: str) -> Kubectl:
    """Return kubectl for a development cluster."""
    cluster = Cluster(name)
    return Kubectl(cluster.kubectl(), cluster.paths.kubeconfig)


def current(name: str) -> Platform:
    """Return the platform that ``up`` brought up; starts nothing.

    Raises
    ------
    DevclusterError
        If there is none.
    """
    cluster = Cluster(name)
    token = release.administrator_token(kubectl_of(name)) if cluster.paths.kubeconfig.exists() else None
    if token is None:
        raise DevclusterError(f"Storeplane is not up on the cluster {name!r}", remedy=f"run `make up NAME={name}`")
    settings = cluster.settings
    return Platform(
        name=name,
        url=f"http://127.0.0.1:{settings.api_port}",
        token=token,
        shops_port=settings.shops_port,
        kubeconfig=cluster.paths.kubeconfig,
        kubectl=cluster.kubectl(),
    )


def up(name: str, overrides: Mapping[str, Any] | None = None) -> Platform:
    """Bring everything up and return when the API is ready.

    Parameters
    ----------
    overrides
        Values of the chart beside the usual ones.

    Raises
    ------
    DevclusterError
        If a part does not come up, with the end of its log.
    """
    source = choose_source(name)
    note(source.describe())
    if not isinstance(source, DevclusterSource):
        raise DevclusterError(
            "`make up` reaches the API and the shops through ports that only a cluster of our own has",
            remedy="use CLUSTER=devcluster, or install charts/storeplane with Helm and values of your own",
        )
    ensure_packages()
    images = build_everything()
    source.up()
    source.load([image.archive for image in images.values()])
    return install(name, {each: image.reference for each, image in images.items()}, overrides)


def as_new_user(platform: Platform, name: str, *options: str) -> Platform:
    """Add a user and return the platform as they see it.

    Parameters
    ----------
    options
        Of ``storeplane users add``, such as ``"--role", "operator"``.

    Raises
    ------
    DevclusterError
        If the command fails, with its words.
    """
    command = ("storeplane", "users", "add", name, *options)
    token = kubectl_of(platform.name).do(
        "exec", "deployment/storeplane", f"--namespace={release.NAMESPACE}", "--", *command
    )
    return replace(platform, token=token.strip())


def install(name: str, images: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> Platform:
    """Install Storeplane on a cluster that is up, or upgrade it in place, and return once it has rolled out.

    Parameters
    ----------
    images
        Names as in images.toml to references that are loaded: those of every engine, ``controlplane``,
        ``provisioner`` and ``postgres``.
    overrides
        Values of the chart that win, such as ``{"image": {"provisioner": reference}}``.

    Raises
    ------
    DevclusterError
        As ``up``.
    """
    cluster = Cluster(name)
    # The product's own port on the node, whatever the API's port led to before.
    cluster.lead_api_to("")
    # A policy judges by where a packet arrives: names and the API server are processes of the first node.
    first_node = f"{cluster.network.node_address(1)}/32"
    values: dict[str, Any] = {
        "image": {
            "controlplane": images["controlplane"],
            "provisioner": images["provisioner"],
            "postgres": images["postgres"],
            "engines": {
                engine: {part: images[image] for part, image in parts.items()} for engine, parts in _ENGINES.items()
            },
        },
        "stores": {"urlPort": cluster.settings.shops_port, "network": {"dnsCidr": first_node}},
        "networkPolicy": {
            "dns": [{"ipBlock": {"cidr": first_node}}],
            "apiServer": {"cidrs": [first_node], "ports": [API_PORT]},
        },
    }
    with exclusive(cluster.paths.home / "install.lock", "installing Storeplane"):
        release.install(kubectl_of(name), _merged(values, overrides or {}))
    platform = current(name)
    _await_ready(cluster.settings.api_port)
    return platform


def _merged(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with `over` laid on them, level by level."""
    merged = dict(values)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = _merged(below, value)
        else:
            merged[key] = value
    return merged


def _await_ready(port: int) -> None:
    """Wait until the API answers where a person asks: the node hears of its pods a moment after they are ready."""
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except (OSError, http.client.HTTPException):
            pass  # not led there yet
        finally:
            connection.close()
        if time.monotonic() > deadline:
            raise DevclusterError(
                f"the control plane is ready, but 127.0.0.1:{port} does not lead to it after {_READY_SECONDS} s",
                remedy="`devcluster status` shows whether the forwarder runs",
            )
        time.sleep(_POLL_SECONDS)
