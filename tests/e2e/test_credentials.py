"""What a shop's owner may read of its Secret: by whom, and that it is the shop's."""

from __future__ import annotations

import http.client
import json
import secrets
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import pytest

from demo.order import call, credentials
from demo.platform import as_new_user, kubectl_of
from demo.release import NAMESPACE
from devcluster.machine.errors import DevclusterError
from tests.support.polling import poll

if TYPE_CHECKING:
    from demo.order import Order
    from demo.platform import Platform

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def _as_new_user(platform: Platform, role: str) -> Platform:
    return as_new_user(platform, f"test-{secrets.token_hex(3)}", "--role", role)


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


def test_they_open_the_shop(platform: Platform, shop: Order) -> None:
    told = credentials(platform, shop)
    address = urlsplit(shop.store["urls"]["admin"])
    headers = {"Host": address.netloc, "Content-Type": "application/json"}
    path, sent = "/auth/user/emailpass", json.dumps({"email": told["username"], "password": told["password"]})
    if "wp-admin" in address.path:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        headers["Cookie"] = "wordpress_test_cookie=WP%20Cookie%20check"
        path, sent = "/wp-login.php", urlencode({"log": told["username"], "pwd": told["password"]})
    connection = http.client.HTTPConnection("127.0.0.1", platform.shops_port, timeout=30)
    try:
        connection.request("POST", path, sent, headers)
        answer = connection.getresponse()
        body = answer.read().decode()
    finally:
        connection.close()
    assert "wordpress_logged_in_" in str(answer.headers) or "token" in json.loads(body)


def test_missing_binding_is_mended_by_the_command_told(platform: Platform, order: Order) -> None:
    kubectl, before = kubectl_of(platform.name), credentials(platform, order)
    kubectl.do("delete", "rolebinding", "store-observer", f"--namespace={order.store['namespace']}")

    def refusal() -> str:
        try:
            credentials(platform, order)
        except DevclusterError as error:
            return str(error)
        return ""

    told = poll(refusal, what="the right is missed")
    assert "CREDENTIALS_RIGHT_MISSING" in told
    program, *words = told.split("`")[1].split()
    assert program == "kubectl"
    kubectl.do(*words)
    poll(lambda: not refusal(), what="the credentials are told again")
    assert credentials(platform, order) == before


def test_owner_reads_them_from_when_the_store_is_ready_until_it_is_deleted(platform: Platform) -> None:
    owner = _as_new_user(platform, "member")
    body = {"name": f"Owned {secrets.token_hex(3)}", "engine": "woocommerce"}
    path = f"/api/stores/{call(owner, 'POST', '/api/stores', body)['store']['id']}"

    def state() -> str:
        return str(call(owner, "GET", path)["store"]["state"])

    with pytest.raises(DevclusterError, match="CREDENTIALS_UNAVAILABLE"):
        call(owner, "GET", f"{path}/credentials")
    poll(lambda: state() != "provisioning", what="the store is made", seconds=600)
    told = call(owner, "GET", f"{path}/credentials")
    assert told["credentials"]["password"]
    assert call(platform, "GET", f"{path}/credentials") == told
    call(owner, "DELETE", path)
    poll(lambda: state() == "deleted", what="the store is deleted", seconds=300)
    with pytest.raises(DevclusterError, match="STORE_DELETED"):
        call(owner, "GET", f"{path}/credentials")
