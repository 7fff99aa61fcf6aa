"""`python -m demo COMMAND`: the demonstration and its parts. Exit codes: 0 done, 1 failed, 2 wrong usage."""

import base64
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
def order(name: Name = "dev") -> None:
    """Bring the product up, order a shop and show its products."""
    begun = time.monotonic()
    platform = up(name)
    print(f"platform ready after {time.monotonic() - begun:.1f} s; the API is at {platform.url}\n")
    shop = f"Demo {secrets.token_hex(2)}"
    print(f'POST {platform.url}/api/stores {{"name": "{shop}", "engine": "medusa"}}')
    placed = time.monotonic()
    ordered = place(platform, shop, lambda line: print(f"  {time.monotonic() - placed:5.1f} s  {line}", flush=True))
    print(f"\n$ kubectl -n storeplane-jobs logs job/{ordered.job_name}")
    print(_kubectl(platform, "--namespace", "storeplane-jobs", "logs", f"job/{ordered.job_name}"))
    if ordered.operation["state"] != "succeeded":
        raise DevclusterError(f"the shop was not made: {json.dumps(ordered.operation['error'], indent=1)}")
    _show_products(platform, ordered)
    print(f"{ordered.seconds:.1f} s from the request to a shop that sells; {time.monotonic() - begun:.1f} s in all")
    print("`make down` ends everything")


def _show_products(platform: Platform, ordered: Order) -> None:
    secret = ("--namespace", ordered.store["namespace"], "get", "secret", "store-secrets", "--output=json")
    encoded = json.loads(_kubectl(platform, *secret))["data"]["PUBLISHABLE_KEY"]
    key = base64.b64decode(encoded).decode()
    url = ordered.store["urls"]["api"]
    print(f"$ curl -H 'x-publishable-api-key: {key[:10]}…' {url}/store/products")
    for product in products(platform, ordered, key):
        variants = len(product.get("variants") or [])
        print(f"  {product['title']:24} {product['handle']:24} {variants} variants")
    if storefront := ordered.store["urls"]["storefront"]:
        print(f"open it in a browser: {storefront}")
    print()


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
