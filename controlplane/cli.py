"""The `storeplane` command. Heavy parts are imported by the command that needs them, so that help is instant.

Exit codes: 0 done, 1 something outside failed, 2 the input or a setting is wrong.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from controlplane.domain.errors import (
    ConfigurationError,
    ControlPlaneError,
    DatabaseUnavailableError,
    DependencyUnavailableError,
    InvalidInputError,
)
from controlplane.domain.store import Role

if TYPE_CHECKING:
    from controlplane.db.pool import Database
    from controlplane.services.clusters import Limits

__all__ = ["application", "main"]

application = typer.Typer(
    name="storeplane",
    help="Turn one HTTP request into a running online shop on Kubernetes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
users = typer.Typer(help="Users and their tokens.", no_args_is_help=True)
clusters = typer.Typer(help="Clusters and how much each is asked for.", no_args_is_help=True)
roles = typer.Typer(help="The database's login roles.", no_args_is_help=True)
application.add_typer(users, name="users")
application.add_typer(clusters, name="clusters")
application.add_typer(roles, name="roles")

_FAILED = 1
_BAD_INPUT = 2
_RETRY_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 3600
_T = TypeVar("_T")


def _secret_from_stdin(what: str) -> str:
    """Return the first line of standard input; a secret on the command line would be in the process list."""
    if sys.stdin.isatty():
        typer.echo(f"{what}, then Enter:", err=True)
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        message = f"standard input has no line to take the {what} from"
        raise ConfigurationError(message)
    return line


@asynccontextmanager
async def _database() -> "AsyncIterator[Database]":
    """Open the database that the settings name, for one command."""
    from controlplane.config import load_database_settings  # noqa: PLC0415
    from controlplane.db.pool import Database  # noqa: PLC0415

    database = await Database.connect(load_database_settings().database_url.get_secret_value(), size=2)
    try:
        yield database
    finally:
        await database.close()


@application.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8080,
    ready_file: Annotated[Path | None, typer.Option(help="File that gets the URL once requests are answered.")] = None,
) -> None:
    """Serve the API and create, follow and end stores' Jobs."""
    from controlplane.app import serve as run  # noqa: PLC0415
    from controlplane.config import load_settings  # noqa: PLC0415
    from controlplane.telemetry import configure_logging  # noqa: PLC0415

    settings = load_settings()
    if ready_file is not None and not ready_file.absolute().parent.is_dir():
        message = f"--ready-file: there is no folder {ready_file.absolute().parent}"
        raise ConfigurationError(message)
    configure_logging(settings.log_level)
    asyncio.run(run(settings, host=host, port=port, ready_file=ready_file))


@application.command()
def migrate(
    wait: Annotated[
        int, typer.Option(min=0, max=_LONGEST_WAIT_SECONDS, help="Seconds to wait for a database that is starting.")
    ] = 0,
) -> None:
    """Bring the database's schema up to this program; safe to repeat and to run several times at once."""
    from controlplane.config import load_database_settings  # noqa: PLC0415
    from controlplane.db.migrate import apply_migrations, read_migrations  # noqa: PLC0415

    settings = load_database_settings()
    known = read_migrations()
    url = settings.database_url.get_secret_value()
    applied = asyncio.run(_patiently(lambda: apply_migrations(url, known), DatabaseUnavailableError, seconds=wait))
    for name in applied:
        typer.echo(f"applied {name}")
    typer.echo(f"the schema is at migration {len(known)}")


@application.command("await-schema")
def await_schema(
    seconds: Annotated[int, typer.Option(min=0, max=_LONGEST_WAIT_SECONDS, help="How long to wait at most.")] = 600,
) -> None:
    """Return once the database has the schema of this program and lets this user read it; changes nothing."""
    from controlplane.config import load_database_settings  # noqa: PLC0415

    # Read once before: a setting that is missing is not waited for, as a refused login is.
    load_database_settings()
    # A first installation makes the user only in its migrations: until then the server refuses it, as it would a wrong
    # password. So a refusal is waited out too, and told when it changes.
    passing = (DependencyUnavailableError, ConfigurationError)
    asyncio.run(_patiently(_check_schema, *passing, seconds=seconds))
    typer.echo("the schema is ready")


async def _check_schema() -> None:
    from controlplane.db.stores import StoreRows  # noqa: PLC0415
    from controlplane.services.health import Health  # noqa: PLC0415

    async with _database() as database:
        await Health(StoreRows(database)).check()


async def _patiently(step: Callable[[], Awaitable[_T]], *passing: type[ControlPlaneError], seconds: float) -> _T:
    """Repeat a step until it succeeds; after `seconds` its error counts. Each new cause is told once."""
    deadline = time.monotonic() + seconds
    told = ""
    while True:
        try:
            return await step()
        except passing as error:
            if time.monotonic() >= deadline:
                raise
            if str(error) != told:
                told = str(error)
                typer.echo(f"waiting: {told}", err=True)
        await asyncio.sleep(_RETRY_SECONDS)


@users.command("add")
def users_add(
    name: Annotated[str, typer.Argument(help="The user's name.")],
    token_stdin: Annotated[bool, typer.Option("--token-stdin", help="Read the token from standard input.")] = False,
    role: Annotated[Role, typer.Option(help="What the user may see and do.")] = Role.MEMBER,
    max_stores: Annotated[
        int | None, typer.Option(min=0, max=100_000, help="Stores the user may have; five for a new one.")
    ] = None,
) -> None:
    """Add a user, or give an existing one a new role and token. Without --token-stdin a token is made and printed."""
    import secrets  # noqa: PLC0415

    token = _secret_from_stdin("token") if token_stdin else secrets.token_urlsafe(32)
    user_id = asyncio.run(_add_user(name, role, token, max_stores))
    typer.echo(f"user {name} ({role}) has the id {user_id}", err=True)
    if not token_stdin:
        typer.echo(token)


async def _add_user(name: str, role: Role, token: str, max_stores: int | None) -> str:
    from controlplane.db.users import UserRows  # noqa: PLC0415
    from controlplane.services.users import Users  # noqa: PLC0415

    async with _database() as database:
        return await Users(UserRows(database)).add(name, role, token, max_stores=max_stores)


@clusters.command("limit")
def clusters_limit(
    name: Annotated[str, typer.Argument(help="The cluster's name; `default` is the one there is.")],
    in_flight: Annotated[int | None, typer.Option(min=0, max=100_000, help="Attempts open at once.")] = None,
    rate: Annotated[float | None, typer.Option(min=0.01, max=1000, help="Jobs a second, in the long run.")] = None,
    burst: Annotated[float | None, typer.Option(min=1, max=100_000, help="Jobs at once after a rest.")] = None,
) -> None:
    """Set how much a cluster is asked for at once; what is left out stays. 0 in flight stops dispatching."""
    limits = asyncio.run(_limit_cluster(name, in_flight, rate, burst))
    typer.echo(f"cluster {name}: {limits.in_flight} in flight, {limits.rate:g} a second, {limits.burst:g} at once")


async def _limit_cluster(name: str, in_flight: int | None, rate: float | None, burst: float | None) -> "Limits":
    from controlplane.services.clusters import Clusters  # noqa: PLC0415

    async with _database() as database:
        return await Clusters(database).limit(name, in_flight=in_flight, rate=rate, burst=burst)


@roles.command("password")
def roles_password(role: Annotated[str, typer.Argument(help="storeplane_app or storeplane_provisioner.")]) -> None:
    """Give a login role the password read from standard input."""
    from controlplane.config import load_database_settings  # noqa: PLC0415
    from controlplane.db.migrate import set_role_password  # noqa: PLC0415

    settings = load_database_settings()
    password = _secret_from_stdin("password")
    asyncio.run(set_role_password(settings.database_url.get_secret_value(), role, password))
    typer.echo(f"{role} has its password", err=True)


def main() -> None:
    """Run the command line and end the process with its exit code."""
    sys.exit(_run(lambda: application(standalone_mode=True)))


def _run(command: Any) -> int:
    try:
        command()
    except (ConfigurationError, InvalidInputError) as error:
        typer.echo(f"storeplane: {error}", err=True)
        return _BAD_INPUT
    except ControlPlaneError as error:
        typer.echo(f"storeplane: {error}", err=True)
        return _FAILED
    return 0
