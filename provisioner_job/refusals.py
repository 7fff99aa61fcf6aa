"""What the failure of a call to the API server means: is the server away, or is this its answer? Pure.

The client's modules are imported when a call has failed, never before the handshake.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from provisioner_job.errors import PhaseError, RetryableError

__all__ = ["AbsentError", "Refusal", "TakenError", "away_cause", "explained", "refusal_in"]

_AWAY: Final = frozenset({429, 500, 502, 503, 504})
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_NOT_YET: Final = frozenset({401, 403, _NOT_FOUND})
"""A server that has just started knows neither all tokens, nor roles, nor kinds."""
_SHOWN_CHARACTERS: Final = 300


class AbsentError(RetryableError):
    """The object is not there; where that is no answer, it went away while we worked."""

    def __init__(self, detail: str) -> None:
        super().__init__("OBJECT_GONE", "An object of the store went away", detail)


class TakenError(RetryableError):
    """The name is taken; where that is no answer, somebody else changed the object since it was read."""

    def __init__(self, detail: str) -> None:
        super().__init__("OBJECT_CHANGED", "Somebody else changes an object of the store", detail)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP answer that is an error."""

    status: int
    message: str
    names_object: bool
    """An object is not there, and not its whole kind."""
    wait_seconds: float
    """What the server asks us to wait; 0 when it asks for nothing."""


def refusal_in(error: BaseException) -> Refusal | None:
    """Return the HTTP answer an error is about, or None when there was no answer.

    The client trips over an answer without a content type, or one that says it is JSON and is not; the answer is then
    in what it was handling.
    """
    from httpx2 import HTTPStatusError  # noqa: PLC0415 -- see the module's docstring

    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, HTTPStatusError):
        seen = seen.__context__
    if seen is None:
        return None
    response = seen.response
    try:
        status: Any = json.loads(response.content)
    except ValueError:
        status = None
    # A proxy in front of the server answers with what it likes.
    body = status if isinstance(status, dict) else {}
    details = body.get("details") if isinstance(body.get("details"), dict) else {}
    asked = response.headers.get("Retry-After", "")
    return Refusal(
        status=response.status_code,
        message=str(body.get("message") or response.text[:_SHOWN_CHARACTERS].strip() or response.reason_phrase),
        names_object=bool(details and details.get("name")),
        # It may also be a date; no Kubernetes sends one.
        wait_seconds=float(asked) if asked.isascii() and asked.isdigit() else 0.0,
    )


def away_cause(error: Exception, *, was_away: bool) -> str | None:
    """Return why the server counts as away, or None when the failure is its answer or a bug of ours.

    Parameters
    ----------
    was_away
        An earlier try of the same call found the server away.
    """
    from httpx2 import HTTPError  # noqa: PLC0415 -- see the module's docstring

    refusal = refusal_in(error)
    if refusal is None:
        is_away = isinstance(error, HTTPError | OSError | TimeoutError)
        return (str(error) or type(error).__name__) if is_away else None
    is_not_yet = was_away and refusal.status in _NOT_YET and not (refusal.status == _NOT_FOUND and refusal.names_object)
    return f"HTTP {refusal.status}: {refusal.message}" if refusal.status in _AWAY or is_not_yet else None


def explained(what: str, error: Exception) -> Exception:
    """Return our error for a failure, or the same one when it is a bug."""
    refusal = refusal_in(error)
    if refusal is None or refusal.status in _AWAY:
        cause = away_cause(error, was_away=False)
        if cause is None:
            return error
        return RetryableError("CLUSTER_UNAVAILABLE", "The cluster does not answer", f"{what}: {cause}")
    message = f"{what}: {refusal.message}"
    # Without a name it is the kind that is not there, and a next attempt would not find it either.
    if refusal.status == _NOT_FOUND and refusal.names_object:
        return AbsentError(message)
    if refusal.status == _CONFLICT:
        return TakenError(message)
    return PhaseError("CLUSTER_REFUSED", "The cluster refuses an object", message)
