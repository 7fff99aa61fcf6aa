"""What a shop's owner may read of its Secret: by whom, and that it is the shop's."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from demo.order import call, credentials
from demo.platform import kubectl_of
from demo.release import NAMESPACE
from devcluster.machine.errors import DevclusterError

if TYPE_CHECKING:
    from demo.order import Order
    from demo.platform import Platform

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def _as_new_user(platform: Platform, role: str) -> Platform:
    words = ("storeplane", "users", "add", f"test-{secrets.token_hex(3)}", "--role", role)
    token = kubectl_of(platform.name).do("exec", "deployment/storeplane", f"--namespace={NAMESPACE}", "--", *words)
    return replace(platform, token=token.strip())


def test_admin_reads_them_and_a_stranger_does_not_even_learn_of_the_store(platform: Platform, shop: Order) -> None:
    known = credentials(platform, shop)
    assert {"username", "password"} <= set(known)
    with pytest.raises(DevclusterError, match="STORE_NOT_FOUND") as refused:
        credentials(_as_new_user(platform, "member"), shop)
    assert known["password"] not in str(refused.value)


def test_operator_may_look_at_stores_and_not_at_their_credentials(platform: Platform, shop: Order) -> None:
    operator = _as_new_user(platform, "operator")
    assert call(operator, "GET", f"/api/stores/{shop.store['id']}")["store"]["id"] == shop.store["id"]
    with pytest.raises(DevclusterError, match="FORBIDDEN"):
        credentials(operator, shop)


def test_reading_is_written_down_and_the_words_are_nowhere(platform: Platform, shop: Order) -> None:
    password = credentials(platform, shop)["password"]
    kubectl = kubectl_of(platform.name)
    words = ("exec", "storeplane-postgres-0", f"--namespace={NAMESPACE}", "--")
    query = "SELECT json_agg(a) FROM storeplane.audit_log AS a WHERE action = 'credentials_read'"
    psql = ("psql", "--username=storeplane", "--dbname=storeplane", "--tuples-only", "--no-align", f"--command={query}")
    rows = json.loads(kubectl.do(*words, *psql))
    assert shop.store["id"] in {row["store_id"] for row in rows}
    dump = kubectl.do(*words, "pg_dump", "--username=storeplane", "--data-only", "storeplane", seconds=120)
    assert shop.store["namespace"] in dump
    assert password not in dump
    logs = kubectl.do(
        "logs", "--namespace", NAMESPACE, "--selector=app.kubernetes.io/component=controlplane", "--tail=-1"
    )
    assert password not in logs
