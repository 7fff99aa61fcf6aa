"""The OpenAPI 3.1 document, made from the table of routes and the models that validate."""

import inspect
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from controlplane.api.answers import ProblemBody
from controlplane.api.problem_table import PROBLEMS
from controlplane.api.routes import ROUTES, Route

__all__ = ["document"]

_REF: Final = "#/components/schemas/{model}"
_PROBLEM: Final = "application/problem+json"
_EVERYWHERE: Final = ("INTERNAL", "REQUEST_TIMEOUT")
_WITH_TOKEN: Final = ("UNAUTHORIZED", "INVALID_TOKEN", "DATABASE_UNAVAILABLE")
_PATH_PARAMETERS: Final = {
    "id": {"schema": {"type": "string", "format": "uuid"}, "description": "Id as an answer gave it."},
    "code": {"schema": {"type": "string"}, "description": "Last part of a problem's `type`."},
}
_IDEMPOTENCY_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Any text of your own making: the same key with the same body creates once.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
_TEXT: Final = {"type": "string"}
_NUMBER: Final = {"type": "integer"}
_HEADERS: Final[dict[str, dict[str, Any]]] = {
    "X-Request-ID": {"schema": _TEXT, "description": "Finds the request in the logs; yours when you sent a plain one."},
    "Location": {"schema": _TEXT, "description": "The operation to follow."},
    "Idempotency-Replayed": {"schema": _TEXT, "description": "`true` when this is the first answer again."},
    "RateLimit-Limit": {"schema": _NUMBER, "description": "Creates a minute."},
    "RateLimit-Remaining": {"schema": _NUMBER, "description": "Creates left now."},
    "RateLimit-Reset": {"schema": _NUMBER, "description": "Seconds until all are left again."},
    "Retry-After": {"schema": _NUMBER, "description": "Seconds to wait."},
    "WWW-Authenticate": {"schema": _TEXT},
    "Cache-Control": {"schema": _TEXT, "description": "`no-store`: to be kept nowhere on the way."},
}
_BY_STATUS: Final = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}
_ACCEPTED: Final = 202


def document() -> bytes:
    """Return the document as JSON."""
    requests = {model for route in ROUTES for model in (route.body,) if model is not None}
    answers = {route.answer for route in ROUTES if not isinstance(route.answer, str)} | {ProblemBody}
    modes: list[tuple[type[BaseModel], Any]] = [(model, "validation") for model in _sorted(requests)]
    modes += [(model, "serialization") for model in _sorted(answers)]
    references, definitions = models_json_schema(modes, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for route in ROUTES:
        paths[route.path][route.method.lower()] = _operation(route, references)
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Storeplane",
                "version": _version(),
                "summary": "Turns one request into a running online shop on Kubernetes.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "security": [{"token": []}],
            "paths": dict(paths),
            "components": {
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
                "schemas": definitions["$defs"],
                "headers": _HEADERS,
            },
        }
    )


def _sorted(models: set[type[BaseModel]]) -> list[type[BaseModel]]:
    return sorted(models, key=lambda model: model.__name__)


def _version() -> str:
    try:
        return version("storeplane")
    except PackageNotFoundError:
        # Run from a folder that was never installed.
        return "0"


def _operation(route: Route, references: Any) -> dict[str, Any]:
    summary, _, description = inspect.cleandoc(route.handler.__doc__ or "").partition("\n")
    name = getattr(route.handler, "__name__", "")
    made: dict[str, Any] = {
        "operationId": name + ("_by_admin" if "/admin/" in route.path else ""),
        "summary": summary,
        "parameters": _parameters(route),
        "responses": _responses(route, references),
    }
    if description.strip():
        made["description"] = description.strip()
    if route.is_open:
        made["security"] = []
    if route.body is not None:
        made["requestBody"] = {
            "required": any(field.is_required() for field in route.body.model_fields.values()),
            "content": {"application/json": {"schema": references[(route.body, "validation")]}},
        }
    return made


def _parameters(route: Route) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, **more}
        for name, more in _PATH_PARAMETERS.items()
        if f"{{{name}}}" in route.path
    ]
    if "RATE_LIMITED" in route.problems:
        made.append(_IDEMPOTENCY_KEY)
    schema = route.query.model_json_schema(mode="validation")
    known = schema.get("$defs", {})
    for name, each in schema.get("properties", {}).items():
        inlined = _inlined(each, known)
        description = inlined.pop("description", "")
        made.append(
            {"name": name, "in": "query", "required": False, "schema": inlined}
            | ({"description": description} if description else {})
        )
    return made


def _inlined(schema: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter's schema without references and without null, which no query string can hold."""
    choices = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    made = {name: value for name, value in schema.items() if name not in ("anyOf", "title")}
    if made.get("default", 0) is None:
        del made["default"]
    for each in choices:
        made |= known[each["$ref"].rsplit("/", 1)[1]] if "$ref" in each else each
    return made | ({"description": schema["description"]} if "description" in schema else {})


def _responses(route: Route, references: Any) -> dict[str, Any]:
    names = ["X-Request-ID"]
    if route.status == _ACCEPTED:
        names.append("Location")
    if "RATE_LIMITED" in route.problems:
        names += ["Idempotency-Replayed", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"]
    if "CREDENTIALS_UNAVAILABLE" in route.problems:
        names.append("Cache-Control")
    if isinstance(route.answer, str):
        content: dict[str, Any] = {route.answer: {"schema": {} if route.answer.endswith("json") else _TEXT}}
    else:
        content = {"application/json": {"schema": references[(route.answer, "serialization")]}}
    made = {str(route.status): {"description": "Accepted" if route.status == _ACCEPTED else "OK", "content": content}}
    made[str(route.status)]["headers"] = _headers(names)
    by_status: dict[int, list[str]] = defaultdict(list)
    ready = ("DATABASE_UNAVAILABLE",) if "SCHEMA_MISSING" in route.problems else ()
    for code in dict.fromkeys((*route.problems, *(ready if route.is_open else _WITH_TOKEN), *_EVERYWHERE)):
        by_status[PROBLEMS[code].status].append(code)
    for status, codes in sorted(by_status.items()):
        made[str(status)] = {
            "description": ", ".join(codes),
            "content": {_PROBLEM: {"schema": references[(ProblemBody, "serialization")]}},
            "headers": _headers(["X-Request-ID", *_BY_STATUS.get(status, ())]),
        }
    return made


def _headers(names: list[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
