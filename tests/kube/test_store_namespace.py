"""A store's namespace on a real cluster: who gets rights in it, and how it goes with all that is in it."""

from __future__ import annotations

import io
import json
import os
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from provisioner_job import objects, removal
from provisioner_job.cluster import Cluster
from provisioner_job.contract import STORE_LABEL
from provisioner_job.errors import PhaseError, RetryableError
from provisioner_job.job_input import JobInput
from provisioner_job.journal import Journal, Redactor
from provisioner_job.network import network_policies
from provisioner_job.phases import phases_of
from provisioner_job.work import Work
from tests.support import wishes
from tests.support.cluster import RUN_LABEL, Namespace, job, pod

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.support.cluster import Kube

pytestmark = pytest.mark.cluster

(REMOVE,) = phases_of("delete")
NAMESPACE, POLICIES, *_ = phases_of("create")
FINALIZER = "example.com/never-taken-off"


class Store:
    """A store of the test's and a run of the provisioner on it."""

    def __init__(self, kube: Kube, cluster: Cluster, account_namespace: str) -> None:
        self.kube = kube
        self.name = f"store-test-{uuid.uuid4().hex[:8]}"
        self.namespace = Namespace(kube, self.name)
        self.out = io.StringIO()
        given = JobInput(
            store_id=uuid.uuid4(),
            store_name="shop",
            engine="medusa",
            namespace=self.name,
            operation_id=uuid.uuid4(),
            attempt=1,
            request_id="",
            db_host="db",
            db_port=5432,
            db_name="storeplane",
            db_user="storeplane_provisioner",
            db_password="",
            attempt_token="",
            job_uid="job",
            pod_uid="pod",
            pod_name="pod",
            logs_json=False,
            pod_namespace=account_namespace,
            service_account="provisioner",
        )
        # Without observer and network: the tests say themselves who looks in, and what the cluster is like.
        spec = {key: value for key, value in wishes.spec().items() if key not in {"observer", "network"}}
        self.work = Work(given, spec, cluster, Journal(Redactor(), as_json=False, out=self.out))

    def make(self, **labels: str) -> str:
        """Make the namespace and return its uid."""
        made = objects.namespace(self.name, self.work.given.store_id)
        made["metadata"]["labels"] |= {RUN_LABEL: str(os.getpid()), **labels}
        self.kube.apply(made)
        self.namespace.settled()
        uid: str = self.kube.json("get", "namespace", self.name)["metadata"]["uid"]
        return uid

    def fill(self) -> None:
        """Put in what holds a namespace that is simply deleted: pods, and a volume that a pod uses."""
        claim = {"metadata": {"name": "data"}, "spec": _claim_spec()}
        # The first process of a container has no default for SIGTERM.
        script = "trap 'exit 0' TERM; while :; do sleep 0.1; done"
        template = _restricted(pod("web", script, terminationGracePeriodSeconds=30))
        mounted = _restricted(pod("data", script, container={"volumeMounts": [{"name": "data", "mountPath": "/data"}]}))
        data = _workload("StatefulSet", "data", mounted, serviceName="data", volumeClaimTemplates=[claim])
        for each in (data, data["spec"]["template"]):
            each["metadata"].setdefault("labels", {})["app.kubernetes.io/component"] = "postgres"
        self.namespace.apply(_workload("Deployment", "web", template), data)
        done = job("setup", "exit 0")
        done["spec"]["template"]["spec"] = _restricted(pod("setup", "exit 0", restartPolicy="Never"))["spec"]
        self.namespace.apply(done)
        self.namespace.wait("condition=Available", "deployment/web")
        self.namespace.wait("jsonpath={.status.readyReplicas}=1", "statefulset/data")

    def is_there(self) -> bool:
        return self.kube.run("get", "namespace", self.name).returncode == 0


def _claim_spec() -> dict[str, Any]:
    return {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}


def _restricted(made: dict[str, Any]) -> dict[str, Any]:
    made["spec"]["securityContext"] = {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    made["spec"]["containers"][0]["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    return made


def _workload(kind: str, name: str, template: dict[str, Any], **spec: Any) -> dict[str, Any]:
    labels = {"app": template["metadata"]["labels"]["app"]}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": dict(labels)}, "spec": template["spec"]},
            **spec,
        },
    }


@pytest.fixture
async def store(cluster: Kube, namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    """Give a store whose provisioner may do everything, as an administrator."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    client = Cluster(Journal(Redactor(), as_json=False))
    made = Store(cluster, client, namespace.name)
    try:
        yield made
    finally:
        await client.close()
        cluster.do("delete", "namespace", made.name, "--wait=false", "--ignore-not-found")


async def test_store_goes_with_its_pods_and_volumes(store: Store) -> None:
    store.work.recorded_uid = store.make()
    store.fill()
    facts = await REMOVE.act(store.work)
    assert facts == {"namespace": store.name, "uid": store.work.recorded_uid, "existed": True}
    assert not store.is_there()
    volumes = store.kube.json("get", "persistentvolumes")["items"]
    assert store.name not in {each["spec"]["claimRef"]["namespace"] for each in volumes}
    told = store.out.getvalue()
    for words in ("the store's pods have ended", "the store's volumes are given back", "the namespace is told to go"):
        assert words in told
    # And again, as after an answer that was lost.
    assert await REMOVE.act(store.work) == {"namespace": store.name, "existed": False}


async def test_namespace_of_another_uid_is_not_touched(store: Store) -> None:
    store.make()
    store.work.recorded_uid = str(uuid.uuid4())
    before = store.kube.json("get", "namespace", store.name)
    with pytest.raises(PhaseError, match="nothing was touched") as caught:
        await REMOVE.act(store.work)
    assert caught.value.code == "NAMESPACE_FOREIGN"
    assert store.kube.json("get", "namespace", store.name) == before


@pytest.mark.parametrize("is_recorded", [True, False])
async def test_namespace_with_the_label_of_another_store_is_not_touched(store: Store, *, is_recorded: bool) -> None:
    uid = store.make(**{STORE_LABEL: str(uuid.uuid4())})
    store.work.recorded_uid = uid if is_recorded else ""
    before = store.kube.json("get", "namespace", store.name)
    with pytest.raises(PhaseError, match=STORE_LABEL) as caught:
        await REMOVE.act(store.work)
    assert caught.value.code == "NAMESPACE_FOREIGN"
    assert store.kube.json("get", "namespace", store.name) == before


async def test_label_decides_where_no_uid_was_recorded(store: Store) -> None:
    store.make()
    await REMOVE.act(store.work)
    assert not store.is_there()
    assert "no uid was recorded" in store.out.getvalue()


async def test_namespace_that_does_not_go_says_what_holds_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "_TOLD_AFTER_SECONDS", 1.0)
    monkeypatch.setattr(removal, "_GONE_SECONDS", 12.0)
    store.work.recorded_uid = store.make()
    held = {"name": "held", "finalizers": [FINALIZER]}
    store.namespace.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": held})
    with pytest.raises(RetryableError, match=FINALIZER) as caught:
        await REMOVE.act(store.work)
    assert caught.value.code == "NAMESPACE_STUCK"
    assert "take them off" in caught.value.detail
    # The next attempt finds it on its way, and ends when a person has done what is said.
    store.namespace.do(
        "patch", "configmap", "held", "--type=merge", "-p", json.dumps({"metadata": {"finalizers": None}})
    )
    monkeypatch.setattr(removal, "_GONE_SECONDS", 60.0)
    await REMOVE.act(store.work)
    assert not store.is_there()
    assert "the namespace is being removed already" in store.out.getvalue()


@pytest.fixture
def narrow(cluster: Kube, namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Give the prefix of roles under which an account `provisioner` may only make namespaces and bind two roles."""
    prefix = f"{namespace.name}-"
    labels = {RUN_LABEL: str(os.getpid())}
    group = "rbac.authorization.k8s.io"

    def role(name: str, *rules: dict[str, Any]) -> dict[str, Any]:
        metadata = {"name": prefix + name, "labels": labels}
        return {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": list(rules)}

    work = ["get", "list", "create", "patch", "delete"]
    names = [prefix + "store-admin", prefix + "store-observer"]
    cluster.apply(
        role(
            "provisioner",
            {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "create", "patch", "delete"]},
            {"apiGroups": [group], "resources": ["rolebindings"], "verbs": ["create"]},
            {"apiGroups": [group], "resources": ["clusterroles"], "verbs": ["bind"], "resourceNames": names},
        ),
        role(
            "store-admin",
            {"apiGroups": [""], "resources": ["secrets", "pods", "persistentvolumeclaims"], "verbs": work},
            {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets"], "verbs": work},
            {"apiGroups": ["batch"], "resources": ["jobs", "cronjobs"], "verbs": work},
            {"apiGroups": [""], "resources": ["resourcequotas", "limitranges"], "verbs": ["get", "create", "patch"]},
            {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["get", "create", "patch"]},
        ),
        role("store-observer", {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}),
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": prefix + "provisioner", "labels": labels},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": prefix + "provisioner"},
            "subjects": [{"kind": "ServiceAccount", "namespace": namespace.name, "name": "provisioner"}],
        },
    )
    for name in ("provisioner", "observer"):
        namespace.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
    monkeypatch.setattr(objects, "_ROLE_PREFIX", prefix)
    yield prefix
    for name in ("provisioner", "store-admin", "store-observer"):
        cluster.do("delete", "clusterrole", prefix + name)
    cluster.do("delete", "clusterrolebinding", prefix + "provisioner")


@pytest.fixture
async def narrow_store(
    narrow: str,  # noqa: ARG001 -- the roles must be there
    cluster: Kube,
    namespace: Namespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Store]:
    """Give a store whose provisioner has the rights of the platform's chart."""
    config = json.loads(cluster.do("config", "view", "--raw", "-o", "json"))
    config["users"][0]["user"] = {"token": namespace.do("create", "token", "provisioner").strip()}
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(file))
    client = Cluster(Journal(Redactor(), as_json=False))
    made = Store(cluster, client, namespace.name)
    try:
        yield made
    finally:
        await client.close()
        cluster.do("delete", "namespace", made.name, "--wait=false", "--ignore-not-found")


def _can(store: Store, account: str, *words: str) -> bool:
    subject = f"system:serviceaccount:{store.work.given.pod_namespace}:{account}"
    ended = store.kube.run("-n", store.name, "auth", "can-i", *words, f"--as={subject}")
    return ended.stdout.strip() == "yes"


async def test_store_is_fenced_and_limited_once(narrow_store: Store) -> None:
    store = narrow_store
    store.work.spec["network"] = {"ingress_namespace": "ingress-nginx", "denied_cidrs": ["203.0.113.0/24"]}
    await NAMESPACE.act(store.work)
    store.namespace.settled()
    for _ in range(2):
        facts = await POLICIES.act(store.work)
        assert facts == {"quota": "store-quota", "limits": "store-limits", "network_policies": 6}
    stored = store.kube.json("-n", store.name, "get", "networkpolicies")["items"]
    wanted = network_policies(
        store.name,
        store.work.given.store_id,
        store.work.spec["network"],
        jobs_namespace=store.work.given.pod_namespace,
        api_server="",
    )
    assert {each["metadata"]["name"]: each["spec"] for each in stored} == {
        each["metadata"]["name"]: each["spec"] for each in wanted
    }
    # Server-side apply that changed nothing wrote nothing.
    assert {each["metadata"]["generation"] for each in stored} == {1}


async def test_provisioner_and_observer_get_their_rights_in_the_new_namespace(narrow_store: Store) -> None:
    store = narrow_store
    store.work.spec["observer"] = {"namespace": store.work.given.pod_namespace, "service_account": "observer"}
    facts = await NAMESPACE.act(store.work)
    assert facts["rights"] == "bound store-admin"
    assert _can(store, "provisioner", "create", "secrets")
    assert _can(store, "observer", "get", "pods")
    assert not _can(store, "observer", "get", "secrets")
    # Resumed, nothing is bound again.
    again = await NAMESPACE.act(store.work)
    assert (again["rights"], again["existed"]) == ("held already", True)
    assert "found a binding of an earlier run" in store.out.getvalue()


async def test_observer_is_not_bound_unless_named(narrow_store: Store) -> None:
    await NAMESPACE.act(narrow_store.work)
    assert not _can(narrow_store, "observer", "get", "pods")
    assert "no observer is named" in narrow_store.out.getvalue()


async def test_store_goes_with_the_rights_of_one_store_only(narrow_store: Store) -> None:
    store = narrow_store
    facts = await NAMESPACE.act(store.work)
    store.namespace.settled()
    store.fill()
    store.work.recorded_uid = facts["uid"]
    await REMOVE.act(store.work)
    assert not store.is_there()
    assert "the store's pods have ended" in store.out.getvalue()


async def test_provisioner_that_may_bind_nothing_says_so(narrow_store: Store, narrow: str, cluster: Kube) -> None:
    rules = [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "create", "patch"]}]
    cluster.do("patch", "clusterrole", narrow + "provisioner", "--type=merge", "-p", json.dumps({"rules": rules}))
    with pytest.raises(PhaseError, match="may not create role bindings") as caught:
        await NAMESPACE.act(narrow_store.work)
    assert caught.value.code == "RIGHTS_MISSING"
