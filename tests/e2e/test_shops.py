"""From one request to a shop that answers with its products, through every layer and on a real cluster."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from demo.order import call, products
from tests.support.polling import poll

if TYPE_CHECKING:
    from demo.order import Order
    from demo.platform import Platform

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

_JOBS = "storeplane-jobs"
_FLAVOURS = {"medusa": "official", "woocommerce": "stand-in"}
"""The development images hold a stand-in for WooCommerce: the plugin is at no package registry."""


def _kubectl(platform: Platform, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(platform.kubectl), f"--kubeconfig={platform.kubeconfig}", "--request-timeout=30s", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def _json(platform: Platform, *words: str) -> Any:
    asked = _kubectl(platform, *words, "--output=json")
    assert asked.returncode == 0, asked.stderr
    return json.loads(asked.stdout)


def test_shop_serves_its_seeded_products(platform: Platform, shop: Order) -> None:
    listed = products(platform, shop)

    assert shop.store["state"] == "ready"
    assert len(listed) == shop.operation["result"]["product_count"] > 1
    assert shop.store["engine_flavour"] == _FLAVOURS[shop.store["engine"]]


def test_history_tells_the_phases_in_order(platform: Platform, shop: Order) -> None:
    events = call(platform, "GET", f"/api/stores/{shop.store['id']}/events?limit=200")["items"]

    kinds = [event["event_type"] for event in events]
    finished = [event["metadata"]["phase"] for event in events if event["event_type"] == "phase_completed"]
    assert kinds[0] == "created"
    assert kinds[-1] == "provisioning_completed"
    assert finished == ["namespace", "policies", "secrets", "release", "setup", "verify", "expose"]


def test_job_goes_by_its_ttl_and_its_log_stays(platform: Platform, shop: Order) -> None:
    path = f"/api/operations/{shop.operation['id']}/logs"

    poll(
        lambda: "NotFound" in _kubectl(platform, "--namespace", _JOBS, "get", "job", shop.job_name).stderr,
        what=f"Job {shop.job_name} is removed by its TTL",
    )

    log = call(platform, "GET", path, text=True)
    assert "namespace" in log
    assert "products" in log


def test_shop_is_fenced_by_limits_and_pod_security(platform: Platform, shop: Order) -> None:
    namespace = shop.store["namespace"]

    labels = _json(platform, "get", "namespace", namespace)["metadata"]["labels"]
    quota = _json(platform, "--namespace", namespace, "get", "resourcequota", "store-quota")
    limits = _json(platform, "--namespace", namespace, "get", "limitrange", "store-limits")

    fences = _json(platform, "--namespace", namespace, "get", "networkpolicies")["items"]

    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {"store-default-deny", "store-internet"} < {fence["metadata"]["name"] for fence in fences}
    assert quota["status"]["used"]
    assert {limit["type"] for limit in limits["spec"]["limits"]} == {"Pod", "Container", "PersistentVolumeClaim"}
