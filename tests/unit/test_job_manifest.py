from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from controlplane.domain.attempt import ClaimedAttempt, attempt_token
from controlplane.kube.job_manifest import (
    ManifestError,
    comparable,
    difference,
    render_job,
    sha256_of,
    token_in,
    with_token,
)
from provisioner_job.contract import Env, ExitCode, OptionalEnv
from tests.support import wishes

pytestmark = pytest.mark.unit

GOLDEN = Path(__file__).parents[1] / "data" / "job-hostile.json"
OPERATION = UUID("0198c2a0-0000-7000-8000-000000000001")
HOSTILE = '"}}, "hostNetwork": true, {{ 7*7 }} </script> $(DB_PASSWORD) \\ \u2028 é'
CLAIMED = ClaimedAttempt(
    operation_id=OPERATION,
    store_id=UUID("0198c2a0-0000-7000-8000-000000000002"),
    owner_id=UUID("0198c2a0-0000-7000-8000-000000000003"),
    store_name=HOSTILE,
    engine="medusa",
    namespace="store-shop-abcdefg2",
    kind="create",
    number=1,
    job_name=f"store-create-{OPERATION}-1",
    fence=7,
    spec={"provisioner_image": "storeplane.local/provisioner:1", "traceparent": HOSTILE},
    request_id=HOSTILE,
    memory_mib=512,
    manifest=None,
    token_hash=None,
    token_key_id=None,
)


def test_hostile_values_render_as_the_reviewed_file() -> None:
    """Set STOREPLANE_TEST_UPDATE=1 to write the file anew, and review the difference."""
    found = json.dumps(json.loads(render_job(CLAIMED, wishes.settings())), indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("STOREPLANE_TEST_UPDATE") == "1":
        GOLDEN.write_text(found, encoding="utf-8")
    assert found == GOLDEN.read_text(encoding="utf-8")


def test_value_stays_a_value_and_is_never_expanded_by_kubernetes() -> None:
    job = json.loads(render_job(CLAIMED, wishes.settings()))
    container = job["spec"]["template"]["spec"]["containers"][0]
    variables = {each["name"]: each.get("value") for each in container["env"]}
    assert variables["STORE_NAME"] == HOSTILE.replace("$", "$$")
    assert variables["TRACEPARENT"] == HOSTILE.replace("$", "$$")
    for metadata in (job["metadata"], job["spec"]["template"]["metadata"]):
        assert metadata["annotations"]["storeplane.dev/request-id"] == HOSTILE
        assert metadata["annotations"]["storeplane.dev/traceparent"] == HOSTILE
    assert "hostNetwork" not in job["spec"]["template"]["spec"]


def test_every_variable_of_the_contract_is_set() -> None:
    job = json.loads(render_job(CLAIMED, wishes.settings()))
    names = [each["name"] for each in job["spec"]["template"]["spec"]["containers"][0]["env"]]
    assert len(names) == len(set(names))
    assert set(Env) <= set(names) <= {*Env, *OptionalEnv}


def test_retries_are_never_the_jobs() -> None:
    spec = json.loads(render_job(CLAIMED, wishes.settings()))["spec"]
    assert (spec["backoffLimit"], spec["parallelism"], spec["completions"]) == (0, 1, 1)
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert spec["podReplacementPolicy"] == "Failed"
    codes = {rule["action"]: rule["onExitCodes"]["values"] for rule in spec["podFailurePolicy"]["rules"]}
    assert codes == {"Ignore": [ExitCode.OTHER_POD], "FailJob": [ExitCode.REFUSED]}
    # The Job's limit takes the pod and its log along: it comes only when the pod's own did not hold.
    assert spec["template"]["spec"]["activeDeadlineSeconds"] < spec["activeDeadlineSeconds"]


def test_memory_is_the_attempts() -> None:
    job = json.loads(render_job(replace(CLAIMED, memory_mib=1024), wishes.settings()))
    assert job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] == "1024Mi"


def test_trace_may_be_missing() -> None:
    spec = {"provisioner_image": CLAIMED.spec["provisioner_image"]}
    job = json.loads(render_job(replace(CLAIMED, spec=spec), wishes.settings()))
    assert job["metadata"]["annotations"]["storeplane.dev/traceparent"] == ""


def test_bytes_depend_on_neither_fence_nor_token_key() -> None:
    other = replace(CLAIMED, fence=8, token_key_id="another", token_hash=b"another")
    assert sha256_of(render_job(CLAIMED, wishes.settings())) == sha256_of(render_job(other, wishes.settings()))


def test_missing_value_is_an_error_of_the_manifest() -> None:
    with pytest.raises(ManifestError, match="provisioner_image"):
        render_job(replace(CLAIMED, spec={}), wishes.settings())


def test_value_that_is_an_object_is_refused() -> None:
    spec = {"provisioner_image": {"name": "x", "securityContext": {"privileged": True}}}
    with pytest.raises(ManifestError, match="other keys"):
        render_job(replace(CLAIMED, spec=spec), wishes.settings())


def test_token_is_only_in_what_is_posted() -> None:
    manifest = render_job(CLAIMED, wishes.settings())
    token = attempt_token(wishes.KEY.encode(), OPERATION, 1)
    assert token not in manifest
    posted = with_token(manifest, token)
    assert token in json.dumps(posted)
    assert difference(json.loads(manifest)["metadata"], posted["metadata"]) is None
    assert token_in(posted) == token
    assert token_in(json.loads(manifest)) == ""


@pytest.mark.parametrize(
    "job",
    [
        {},
        {"spec": None},
        {"spec": {"template": {"spec": {"containers": []}}}},
        {"spec": {"template": {"spec": {"containers": [{"env": [{"name": "OTHER", "value": "x"}]}]}}}},
        {"spec": {"template": {"spec": {"containers": [{"env": [{"name": "ATTEMPT_TOKEN", "valueFrom": {}}]}]}}}},
    ],
)
def test_job_of_another_shape_carries_no_token(job: dict[str, object]) -> None:
    assert token_in(job) == ""


def test_ttl_and_token_make_no_other_job_and_anything_else_does() -> None:
    posted = with_token(render_job(CLAIMED, wishes.settings()), "token")
    wanted = comparable(posted)
    changed = json.loads(json.dumps(posted))
    changed["spec"]["ttlSecondsAfterFinished"] = 1
    variables = changed["spec"]["template"]["spec"]["containers"][0]["env"]
    next(each for each in variables if each["name"] == Env.ATTEMPT_TOKEN)["value"] = "another"
    assert token_in(changed) == "another"
    assert difference(wanted, changed) is None
    changed["spec"]["template"]["spec"]["serviceAccountName"] = "another"
    assert difference(wanted, changed) == "/spec/template/spec/serviceAccountName"
    assert token_in(posted) == "token", "the posted Job must stay as it is"


@pytest.mark.parametrize(
    ("wanted", "found", "place"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, None),
        ({"a": {"b": [1, {"c": "x"}]}}, {"a": {"b": [1, {"c": "x", "d": 0}]}}, None),
        ({"a": 1}, {"a": 2}, "/a"),
        ({"a": [1]}, {"a": [1, 2]}, "/a"),
        ({"a": {"b": 1}}, {"a": None}, "/a"),
        ({"a": ""}, {}, None),
        ({"a": "x"}, {}, "/a"),
    ],
)
def test_difference_is_what_the_other_lacks_or_changes(wanted: object, found: object, place: str | None) -> None:
    assert difference(wanted, found) == place
