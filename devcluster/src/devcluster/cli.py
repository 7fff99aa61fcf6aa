"""The ``devcluster`` command: parses, calls, prints. Exit codes: 0 done, 1 failed, 2 wrong usage."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from devcluster.images.builder import build_all
from devcluster.images.helm import helm_binary
from devcluster.kubernetes import cluster as clusters
from devcluster.kubernetes.cluster import Cluster
from devcluster.kubernetes.prebuild import build_everything
from devcluster.kubernetes.settings import Wish
from devcluster.machine.doctor import doctor as run_doctor
from devcluster.machine.errors import DevclusterError, WrongUsageError
from devcluster.machine.packages import PACKAGES, TEST_PACKAGES, ensure_packages
from devcluster.machine.progress import note
from devcluster.postgres import server as postgres
from devcluster.sources.choice import ClusterSource, DevclusterSource, choose_source
from devcluster.sources.kind import KindCluster

__all__ = ["main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A real Kubernetes, and a real Postgres, in one command on any Debian-like machine.",
)
postgres_app = typer.Typer(no_args_is_help=True, help="A private Postgres for development, beside the cluster.")
app.add_typer(postgres_app, name="postgres")

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
    wish = Wish(nodes=nodes, fake_nodes=fake_nodes, controller_qps=controller_qps)
    source = choose_source(name, wish=wish if wish != Wish() else None)
    note(source.describe())
    source.up()
    print(f"ready; KUBECONFIG={source.kubeconfig()}")


@app.command()
def down(
    name: Name = "dev",
    all_: Annotated[bool, typer.Option("--all", help="Every cluster and every Postgres of this machine.")] = False,
) -> None:
    """End the cluster and everything it started. Cached binaries and images stay."""
    if not all_:
        existed = choose_source(name).down()
        print(f"cluster {name} is down" if existed else f"there is no cluster {name!r} to take down")
        return
    for each in clusters.names():
        Cluster(each).down()
        print(f"cluster {each} is down")
    for each in KindCluster.names():
        KindCluster(each).down()
        print(f"kind cluster {each} is down")
    for each in postgres.names():
        postgres.down(each)
        print(f"Postgres {each} is down")


@app.command()
def status(name: Name = "dev", as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Show what runs, where, and whether it is ready."""
    source = choose_source(name)
    if not isinstance(source, DevclusterSource):
        if as_json:
            raise WrongUsageError("--json tells of a devcluster's own processes", remedy="leave it out")
        print(source.status())
        return
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
    choose_source(name).load(archives)


@app.command()
def kubeconfig(name: Name = "dev") -> None:
    """Print the path of the cluster's kubeconfig."""
    print(_existing(choose_source(name)))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def kubectl(context: typer.Context, name: Name = "dev") -> None:
    """Run kubectl on the cluster: devcluster kubectl --name dev -- get nodes."""
    source = choose_source(name)
    os.environ["KUBECONFIG"] = str(_existing(source))
    program = str(Cluster(name).kubectl()) if isinstance(source, DevclusterSource) else "kubectl"
    os.execvp(program, ["kubectl", *context.args])  # noqa: S606 - becomes kubectl, signals and all


@app.command()
def env(name: Name = "dev") -> None:
    """Print exports for the shell: eval "$(devcluster env)"."""
    source = choose_source(name)
    exports = {"KUBECONFIG": str(_existing(source))}
    if name in postgres.names():
        exports["DATABASE_URL"] = postgres.url(name).url
    for variable, value in exports.items():
        print(f"export {variable}={shlex.quote(value)}")
    kubectl_folder = Cluster(name).kubectl().parent
    if kubectl_folder.exists():
        print(f'export PATH={shlex.quote(str(kubectl_folder))}:"$PATH"')


@app.command()
def doctor() -> None:
    """Say what this machine lacks, and the command that installs it."""
    raise typer.Exit(run_doctor())


@app.command()
def prepare() -> None:
    """Install the packages and build the programs and images that clusters and tests need, where they are missing."""
    for package in ensure_packages((*PACKAGES, *TEST_PACKAGES)):
        print(f"installed {package}")
    _ = build_everything()
    # Last: the image that holds Helm has left it nearly nothing to compile.
    _ = helm_binary()


@app.command()
def images(name: Name = "dev") -> None:
    """Build the container images that changed and load them into the cluster in use."""
    built = build_all()
    choose_source(name).load([image.archive for image in built.values()])
    for image in built.values():
        print(image.reference)


@postgres_app.command("up")
def postgres_up(
    name: Name = "dev",
    pods: Annotated[bool, typer.Option("--pods", help="Let the cluster's pods reach it.")] = False,
) -> None:
    """Start it, or heal it, and print its URL."""
    address = postgres.up(name)
    if pods:
        Cluster(name).share_postgres()
    print(address.url)


@postgres_app.command("down")
def postgres_down(
    name: Name = "dev", keep_data: Annotated[bool, typer.Option("--keep-data", help="Stop it only.")] = False
) -> None:
    """Stop it and remove its data."""
    postgres.down(name, keep_data=keep_data)
    print(f"Postgres {name} is down")


@postgres_app.command("url")
def postgres_url(name: Name = "dev") -> None:
    """Print its URL."""
    print(postgres.url(name).url)


def _existing(source: ClusterSource) -> Path:
    path = source.kubeconfig()
    if not path.exists():
        raise DevclusterError(
            f"there is no cluster {source.name!r}", remedy=f"run `devcluster up --name {source.name}`"
        )
    return path


def main() -> None:
    """Run the command; a failure is told in words, not as a traceback."""
    try:
        app()
    except PermissionError as error:
        print(f"{error.filename}: permission denied\nnext step: run as root, as clusters do", file=sys.stderr)
        raise SystemExit(1) from None
    except DevclusterError as error:
        print(error.render(), file=sys.stderr)
        raise SystemExit(2 if isinstance(error, WrongUsageError) else 1) from None
