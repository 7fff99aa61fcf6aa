from __future__ import annotations

import asyncpg
import pytest

from provisioner_job.errors import PhaseError, RetryableError
from provisioner_job.reports import refusal

pytestmark = pytest.mark.unit


def _error(state: str) -> Exception:
    made: Exception = asyncpg.PostgresError.new({"S": "FATAL", "V": "FATAL", "C": state, "M": "what it says"})
    return made


@pytest.mark.parametrize(
    "error",
    [
        # A connection lost, a serialization failure, too many connections, a lock not had in time, a call that was
        # cancelled, a shutdown, a start, a standby.
        *(_error(state) for state in ("08006", "40001", "53300", "55P03", "57014", "57P01", "57P03", "25006")),
        asyncpg.InterfaceError("connection is closed"),
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
