"""How a run can fail, and which exit code that means."""

from provisioner_job.contract import ExitCode

__all__ = ["InputError", "OtherPodError", "PhaseError", "ProvisionerError", "RefusedError", "RetryableError"]


class ProvisionerError(Exception):
    """Base; carries what a person needs: a stable code, a title and this occurrence."""

    exit_code = ExitCode.PERMANENT

    def __init__(self, code: str, title: str, detail: str) -> None:
        super().__init__(f"{title}: {detail}")
        self.code = code
        self.title = title
        self.detail = detail

    def problem(self, phase: str) -> dict[str, str]:
        """Return the error as the result's `problem`."""
        return {"code": self.code, "title": self.title, "detail": self.detail, "phase": phase}


class InputError(ProvisionerError):
    """The environment of the container is not what the contract says."""


class PhaseError(ProvisionerError):
    """A phase failed in a way that will repeat itself."""


class RetryableError(ProvisionerError):
    """It may work later: something was away or took too long."""

    exit_code = ExitCode.RETRYABLE


class RefusedError(ProvisionerError):
    """The attempt is not ours to run, or not any more."""

    exit_code = ExitCode.REFUSED

    def __init__(self, reason: str) -> None:
        super().__init__("REFUSED", "The attempt may not run", reason)


class OtherPodError(ProvisionerError):
    """Another pod of the same Job has begun."""

    exit_code = ExitCode.OTHER_POD

    def __init__(self, reason: str) -> None:
        super().__init__("OTHER_POD", "Another pod runs this attempt", reason)
