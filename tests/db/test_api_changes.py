"""Delete, cancel, retry and reattach, and who may."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from controlplane.domain.observation import JobView
from controlplane.domain.store import Role
from tests.support import wishes
from tests.support.api import Api, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.db.pool import Database

pytestmark = pytest.mark.db


@pytest.fixture
async def api(database: Database) -> AsyncIterator[Api]:
    async with serve(database) as made:
        yield made


def _cancel(body: Any) -> str:
    return f"/api/operations/{body['operation']['id']}/cancel"


def _retry(body: Any, *, admin: bool = False) -> str:
    return f"/api{'/admin' if admin else ''}/operations/{body['operation']['id']}/retry"


async def _state(api: Api, body: Any) -> tuple[str, str]:
    _, found, _ = await api.call("GET", f"/api/stores/{body['store']['id']}")
    _, operation, _ = await api.call("GET", f"/api/operations/{body['operation']['id']}")
    return found["store"]["state"], operation["state"]


async def test_queued_operation_is_cancelled_at_once(api: Api) -> None:
    body = await api.create()
    status, answer, headers = await api.call("POST", _cancel(body))
    assert (status, answer["operation"]["state"], answer["store"]["state"]) == (202, "cancelled", "failed")
    assert headers["Location"] == f"/api/operations/{body['operation']['id']}"
    assert (await api.call("POST", _cancel(body)))[:2] == (202, answer)
    assert await api.events(body) == ["created", "cancelled"]
    assert [action for action, _ in await api.audited()] == ["store.create", "operation.cancel"]


async def test_running_operation_ends_with_its_attempt(api: Api) -> None:
    body = await api.create()
    await api.open_attempt(body)
    status, answer, _ = await api.call("POST", _cancel(body), json={})
    assert (status, answer["operation"]["state"]) == (202, "running")
    assert answer["operation"]["waiting"]["reason"].startswith("it is being cancelled")
    assert (await api.call("POST", _cancel(body)))[1]["operation"] == answer["operation"]
    assert await api.events(body) == ["created"]


@pytest.mark.parametrize("state", ["failed", "succeeded"])
async def test_ended_operation_is_not_cancelled(api: Api, state: str) -> None:
    body = await api.create()
    await api.fail(body, state=state)
    status, problem, _ = await api.call("POST", _cancel(body))
    assert (status, problem["code"], problem["operation_id"]) == (409, "OPERATION_ENDED", body["operation"]["id"])


async def test_delete_is_not_cancelled(api: Api) -> None:
    body = await api.create()
    _, deleted, _ = await api.call("DELETE", f"/api/stores/{body['store']['id']}")
    status, problem, _ = await api.call("POST", _cancel(deleted))
    assert (status, problem["code"]) == (409, "NOT_CANCELLABLE")
    assert "safe to repeat" in problem["detail"]


async def test_delete_cancels_what_is_queued(api: Api) -> None:
    body = await api.create()
    status, answer, headers = await api.call("DELETE", f"/api/stores/{body['store']['id']}")
    assert (status, answer["store"]["state"], answer["operation"]["kind"]) == (202, "deleting", "delete")
    assert headers["Location"] == f"/api/operations/{answer['operation']['id']}"
    assert await _state(api, body) == ("deleting", "cancelled")
    assert sorted(await api.events(body)) == ["cancelled", "created", "deleting"]
    (row,) = await api.execute("SELECT spec FROM storeplane.operations WHERE kind = 'delete'")
    assert row["spec"]["namespace"] == body["store"]["namespace"]
    assert row["spec"]["provisioner_image"]
    assert len(api.wakes) == 2


async def test_delete_waits_behind_what_runs(api: Api) -> None:
    body = await api.create()
    await api.open_attempt(body)
    _, answer, _ = await api.call("DELETE", f"/api/stores/{body['store']['id']}")
    assert await _state(api, body) == ("deleting", "running")
    assert body["operation"]["id"] in answer["operation"]["waiting"]["reason"]
    assert answer["operation"]["waiting"]["position"] == 1


async def test_second_delete_names_the_first(api: Api) -> None:
    body = await api.create()
    path = f"/api/stores/{body['store']['id']}"
    answers = await asyncio.gather(*(api.call("DELETE", path) for _ in range(4)))
    assert sorted(status for status, _, _ in answers) == [202, 409, 409, 409]
    accepted = next(answer for status, answer, _ in answers if status == 202)["operation"]["id"]
    for status, problem, _ in answers:
        if status == 409:
            assert (problem["code"], problem["operation_id"]) == ("OPERATION_IN_PROGRESS", accepted)


async def test_failed_delete_is_repeated_and_a_deleted_store_is_gone(api: Api) -> None:
    body = await api.create()
    path = f"/api/stores/{body['store']['id']}"
    _, first, _ = await api.call("DELETE", path)
    await api.fail(first)
    status, second, _ = await api.call("DELETE", path)
    assert (status, second["operation"]["id"] != first["operation"]["id"]) == (202, True)
    await api.open_attempt(second)
    await api.execute(
        "SELECT storeplane.end_attempt($1, 1, NULL, 'succeeded', 'succeeded', 0, NULL, NULL)", second["operation"]["id"]
    )
    status, problem, _ = await api.call("DELETE", path)
    assert (status, problem["code"]) == (410, "STORE_DELETED")
    assert (await api.call("GET", path))[1]["store"]["state"] == "deleted"
    # Its name and its place among the user's stores are free again.
    await api.create()
    (row,) = await api.execute("SELECT store_count FROM storeplane.users")
    assert row["store_count"] == 1


async def test_retry_of_a_failed_create_is_a_new_operation(api: Api) -> None:
    body = await api.create()
    await api.open_attempt(body)
    await api.fail(body)
    _, failed, _ = await api.call("GET", f"/api/operations/{body['operation']['id']}")
    assert failed["error"]["code"] == "HELM_FAILED"
    assert failed["error"]["remedy"]
    status, answer, headers = await api.call("POST", _retry(body))
    assert (status, answer["store"]["state"], answer["operation"]["state"]) == (202, "provisioning", "queued")
    assert answer["spec_changes"] == []
    assert headers["Location"] == f"/api/operations/{answer['operation']['id']}"
    _, detail, _ = await api.call("GET", headers["Location"])
    assert (detail["retry_of"], detail["deadline_at"], detail["attempts"]) == (body["operation"]["id"], None, [])
    rows = await api.execute("SELECT spec - 'traceparent' AS spec FROM storeplane.operations")
    assert rows[0]["spec"] == rows[1]["spec"]
    assert (await api.events(body))[-1] == "retry_scheduled"
    assert (await api.audited())[-1][0] == "operation.retry"


async def test_fresh_retry_shows_what_is_different(database: Database) -> None:
    images = {"medusa": wishes.ENGINE_IMAGES["medusa"] | {"server": "new:2", "storefront": "front:1"}}
    settings = {"STOREPLANE_ENGINE_IMAGES": json.dumps(images)}
    async with serve(database) as old, serve(database, settings=settings) as new:
        new.token = old.token
        body = await old.create()
        assert body["store"]["urls"]["storefront"] is None
        await old.fail(body)
        status, answer, _ = await new.call("POST", _retry(body), json={"refresh_spec": True})
        assert status == 202
        assert answer["spec_changes"] == [
            {"field": "images.server", "old": "storeplane.local/server:1", "new": "new:2"},
            {"field": "images.storefront", "old": None, "new": "front:1"},
            {"field": "paths.storefront", "old": None, "new": "/"},
        ]
        _, found, _ = await new.call("GET", f"/api/stores/{body['store']['id']}")
        assert found["store"]["urls"]["storefront"] == f"{body['store']['urls']['api']}/"
        rows = await old.execute("SELECT spec FROM storeplane.operations ORDER BY created_at")
        assert [row["spec"]["images"]["server"] for row in rows] == ["storeplane.local/server:1", "new:2"]
        assert rows[0]["spec"]["host"] == rows[1]["spec"]["host"]
        assert (await old.audited())[-1][1]["spec_changes"] == answer["spec_changes"]


@pytest.mark.parametrize(
    ("wish", "settings", "reason"),
    [
        ({}, {"STOREPLANE_ENGINE_IMAGES": json.dumps({"woocommerce": wishes.ENGINE_IMAGES["woocommerce"]})}, "medusa"),
        ({"host": "shop.example", "tls": True}, {}, "no issuer"),
    ],
)
async def test_fresh_retry_of_what_is_not_offered_any_more_says_so(
    database: Database, wish: dict[str, Any], settings: dict[str, str], reason: str
) -> None:
    before = {"STOREPLANE_STORE_CLUSTER_ISSUER": "letsencrypt"}
    async with serve(database, settings=before) as old, serve(database, settings=settings) as new:
        new.token = old.token
        body = await old.create(wish=wish)
        await old.fail(body)
        status, problem, _ = await new.call("POST", _retry(body), json={"refresh_spec": True})
        assert (status, problem["code"]) == (409, "NOT_RETRYABLE")
        assert reason in problem["detail"]
        # As it was, it may be tried all the same.
        status, _, _ = await new.call("POST", _retry(body))
        assert status == 202


async def test_two_retries_at_once_are_one(api: Api) -> None:
    body = await api.create()
    await api.fail(body)
    answers = await asyncio.gather(*(api.call("POST", _retry(body)) for _ in range(4)))
    assert sorted(status for status, _, _ in answers) == [202, 409, 409, 409]
    accepted = next(answer for status, answer, _ in answers if status == 202)["operation"]["id"]
    for status, problem, _ in answers:
        if status == 409:
            assert (problem["code"], problem["operation_id"]) == ("RETRY_IN_PROGRESS", accepted)


async def test_retry_of_a_running_operation_ends_its_attempt(api: Api) -> None:
    body = await api.create()
    await api.open_attempt(body)
    (before,) = await api.execute("SELECT fence FROM storeplane.operations")
    answers = await asyncio.gather(*(api.call("POST", _retry(body)) for _ in range(3)))
    assert sorted(status for status, _, _ in answers) == [202, 409, 409]
    assert {problem["code"] for status, problem, _ in answers if status == 409} == {"RETRY_IN_PROGRESS"}
    _, detail, _ = await api.call("GET", f"/api/operations/{body['operation']['id']}")
    (attempt,) = detail["attempts"]
    assert (detail["state"], attempt["state"], attempt["outcome"]) == ("running", "failed", "retried")
    assert attempt["problem"]["code"] == "RETRIED"
    (after,) = await api.execute("SELECT fence FROM storeplane.operations")
    assert after["fence"] == before["fence"] + 1
    assert sum(action == "operation.retry" for action, _ in await api.audited()) == 1


async def test_retry_says_why_not(api: Api) -> None:
    body = await api.create()
    status, problem, _ = await api.call("POST", _retry(body))
    assert (status, problem["code"]) == (409, "NOT_RETRYABLE")
    assert "has not begun" in problem["detail"]
    await api.open_attempt(body)
    assert "refresh_spec" in (await api.call("POST", _retry(body), json={"refresh_spec": True}))[1]["detail"]
    await api.call("POST", _cancel(body))
    assert "being cancelled" in (await api.call("POST", _retry(body)))[1]["detail"]
    await api.fail(body, state="cancelled")
    _, second, _ = await api.call("POST", _retry(body))
    await api.fail(second)
    assert second["operation"]["id"] in (await api.call("POST", _retry(body)))[1]["detail"]
    _, third, _ = await api.call("POST", _retry(second))
    await api.fail(third, state="succeeded")
    assert "has succeeded" in (await api.call("POST", _retry(third)))[1]["detail"]


async def test_clean_up_in_progress_is_waited_for_and_then_no_obstacle(api: Api) -> None:
    body = await api.create()
    await api.open_attempt(body)
    await api.fail(body)
    await api.execute(
        "INSERT INTO storeplane.operations (id, store_id, owner_id, cluster_id, kind, spec, request_id) "
        "SELECT gen_random_uuid(), store_id, owner_id, cluster_id, 'cleanup', spec, 'r' FROM storeplane.operations"
    )
    status, problem, _ = await api.call("POST", _retry(body))
    assert (status, problem["code"]) == (409, "OPERATION_IN_PROGRESS")
    await api.execute(
        "UPDATE storeplane.operations SET state = 'succeeded', finished_at = now(), next_dispatch_at = NULL "
        "WHERE kind = 'cleanup'"
    )
    assert (await api.call("POST", _retry(body)))[0] == 202


async def test_operators_look_and_admins_act(api: Api) -> None:
    body = await api.create()
    await api.fail(body)
    operator, admin = await api.as_user(role=Role.OPERATOR), await api.as_user(role=Role.ADMIN)
    store = f"/api/stores/{body['store']['id']}"
    assert (await operator.call("GET", store))[0] == 200
    for method, path in (
        ("DELETE", store),
        ("POST", _retry(body)),
        ("POST", _cancel(body)),
        ("POST", _retry(body, admin=True)),
        ("POST", f"/api/admin/operations/{body['operation']['id']}/reattach"),
    ):
        status, problem, _ = await operator.call(method, path)
        assert (status, problem["code"]) == (403, "FORBIDDEN")
    assert (await api.call("POST", _retry(body, admin=True)))[0] == 403
    status, retried, _ = await admin.call("POST", _retry(body, admin=True))
    assert status == 202
    assert (await admin.call("POST", _cancel(retried)))[0] == 202
    assert (await admin.call("DELETE", store))[0] == 202


class TestReattach:
    @pytest.fixture
    async def admin(self, api: Api) -> Api:
        api.jobs.is_away = False
        return await api.as_user(role=Role.ADMIN)

    async def _job(self, api: Api, body: Any, **changes: Any) -> JobView:
        name = await api.open_attempt(body, state="created", job_uid=None)
        job = JobView(
            name=name,
            uid="uid-1",
            operation_id=UUID(body["operation"]["id"]),
            attempt=1,
            end=None,
            reason="",
            is_terminating=False,
        )
        api.jobs.jobs[name] = replace(job, **changes)
        return api.jobs.jobs[name]

    async def _ask(self, admin: Api, body: Any) -> tuple[int, Any, Any]:
        return await admin.call("POST", f"/api/admin/operations/{body['operation']['id']}/reattach")

    async def test_living_job_is_bound(self, api: Api, admin: Api) -> None:
        body = await api.create()
        await self._job(api, body)
        for _ in range(2):
            status, answer, _ = await self._ask(admin, body)
            assert (status, answer["operation"]["state"]) == (202, "running")
        (row,) = await api.execute("SELECT state, job_uid FROM storeplane.attempts")
        assert (row["state"], row["job_uid"]) == ("dispatched", "uid-1")
        assert "reattached" in await api.events(body)
        assert (await api.audited())[-1][0] == "operation.reattach"

    async def test_foreign_job_is_left_alone_and_audited(self, api: Api, admin: Api) -> None:
        body = await api.create()
        job = await self._job(api, body)
        api.jobs.strangers.add(job.name)
        status, problem, _ = await self._ask(admin, body)
        assert (status, problem["code"]) == (409, "NOT_REATTACHABLE")
        assert "not this attempt's" in problem["detail"]
        assert (await api.audited())[-1][0] == "security.foreign_job"
        (row,) = await api.execute("SELECT state, job_uid FROM storeplane.attempts")
        assert (row["state"], row["job_uid"]) == ("created", None)

    async def test_another_uid_is_foreign(self, api: Api, admin: Api) -> None:
        body = await api.create()
        await self._job(api, body)
        await api.execute("UPDATE storeplane.attempts SET job_uid = 'uid-0', state = 'dispatched'")
        status, problem, _ = await self._ask(admin, body)
        assert (status, "uid-0" in problem["detail"]) == (409, True)

    async def test_reason_is_named(self, api: Api, admin: Api) -> None:
        body = await api.create()
        assert "has no attempt yet" in (await self._ask(admin, body))[1]["detail"]
        job = await self._job(api, body, is_terminating=True)
        assert "being deleted" in (await self._ask(admin, body))[1]["detail"]
        del api.jobs.jobs[job.name]
        assert "there is no Job" in (await self._ask(admin, body))[1]["detail"]
        api.jobs.is_away = True
        assert (await self._ask(admin, body))[0] == 503
        await api.fail(body)
        assert "has ended" in (await self._ask(admin, body))[1]["detail"]
