"""The medusa chart with its storefront: what is at which path, and what the shop's name may hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from provisioner_job import network
from provisioner_job.chart_values import given_values
from tests.contract.test_chart_medusa import IMAGES, PRESETS, render
from tests.support import wishes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

REFERENCE = "storeplane.local/medusa-storefront:0123456789abcdef"
STORE = UUID(int=1)
TITLES = ["Harbour & Hearth", 'Ann\'s "best" {{ .Values }} $(PUBLISHABLE_KEY) \\ <b>', "店", "Fire 🔥"]


def spec(name: str) -> dict[str, Any]:
    return wishes.spec(name=name) | {"images": IMAGES | {"storefront": REFERENCE}}


def paths(objects_: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    (rule,) = objects_["Ingress/medusa"]["spec"]["rules"]
    return {path["path"]: path["backend"]["service"]["name"] for path in rule["http"]["paths"]}


def storefront(objects_: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    pod: dict[str, Any] = objects_["Deployment/storefront"]["spec"]["template"]
    return pod


@pytest.mark.parametrize("preset", PRESETS)
def test_storefront_is_at_the_root_and_the_server_keeps_its_paths(tmp_path: Path, preset: str) -> None:
    made = render(tmp_path, given_values(spec("Shop")), preset)

    found = paths(made)
    assert found.pop("/") == "storefront"
    assert {"/store", "/admin", "/app", "/auth", "/health", "/static", "/hooks"} <= set(found)
    assert set(found.values()) == {"medusa"}


def test_without_its_image_there_is_no_storefront(tmp_path: Path) -> None:
    given = spec("Shop")
    del given["images"]["storefront"]

    made = render(tmp_path, given_values(given))

    assert paths(made) == {"/": "medusa"}
    assert not [name for name in made if name.endswith("/storefront")]


def test_storefront_is_known_to_the_network_policies(tmp_path: Path) -> None:
    pod = storefront(render(tmp_path, given_values(spec("Shop"))))
    policies = network.network_policies("ns", STORE, {}, jobs_namespace="", api_server="")
    (serving,) = [each for each in policies if each["metadata"]["name"] == "store-serving"]
    (wanted,) = serving["spec"]["podSelector"]["matchExpressions"]
    assert pod["metadata"]["labels"][wanted["key"]] in wanted["values"]


@pytest.mark.parametrize("title", TITLES)
def test_title_reaches_the_pod_as_one_json_text(tmp_path: Path, title: str) -> None:
    (container,) = storefront(render(tmp_path, given_values(spec(title))))["spec"]["containers"]
    environment = {each["name"]: each for each in container["env"]}

    written = environment["TITLE_JSON"]["value"]

    # As the kubelet writes it into the environment.
    assert "$(" not in written.replace("$$", "")
    assert json.loads(written.replace("$$", "$")) == title
    assert environment["PUBLISHABLE_KEY"]["valueFrom"]["secretKeyRef"]["key"] == "PUBLISHABLE_KEY"


def test_setup_does_not_depend_on_the_storefront(tmp_path: Path) -> None:
    given = spec("Shop")
    without = {**given, "images": IMAGES}

    (job,) = [each for each in render(tmp_path, given_values(given)).values() if each["kind"] == "Job"]
    (other,) = [each for each in render(tmp_path, given_values(without)).values() if each["kind"] == "Job"]

    assert job == other
