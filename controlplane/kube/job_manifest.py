"""Rendering of a Job: Jinja text that is JSON, every value through `tojson`.

Pure. A value can never become a key: the key paths of what was rendered must equal those of the template rendered
with blanks. The attempt's token is not part of the rendered text, which is stored; `with_token` adds it on the way to
the cluster.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any, Final

import jinja2
import orjson

from controlplane.config import Settings
from controlplane.domain.attempt import ClaimedAttempt
from provisioner_job.contract import COMMAND, Env

__all__ = ["ManifestError", "comparable", "difference", "render_job", "sha256_of", "token_in", "with_token"]

_FOLDER: Final = Path(__file__).parent / "templates"
_BLANKS: Final = (
    "job_name",
    "jobs_namespace",
    "store_id",
    "operation_id",
    "attempt",
    "owner_id",
    "namespace",
    "request_id",
    "ttl_seconds",
    "service_account",
    "image",
    "store_name",
    "engine",
    "db_host",
    "db_port",
    "db_name",
    "db_user",
    "db_secret",
    "db_ssl_mode",
    "log_format",
    "traceparent",
    "memory_limit",
)
"""Every value of the template beside the command."""


class ManifestError(Exception):
    """The template and its values do not make a Job; trying again will not help."""


def _env(value: object) -> str:
    """Return a value for a container's environment: Kubernetes would replace `$(NAME)` in it by another variable."""
    return str(value).replace("$", "$$")


def _dumps(value: object) -> str:
    return orjson.dumps(value).decode()


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 -- the text is JSON, and every value passes through tojson
    )
    environment.filters["env"] = _env
    # The library's own also escapes for HTML and takes most of a rendering.
    environment.filters["tojson"] = _dumps
    return environment.get_template("job.json.jinja")


@cache
def _skeleton() -> Any:
    blanks: dict[str, Any] = dict.fromkeys(_BLANKS, "")
    return orjson.loads(_template().render(blanks, command=list(COMMAND)))


def _is_shaped(found: Any, skeleton: Any) -> bool:
    """Return whether the two have the same keys, in the same order; values do not matter."""
    if type(skeleton) is dict:
        # The order is the template's, so that values can be held side by side.
        return (
            type(found) is dict
            and list(found) == list(skeleton)
            and all(map(_is_shaped, found.values(), skeleton.values()))
        )
    if type(skeleton) is list:
        return type(found) is list and len(found) == len(skeleton) and all(map(_is_shaped, found, skeleton))
    return type(found) is not dict and type(found) is not list


def render_job(claimed: ClaimedAttempt, settings: Settings) -> str:
    """Return the Job as compact JSON text, without its token.

    The image comes from the operation's frozen spec; nothing depends on fence, replica or clock, so that every
    dispatcher renders the same bytes.

    Raises
    ------
    ManifestError
        A value is missing or the result has other keys than the template.
    """
    try:
        text = _template().render(
            job_name=claimed.job_name,
            jobs_namespace=settings.jobs_namespace,
            store_id=str(claimed.store_id),
            operation_id=str(claimed.operation_id),
            attempt=str(claimed.number),
            owner_id=str(claimed.owner_id),
            namespace=claimed.namespace,
            request_id=claimed.request_id,
            ttl_seconds=settings.job_ttl_seconds,
            service_account=settings.jobs_service_account,
            image=claimed.spec["provisioner_image"],
            store_name=claimed.store_name,
            engine=claimed.engine,
            db_host=settings.provisioner_db_host,
            db_port=settings.provisioner_db_port,
            db_name=settings.provisioner_db_name,
            db_user=settings.provisioner_db_user,
            db_secret=settings.provisioner_db_secret,
            db_ssl_mode=settings.provisioner_db_sslmode,
            log_format=settings.provisioner_log,
            traceparent=claimed.spec.get("traceparent", ""),
            memory_limit=f"{claimed.memory_mib}Mi",
            command=list(COMMAND),
        )
        manifest = orjson.loads(text)
    except (jinja2.TemplateError, orjson.JSONDecodeError, KeyError) as error:
        message = f"the Job's template cannot be rendered: {type(error).__name__}: {error}"
        raise ManifestError(message) from error
    if not _is_shaped(manifest, _skeleton()):
        message = "the rendered Job has other keys than its template"
        raise ManifestError(message)
    return orjson.dumps(manifest).decode()


def sha256_of(manifest: str) -> str:
    """Return the hex SHA-256 of a rendered Job."""
    return hashlib.sha256(manifest.encode()).hexdigest()


def with_token(manifest: str, token: str) -> dict[str, Any]:
    """Return the Job to be posted: the rendered one with the token in its environment variable."""
    job: dict[str, Any] = orjson.loads(manifest)
    _token_variable(job)["value"] = token
    return job


def comparable(job: dict[str, Any]) -> dict[str, Any]:
    """Return what an existing Job must have to be this one, in a new object.

    Left out are the TTL, which the harvest changes, and the token, which is held against the hash in the database.
    """
    wanted: dict[str, Any] = orjson.loads(orjson.dumps(job))
    del _token_variable(wanted)["value"]
    del wanted["spec"]["ttlSecondsAfterFinished"]
    return wanted


def token_in(job: dict[str, Any]) -> str:
    """Return the token an existing Job carries; empty when it carries none."""
    try:
        return str(_token_variable(job).get("value") or "")
    except (ManifestError, LookupError, TypeError):
        return ""


def _token_variable(job: dict[str, Any]) -> dict[str, Any]:
    for variable in job["spec"]["template"]["spec"]["containers"][0]["env"]:
        if variable["name"] == Env.ATTEMPT_TOKEN:
            found: dict[str, Any] = variable
            return found
    message = f"the rendered Job has no variable {Env.ATTEMPT_TOKEN}"
    raise ManifestError(message)


def difference(wanted: Any, found: Any, path: str = "") -> str | None:
    """Return the first path at which `found` lacks or changes something of `wanted`, or None.

    The server adds defaults, so more than was wanted is no difference; lists must have the same length. Values are
    never part of the answer: they may be secret.
    """
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            return path or "/"
        pairs = ((f"{path}/{key}", inner, found.get(key)) for key, inner in wanted.items())
    elif isinstance(wanted, list):
        if not isinstance(found, list) or len(found) != len(wanted):
            return path or "/"
        pairs = (
            (f"{path}/{index}", inner, other) for index, (inner, other) in enumerate(zip(wanted, found, strict=True))
        )
    else:
        # An empty value is left out by the server.
        return None if wanted == found or (wanted == "" and found is None) else path
    return next((place for at, inner, other in pairs if (place := difference(inner, other, at)) is not None), None)
