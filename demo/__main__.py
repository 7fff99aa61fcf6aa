"""`python -m demo COMMAND`: the demonstration and its parts. Exit codes: 0 done, 1 failed, 2 wrong usage."""

import concurrent.futures
import json
import os
import secrets
import shlex
import sys
import time
from typing import Annotated

import typer

from demo.kubectl import run
from demo.order import Order, place, products
from demo.platform import Platform, current, kubectl_of, up
from demo.release import settings as installed_settings
from demo.shops import SHOPS
from devcluster.machine.errors import DevclusterError, WrongUsageError

__all__ = ["main"]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
Name = Annotated[str, typer.Option(help="Which development cluster.")]


@app.command("up")
def up_(name: Name = "dev") -> None:
    """Bring the whole product up on a development cluster."""
    platform = up(name)
    print(f"the API is at {platform.url}")
    print(f'next: eval "$(make -s env NAME={name})", then')
    print("""  curl -sH "Authorization: Bearer $STOREPLANE_TOKEN" -d '{"name":"My shop","engine":"medusa"}' \\""")
    print("    $STOREPLANE_URL/api/stores")


@app.command()
def env(name: Name = "dev") -> None:
    """Print exports for the shell, for the platform that `up` brought up."""
    platform = current(name)
    exports = {"KUBECONFIG": str(platform.kubeconfig), "STOREPLANE_URL": platform.url}
    exports["STOREPLANE_TOKEN"] = platform.token
    for variable, value in exports.items():
        print(f"export {variable}={shlex.quote(value)}")
    print(f'export PATH={shlex.quote(str(platform.kubectl.parent))}:"$PATH"')


@app.command()
def settings(
    name: Name = "dev",
    database_port: Annotated[int, typer.Option(min=1, max=65535, help="Where its Postgres is led to here.")] = 5433,
) -> None:
    """Print exports that give a `storeplane serve` on this machine the settings of the installed one."""
    for variable, value in installed_settings(kubectl_of(name), database_port=database_port).items():
        print(f"export {variable}={shlex.quote(value)}")


@app.command()
def order(
    name: Name = "dev",
    engine: Annotated[list[str] | None, typer.Option(help="One shop of each; every engine when left out.")] = None,
) -> None:
    """Bring the product up, order a shop of each engine at once, and show their products."""
    engines = engine or list(SHOPS)
    unknown = [each for each in engines if each not in SHOPS]
    if unknown:
        raise WrongUsageError(f"there is no engine {unknown[0]}", remedy=f"use {', '.join(SHOPS)}")
    begun = time.monotonic()
    platform = up(name)
    print(f"platform ready after {time.monotonic() - begun:.1f} s; the API is at {platform.url}\n")
    ordered = _placed(platform, engines)
    for each in ordered:
        print(f"\n$ kubectl -n storeplane-jobs logs job/{each.job_name}")
        print(_kubectl(platform, "--namespace", "storeplane-jobs", "logs", f"job/{each.job_name}"))
    for each in ordered:
        if each.operation["state"] != "succeeded":
            raise DevclusterError(f"the shop was not made: {json.dumps(each.operation['error'], indent=1)}")
        _show(platform, each)
    print(f"{time.monotonic() - begun:.1f} s in all; `make down` ends everything")


def _placed(platform: Platform, engines: list[str]) -> list[Order]:
    """Order a shop of each engine at the same moment; return them once all have ended."""
    placed = time.monotonic()
    width = max(map(len, engines)) if len(engines) > 1 else 0

    def one(engine: str) -> Order:
        def say(line: str) -> None:
            print(f"  {time.monotonic() - placed:5.1f} s  {engine if width else '':{width}} {line}", flush=True)

        shop = f"Demo {secrets.token_hex(2)}"
        print(f'POST {platform.url}/api/stores {{"name": "{shop}", "engine": "{engine}"}}', flush=True)
        return place(platform, shop, say, engine=engine)

    with concurrent.futures.ThreadPoolExecutor(len(engines)) as pool:
        return list(pool.map(one, engines))


def _show(platform: Platform, ordered: Order) -> None:
    store, shop = ordered.store, SHOPS[ordered.store["engine"]]
    keys = "".join(f" -H '{header}: …'" for header in shop.credentials)
    print(f"$ curl{keys} {store['urls']['api']}{shop.products_path}")
    for product in products(platform, ordered):
        print(f"  {product[shop.title]}")
    print(f"open it in a browser: {store['urls']['storefront']}, its administration: {store['urls']['admin']}")
    print(f"who may sign in there: GET {platform.url}/api/stores/{store['id']}/credentials")
    if store["engine_flavour"] != "official":
        print(f"beware: this is a {store['engine_flavour']} of {store['engine']}, not for customers")
    phases = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in ordered.phases.items())
    print(f"{ordered.seconds:.1f} s from the request to a shop that sells; phases in seconds: {phases}\n")


def _kubectl(platform: Platform, *words: str) -> str:
    environment = {"PATH": os.environ["PATH"], "KUBECONFIG": str(platform.kubeconfig)}
    return run([str(platform.kubectl), *words], environment=environment)


def main() -> None:
    """Run the command; a failure is told in words, not as a traceback."""
    try:
        app()
    except DevclusterError as error:
        print(error.render(), file=sys.stderr)
        raise SystemExit(2 if isinstance(error, WrongUsageError) else 1) from None


if __name__ == "__main__":
    main()
