"""What is the woocommerce chart's own, rendered by the pinned Helm; what holds for every chart: test_charts.py."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from controlplane.domain.catalogue import CATALOGUE
from controlplane.domain.engines import Engine
from tests.support.charts import Installation, claims, containers, differences, helm, pod_templates

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.contract

SMALL = Installation("woocommerce", "default", "small")
HOST = "shop-abcdefg2.localhost"
HOSTILE = [
    'Ada & <b>Bob\'s</b> "Shop"',
    "$(ADMIN_PASSWORD) $$ ${HOME} `id`",
    "{{ .Values.secretName }} {{- fail }}",
    'x"\n            - name: ADMIN_PASSWORD\n              value: "known',
    "a: b # c\t- d\r\n---\nkind: Secret",
    "🛒 ünïcode \u202e 'end",
    "\x07\x1b[31m control",
    "x" * 200,
]


def render(values: Mapping[str, Any] | None = None, preset: str = "default") -> dict[str, dict[str, Any]]:
    ended = helm("template", Installation("woocommerce", preset, "small"), values=values or {})
    assert ended.returncode == 0, ended.stderr
    documents = [document for document in yaml.safe_load_all(ended.stdout) if document]
    return {f"{document['kind']}/{document['metadata']['name']}": document for document in documents}


def setup_job(objects: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    (job,) = [document for document in objects.values() if document["kind"] == "Job"]
    return job


def pods(objects: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return each pod's specification by its component."""
    return {
        template["metadata"]["labels"]["app.kubernetes.io/component"]: template["spec"]
        for _, template in pod_templates(objects)
    }


def variables(pod: Mapping[str, Any]) -> dict[str, Any]:
    (container,) = pod["containers"]
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def secret_keys(pod: Mapping[str, Any]) -> set[str]:
    return {each["secretKeyRef"]["key"] for each in variables(pod).values() if isinstance(each, dict)}


def test_parts_have_the_names_that_the_platform_goes_by() -> None:
    objects = render()
    assert set(pods(objects)) == {"server", "mariadb", "setup", "cron"}
    (port,) = objects["Service/woocommerce"]["spec"]["ports"]
    assert (port["name"], port["port"]) == ("http", 8080)
    (rule,) = objects["Ingress/woocommerce"]["spec"]["rules"]
    assert rule["host"] == HOST
    (path,) = rule["http"]["paths"]
    assert (path["path"], path["backend"]["service"]) == ("/", {"name": "woocommerce", "port": {"name": "http"}})
    selector = objects["Service/woocommerce"]["spec"]["selector"]
    server = objects["Deployment/woocommerce"]["spec"]
    assert selector.items() <= server["template"]["metadata"]["labels"].items()
    assert server["strategy"] == {"type": "Recreate"}


def test_everybody_waits_for_the_revision_that_names_the_setup() -> None:
    objects = render()
    job = setup_job(objects)
    assert job["metadata"]["labels"]["storeplane.dev/role"] == "setup"
    assert "annotations" not in job["metadata"]
    revision = job["metadata"]["name"].removeprefix("setup-")
    told = {name: variables(pod).get("SETUP_REVISION") for name, pod in pods(objects).items()}
    assert told == {"server": revision, "setup": revision, "cron": revision, "mariadb": None}


def test_setup_job_has_another_name_when_its_template_would_change() -> None:
    amounts = {"cpu": "500m", "memory": "512Mi"}
    variants: list[dict[str, Any]] = [
        {},
        {"image": {"server": "storeplane.local/woocommerce:fedcba9876543210"}},
        {"publicUrl": f"https://{HOST}"},
        {"secretName": "other"},
        {"title": "Another"},
        {"setup": {"resources": {"requests": amounts, "limits": amounts}}},
    ]
    jobs = [setup_job(render(values)) for values in variants]
    assert len({job["metadata"]["name"] for job in jobs}) == len(variants)
    assert len({json.dumps(job["spec"], sort_keys=True) for job in jobs}) == len(variants)
    for same in ({"ingress": {"className": "nginx"}}, {"uploads": {"storage": "9Gi"}}, {"server": {"workers": 4}}):
        assert setup_job(render(same)) == jobs[0]


def test_setup_ends_by_its_own_limit_before_the_provisioner_stops_waiting() -> None:
    engine = CATALOGUE["woocommerce"]
    assert isinstance(engine, Engine)
    assert setup_job(render())["spec"]["activeDeadlineSeconds"] < engine.phase_seconds["setup"]


@pytest.mark.parametrize("title", HOSTILE)
def test_title_stays_text_whatever_it_is(title: str) -> None:
    plain, objects = render({"title": "plain"}), render({"title": title})
    # Kubernetes reads two dollars as one, and nothing else in it.
    assert variables(pods(objects)["setup"])["TITLE"].replace("$$", "$") == title
    assert without_revision(objects, title) == without_revision(plain, "plain")


def without_revision(objects: dict[str, dict[str, Any]], title: str = "") -> Any:
    """Return the objects without the setup's revision and the title's one place."""
    revision = setup_job(objects)["metadata"]["name"].removeprefix("setup-")
    text = json.dumps(objects).replace(revision, "revision")
    if title:
        quoted = json.dumps(title.replace("$", "$$"))
        assert text.count(quoted) == 1
        text = text.replace(quoted, '"title"')
    return json.loads(text)


def test_each_part_is_given_the_secrets_it_needs_and_no_other() -> None:
    given = {name: secret_keys(pod) for name, pod in pods(render()).items()}
    keys = {f"{name}_{kind}" for name in ("AUTH", "SECURE_AUTH", "LOGGED_IN", "NONCE") for kind in ("KEY", "SALT")}
    served = keys | {"MARIADB_PASSWORD"}
    assert given == {
        "server": served,
        "cron": served,
        "setup": served | {"ADMIN_USER", "ADMIN_EMAIL", "ADMIN_PASSWORD"},
        "mariadb": {"MARIADB_PASSWORD", "MARIADB_ROOT_PASSWORD"},
    }
    engine = CATALOGUE["woocommerce"]
    assert isinstance(engine, Engine)
    assert set().union(*given.values()) == set(engine.secret)


def test_database_is_reached_as_soon_as_it_listens_and_the_shop_when_it_is_ready() -> None:
    services = {name: each["spec"] for name, each in render().items() if each["kind"] == "Service"}
    early = {name for name, spec in services.items() if spec.get("publishNotReadyAddresses")}
    assert early == {"Service/mariadb"}


def test_shop_is_ready_by_its_database_and_alive_without_it() -> None:
    (server,) = pods(render())["server"]["containers"]
    probes = {name: server[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert probes == {"startup": "/healthz", "readiness": "/readyz", "liveness": "/healthz"}
    # It may wait for 2.5 s before it answers; the next one must not begin before that.
    assert server["readinessProbe"]["timeoutSeconds"] > 2.5
    assert server["readinessProbe"]["periodSeconds"] > 2.5


def test_uploads_are_mounted_where_one_node_can_have_them() -> None:
    objects = render()
    specs = pods(objects)
    claimed = {name for name, pod in specs.items() if list(claims(objects, pod))}
    assert claimed == {"server", "cron"}
    (term,) = specs["cron"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    server = objects["Deployment/woocommerce"]["spec"]["selector"]["matchLabels"]
    assert term["labelSelector"]["matchLabels"] == server


def test_scheduled_work_never_runs_twice_and_leaves_little() -> None:
    spec = render()["CronJob/cron"]["spec"]
    job = spec["jobTemplate"]["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert (spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"]) == (1, 1)
    assert (job["backoffLimit"], job["ttlSecondsAfterFinished"]) == (0, 300)
    assert job["activeDeadlineSeconds"] > 0
    assert spec["startingDeadlineSeconds"] > 0
    assert render(preset="local")["CronJob/cron"]["spec"]["schedule"] == "*/5 * * * *"


def test_certificate_is_asked_for_only_where_there_is_one() -> None:
    plain = render()["Ingress/woocommerce"]
    assert "tls" not in plain["spec"]
    assert "ingressClassName" not in plain["spec"]
    assert "annotations" not in plain["metadata"]
    given = {"className": "nginx", "tlsSecret": "store-tls", "clusterIssuer": "letsencrypt"}
    made = render({"ingress": given})["Ingress/woocommerce"]
    assert made["spec"]["tls"] == [{"hosts": [HOST], "secretName": "store-tls"}]
    assert made["spec"]["ingressClassName"] == "nginx"
    assert made["metadata"]["annotations"] == {"cert-manager.io/cluster-issuer": "letsencrypt"}


def test_size_of_the_plan_reaches_the_programs() -> None:
    objects = render({"server": {"workers": 12}, "mariadb": {"bufferPool": "1G"}})
    (mariadb,) = pods(objects)["mariadb"]["containers"]
    assert "--innodb-buffer-pool-size=1G" in mariadb["args"]
    assert variables(pods(objects)["server"])["WORKERS"] == "12"


def test_production_differs_from_a_local_store_only_where_it_must() -> None:
    local, production = (without_revision(render(preset=preset)) for preset in ("local", "prod"))
    # TLS is given by the order in this installation, not by the preset.
    assert set(differences(local, production)) <= {"ingressClassName", "requests", "schedule", "tls", "annotations"}
    assert local != production


def test_other_host_in_the_address_is_refused() -> None:
    refused = helm("template", SMALL, values={"publicUrl": "https://elsewhere.example"})
    assert refused.returncode != 0
    assert "publicUrl must be by the host" in refused.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        {"image": {"server": "no tag"}},
        {"host": 'x"; drop', "publicUrl": 'http://x"; drop'},
        {"host": ""},
        {"publicUrl": "javascript:alert(1)"},
        {"secretName": "a\nb"},
        {"title": ""},
        {"title": "x" * 201},
        {"title": 1},
        {"ingress": {"tlsSecret": "Bad Name"}},
        {"cron": {"schedule": "* * * *"}},
        {"cron": {"schedule": "* * * * *\nsuspend: true"}},
        {"uploads": {"storage": "much"}},
        {"mariadb": {"bufferPool": "64M --skip-grant-tables"}},
        {"server": {"workers": 1000}},
    ],
    ids=str,
)
def test_schema_refuses_what_could_become_something_else(wrong: dict[str, Any]) -> None:
    refused = helm("template", SMALL, values=wrong)
    assert refused.returncode != 0
    assert "schema" in refused.stderr


def test_database_takes_the_official_image_as_well() -> None:
    (mariadb,) = [each for each in containers(render()) if each["name"] == "mariadb"]
    # Its entry point hands arguments that begin with a dash on to the server.
    assert "command" not in mariadb
    assert all(each.startswith("--") for each in mariadb["args"])
    names = {each["name"] for each in mariadb["env"]}
    assert {"MARIADB_USER", "MARIADB_PASSWORD", "MARIADB_DATABASE", "MARIADB_ROOT_PASSWORD"} <= names
