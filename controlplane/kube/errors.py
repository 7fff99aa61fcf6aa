"""What the API server says when it does not do as asked, by what the caller can do about it."""

from typing import Any, ClassVar

from controlplane.domain.errors import DependencyUnavailableError

__all__ = [
    "KubeConflictError",
    "KubeError",
    "KubeForbiddenError",
    "KubeGoneError",
    "KubeInvalidError",
    "KubeNotFoundError",
    "KubeThrottledError",
    "KubeUnauthorizedError",
    "KubeUnavailableError",
    "error_from_response",
]

_MESSAGE_LIMIT = 500
"""Characters kept of the server's sentence: admission webhooks can answer with pages."""


class KubeError(DependencyUnavailableError):
    """Base of everything a cluster call raises."""

    code: ClassVar[str] = "KUBERNETES"

    def __init__(self, message: str, *, reason: str = "", retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        """The Status object's `reason`."""
        self.retry_after_seconds = retry_after_seconds


class KubeNotFoundError(KubeError):
    """404."""


class KubeConflictError(KubeError):
    """409: the name is taken, or the object changed."""


class KubeUnauthorizedError(KubeError):
    """401: the cluster does not know us."""


class KubeForbiddenError(KubeError):
    """403: our rights or a quota."""


class KubeGoneError(KubeError):
    """410: the server has forgotten this version or this list; only a new list helps."""


class KubeInvalidError(KubeError):
    """400 or 422: this object will never be accepted."""


class KubeThrottledError(KubeError):
    """429: later, after `retry_after_seconds`."""


class KubeUnavailableError(KubeError):
    """No answer, no answer in time, 5xx, or an answer that is not Kubernetes: whether it worked is unknown."""


_BY_STATUS: dict[int, type[KubeError]] = {
    400: KubeInvalidError,
    401: KubeUnauthorizedError,
    403: KubeForbiddenError,
    404: KubeNotFoundError,
    409: KubeConflictError,
    410: KubeGoneError,
    422: KubeInvalidError,
    429: KubeThrottledError,
}


def error_from_response(what: str, status: int, body: Any, retry_after: str | None) -> KubeError:
    """Return the error for a failed call.

    `body` is the decoded answer; only a Status object's own sentence is kept, cut, since anything else may be an echo
    of what was sent.
    """
    message, reason = f"HTTP {status}", ""
    if isinstance(body, dict) and body.get("kind") == "Status":
        message = str(body.get("message") or message)[:_MESSAGE_LIMIT]
        reason = str(body.get("reason") or "")
    seconds = float(retry_after) if retry_after is not None and retry_after.isdigit() else None
    made = _BY_STATUS.get(status, KubeUnavailableError)
    return made(f"{what}: {message}", reason=reason, retry_after_seconds=seconds)
