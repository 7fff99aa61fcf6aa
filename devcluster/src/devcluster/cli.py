"""The ``devcluster`` command: parses, calls, prints. Exit codes: 0 done, 1 failed, 2 wrong usage."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from devcluster.cluster import Cluster
from devcluster.errors import DevclusterError
from devcluster.paths import state_root
from devcluster.settings import Wish

__all__ = ["main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A real Kubernetes, and a real Postgres, in one command on any Debian-like machine.",
)

Name = Annotated[str, typer.Option(help="Which cluster: several live side by side.")]


@app.command()
def up(
    name: Name = "dev",
    nodes: Annotated[int | None, typer.Option(min=1, max=4, help="How many real nodes.")] = None,
    fake_nodes: Annotated[int | None, typer.Option(min=0, max=1000, help="How many simulated nodes (KWOK).")] = None,
    controller_qps: Annotated[
        int | None, typer.Option(min=1, max=10000, help="Requests a second of the controller manager.")
    ] = None,
) -> None:
    """Start the cluster, or heal it, and return when it is ready."""
    cluster = Cluster(name)
    cluster.up(Wish(nodes=nodes, fake_nodes=fake_nodes, controller_qps=controller_qps))
    print(f"cluster {name} is ready; KUBECONFIG={cluster.paths.kubeconfig}")


@app.command()
def down(
    name: Name = "dev",
    all_: Annotated[bool, typer.Option("--all", help="Every cluster and every Postgres of this machine.")] = False,
) -> None:
    """End the cluster and everything it started. Cached binaries and images stay."""
    names = sorted(file.parent.name for file in state_root().glob("*/cluster.json")) if all_ else [name]
    for each in names:
        Cluster(each).down()
        print(f"cluster {each} is down")


@app.command()
def status(name: Name = "dev", as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Show what runs, where, and whether it is ready."""
    facts = Cluster(name).status()
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    for key, value in facts.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for inner, detail in value.items():
                print(f"  {inner:26} {detail if detail is not None else 'NOT RUNNING'}")
        else:
            print(f"{key + ':':28} {value}")


@app.command()
def load(archives: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False)], name: Name = "dev") -> None:
    """Load image archives (as `docker save` writes them) into the cluster."""
    Cluster(name).load(archives)


@app.command()
def kubeconfig(name: Name = "dev") -> None:
    """Print the path of the cluster's kubeconfig."""
    cluster = Cluster(name)
    _ = cluster.settings
    print(cluster.paths.kubeconfig)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def kubectl(context: typer.Context, name: Name = "dev") -> None:
    """Run kubectl on the cluster: devcluster kubectl --name dev -- get nodes."""
    cluster = Cluster(name)
    _ = cluster.settings
    os.environ["KUBECONFIG"] = str(cluster.paths.kubeconfig)
    os.execv(cluster.kubectl(), ["kubectl", *context.args])  # noqa: S606 - becomes kubectl, signals and all


def main() -> None:
    """Run the command; a failure is told in words, not as a traceback."""
    try:
        app()
    except DevclusterError as error:
        print(error.render(), file=sys.stderr)
        raise SystemExit(1) from None
