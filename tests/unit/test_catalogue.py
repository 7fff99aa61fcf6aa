"""The catalogue: every row is complete in itself, and what follows from it is what a store is given."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from controlplane.domain.catalogue import CATALOGUE, PLAN_NAMES, engine_named, plan_named, supported
from controlplane.domain.engines import SETUP, Container, Plan, limit_range, quota
from controlplane.domain.errors import EnginePlannedError, EngineUnsupportedError, InvalidInputError
from provisioner_job.contract import PHASES_BY_KIND
from provisioner_job.store_secrets import new_texts
from tests.support import wishes

if TYPE_CHECKING:
    from controlplane.domain.engines import Engine

pytestmark = pytest.mark.unit

ENGINES = supported(CATALOGUE)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_row_is_complete_in_itself(engine: Engine) -> None:
    assert CATALOGUE[engine.name] is engine
    assert tuple(engine.plans) == PLAN_NAMES
    texts = new_texts(wishes.spec(engine.name)["secret"], "shop.example")
    assert set(engine.credentials.values()) <= set(texts)
    named = {place for text in engine.proof.headers.values() for place in re.findall(r"\{(\w+)\}", text)}
    assert named <= set(texts)
    assert set(engine.phase_seconds) <= set(PHASES_BY_KIND["create"])
    assert engine.storefront_image in ("", *engine.images, *engine.optional_images)
    for plan in engine.plans.values():
        assert SETUP in plan.parts
        assert set(plan.tuning) <= set(plan.parts)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_chart_is_of_the_version_the_row_names(engine: Engine) -> None:
    chart = yaml.safe_load((Path(__file__).parents[2] / "charts" / engine.chart / "Chart.yaml").read_text())
    assert (chart["appVersion"], chart["version"]) == (engine.newest.version, engine.newest.chart_version)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_plans_grow(engine: Engine) -> None:
    amounts = [quota(plan) for plan in engine.plans.values()]
    for name in ("limits.cpu", "limits.memory", "requests.storage"):
        sizes = [int(re.sub(r"\D", "", each[name])) for each in amounts]
        assert sizes == sorted(sizes)
        assert len(set(sizes)) == len(sizes)


def test_small_plan_keeps_the_usual_limits() -> None:
    for engine in ENGINES:
        kinds = {each["type"]: each for each in limit_range(engine.plans["small"])}
        assert kinds["Pod"]["max"] == {"cpu": "2", "memory": "4Gi"}
        assert kinds["Container"] == {
            "type": "Container",
            "default": {"cpu": "500m", "memory": "512Mi"},
            "defaultRequest": {"cpu": "100m", "memory": "128Mi"},
            "max": {"cpu": "2", "memory": "2Gi"},
            "min": {"cpu": "10m", "memory": "32Mi"},
        }
        claims = {"min": {"storage": "1Gi"}, "max": {"storage": "20Gi"}}
        assert kinds["PersistentVolumeClaim"] == {"type": "PersistentVolumeClaim", **claims}


def test_quota_has_room_for_the_largest_part_once_more() -> None:
    plan = Plan(
        parts={
            "server": Container("1", "512Mi", "1m", "1Mi"),
            SETUP: Container("500m", "1Gi", "1m", "1Mi"),
            "data": Container("500m", "256Mi", "1m", "1Mi", storage="2Gi"),
        },
        volumes={"uploads": "1Gi"},
    )
    assert quota(plan) == {
        "limits.cpu": "3000m",
        "limits.memory": "2816Mi",
        "requests.storage": "3072Mi",
        "persistentvolumeclaims": "2",
        "pods": "7",
        "services.nodeports": "0",
        "services.loadbalancers": "0",
    }


def test_amount_that_is_none_is_refused() -> None:
    plan = Plan(parts={SETUP: Container("1.5", "512Mi", "1m", "1Mi")})
    with pytest.raises(ValueError, match=r"1\.5"):
        quota(plan)


def test_engine_is_found_where_its_images_are() -> None:
    assert engine_named("medusa", ["medusa"]).name == "medusa"
    with pytest.raises(EngineUnsupportedError, match="Supported: woocommerce"):
        engine_named("medusa", ["woocommerce"])
    with pytest.raises(EnginePlannedError, match="coming soon"):
        engine_named("magento", ["medusa"])


def test_order_without_a_plan_gets_the_smallest() -> None:
    (medusa, _) = ENGINES
    assert plan_named(medusa, None) == "small"
    with pytest.raises(InvalidInputError, match="small, medium, large"):
        plan_named(medusa, "Small")
