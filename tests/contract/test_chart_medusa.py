"""What is the medusa chart's own, rendered by the pinned Helm; what holds for every chart: test_charts.py."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from devcluster.images.helm import helm_binary
from devcluster.machine.paths import checkout
from provisioner_job.chart_values import written
from tests.support import wishes
from tests.support.charts import differences

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CHART = checkout() / "charts" / "medusa"
PRESETS = ["", "values-local.yaml", "values-prod.yaml"]
IMAGES = {
    "server": "storeplane.local/medusa:0123456789abcdef",
    "postgres": "storeplane.local/postgres:0123456789abcdef",
    "redis": "registry.example:5000/redis@sha256:" + "0" * 64,
}
GIVEN = {
    "image": IMAGES,
    "secretName": "medusa-secrets",
    "host": "shop-abcd1234.localhost",
    "publicUrl": "http://shop-abcd1234.localhost:8081",
}


def helm_template(folder: Path, values: Mapping[str, Any], preset: str = "") -> subprocess.CompletedProcess[str]:
    file = folder / "values.json"
    file.write_text(written(values), encoding="utf-8")
    presets = ["--values", str(CHART / preset)] if preset else []
    return subprocess.run(
        [helm_binary(), "template", "medusa", CHART, "--namespace", "store-shop-abcd1234", *presets, "--values", file],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"HOME": str(folder), "PATH": "/nonexistent"},
    )


def render(folder: Path, values: Mapping[str, Any] | None = None, preset: str = "") -> dict[str, dict[str, Any]]:
    """Return the rendered objects by ``Kind/name``."""
    rendered = helm_template(folder, GIVEN if values is None else values, preset)
    assert rendered.returncode == 0, rendered.stderr
    documents = [document for document in yaml.safe_load_all(rendered.stdout) if document]
    return {f"{document['kind']}/{document['metadata']['name']}": document for document in documents}


def with_values(**changes: Any) -> dict[str, Any]:
    return {**GIVEN, **changes}


def workloads(objects: Mapping[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    kinds = {"Deployment", "StatefulSet", "Job"}
    yield from (document for document in objects.values() if document["kind"] in kinds)


def pod_specs(objects: Mapping[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield from (workload["spec"]["template"]["spec"] for workload in workloads(objects))


def containers(objects: Mapping[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for spec in pod_specs(objects):
        yield from [*spec.get("initContainers", []), *spec["containers"]]


def setup_job(objects: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    (job,) = [document for document in objects.values() if document["kind"] == "Job"]
    return job


def test_setup_is_a_plain_job_and_the_server_waits_for_its_revision(tmp_path: Path) -> None:
    objects = render(tmp_path)
    job = setup_job(objects)
    assert job["metadata"]["labels"]["storeplane.dev/role"] == "setup"
    assert "annotations" not in job["metadata"]
    revisions = {
        variable["value"]
        for container in containers(objects)
        for variable in container["env"]
        if variable["name"] == "SETUP_REVISION"
    }
    assert revisions == {job["metadata"]["name"].removeprefix("setup-")}


def test_setup_ends_by_its_own_limit_before_the_provisioner_stops_waiting(tmp_path: Path) -> None:
    assert setup_job(render(tmp_path))["spec"]["activeDeadlineSeconds"] < wishes.spec()["phase_seconds"]["setup"]


def test_setup_job_has_another_name_when_its_template_would_change(tmp_path: Path) -> None:
    image = {**IMAGES, "server": "storeplane.local/medusa:fedcba9876543210"}
    amounts = {"cpu": "500m", "memory": "512Mi"}
    variants = [
        GIVEN,
        with_values(image=image),
        with_values(publicUrl="https://shop.example"),
        with_values(secretName="other"),
        with_values(setup={"resources": {"requests": amounts, "limits": amounts}}),
    ]
    jobs = [setup_job(render(tmp_path, values)) for values in variants]
    assert len({job["metadata"]["name"] for job in jobs}) == len(variants)
    same = setup_job(render(tmp_path, with_values(host="")))
    assert same == jobs[0]


def test_ingress_and_service_have_the_names_that_the_provisioner_asks_for(tmp_path: Path) -> None:
    objects = render(tmp_path)
    (rule,) = objects["Ingress/medusa"]["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    service = path["backend"]["service"]["name"]
    assert (rule["host"], path["path"]) == (GIVEN["host"], "/")
    assert service == wishes.spec()["proof"]["service"]
    selector = objects[f"Service/{service}"]["spec"]["selector"]
    (server,) = [each for each in workloads(objects) if each["metadata"]["name"] == "medusa"]
    assert selector.items() <= server["spec"]["template"]["metadata"]["labels"].items()


def test_databases_are_reached_as_soon_as_they_listen(tmp_path: Path) -> None:
    objects = render(tmp_path)
    early = {
        name
        for name, document in objects.items()
        if document["kind"] == "Service" and document["spec"].get("publishNotReadyAddresses")
    }
    # Not the shop: before it is ready it has nothing to say.
    assert early == {"Service/postgres", "Service/redis"}


def test_production_differs_from_a_local_store_only_where_it_must(tmp_path: Path) -> None:
    local, production = (without_revision(render(tmp_path, preset=f"values-{name}.yaml")) for name in ("local", "prod"))

    assert set(differences(local, production)) == {"requests"}


def without_revision(objects: dict[str, dict[str, Any]]) -> Any:
    """Return the documents without the setup's revision, which follows from its requests."""
    revision = setup_job(objects)["metadata"]["name"].removeprefix("setup-")
    return json.loads(json.dumps(objects).replace(revision, "revision"))


def test_parts_that_are_elsewhere_are_left_out(tmp_path: Path) -> None:
    objects = render(tmp_path, with_values(host="", postgres={"enabled": False}))
    assert not [name for name in objects if name.startswith("Ingress/") or name.endswith("/postgres")]


@pytest.mark.parametrize(
    "wrong",
    [
        with_values(imagePullPolicy="Always"),
        with_values(image={"server": "a:1", "postgres": "a:1", "redis": "a:1", "sidecar": "a:1"}),
        with_values(image={"server": "no tag", "postgres": "a:1", "redis": "a:1"}),
        with_values(host='x"; drop'),
        with_values(host="Shop.localhost"),
        with_values(publicUrl="javascript:alert(1)"),
        with_values(secretName=""),
        with_values(secretName="a\nb"),
        with_values(server={"resources": {"limits": {"cpu": "lots", "memory": "1Gi"}}}),
        {key: value for key, value in GIVEN.items() if key != "image"},
    ],
)
def test_schema_refuses_what_is_unknown_or_could_become_something_else(tmp_path: Path, wrong: dict[str, Any]) -> None:
    refused = helm_template(tmp_path, wrong)
    assert refused.returncode != 0
    assert "schema" in refused.stderr
