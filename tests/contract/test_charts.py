"""What holds for every chart and every way in which it is installed; an engine's chart is taken in by its name."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from controlplane.domain.catalogue import CATALOGUE
from controlplane.domain.engines import Engine, limit_range, quota
from tests.support.charts import (
    CHARTS,
    ENGINES,
    INSTALLATIONS,
    Installation,
    claims,
    containers,
    helm,
    leaves,
    pod_templates,
    rendered,
)
from tests.support.immutable import UPDATE, changes, frozen_parts, kept_versions, now, version_of
from tests.support.kubernetes_schemas import VERSIONS, wrong_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.contract

NAMES = sorted({each.chart for each in INSTALLATIONS})
OF_ENGINES = [each for each in INSTALLATIONS if each.plan]
SMALLEST = {each.chart: each for each in reversed(INSTALLATIONS) if not each.is_bare}
"""The first way of each chart."""
every_installation = pytest.mark.parametrize("installation", INSTALLATIONS, ids=str)
every_engines = pytest.mark.parametrize("installation", OF_ENGINES, ids=str)
every_chart = pytest.mark.parametrize("chart", NAMES)
SECRET_NAMED = re.compile(r"password|secret|token|_key$|_salt$|credential", re.IGNORECASE)
SECRET_LOOKING = re.compile(
    r"://[^/\s:@]+:[^/\s@$]+@"  # a password in an address
    r"|-----BEGIN"
    r"|\b(?:pk|sk|ghp|xox[bp])_[0-9A-Za-z]{8}"
    r"|(?<![0-9a-f:])[0-9a-f]{32,}(?![0-9a-f])"  # random bytes; not the digest of an image
)

NAMES_OF_SECRETS = {"STOREPLANE_PROVISIONER_DB_SECRET"}
"""Variables that hold the name of one."""


def test_every_folder_is_a_chart_that_is_tested_here() -> None:
    folders = {folder.name for folder in CHARTS.iterdir() if folder.is_dir()}
    assert folders == set(NAMES), "a chart is the platform's or is named like an engine of the catalogue"
    assert set(ENGINES) <= {name for name, row in CATALOGUE.items() if isinstance(row, Engine)}


@every_installation
def test_helm_finds_nothing_to_complain_about(installation: Installation) -> None:
    ended = helm("lint", installation, "--strict", "--quiet")
    assert ended.returncode == 0, ended.stdout + ended.stderr


@every_chart
def test_schema_is_closed_at_every_level(chart: str) -> None:
    schema = yaml.safe_load((CHARTS / chart / "values.schema.json").read_text())
    assert schema["additionalProperties"] is False
    assert list(_open_objects(schema)) == []


def _open_objects(node: Any, path: str = "#") -> Iterator[str]:
    """Yield the places of a schema that take keys nobody has thought of."""
    if isinstance(node, list):
        for place, each in enumerate(node):
            yield from _open_objects(each, f"{path}/{place}")
    if not isinstance(node, dict):
        return
    # Helm's own: it hands it to every chart.
    if (node.get("type") == "object" or "properties" in node) and path != "#/properties/global":
        rest = node.get("additionalProperties", True)
        # A map of names that are not known before says what its names look like, and what is below them.
        if rest is not False and not (isinstance(rest, dict) and "propertyNames" in node):
            yield path
    for key, each in node.items():
        yield from _open_objects(each, f"{path}/{key}")


@every_chart
def test_unknown_value_is_refused_wherever_it_stands(chart: str) -> None:
    given = yaml.safe_load((CHARTS / chart / "values.yaml").read_text())
    groups = [name for name, each in given.items() if isinstance(each, dict) and each]
    assert groups
    wrong: list[dict[str, Any]] = [{"unknownValue": 1}, *({name: {"unknownValue": 1}} for name in groups)]
    for values in wrong:
        ended = helm("template", SMALLEST[chart], values=values)
        assert ended.returncode != 0, f"{values} was taken"
        assert "unknownValue" in ended.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_known_to_every_version_of_kubernetes(version: str) -> None:
    wrong = [
        f"{installation}: {name}: {each}"
        for installation in INSTALLATIONS
        for name, document in rendered(installation).items()
        for each in wrong_fields(document, version)
    ]
    assert wrong == []


def _misspell(document: dict[str, Any]) -> None:
    document["spec"]["template"]["spec"]["containers"][0]["imagePullPolcy"] = "Always"


def _misspell_above(document: dict[str, Any]) -> None:
    document["metadata"]["lables"] = {}


def _mistype(document: dict[str, Any]) -> None:
    document["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = "30"


def _mistype_below(document: dict[str, Any]) -> None:
    document["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "A", "value": 1}]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("break_it", [_misspell, _misspell_above, _mistype, _mistype_below])
def test_versions_schemas_see_a_field_that_is_misspelt_or_of_another_type(
    version: str, break_it: Callable[[dict[str, Any]], None]
) -> None:
    for installation in SMALLEST.values():
        objects = rendered(installation)
        for name, _ in pod_templates(objects):
            if objects[name]["kind"] != "CronJob":
                broken = copy.deepcopy(objects[name])
                break_it(broken)
                assert len(wrong_fields(broken, version)) == 1, f"{name} of {installation}"


def test_versions_are_those_that_are_in_use_and_to_come() -> None:
    assert {"1.30", "1.31", "1.32", "1.33", "1.34"} <= set(VERSIONS)


@every_chart
def test_nothing_is_changed_that_kubernetes_does_not_let_change(chart: str) -> None:
    kept, is_now = kept_versions(chart), now(chart)
    assert version_of(chart) in kept, (
        f"nothing is kept of {chart} {version_of(chart)}: run this test once with {UPDATE}=1, and commit the new file "
        "of tests/data/charts"
    )
    wrong = [f"{each} (of {chart} {version})" for version, was in kept.items() for each in changes(was, is_now)]
    assert wrong == [], (
        "Kubernetes refuses this change, and with it the upgrade of every installation there is. Give the old value "
        "back; or give the object another name, and bring what it holds over. A Job whose template changes needs what "
        f"changes in its name's hash. Only where {chart} of that version was never installed anywhere: write the file "
        f"anew with {UPDATE}=1, and review the difference"
    )


def test_frozen_parts_are_seen_when_they_change() -> None:
    """Each of them, on a chart's own objects: a guard that sees nothing would be green for ever."""
    objects = rendered(SMALLEST["medusa"])
    was = {"it": {name: frozen_parts(each) for name, each in objects.items()}}
    job = next(name for name in objects if name.startswith("Job/"))
    edits: dict[tuple[str, ...], Any] = {
        ("Deployment/medusa", "selector", "matchLabels", "more"): "x",
        ("StatefulSet/postgres", "selector", "matchLabels", "more"): "x",
        ("StatefulSet/postgres", "serviceName"): "other",
        ("StatefulSet/postgres", "podManagementPolicy"): "Parallel",
        ("StatefulSet/postgres", "volumeClaimTemplates"): [],
        ("Service/postgres", "clusterIP"): "None",
        (job, "template", "spec", "terminationGracePeriodSeconds"): 1,
    }
    for (name, *path, last), value in edits.items():
        changed = copy.deepcopy(objects)
        node = changed[name]["spec"]
        for key in path:
            node = node[key]
        node[last] = value
        told = list(changes(was, {"it": {each: frozen_parts(document) for each, document in changed.items()}}))
        assert [each.split()[1] for each in told] == [name], (path, last)
    claim = {"kind": "PersistentVolumeClaim", "spec": {"accessModes": ["ReadWriteOnce"]}}
    binding = {"kind": "RoleBinding", "roleRef": {"name": "a"}}
    assert frozen_parts(claim) == {"spec.accessModes": ["ReadWriteOnce"]}
    assert frozen_parts(binding) == {"roleRef": {"name": "a"}}


@every_installation
def test_labels_by_which_pods_are_found_say_nothing_of_a_version(installation: Installation) -> None:
    fixed = {"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"}
    objects = rendered(installation)
    for name, template in pod_templates(objects):
        spec = objects[name]["spec"]
        selector = spec.get("selector", {"matchLabels": {}})["matchLabels"]
        assert set(selector) <= fixed, name
        assert selector.items() <= template["metadata"]["labels"].items(), name
        for claim in spec.get("volumeClaimTemplates", []):
            assert set(claim["metadata"]["labels"]) <= fixed, name


@every_installation
def test_volume_of_one_writer_has_one_pod_at_a_time(installation: Installation) -> None:
    objects = rendered(installation)
    for name, template in pod_templates(objects):
        modes = list(claims(objects, template["spec"]))
        if any("ReadWriteMany" not in each for each in modes) and objects[name]["kind"] == "Deployment":
            spec = objects[name]["spec"]
            assert spec.get("strategy") == {"type": "Recreate"}, f"{name}: two pods would wait for one volume for ever"
            assert spec.get("replicas", 1) == 1, name


@every_installation
def test_every_pod_satisfies_pod_security_restricted(installation: Installation) -> None:
    objects = rendered(installation)
    assert list(pod_templates(objects))
    for name, template in pod_templates(objects):
        spec = template["spec"]
        # The one account that has rights: the control plane's.
        is_bound = spec.get("serviceAccountName") == "storeplane" and not installation.plan
        assert spec["automountServiceAccountToken"] is is_bound, name
        assert spec["enableServiceLinks"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["runAsGroup"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert all("hostPath" not in volume for volume in spec.get("volumes", [])), name
    for container in containers(objects):
        assert set(container["resources"]) == {"requests", "limits"}, container["name"]
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}, container["name"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, container["name"]


@every_engines
def test_pods_fit_the_quota_of_their_plan_all_at_once(installation: Installation) -> None:
    row = CATALOGUE[installation.chart]
    assert isinstance(row, Engine)
    most = quota(row.plans[installation.plan])
    objects = rendered(installation)
    used = dict.fromkeys(("limits.cpu", "limits.memory"), 0)
    for _, template in pod_templates(objects):
        # Those that run first have ended when the others begin: the larger counts.
        for resource in ("cpu", "memory"):
            first, then = (
                [_amount(each["resources"]["limits"][resource]) for each in template["spec"].get(key, [])]
                for key in ("initContainers", "containers")
            )
            used[f"limits.{resource}"] += max([*first, sum(then)])
    assert {key: amount for key, amount in used.items() if amount > _amount(most[key])} == {}


@every_engines
def test_containers_and_claims_are_within_the_limits_of_their_plan(installation: Installation) -> None:
    row = CATALOGUE[installation.chart]
    assert isinstance(row, Engine)
    limits = {each["type"]: each for each in limit_range(row.plans[installation.plan])}
    objects = rendered(installation)
    for container in containers(objects):
        for amounts in container["resources"].values():
            for resource, amount in amounts.items():
                least, most = (_amount(limits["Container"][end][resource]) for end in ("min", "max"))
                assert least <= _amount(amount) <= most, f"{container['name']} {resource}"
    sizes = [each["spec"] for each in objects.values() if each["kind"] == "PersistentVolumeClaim"]
    for name in objects:
        sizes += [each["spec"] for each in objects[name].get("spec", {}).get("volumeClaimTemplates", [])]
    for size in sizes:
        claim = limits["PersistentVolumeClaim"]
        least, most = (_amount(claim[end]["storage"]) for end in ("min", "max"))
        assert least <= _amount(size["resources"]["requests"]["storage"]) <= most


def _amount(text: str) -> int:
    """Return an amount in thousandths of a core, or in Mi."""
    matched = re.fullmatch(r"(\d+)(m|Mi|Gi|)", text)
    assert matched is not None, text
    return int(matched[1]) * {"m": 1, "": 1000, "Mi": 1, "Gi": 1024}[matched[2]]


@every_installation
def test_secrets_are_named_and_never_made(installation: Installation) -> None:
    objects = rendered(installation)
    assert [name for name, document in objects.items() if document["kind"] == "Secret"] == []
    told = [
        variable["name"]
        for container in containers(objects)
        for variable in container.get("env", [])
        if variable["name"] not in NAMES_OF_SECRETS
        if SECRET_NAMED.search(variable["name"]) and "secretKeyRef" not in variable.get("valueFrom", {})
    ]
    assert told == []
    looking = [
        f"{name} {path}"
        for name, document in objects.items()
        for path, value in leaves(document)
        if isinstance(value, str) and SECRET_LOOKING.search(value)
    ]
    assert looking == []


@every_engines
def test_an_engine_takes_its_secrets_from_the_one_it_is_given(installation: Installation) -> None:
    sources = {
        variable["valueFrom"]["secretKeyRef"]["name"]
        for container in containers(rendered(installation))
        for variable in container.get("env", [])
        if "secretKeyRef" in variable.get("valueFrom", {})
    }
    assert sources == {"store-secrets"}


@every_chart
def test_values_hold_no_secret(chart: str) -> None:
    for file in (CHARTS / chart).glob("values*.yaml"):
        for path, value in leaves(yaml.safe_load(file.read_text())):
            assert not (isinstance(value, str) and SECRET_LOOKING.search(value)), f"{file.name} {path}"
            # Of a Secret a chart knows names; a value would be in the release's history for ever.
            name = path.rpartition(".")[2]
            is_name = name.endswith(("Secret", "secretName", "passwordKey"))
            assert is_name or not SECRET_NAMED.search(name), f"{file.name} {path}"


def test_what_looks_like_a_secret_is_seen() -> None:
    for text in ("postgres://medusa:hunter2@postgres/x", "pk_0123456789abcdef", "-----BEGIN KEY", "0" * 32):
        assert SECRET_LOOKING.search(text), text
    digest = "registry.example:5000/a@sha256:" + "0" * 64
    for text in ("http://a:8080/b@c", digest, "storeplane.local/a:0123456789abcdef"):
        assert not SECRET_LOOKING.search(text), text


@pytest.mark.parametrize("engine", ENGINES)
def test_probes_and_ports_are_those_of_the_catalogues_row(engine: str) -> None:
    row = CATALOGUE[engine]
    assert isinstance(row, Engine)
    objects = rendered(Installation(engine, "default", row.default_plan))
    (server,) = objects[f"Deployment/{engine}"]["spec"]["template"]["spec"]["containers"]
    assert server["livenessProbe"]["httpGet"]["path"] == row.probes.alive
    assert server["readinessProbe"]["httpGet"]["path"] == row.probes.ready
    (port,) = objects[f"Service/{engine}"]["spec"]["ports"]
    assert port["port"] == row.proof.port


def test_jobs_may_ask_every_engine_for_its_proof() -> None:
    ports = yaml.safe_load((CHARTS / "storeplane" / "values.yaml").read_text())["networkPolicy"]["shopPorts"]
    assert set(ports) == {row.proof.port for row in CATALOGUE.values() if isinstance(row, Engine)}
