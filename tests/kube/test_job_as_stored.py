"""The Job as the cluster keeps it: what the protocol rests on survives the server's defaults and admission."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from controlplane.domain.attempt import attempt_token
from tests.support import wishes

if TYPE_CHECKING:
    from tests.support.plane import Plane

pytestmark = pytest.mark.cluster


async def test_job_is_stored_as_the_protocol_needs_it(plane: Plane) -> None:
    wish = await plane.ledger.order(
        name="noop late=30", spec={"provisioner_image": plane.settings.provisioner_image, "traceparent": "00-a-b-01"}
    )
    assert await plane.dispatch()
    (job,) = plane.jobs()
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    # One attempt is one pod: retries are ours, and a pod that ends for good is not replaced beside a living one.
    assert (spec["parallelism"], spec["completions"], spec["backoffLimit"]) == (1, 1, 0)
    assert (spec["podReplacementPolicy"], pod["restartPolicy"]) == ("Failed", "Never")
    assert spec.get("completionMode", "NonIndexed") == "NonIndexed"
    assert "managedBy" not in spec
    assert not spec.get("suspend")
    # The pod's own limit ends it first; the Job's takes log and pod along and is only a backstop.
    assert (pod["activeDeadlineSeconds"], spec["activeDeadlineSeconds"]) == (600, 960)
    assert spec["ttlSecondsAfterFinished"] == 86_400
    rules = [(rule["action"], rule["onExitCodes"]["values"]) for rule in spec["podFailurePolicy"]["rules"]]
    assert rules == [("Ignore", [30]), ("FailJob", [31])]
    assert {(each["key"], each["effect"], each["tolerationSeconds"]) for each in pod["tolerations"]} >= {
        ("node.kubernetes.io/not-ready", "NoExecute", 30),
        ("node.kubernetes.io/unreachable", "NoExecute", 30),
    }
    assert container["resources"] == {
        "requests": {"cpu": "100m", "memory": "128Mi"},
        "limits": {"cpu": "500m", "memory": "512Mi"},
    }
    assert container["command"] == ["storeplane-provision", "single"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["terminationMessagePolicy"] == "File"
    marks = {
        "app": "store-provisioner",
        "store-id": str(wish.store_id),
        "operation-id": str(wish.operation_id),
        "attempt": "1",
        "owner-id": str(wish.owner_id),
    }
    for labels in (job["metadata"]["labels"], spec["template"]["metadata"]["labels"]):
        assert marks.items() <= labels.items()
    notes = job["metadata"]["annotations"]
    assert notes["storeplane.dev/traceparent"] == "00-a-b-01"
    given = {each["name"]: each.get("value") for each in container["env"]}
    for name, value in {
        "STORE_ID": str(wish.store_id),
        "STORE_NAME": "noop late=30",
        "ENGINE": "medusa",
        "OPERATION_ID": str(wish.operation_id),
        "ATTEMPT": "1",
        "DB_HOST": plane.settings.provisioner_db_host,
    }.items():
        assert given[name] == value


async def test_stored_job_is_the_rendered_bytes_with_the_token(plane: Plane) -> None:
    wish = await plane.ledger.order(name="noop late=30", spec={"provisioner_image": plane.settings.provisioner_image})
    assert await plane.dispatch()
    (job,) = plane.jobs()
    attempt = await plane.ledger.attempt(wish)
    token = attempt_token(wishes.KEY.encode(), wish.operation_id, 1)
    assert token not in attempt["manifest"]
    assert hashlib.sha256(attempt["manifest"].encode()).hexdigest() == attempt["manifest_sha256"]
    assert hashlib.sha256(token.encode()).digest() == attempt["token_hash"]
    rendered = json.loads(attempt["manifest"])
    assert rendered["metadata"]["name"] == job["metadata"]["name"] == f"store-create-{wish.operation_id}-1"
    variables = {each["name"]: each.get("value") for each in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert variables["ATTEMPT_TOKEN"] == token
    for each in rendered["spec"]["template"]["spec"]["containers"][0]["env"]:
        if "value" in each and each["name"] != "ATTEMPT_TOKEN":
            assert (variables[each["name"]] or "") == each["value"]
