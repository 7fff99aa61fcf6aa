"""The catalogue: one row for each engine. Adding one means a row here, a chart of its name and its images.

References of images come from the settings: an engine without them is not offered.
"""

from collections.abc import Collection
from typing import Final

from controlplane.domain.engines import (
    SETUP,
    Container,
    Engine,
    Plan,
    PlannedEngine,
    Probes,
    Proof,
    Version,
    hexadecimal,
    letters,
    text,
)
from controlplane.domain.errors import EnginePlannedError, EngineUnsupportedError, FieldProblem, InvalidInputError

__all__ = ["CATALOGUE", "PLAN_NAMES", "engine_named", "plan_named", "supported"]

_MEDUSA: Final = Engine(
    name="medusa",
    versions=(Version("2.21.2", chart_version="0.1.0"),),
    chart="medusa",
    images=("server", "postgres", "redis"),
    optional_images=("storefront",),
    plans={
        "small": Plan(
            parts={
                "server": Container("1", "768Mi", "250m", "384Mi"),
                SETUP: Container("1", "1Gi", "250m", "384Mi"),
                "postgres": Container("1", "512Mi", "100m", "128Mi", storage="1Gi"),
                "redis": Container("500m", "128Mi", "25m", "32Mi"),
                "storefront": Container("100m", "64Mi", "10m", "32Mi"),
            },
        ),
        "medium": Plan(
            parts={
                "server": Container("2", "1536Mi", "500m", "768Mi"),
                SETUP: Container("2", "1536Mi", "500m", "768Mi"),
                "postgres": Container("2", "1Gi", "250m", "512Mi", storage="5Gi"),
                "redis": Container("500m", "256Mi", "50m", "128Mi"),
                "storefront": Container("200m", "64Mi", "10m", "32Mi"),
            },
            tuning={"postgres": {"sharedBuffers": "256MB"}, "redis": {"maxMemory": "192mb"}},
        ),
        "large": Plan(
            parts={
                "server": Container("4", "4Gi", "1", "2Gi"),
                SETUP: Container("4", "4Gi", "1", "2Gi"),
                "postgres": Container("4", "4Gi", "1", "2Gi", storage="20Gi"),
                "redis": Container("1", "512Mi", "100m", "256Mi"),
                "storefront": Container("500m", "128Mi", "20m", "32Mi"),
            },
            tuning={"postgres": {"sharedBuffers": "1GB"}, "redis": {"maxMemory": "384mb"}},
        ),
    },
    # Hexadecimal, so that no URL needs to escape them.
    secret={
        "POSTGRES_PASSWORD": hexadecimal(24),
        "REDIS_PASSWORD": hexadecimal(24),
        "JWT_SECRET": hexadecimal(32),
        "COOKIE_SECRET": hexadecimal(32),
        "ADMIN_EMAIL": text("admin@{host}"),
        "ADMIN_PASSWORD": letters(24),
        "PUBLISHABLE_KEY": hexadecimal(32, prefix="pk_"),
        "DATABASE_URL": text("postgres://medusa:{POSTGRES_PASSWORD}@postgres:5432/medusa?sslmode=disable"),
        "REDIS_URL": text("redis://:{REDIS_PASSWORD}@redis:6379"),
    },
    credentials={"username": "ADMIN_EMAIL", "password": "ADMIN_PASSWORD", "publishable_key": "PUBLISHABLE_KEY"},
    probes=Probes(alive="/health", ready="/health"),
    # A template takes seconds; migrations and seed half a minute with one CPU and a minute with half of one. Longer
    # than the Job's own limit in the chart (330 s), so that its end is seen and told.
    phase_seconds={"setup": 420},
    proof=Proof(
        port=9000,
        path="/store/products",
        items="products",
        headers={"x-publishable-api-key": "{PUBLISHABLE_KEY}"},
    ),
    storefront_path="/",
    storefront_image="storefront",
    admin_path="/app",
)

_WOOCOMMERCE: Final = Engine(
    name="woocommerce",
    versions=(Version("10.3", chart_version="0.1.0"),),
    chart="woocommerce",
    images=("server", "mariadb"),
    plans={
        "small": Plan(
            parts={
                "server": Container("1", "512Mi", "100m", "192Mi"),
                SETUP: Container("1", "384Mi", "100m", "128Mi"),
                "cron": Container("500m", "256Mi", "50m", "64Mi"),
                "mariadb": Container("1", "512Mi", "100m", "192Mi", storage="1Gi"),
            },
            volumes={"uploads": "1Gi"},
        ),
        "medium": Plan(
            parts={
                "server": Container("2", "1Gi", "250m", "512Mi"),
                SETUP: Container("2", "512Mi", "250m", "128Mi"),
                "cron": Container("500m", "256Mi", "50m", "64Mi"),
                "mariadb": Container("2", "1Gi", "250m", "512Mi", storage="5Gi"),
            },
            volumes={"uploads": "5Gi"},
            tuning={"server": {"workers": 16}, "mariadb": {"bufferPool": "256M"}},
        ),
        "large": Plan(
            parts={
                "server": Container("4", "4Gi", "1", "2Gi"),
                SETUP: Container("2", "1Gi", "500m", "256Mi"),
                "cron": Container("1", "512Mi", "50m", "128Mi"),
                "mariadb": Container("4", "4Gi", "1", "2Gi", storage="20Gi"),
            },
            volumes={"uploads": "20Gi"},
            # Eight of the database's forty connections are left for setup, timetable and people.
            tuning={"server": {"workers": 32}, "mariadb": {"bufferPool": "1G"}},
        ),
    },
    # Letters and digits only: they go through PHP, SQL and a shell.
    secret={
        "MARIADB_PASSWORD": letters(32),
        "MARIADB_ROOT_PASSWORD": letters(32),
        "ADMIN_USER": text("admin"),
        "ADMIN_EMAIL": text("admin@{host}"),
        "ADMIN_PASSWORD": letters(24),
        **{
            f"{name}_{kind}": letters(64)
            for kind in ("KEY", "SALT")
            for name in ("AUTH", "SECURE_AUTH", "LOGGED_IN", "NONCE")
        },
    },
    credentials={"username": "ADMIN_USER", "password": "ADMIN_PASSWORD", "email": "ADMIN_EMAIL"},
    probes=Probes(alive="/healthz", ready="/readyz"),
    # As Medusa's: above the Job's own limit.
    phase_seconds={"setup": 420},
    proof=Proof(port=8080, path="/wp-json/wc/store/v1/products"),
    storefront_path="/",
    admin_path="/wp-admin/",
)

CATALOGUE: Final[dict[str, Engine | PlannedEngine]] = {
    each.name: each for each in (_MEDUSA, _WOOCOMMERCE, PlannedEngine(name="magento", version="2.4"))
}
PLAN_NAMES: Final = tuple(_MEDUSA.plans)
"""Every engine has these, smallest first."""


def supported(offered: Collection[str]) -> tuple[Engine, ...]:
    """Return the engines that can be ordered where the images of `offered` are known, by name."""
    found = (each for name, each in sorted(CATALOGUE.items()) if name in offered)
    return tuple(each for each in found if isinstance(each, Engine))


def engine_named(name: str, offered: Collection[str]) -> Engine:
    """Return the engine called `name`, if it is offered.

    Raises
    ------
    EnginePlannedError
        It is announced.
    EngineUnsupportedError
        It is unknown, or its images are not set here.
    """
    names = tuple(each.name for each in supported(offered))
    found = CATALOGUE.get(name)
    if isinstance(found, Engine) and name in offered:
        return found
    if isinstance(found, PlannedEngine):
        raise EnginePlannedError(name, names)
    raise EngineUnsupportedError(names)


def plan_named(engine: Engine, name: str | None) -> str:
    """Return the plan's name, or the engine's smallest one for None; `InvalidInputError` names those there are."""
    if name is None:
        return engine.default_plan
    if name not in engine.plans:
        message = f"Unknown plan. Supported: {', '.join(engine.plans)}"
        raise InvalidInputError(message, FieldProblem("#/plan", message))
    return name
