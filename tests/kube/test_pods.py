"""What pods may do to an attempt: die, come twice, lose an answer, be two replicas' business."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.ledger import Order
    from tests.support.plane import Plane

pytestmark = pytest.mark.cluster


async def order(plane: Plane, name: str = "noop", **more: Any) -> Order:
    return await plane.ledger.order(name=name, spec={"provisioner_image": plane.settings.provisioner_image}, **more)


async def test_pod_killed_before_its_handshake_costs_no_try(plane: Plane) -> None:
    wish = await order(plane, "noop late=300:1")
    async with plane.running():

        async def is_up() -> bool:
            return any(pod["status"]["phase"] == "Running" for pod in plane.pods())

        await plane.wait_until(is_up, "the pod runs")
        plane.namespace.do("delete", "pods", "--all", "--wait=false", "--grace-period=1")
        await plane.wait_until(plane.is_settled(wish), "the operation is settled")
    attempts = [await plane.ledger.attempt(wish, number) for number in (1, 2)]
    assert attempts[0]["started_at"] is None
    assert attempts[1]["outcome"] == "succeeded"


async def test_pod_killed_after_its_handshake_is_followed_by_another_attempt(plane: Plane) -> None:
    wish = await order(plane, "noop hold=300:1")
    async with plane.running():
        await plane.wait_until(plane.attempt_is(wish, "running"), "the pod has begun")
        plane.namespace.do("delete", "pods", "--all", "--wait=false", "--grace-period=1")
        await plane.wait_until(plane.is_settled(wish), "the operation is settled")
    first, second = await plane.ledger.attempt(wish), await plane.ledger.attempt(wish, 2)
    assert first["outcome"] in {"retryable", "evicted"}
    assert second["outcome"] == "succeeded"
    assert first["pods_ended_at"] <= second["created_at"]
    assert second["memory_mib"] == 512


async def test_second_pod_of_an_attempt_leaves_without_touching_anything(plane: Plane) -> None:
    wish = await order(plane, "noop hold=8")
    async with plane.running():
        await plane.wait_until(plane.attempt_is(wish, "running"), "the first pod has begun")
        (first,) = plane.pods()
        began = (await plane.ledger.attempt(wish))["pod_uid"]
        plane.namespace.apply(_twin(first))

        async def has_left() -> bool:
            twin = plane.namespace.json("get", "pod", "twin")
            state = (twin["status"].get("containerStatuses") or [{}])[0].get("state") or {}
            return bool(state.get("terminated"))

        await plane.wait_until(has_left, "the second pod has left")
        twin = plane.namespace.json("get", "pod", "twin")
        assert twin["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 30
        assert (await plane.ledger.attempt(wish))["pod_uid"] == began
        await plane.wait_until(plane.is_settled(wish), "the operation is settled")
    assert (await plane.ledger.operation(wish))["state"] == "succeeded"
    assert len(plane.jobs()) == 1


def _twin(pod: dict[str, Any]) -> dict[str, Any]:
    """Return the pod once more, without its Job: the controller would remove one of the two at once."""
    spec = {key: pod["spec"][key] for key in ("containers", "restartPolicy", "securityContext", "volumes")}
    spec = json.loads(json.dumps(spec))
    uid = pod["metadata"]["labels"]["batch.kubernetes.io/controller-uid"]
    container = spec["containers"][0]
    container["volumeMounts"] = [each for each in container["volumeMounts"] if each["mountPath"] == "/tmp"]  # noqa: S108 -- the container's own
    spec["volumes"] = [each for each in spec["volumes"] if each["name"] == "tmp"]
    spec["automountServiceAccountToken"] = False
    for variable in container["env"]:
        if variable["name"] == "JOB_UID":
            variable.pop("valueFrom")
            variable["value"] = uid
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "twin"}, "spec": spec}


async def test_pod_refuses_to_begin_what_was_cancelled_before(plane: Plane) -> None:
    wish = await order(plane, "noop late=5")
    assert await plane.dispatch()
    await plane.ledger.execute("UPDATE storeplane.operations SET cancel_requested_at = now()")

    async def has_ended() -> bool:
        return any(pod["status"]["phase"] == "Failed" for pod in plane.pods())

    await plane.wait_until(has_ended, "the pod has ended")
    (pod,) = plane.pods()
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 31
    await plane.reconcile_until(plane.is_settled(wish), "the operation is settled")
    assert (await plane.ledger.operation(wish))["state"] == "cancelled"
    assert (await plane.ledger.attempt(wish))["started_at"] is None


async def test_two_replicas_share_the_work_without_doubling_it(plane: Plane, replica: Plane) -> None:
    wishes = [await order(plane) for _ in range(8)]
    async with plane.running(), replica.running():
        for wish in wishes:
            await plane.wait_until(plane.is_settled(wish), "every operation is settled")
    assert len(plane.jobs()) == 8
    assert await plane.ledger.value("SELECT count(*) FROM storeplane.attempts") == 8
    assert await plane.ledger.value("SELECT count(*) FROM storeplane.attempt_logs") == 8
    holders = await plane.ledger.value("SELECT count(*) FROM storeplane.operations WHERE state = 'succeeded'")
    assert holders == 8


async def test_dispatcher_that_slept_past_its_lease_posts_nothing(plane: Plane) -> None:
    wish = await order(plane)
    claim = await plane.parts.claims.claim("sleeper", 30, 1, plane.parts.dispatcher.render)
    (claimed,) = claim.attempts
    await asyncio.gather(plane.parts.dispatcher.dispatch(claimed, asked_at=-100.0, is_probe=False))
    assert not plane.jobs()
    assert (await plane.ledger.attempt(wish))["state"] == "created"
