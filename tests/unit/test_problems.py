from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from aiohttp import web

from controlplane.api import problems
from controlplane.api.problem_table import FAILURES, PROBLEMS, markdown
from controlplane.domain import errors, refusals
from controlplane.kube.errors import KubeError

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit

ID = UUID("0198c2a0-0000-7000-8000-000000000000")
SAMPLES = [
    errors.UnauthorizedError(),
    errors.InvalidTokenError(),
    errors.StoreNotFoundError("1"),
    errors.OperationNotFoundError("1"),
    errors.LogNotAvailableError("gone"),
    errors.NameTakenError(),
    errors.KeyUsedError(),
    errors.OperationInProgressError(ID, "create"),
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
    errors.CredentialsRightMissingError("the Secret", "bind it"),
    refusals.ForbiddenError("an admin"),
    refusals.CredentialsUnavailableError("the store is being made", ID),
    refusals.StoreLimitReachedError(5),
    refusals.RateLimitedError(10, 6),
    refusals.TooManyStreamsError(4),
    refusals.IdempotencyMismatchError(),
    refusals.StoreDeletedError("1"),
    refusals.OperationEndedError(ID, "failed"),
    refusals.NotCancellableError(ID, "delete"),
    refusals.NotRetryableError(ID, "it has succeeded"),
    refusals.RetryInProgressError(ID),
    refusals.NotReattachableError(ID, "its Job is gone"),
]
INTERNAL = {"CONFIGURATION", "MIGRATION", "DATABASE_FAULT"}
"""Never told to callers: they read INTERNAL, the log has the rest."""
BY_FRAMEWORK = {
    "BAD_REQUEST",
    "INVALID_BODY",
    "BODY_TIMEOUT",
    "BODY_TOO_LARGE",
    "EXPECTATION_FAILED",
    "ROUTE_NOT_FOUND",
    "METHOD_NOT_ALLOWED",
    "REQUEST_TIMEOUT",
}


def _below(kind: type[errors.ControlPlaneError]) -> Iterator[type[errors.ControlPlaneError]]:
    yield kind
    for other in kind.__subclasses__():
        yield from _below(other)


def _codes() -> list[str]:
    """Return each code once for every class that has it of its own."""
    return [
        kind.code
        for kind in _below(errors.ControlPlaneError)
        if "code" in vars(kind) and kind.__module__.startswith("controlplane.")
    ]


def test_every_code_is_in_the_table_and_nothing_else() -> None:
    assert set(_codes()) - INTERNAL | BY_FRAMEWORK == set(PROBLEMS)


def test_codes_are_unique() -> None:
    assert len(set(_codes())) == len(_codes())
    assert not set(PROBLEMS) & set(FAILURES)


def test_document_holds_every_code() -> None:
    # To bring it up to date: python -c 'from controlplane.api.problem_table import markdown; print(markdown(), end="")'
    page = Path(__file__).parents[2] / "docs" / "problems.md"
    assert page.read_text(encoding="utf-8") == markdown()


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: error.code)
def test_body_has_the_shape_of_a_problem(error: errors.ControlPlaneError) -> None:
    response = problems.from_domain_error(error, "request-1")
    assert isinstance(response.body, bytes)
    body = json.loads(response.body)
    assert response.content_type == "application/problem+json"
    assert body["status"] == response.status == PROBLEMS[error.code].status
    assert body["title"] == PROBLEMS[error.code].title
    assert body["code"] == error.code
    assert body["type"] == "/problems/" + error.code.lower().replace("_", "-")
    assert body["detail"] == error.detail
    assert body["request_id"] == "request-1"
    assert body.get("retry_after_seconds", 0) == int(response.headers.get("Retry-After", "0"))


def test_conflict_names_the_operation_in_the_way() -> None:
    response = problems.from_domain_error(errors.OperationInProgressError(ID, "create"), "r")
    assert isinstance(response.body, bytes)
    assert json.loads(response.body)["operation_id"] == str(ID)


def test_problems_of_operations_have_an_entry() -> None:
    """Whatever the program writes into `error` or an attempt's `problem` can be looked up."""
    root = Path(__file__).parents[2]
    folders = [root / "provisioner_job", *(root / "controlplane" / name for name in ("reconciler", "dispatcher"))]
    files = [*(file for folder in folders for file in folder.glob("*.py")), root / "controlplane/domain/decision.py"]
    found = {
        code
        for file in files
        for code in re.findall(
            r'(?:"code": |(?:Retryable|Phase)Error\(\s*)"([A-Z]+(?:_[A-Z]+)*)"', file.read_text(encoding="utf-8")
        )
    }
    assert "HELM_FAILED" in found
    assert found <= set(FAILURES) | set(PROBLEMS)


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
    assert isinstance(response.body, bytes)
    assert b"10.1.2.3" not in response.body
    assert "10.1.2.3" in str(error)
