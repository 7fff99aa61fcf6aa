"""The OpenAPI document: valid, complete, and kept by the running application."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.core.result import Err
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from controlplane.api.application import make_application
from controlplane.api.openapi import document
from controlplane.api.problem_table import FAILURES, PROBLEMS
from tests.support.api import Api, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from controlplane.db.pool import Database

pytestmark = pytest.mark.db

CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
LIMITS = settings(
    max_examples=8,
    database=None,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
async def api(database: Database) -> AsyncIterator[Api]:
    async with serve(database) as made:
        yield made


async def test_document_is_valid_openapi(api: Api) -> None:
    status, body, _ = await api.call("GET", "/api/openapi.json", headers={"Authorization": ""})
    assert (status, body) == (200, json.loads(document()))
    assert body["openapi"].startswith("3.1")
    validate(body)


def test_every_registered_route_is_in_it_with_summary_and_answers() -> None:
    described = json.loads(document())["paths"]
    registered = {
        (route.method, route.resource.canonical)
        for route in make_application(None).router.routes()  # type: ignore[arg-type]  # only its routes are asked
        if route.resource is not None and route.method != "HEAD"
    }
    assert registered == {(method.upper(), path) for path, methods in described.items() for method in methods}
    for methods in described.values():
        for operation in methods.values():
            assert operation["summary"].endswith(".")
            assert all(answer["content"] for answer in operation["responses"].values())


async def test_every_problem_has_a_page(api: Api) -> None:
    for code in (*PROBLEMS, *FAILURES):
        path = f"/problems/{code.lower().replace('_', '-')}"
        status, text, _ = await api.call("GET", path, headers={"Authorization": ""})
        assert (status, text.startswith(f"{code}:"), "Next step: " in text) == (200, True, True)
    assert (await api.call("GET", "/problems/no-such", headers={"Authorization": ""}))[0] == 404


async def test_running_application_keeps_the_document(api: Api) -> None:
    body = await api.create()
    await api.open_attempt(body)
    await api.bring(body, "ready")
    api.jobs.is_away = False
    known = {"store": body["store"]["id"], "operation": body["operation"]["id"]}
    await asyncio.to_thread(_ask_everything, api, known)


def _once(strategy: Any, ask: Callable[[Any], None]) -> None:
    # A function of its own each time: it remembers its settings.
    @LIMITS
    @given(strategy)
    def each(case: Any) -> None:
        ask(case)

    each()


def _ask_everything(api: Api, known: dict[str, str]) -> None:
    schema = schemathesis.openapi.from_dict(json.loads(document()))
    asked: Counter[str] = Counter()

    def ask(case: Any) -> None:
        if case.meta.generation.mode is GenerationMode.POSITIVE:
            # Something that exists, and something that can be had; the wrong ones are the other mode's.
            if "id" in case.path_parameters:
                case.path_parameters["id"] = known["store" if "/stores/" in case.path else "operation"]
            if case.path == "/api/stores" and case.method == "POST":
                name = case.body["name"][:60]
                case.body |= {"engine": "medusa", "slug": f"shop-{asked.total()}"}
                case.body["name"] = name if name.strip() and name.isprintable() else "Shop"
        case.headers["Authorization"] = f"Bearer {api.token}"
        response = case.call(base_url=api.url, timeout=30)
        asked[f"{case.method} {case.path} {response.status_code}"] += 1
        case.validate_response(response, checks=CHECKS)

    for result in schema.get_all_operations():
        assert not isinstance(result, Err), result
        for mode in GenerationMode:
            strategy = result.ok().as_strategy(generation_mode=mode)
            try:
                _once(strategy, ask)
            except Unsatisfiable:
                # Nothing can be wrong with a request that has no part to vary.
                assert mode is GenerationMode.NEGATIVE
    assert asked["POST /api/stores 202"]
    assert asked["POST /api/stores 422"]
    assert asked["GET /api/stores/{id} 200"]
    assert asked["GET /api/stores/{id}/credentials 200"]
    assert asked.total() > 150
