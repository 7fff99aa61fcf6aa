from __future__ import annotations

import pytest

from provisioner_job.database import NotTrustedError, ServerError
from provisioner_job.errors import PhaseError, RetryableError
from provisioner_job.session import refusal

pytestmark = pytest.mark.unit


def _error(state: str) -> ServerError:
    return ServerError(state, f"what it says {state}")


@pytest.mark.parametrize(
    "error",
    [
        # A connection lost, a serialization failure, too many connections, a lock not had in time, a call that was
        # cancelled, a shutdown, a start, a standby.
        *(_error(state) for state in ("08006", "40001", "53300", "55P03", "57014", "57P01", "57P03", "25006")),
        ConnectionResetError("the database closed the connection"),
        ConnectionRefusedError(),
        TimeoutError(),
    ],
    ids=str,
)
def test_what_passes_is_asked_again(error: Exception) -> None:
    assert refusal(error) is None


@pytest.mark.parametrize("state", ["28P01", "28000"])
def test_refused_login_is_for_the_next_pod(state: str) -> None:
    told = refusal(_error(state))
    assert isinstance(told, RetryableError)
    assert "what it says" in told.detail
    assert "password" in told.detail


@pytest.mark.parametrize("state", ["42501", "42883", "22P02", "3D000", "XX000"])
def test_any_other_refusal_is_final(state: str) -> None:
    told = refusal(_error(state))
    assert isinstance(told, PhaseError)
    assert state in told.detail


def test_server_that_cannot_be_trusted_is_for_the_next_pod() -> None:
    told = refusal(NotTrustedError("it may be another server"))
    assert isinstance(told, RetryableError)
    assert told.code == "DATABASE_NOT_TRUSTED"
