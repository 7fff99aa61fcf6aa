"""The product's own chart, rendered by the pinned Helm; what holds for every chart: test_charts.py."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import yaml

from controlplane.config import load_settings
from devcluster.images.helm import helm_binary
from devcluster.machine.paths import checkout
from tests.support.rights import (
    CONTROL_PLANE_ANYWHERE,
    CONTROL_PLANE_IN_JOBS,
    PROVISIONER_ANYWHERE,
    RULE_KEYS,
    STORE_ADMIN,
    STORE_OBSERVER,
    flattened,
    granted,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

pytestmark = pytest.mark.contract

CHART = checkout() / "charts" / "storeplane"
IMAGES = {
    "controlplane": "storeplane.local/controlplane:0123456789abcdef",
    "provisioner": "registry.example:5000/provisioner@sha256:" + "0" * 64,
    "postgres": "storeplane.local/postgres:0123456789abcdef",
    "engines": {
        "medusa": {"server": "a.example/medusa:1", "postgres": "a.example/postgres:15", "redis": "a.example/redis:7"}
    },
}
GIVEN: dict[str, Any] = {"image": IMAGES}
EXTERNAL: dict[str, Any] = {
    "image": IMAGES,
    "externalDatabase": {"host": "db.example", "existingSecret": "owner", "caSecret": "db-ca"},
    "ingress": {"host": "api.example"},
}
PRESETS = [("", GIVEN), ("values-local.yaml", GIVEN), ("values-prod.yaml", EXTERNAL)]


def helm_template(folder: Path, values: Mapping[str, Any], preset: str = "") -> subprocess.CompletedProcess[str]:
    file = folder / "values.json"
    file.write_text(json.dumps(values))
    presets = ["--values", str(CHART / preset)] if preset else []
    return subprocess.run(
        [helm_binary(), "template", "storeplane", CHART, "--namespace", "storeplane", *presets, "--values", file],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"HOME": str(folder), "PATH": "/nonexistent"},
    )


def render(folder: Path, values: Mapping[str, Any] = GIVEN, preset: str = "") -> dict[str, dict[str, Any]]:
    """Return the rendered objects by ``Kind/name``, those of the jobs' namespace by ``namespace/Kind/name``."""
    rendered = helm_template(folder, values, preset)
    assert rendered.returncode == 0, rendered.stderr
    documents = [document for document in yaml.safe_load_all(rendered.stdout) if document]
    named = {_name(document): document for document in documents}
    assert len(named) == len(documents)
    return named


def _name(document: Mapping[str, Any]) -> str:
    metadata = document["metadata"]
    is_own = document["kind"] in {"Role", "RoleBinding"} or "namespace" not in metadata
    return f"{'' if is_own else metadata['namespace'] + '/'}{document['kind']}/{metadata['name']}"


def pod_specs(objects: Mapping[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    kinds = {"Deployment", "StatefulSet", "Job"}
    yield from (each["spec"]["template"]["spec"] for each in objects.values() if each["kind"] in kinds)


def containers(objects: Mapping[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for spec in pod_specs(objects):
        yield from [*spec.get("initContainers", []), *spec["containers"]]


def migrate_job(objects: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    (job,) = [document for document in objects.values() if document["kind"] == "Job"]
    return job


def environment(objects: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """Return the control plane's environment, with a made-up text for each that comes from a Secret."""
    (container,) = objects["Deployment/storeplane"]["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each.get("value", "s" * 32) for each in container["env"]}


@pytest.mark.parametrize(("preset", "values"), PRESETS)
def test_database_and_ingress_are_there_where_the_preset_has_them(
    tmp_path: Path, preset: str, values: dict[str, Any]
) -> None:
    objects = render(tmp_path, values, preset)
    kinds = {document["kind"] for document in objects.values()}
    assert {"Deployment", "Service", "PodDisruptionBudget", "Job", "Namespace", "ResourceQuota", "LimitRange"} <= kinds
    assert ("StatefulSet" in kinds, "Ingress" in kinds) == (values is GIVEN, values is EXTERNAL)


@pytest.mark.parametrize(("preset", "values"), PRESETS)
def test_settings_are_those_that_the_service_knows(tmp_path: Path, preset: str, values: dict[str, Any]) -> None:
    found = environment(render(tmp_path, values, preset))
    with mock.patch.dict(os.environ, {key: text for key, text in found.items() if key != "PGPASSWORD"}, clear=True):
        settings = load_settings()
    assert settings.provisioner_image == IMAGES["provisioner"]
    assert settings.jobs_service_account == "storeplane-provisioner"
    assert (settings.observer_namespace, settings.observer_service_account) == ("storeplane", "storeplane")
    assert settings.provisioner_db_sslmode == ("verify-full" if values is EXTERNAL else "disable")
    assert settings.store_url_scheme == ("https" if values is EXTERNAL else "http")


def test_rights_are_exactly_these(tmp_path: Path) -> None:
    roles = {name: each for name, each in render(tmp_path).items() if each["kind"] in {"Role", "ClusterRole"}}
    assert all(set(rule) <= RULE_KEYS for each in roles.values() for rule in each["rules"])
    assert {name: flattened(each["rules"]) for name, each in roles.items()} == {
        "Role/storeplane": granted(CONTROL_PLANE_IN_JOBS),
        "ClusterRole/storeplane": granted(CONTROL_PLANE_ANYWHERE),
        "ClusterRole/storeplane-provisioner": granted(PROVISIONER_ANYWHERE),
        "ClusterRole/storeplane-store-admin": granted(STORE_ADMIN),
        "ClusterRole/storeplane-store-observer": granted(STORE_OBSERVER),
    }


def test_each_role_is_bound_to_one_service_account_and_the_stores_roles_to_nobody(tmp_path: Path) -> None:
    bindings = [each for each in render(tmp_path).values() if each["kind"] in {"RoleBinding", "ClusterRoleBinding"}]
    found = {(each["kind"], each["roleRef"]["name"]): each["subjects"] for each in bindings}
    controlplane = [{"kind": "ServiceAccount", "name": "storeplane", "namespace": "storeplane"}]
    provisioner = [{"kind": "ServiceAccount", "name": "storeplane-provisioner", "namespace": "storeplane-jobs"}]
    assert found == {
        ("RoleBinding", "storeplane"): controlplane,
        ("ClusterRoleBinding", "storeplane"): controlplane,
        ("ClusterRoleBinding", "storeplane-provisioner"): provisioner,
    }
    (binding,) = [each for each in bindings if each["kind"] == "RoleBinding"]
    assert binding["metadata"]["namespace"] == "storeplane-jobs"


def test_secrets_are_only_named_never_made(tmp_path: Path) -> None:
    objects = render(tmp_path, EXTERNAL, "values-prod.yaml")
    named = {
        variable["valueFrom"]["secretKeyRef"]["name"]
        for container in containers(objects)
        for variable in container["env"]
        if "secretKeyRef" in variable.get("valueFrom", {})
    }
    assert named == {"storeplane-secrets", "owner"}


def test_nothing_is_a_hook_and_every_render_is_the_same(tmp_path: Path) -> None:
    objects = render(tmp_path)
    assert not [each for each in objects.values() if "helm.sh/hook" in each["metadata"].get("annotations", {})]
    assert render(tmp_path) == objects


def test_migrations_have_another_name_when_their_template_would_change(tmp_path: Path) -> None:
    amounts = {"cpu": "500m", "memory": "512Mi"}
    variants: list[dict[str, Any]] = [
        GIVEN,
        {"image": {**IMAGES, "controlplane": "a.example/controlplane:2"}},
        GIVEN | {"existingSecret": "other"},
        GIVEN | {"migrations": {"rerun": "again"}},
        GIVEN | {"migrations": {"resources": {"requests": amounts, "limits": amounts}}},
    ]
    jobs = [migrate_job(render(tmp_path, values)) for values in variants]
    assert len({job["metadata"]["name"] for job in jobs}) == len(variants)
    same = migrate_job(render(tmp_path, GIVEN | {"controlPlane": {"replicas": 5}}))
    assert same == jobs[0]


def test_a_new_version_serves_only_after_its_migrations_and_the_old_one_until_then(tmp_path: Path) -> None:
    objects = render(tmp_path)
    deployment = objects["Deployment/storeplane"]["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    spec = deployment["template"]["spec"]
    (waiting,) = spec["initContainers"]
    (serving,) = spec["containers"]
    assert waiting["image"] == serving["image"] == IMAGES["controlplane"]
    assert "await-schema" in waiting["command"]
    drain = serving["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] > drain + 10


def test_passwords_stand_in_no_address(tmp_path: Path) -> None:
    objects = render(tmp_path, EXTERNAL, "values-prod.yaml")
    addresses = {
        variable["value"]
        for container in containers(objects)
        for variable in container["env"]
        if variable["name"] == "DATABASE_URL"
    }
    query = "?sslmode=verify-full&sslrootcert=/etc/storeplane/database-ca/ca.crt"
    assert addresses == {
        f"postgresql://storeplane_app@db.example:5432/storeplane{query}",
        f"postgresql://storeplane@db.example:5432/storeplane{query}",
    }


@pytest.mark.parametrize(("preset", "values"), PRESETS)
def test_a_job_reaches_names_database_api_server_and_stores_only(
    tmp_path: Path, preset: str, values: dict[str, Any]
) -> None:
    objects = render(tmp_path, values, preset)
    for name in ("NetworkPolicy/default-deny", "storeplane-jobs/NetworkPolicy/default-deny"):
        assert objects[name]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    policies = [name for name in objects if name.startswith("storeplane-jobs/NetworkPolicy/")]
    assert len(policies) == 2
    spec = objects["storeplane-jobs/NetworkPolicy/provisioner"]["spec"]
    assert spec["podSelector"]["matchLabels"] == {"app": "store-provisioner"}
    assert spec["policyTypes"] == ["Egress"]
    assert [[port["port"] for port in rule["ports"]] for rule in spec["egress"]] == [
        [53, 53],
        [5432],
        [443, 6443],
        [8080, 9000],
    ]
    assert all(rule["to"] for rule in spec["egress"])


def test_policies_fail_closed_and_give_no_reason(tmp_path: Path) -> None:
    objects = render(tmp_path)
    policies = [each for each in objects.values() if each["kind"] == "ValidatingAdmissionPolicy"]
    bound = [each["spec"] for each in objects.values() if each["kind"] == "ValidatingAdmissionPolicyBinding"]
    assert sorted(each["metadata"]["name"] for each in policies) == sorted(each["policyName"] for each in bound)
    assert len(policies) == 3
    for policy in policies:
        assert policy["spec"]["failurePolicy"] == "Fail"
        assert all("reason" not in each for each in policy["spec"]["validations"])
    assert all(each["validationActions"] == ["Deny"] for each in bound)
    without = render(tmp_path, GIVEN | {"admissionPolicies": {"enabled": False}})
    assert not [name for name in without if "AdmissionPolicy" in name]


@pytest.mark.parametrize(
    "wrong",
    [
        GIVEN | {"imagePullPolicy": "Always"},
        {"image": {**IMAGES, "sidecar": "a:1"}},
        {"image": {**IMAGES, "controlplane": "no tag"}},
        {},
        GIVEN | {"controlPlane": {"settings": {"TOKEN_KEY": "x" * 32}}},
        GIVEN | {"controlPlane": {"settings": {"LOG_LEVEL": 1}}},
        GIVEN | {"controlPlane": {"replicas": 0}},
        GIVEN | {"externalDatabase": {"host": "db/x?y"}},
        GIVEN | {"externalDatabase": {"password": "x"}},
        GIVEN | {"service": {"nodePort": 80}},
        GIVEN | {"networkPolicy": {"apiServer": {"cidrs": []}}},
        GIVEN | {"jobs": {"namespace": "a\nb"}},
        GIVEN | {"name": "Store Plane"},
    ],
)
def test_schema_refuses_what_is_unknown_or_could_become_something_else(tmp_path: Path, wrong: dict[str, Any]) -> None:
    refused = helm_template(tmp_path, wrong)
    assert refused.returncode != 0
    assert "schema" in refused.stderr


@pytest.mark.parametrize(
    ("values", "preset", "said"),
    [
        (
            EXTERNAL | {"postgresql": {"enabled": True}},
            "values-prod.yaml",
            "exactly one of postgresql and external",
        ),
        (GIVEN | {"postgresql": {"enabled": False}}, "", "exactly one of postgresql and external"),
        (
            EXTERNAL | {"externalDatabase": {"existingSecret": "owner", "caSecret": "db-ca"}},
            "values-prod.yaml",
            "externalDatabase.host is not set",
        ),
        (
            EXTERNAL | {"externalDatabase": {"host": "db.example", "caSecret": "db-ca"}},
            "values-prod.yaml",
            "externalDatabase.existingSecret is not set",
        ),
        (
            EXTERNAL | {"externalDatabase": {"host": "db.example", "existingSecret": "owner"}},
            "values-prod.yaml",
            "externalDatabase.caSecret is not set",
        ),
        (EXTERNAL | {"ingress": {}}, "values-prod.yaml", "ingress.host is not set"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, values: dict[str, Any], preset: str, said: str) -> None:
    refused = helm_template(tmp_path, values, preset)
    assert refused.returncode != 0
    assert said in refused.stderr
