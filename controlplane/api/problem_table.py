"""Every code a client can meet, on one screen: status, title, what it means, what to do next.

`docs/problems.md` and `/problems/<code>` are made from this table. The first part answers requests; the second names
why an operation or attempt failed, which is no HTTP error: it stands in the operation's `error`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

__all__ = ["FAILURES", "PROBLEMS", "Failure", "Kind", "kebab", "markdown", "type_of"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem."""

    status: int
    title: str
    """Constant, the same for every occurrence."""
    meaning: str
    next_step: str


@dataclass(frozen=True, slots=True)
class Failure:
    """One reason why an operation or an attempt failed."""

    meaning: str
    next_step: str


_AGAIN: Final = "Try again after the seconds of `Retry-After`; repeat a create with the same Idempotency-Key."
_OURS: Final = "It is not your fault. Give the request id to whoever runs the platform: it finds the log line."

PROBLEMS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        # the request itself
        "BAD_REQUEST": Kind(
            400,
            "Bad request",
            "The request is not valid HTTP: its request line, a header or the encoding of its body cannot be read. The "
            "connection is closed.",
            "Mend the client.",
        ),
        "INVALID_JSON": Kind(
            400, "Invalid JSON", "The body is not JSON, or nested too deeply.", "Send one JSON object as the body."
        ),
        "INVALID_BODY": Kind(
            400,
            "Invalid body",
            "The body is not what its headers say, such as one that is not gzip though its header says so.",
            "Mend the headers, or send the body plainly.",
        ),
        "INVALID_INPUT": Kind(
            422,
            "Invalid input",
            "A field of the body or the query string is missing, unknown or wrong; `errors` names each.",
            "Mend the fields named in `errors`.",
        ),
        "BODY_TIMEOUT": Kind(
            408, "Body too slow", "The body did not arrive in time.", "Send the whole body within ten seconds."
        ),
        "BODY_TOO_LARGE": Kind(413, "Body too large", "The body has more than 64 KiB.", "Send less."),
        "EXPECTATION_FAILED": Kind(
            417, "Expectation failed", "The Expect header asks for what is not offered.", "Leave the header out."
        ),
        "ROUTE_NOT_FOUND": Kind(
            404, "No such resource", "There is no such path.", "See /api/openapi.json for all that are."
        ),
        "METHOD_NOT_ALLOWED": Kind(
            405, "Method not allowed", "The path knows other methods.", "Use one of the `Allow` header."
        ),
        # who asks
        "UNAUTHORIZED": Kind(
            401, "Authentication required", "No bearer token came.", "Send `Authorization: Bearer <token>`."
        ),
        "INVALID_TOKEN": Kind(401, "The token is not valid", "Nobody has this token.", "Ask an admin for a token."),
        "FORBIDDEN": Kind(
            403, "Not allowed", "You may see this and not change it.", "Ask its owner or an admin, as `detail` says."
        ),
        # what is asked for
        "NOT_FOUND": Kind(404, "Not found", "There is nothing with this id.", "Check the id."),
        "STORE_NOT_FOUND": Kind(
            404, "Store not found", "There is no such store, or it is another user's.", "List yours: GET /api/stores."
        ),
        "OPERATION_NOT_FOUND": Kind(
            404,
            "Operation not found",
            "There is no such operation, or it is another user's.",
            "List yours: GET /api/operations.",
        ),
        "LOG_NOT_AVAILABLE": Kind(
            404,
            "Log not available",
            "The operation exists and there is no log, for the reason in `detail`.",
            "If nothing was written yet, ask again shortly; see the operation's `attempts` for a diagnosis.",
        ),
        "STORE_DELETED": Kind(
            410, "Store deleted", "The store was deleted; its history can still be read.", "Order a new one."
        ),
        # the wish
        "NAME_TOO_LONG": Kind(
            422,
            "Name too long",
            "The slug made from the name would not fit a Kubernetes namespace.",
            "Give a slug of at most 48 characters.",
        ),
        "NAME_RESERVED": Kind(
            422,
            "Name reserved",
            "platform, admin, api, system and test belong to the platform.",
            "Choose another name, or give a slug.",
        ),
        "ENGINE_UNSUPPORTED": Kind(
            422, "Engine not supported", "There is no such engine.", "Choose one of GET /api/engines."
        ),
        "ENGINE_PLANNED": Kind(
            422,
            "Engine planned",
            "The engine is announced and cannot be ordered yet.",
            "Choose a supported one of GET /api/engines.",
        ),
        "IDEMPOTENCY_MISMATCH": Kind(
            422,
            "Idempotency key used",
            "This Idempotency-Key came with another body before.",
            "Use a new key for a new wish; the same one only to repeat a request.",
        ),
        # limits
        "STORE_LIMIT_REACHED": Kind(
            403,
            "Store limit reached",
            "You have as many stores as you may have; deleted ones do not count.",
            "Delete one, or ask an admin for a higher limit.",
        ),
        "LIMIT_EXCEEDED": Kind(429, "Limit exceeded", "Too much at once.", "Wait the seconds of `Retry-After`."),
        "RATE_LIMITED": Kind(
            429, "Too many creates", "You order stores faster than allowed.", "Wait the seconds of `Retry-After`."
        ),
        "TOO_MANY_STREAMS": Kind(
            429,
            "Too many log streams",
            "You, or all users together, follow as many logs at once as allowed.",
            "End one of them first, or read the log without following it.",
        ),
        # what is going on already
        "CONFLICT": Kind(409, "Conflict", "The request contradicts what is there.", "Read it again and decide anew."),
        "NAME_TAKEN": Kind(
            409, "Name taken", "You have a store with this slug.", "Choose another name, or give a slug."
        ),
        "HOST_TAKEN": Kind(
            409,
            "Host taken",
            "A store that is not deleted has this host; whose it is, is not told.",
            "Choose another host, leave it out to be given one, or delete the store that has it.",
        ),
        "KEY_USED": Kind(
            409,
            "Request in progress",
            "A request with the same Idempotency-Key is being answered.",
            "Repeat the request with the same key.",
        ),
        "OPERATION_IN_PROGRESS": Kind(
            409,
            "Operation in progress",
            "The store is busy with the operation named by `operation_id`.",
            "Wait for its end, or cancel it.",
        ),
        "OPERATION_ENDED": Kind(
            409, "Operation ended", "The operation is over, so nothing can be cancelled.", "Retry it, or leave it."
        ),
        "NOT_CANCELLABLE": Kind(
            409,
            "Not cancellable",
            "A delete or clean-up is carried through, or parts of the store would be left behind.",
            "Wait for its end; if it fails, repeat it: that is safe.",
        ),
        "NOT_RETRYABLE": Kind(
            409, "Not retryable", "The operation cannot be tried again, for the reason in `detail`.", "See `detail`."
        ),
        "RETRY_IN_PROGRESS": Kind(
            409,
            "Retry in progress",
            "Somebody asked for the same a moment ago.",
            "Follow the operation named by `operation_id`.",
        ),
        "NOT_REATTACHABLE": Kind(
            409,
            "Not reattachable",
            "There is no living Job of this attempt to bind to it, for the reason in `detail`.",
            "Retry the operation; a foreign Job is in the audit log and has to be removed by a person.",
        ),
        "CREDENTIALS_UNAVAILABLE": Kind(
            409,
            "No credentials",
            "The store is there and has no credentials that could be told, for the reason in `detail`. This is no 404, "
            "which always says that there is no such store.",
            "See `detail`; while the store is made, follow the operation named by `operation_id`.",
        ),
        "STALE_LEASE": Kind(409, "Changed meanwhile", "Somebody else was faster.", "Read it again and decide anew."),
        "JOB_CONFLICT": Kind(
            409,
            "Foreign Job",
            "A Job that is not ours has the name of the attempt's; it was not touched.",
            "Look at it with kubectl; remove it if nobody needs it, then retry the operation.",
        ),
        # our side
        "DEPENDENCY_UNAVAILABLE": Kind(503, "Dependency unavailable", "Something behind the API is away.", _AGAIN),
        "KUBERNETES": Kind(503, "Cluster unavailable", "The Kubernetes API does not answer as it should.", _AGAIN),
        "DATABASE_UNAVAILABLE": Kind(503, "Database unavailable", "The database does not answer in time.", _AGAIN),
        "SCHEMA_MISSING": Kind(
            503,
            "Database not migrated",
            "The database lacks tables this version needs.",
            "Whoever runs the platform: run `storeplane migrate`.",
        ),
        "DATABASE_RIGHT_MISSING": Kind(
            503,
            "Database right missing",
            "The database refuses a right to the service.",
            "Whoever runs the platform: run `storeplane migrate` as the owner, the service as storeplane_app.",
        ),
        "CREDENTIALS_RIGHT_MISSING": Kind(
            503,
            "Right to credentials missing",
            "The cluster refuses the control plane the Secret with a store's credentials.",
            "Whoever runs the platform: make the RoleBinding that `detail` names.",
        ),
        "REQUEST_TIMEOUT": Kind(504, "Request timed out", "The answer took too long.", _AGAIN),
        "INTERNAL": Kind(500, "Internal error", "Something went wrong that nobody foresaw.", _OURS),
    }
)

FAILURES: Final[Mapping[str, Failure]] = MappingProxyType(
    {
        "OPERATION_TIMEOUT": Failure(
            "The operation took longer than its kind may, counted from its first dispatch.",
            "Read the diagnosis and log of the last attempt, mend the cause, retry.",
        ),
        "QUEUE_TIMEOUT": Failure(
            "The operation waited a day without being dispatched.", "Find out from `waiting` what stopped it; retry."
        ),
        "POD_NOT_STARTED": Failure(
            "The Job's pod never began: no image, no node, or no right to it.",
            "See the attempt's diagnosis; it names what the cluster said.",
        ),
        "OUT_OF_MEMORY": Failure(
            "The provisioner was killed for using more memory than it may.", "Retry; if it happens again, report it."
        ),
        "PROVISIONER_DIED": Failure(
            "The provisioner ended without a word.", "See the attempt's log and diagnosis, then retry."
        ),
        "PROVISIONER_TIMEOUT": Failure("The provisioner ran out of time.", "See which phase took long; retry."),
        "PHASE_TIMEOUT": Failure("One phase took too long.", "See the attempt's log and the store's pods; retry."),
        "ATTEMPT_LOST": Failure("The Job or its pod is gone without a report.", "It is retried; nothing to do."),
        "ATTEMPT_FAILED": Failure("The attempt failed.", "See its problem and log, mend the cause, retry."),
        "LEASE_LOST": Failure("The provisioner could not reach the database for long.", "It is retried."),
        "HELM_FAILED": Failure("Helm refused the chart or its values.", "See the attempt's log; retry after mending."),
        "HELM_INTERRUPTED": Failure("Helm could not reach the cluster.", "It is retried; nothing to do."),
        "OTHER_POD": Failure("Another pod runs this attempt.", "Nothing: the other pod goes on."),
        "RETRIED": Failure("A person ended the attempt to begin the next one.", "Follow the next attempt."),
        "STOPPED": Failure("The provisioner's pod was told to stop.", "It is retried; nothing to do."),
        "KIND_UNKNOWN": Failure(
            "The provisioner's image does not know this kind of operation.", "Retry with refresh_spec."
        ),
        "NAMESPACE_FOREIGN": Failure(
            "The store's namespace belongs to somebody else; nothing in it was touched.",
            "Whoever runs the cluster: look at the namespace and its labels.",
        ),
        "NAMESPACE_TERMINATING": Failure("The store's namespace is being removed.", "Wait until it is gone; retry."),
        "NAMESPACE_GONE": Failure("The store's namespace was deleted meanwhile.", "Retry to make it anew."),
        "NAMESPACE_STUCK": Failure(
            "The namespace does not go: something in it holds a finalizer.",
            "See what the attempt's log names, remove the finalizer's cause, repeat the delete.",
        ),
        "RIGHTS_MISSING": Failure(
            "The provisioner has no rights in the store's namespace.",
            "Whoever runs the platform: check the ClusterRoles and bindings the chart installs.",
        ),
        "RIGHTS_UNSEEN": Failure("The provisioner's new rights do not work yet.", "It is retried; nothing to do."),
        "SECRET_INCOMPLETE": Failure(
            "The store's Secret lacks keys it had.", "Restore them, or delete the store and order it anew."
        ),
        "SECRET_RECIPE": Failure(
            "The store's Secret is to be made in a way the provisioner does not know.",
            "Use the provisioner's image of the control plane's version; retry with `refresh_spec`.",
        ),
        "SPEC_VERSION": Failure(
            "The order is written for another version of the provisioner.",
            "Use the provisioner's image of the control plane's version; retry with `refresh_spec`.",
        ),
        "PRESET_MISSING": Failure(
            "The chart has no values for the preset of the settings.", "Choose a preset the chart has; retry fresh."
        ),
        "RELEASE_UNREADABLE": Failure(
            "What Helm keeps of a locked release cannot be read.", "Look at the release's Secret; retry."
        ),
        "PROGRAM_MISSING": Failure("A program is missing in the provisioner's image.", "Rebuild the image; retry."),
        "PROGRAM_TIMEOUT": Failure("A program the provisioner runs took too long.", "See the attempt's log; retry."),
        "SETUP_FAILED": Failure(
            "The store's setup (migration, seed, admin) failed.", "See the cause in `detail` and the log; retry."
        ),
        "SETUP_TIMEOUT": Failure("The store's setup took too long.", "See the setup Job's log; retry."),
        "SETUP_GONE": Failure("The Job of the store's setup, or its pods, are gone.", "It is retried; nothing to do."),
        "SETUP_STAYS": Failure("A failed setup cannot be removed.", "Look at the setup Job with kubectl; retry."),
        "IMAGE_UNAVAILABLE": Failure(
            "An image of the store cannot be had.",
            "Check the reference and the registry's credentials; retry with `refresh_spec` after mending the settings.",
        ),
        "CONTAINER_NOT_CREATED": Failure("A container of the store cannot be made.", "See `detail`; it is retried."),
        "SHOP_CRASHES": Failure(
            "A container of the store crashes again and again.",
            "Its last lines are in `detail`; mend the cause, retry.",
        ),
        "POD_UNSCHEDULABLE": Failure(
            "No node takes a pod of the store.", "Add room, or see in `detail` what the nodes lack; it is retried."
        ),
        "VOLUME_UNAVAILABLE": Failure(
            "A volume of the store cannot be had.",
            "See `kubectl get storageclass` and `kubectl -n <namespace> describe pvc`, mend the class; it is retried.",
        ),
        "QUOTA_EXCEEDED": Failure(
            "The store's quota leaves no room for a pod.", "Give the store a larger plan or quota, then retry."
        ),
        "POD_REFUSED": Failure(
            "The cluster refuses a pod of the store.", "See which policy or webhook in `detail`; mend it, retry."
        ),
        "NO_PRODUCTS": Failure("The shop runs and shows no products.", "See the setup's log; retry."),
        "SERVICE_WITHOUT_PODS": Failure("The store's Service selects no pods.", "See the chart's values; retry."),
        "OBJECT_GONE": Failure("An object of the store went away during the run.", "Find out who removed it; retry."),
        "HOST_NOT_ROUTED": Failure("The Ingress does not lead the shop's host to it.", "Check the chart; retry."),
        "CLUSTER_UNAVAILABLE": Failure("The cluster did not answer the provisioner.", "It is retried."),
        "CLUSTER_REFUSED": Failure(
            "The cluster refuses an object of the store.", "See the refusal in `detail`: a policy, a quota or a right."
        ),
        "DATABASE_NOT_TRUSTED": Failure(
            "What answers for the database cannot be trusted.", "Check TLS mode and CA of the provisioner's settings."
        ),
        "DATABASE_LOGIN_REFUSED": Failure(
            "The database refuses the provisioner's login.", "Check the password in the provisioner's Secret."
        ),
        "DATABASE_REFUSED": Failure("The database refuses the provisioner's report.", "Report it with the log."),
        "UNEXPECTED": Failure("The provisioner has a fault.", "Report it with the attempt's log."),
    }
)


def kebab(code: str) -> str:
    """Return a code as it stands in an address."""
    return code.lower().replace("_", "-")


def type_of(code: str) -> str:
    """Return the problem's `type`, the address of its page."""
    return f"/problems/{kebab(code)}"


def markdown() -> str:
    """Return the text of `docs/problems.md`."""
    lines = [
        "# Problems",
        "",
        "Every error is `application/problem+json` (RFC 9457). Switch on `code` or `type`; `detail` is for people and",
        "may change. The running API serves each entry at its `type`.",
        "",
        "## Answers to requests",
    ]
    for code, kind in PROBLEMS.items():
        lines += ["", f"### {code}", "", f"`{type_of(code)}` · {kind.status} {kind.title}", ""]
        lines += [kind.meaning, "", f"**Next step:** {kind.next_step}"]
    lines += ["", "## Why an operation or attempt failed", "", "These stand in `error` and in an attempt's `problem`."]
    for code, failure in FAILURES.items():
        lines += ["", f"### {code}", "", failure.meaning, "", f"**Next step:** {failure.next_step}"]
    return "\n".join(lines) + "\n"
