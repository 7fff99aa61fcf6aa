from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from controlplane.api import problems
from controlplane.domain import errors
from controlplane.kube.errors import KubeError

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit

SAMPLES = [
    errors.UnauthorizedError(),
    errors.InvalidTokenError(),
    errors.StoreNotFoundError("1"),
    errors.OperationNotFoundError("1"),
    errors.LogNotAvailableError("gone"),
    errors.NameTakenError(),
    errors.OperationInProgressError(),
    errors.StaleLeaseError("x"),
    errors.JobConflictError("job", "/spec"),
    errors.InvalidJsonError(),
    errors.NameTooLongError("#/name"),
    errors.NameReservedError("#/name"),
    errors.EngineUnsupportedError(("medusa",)),
    errors.EnginePlannedError("magento", ("medusa",)),
    errors.DatabaseUnavailableError("refused"),
    errors.SchemaMissingError("no table"),
    errors.DatabaseRightMissingError("permission denied"),
]


def _below(kind: type[errors.ControlPlaneError]) -> Iterator[type[errors.ControlPlaneError]]:
    yield kind
    for other in kind.__subclasses__():
        yield from _below(other)


def test_every_domain_error_has_a_mapping_of_its_own() -> None:
    own = {kind for kind in _below(errors.ControlPlaneError) if kind.__module__ == errors.__name__}
    assert own == set(problems.MAPPING)


def test_codes_are_unique() -> None:
    own = [kind for kind in _below(errors.ControlPlaneError) if kind.__module__ == errors.__name__]
    assert len({kind.code for kind in own}) == len(own)


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: error.code)
def test_body_has_the_shape_of_a_problem(error: errors.ControlPlaneError) -> None:
    response = problems.from_domain_error(error, "request-1")
    assert isinstance(response.body, bytes)
    body = json.loads(response.body)
    assert response.content_type == "application/problem+json"
    assert body["status"] == response.status == problems.MAPPING[type(error)][0]
    assert body["code"] == error.code
    assert body["type"] == "/problems/" + error.code.lower().replace("_", "-")
    assert body["detail"] == error.detail
    assert body["request_id"] == "request-1"
    assert body["title"]


def test_internal_cause_is_not_told() -> None:
    response = problems.from_domain_error(errors.ConfigurationError("postgresql://u:secret@h/d"), "r")
    assert isinstance(response.body, bytes)
    assert response.status == 500
    assert b"secret" not in response.body


def test_cluster_trouble_is_answered_like_its_base() -> None:
    response = problems.from_domain_error(KubeError("no answer"), "r")
    assert response.status == 503
    assert response.headers["Retry-After"] == "5"


def test_headers_of_the_framework_are_kept() -> None:
    response = problems.from_http_error(web.HTTPMethodNotAllowed("DELETE", ["GET", "POST"]), "r")
    assert response.headers["Allow"] == "GET,POST"
    assert response.content_type == "application/problem+json"


def test_callers_are_not_told_where_the_database_is() -> None:
    error = errors.DatabaseUnavailableError("[Errno 111] Connect call failed ('10.1.2.3', 5432)")

    response = problems.from_domain_error(error, "request")

    assert response.status == 503
    assert b"10.1.2.3" not in bytes(response.body or b"")
    assert "10.1.2.3" in str(error)
