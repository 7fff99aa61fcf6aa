"""Which cluster is chosen, and what is refused. Docker and kind are stand-in scripts that record their arguments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devcluster.kubernetes.settings import Wish
from devcluster.machine.errors import DevclusterError
from devcluster.sources.choice import (
    DevclusterSource,
    KindSource,
    KubeconfigSource,
    choose_source,
    refuse_foreign_for_tests,
)
from devcluster.sources.kind import KindCluster

if TYPE_CHECKING:
    from .conftest import Stub

pytestmark = pytest.mark.unit

_ENGINE = json.dumps({"ServerVersion": "28.1.1", "Containers": 3})
_CLIENT_ALONE = json.dumps({"ServerVersion": "", "ServerErrors": ["Cannot connect to the Docker daemon"]})


def _docker(stub: Stub, answer: str, code: int = 0) -> None:
    stub("docker", f"echo '{answer}'; exit {code}")


def test_devcluster_is_taken_when_there_is_no_docker(stub: Stub) -> None:
    stub("unrelated", "true")
    source = choose_source("dev", {})
    assert isinstance(source, DevclusterSource)
    assert source.describe() == "cluster: devcluster dev (no Docker engine with kind here)"


@pytest.mark.parametrize(("answer", "code"), [(_CLIENT_ALONE, 0), (_CLIENT_ALONE, 1), ("", 1), ("no JSON", 0)])
def test_devcluster_is_taken_when_only_the_docker_client_is_there(stub: Stub, answer: str, code: int) -> None:
    stub("kind", "true")
    _docker(stub, answer, code)
    assert isinstance(choose_source("dev", {}), DevclusterSource)


def test_kind_is_taken_when_a_docker_engine_answers(stub: Stub) -> None:
    stub("kind", "true")
    _docker(stub, _ENGINE)
    source = choose_source("dev", {})
    assert isinstance(source, KindSource)
    assert source.describe() == "cluster: kind storeplane-dev (Docker and kind are here)"


def test_devcluster_is_taken_when_docker_runs_without_kind(stub: Stub) -> None:
    _docker(stub, _ENGINE)
    assert isinstance(choose_source("dev", {}), DevclusterSource)


def test_devcluster_can_be_forced_where_kind_would_be_taken(stub: Stub) -> None:
    stub("kind", "true")
    _docker(stub, _ENGINE)
    assert isinstance(choose_source("dev", {"CLUSTER": "devcluster"}), DevclusterSource)


def test_kind_is_refused_when_forced_without_an_engine(stub: Stub) -> None:
    stub("kind", "true")
    _docker(stub, _CLIENT_ALONE)
    with pytest.raises(DevclusterError, match="needs `kind` on PATH and a Docker engine"):
        choose_source("dev", {"CLUSTER": "kind"})


def test_unknown_source_is_refused_with_the_list() -> None:
    with pytest.raises(DevclusterError, match="'minikube' is unknown") as refused:
        choose_source("dev", {"CLUSTER": "minikube"})
    assert refused.value.remedy == "use one of: kubeconfig, kind, devcluster"


def test_ambient_kubeconfig_is_never_taken_by_itself(tmp_path: Path, stub: Stub) -> None:
    stub("unrelated", "true")
    ambient = tmp_path / "kubeconfig"
    ambient.write_text("{}")
    assert isinstance(choose_source("dev", {"KUBECONFIG": str(ambient)}), DevclusterSource)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs KUBECONFIG"),
        ({"KUBECONFIG": "/a:/b"}, "several files"),
        ({"KUBECONFIG": "/absent"}, "is not a file"),
    ],
)
def test_kubeconfig_must_be_one_given_file(given: dict[str, str], message: str) -> None:
    with pytest.raises(DevclusterError, match=message):
        choose_source("dev", {"CLUSTER": "kubeconfig", **given})


def test_wish_is_refused_where_it_cannot_be_granted(tmp_path: Path) -> None:
    given = tmp_path / "kubeconfig"
    given.write_text("{}")
    with pytest.raises(DevclusterError, match="cannot be set on a cluster from kubeconfig"):
        choose_source("dev", {"CLUSTER": "kubeconfig", "KUBECONFIG": str(given)}, wish=Wish(nodes=2))


def test_tests_need_leave_to_use_a_foreign_cluster() -> None:
    foreign = KubeconfigSource(Path("/somebody/elses"))
    with pytest.raises(DevclusterError, match="create and delete whatever they like"):
        refuse_foreign_for_tests(foreign, {})
    refuse_foreign_for_tests(foreign, {"ALLOW_DESTRUCTIVE": "1"})
    refuse_foreign_for_tests(DevclusterSource("test", ""), {})


def test_foreign_cluster_takes_no_image_archives() -> None:
    with pytest.raises(DevclusterError, match="1 image archives cannot be loaded"):
        KubeconfigSource(Path("/somebody/elses")).load([Path("image.tar")])


def test_foreign_cluster_that_is_not_ready_is_told_with_kubectls_words(stub: Stub) -> None:
    calls = stub("kubectl", "echo 'connection refused' >&2; exit 1")
    with pytest.raises(DevclusterError, match="is not ready: connection refused"):
        KubeconfigSource(Path("/somebody/elses")).up()
    assert calls.read_text().split() == [
        "--kubeconfig",
        "/somebody/elses",
        "--request-timeout=10s",
        "get",
        "--raw",
        "/readyz",
    ]


def _calls(file: Path) -> list[list[str]]:
    return [call.splitlines() for call in file.read_text().split("\n\n") if call.strip()]


def test_kind_cluster_is_created_with_its_ports_and_own_kubeconfig(tmp_path: Path, stub: Stub) -> None:
    calls = stub("kind", "true")
    cluster = KindCluster("dev")
    cluster.up()
    where = ["--name", "storeplane-dev", "--kubeconfig", str(tmp_path / "state/kind-dev/kubeconfig")]
    config = tmp_path / "state/kind-dev/kind.json"
    created = ["create", "cluster", *where, "--config", str(config), "--wait", "180s"]
    assert _calls(calls) == [["get", "clusters"], created]
    (node,) = json.loads(config.read_text())["nodes"]
    assert [(each["hostPort"], each["listenAddress"]) for each in node["extraPortMappings"]] == [
        (8080, "127.0.0.1"),
        (8081, "127.0.0.1"),
    ]


def test_other_kind_clusters_take_free_ports(tmp_path: Path, stub: Stub) -> None:
    stub("kind", "true")
    KindCluster("test").up()
    (node,) = json.loads((tmp_path / "state/kind-test/kind.json").read_text())["nodes"]
    assert [each["hostPort"] for each in node["extraPortMappings"]] == [0, 0]


def test_existing_kind_cluster_only_gets_its_kubeconfig_written(stub: Stub) -> None:
    calls = stub("kind", "echo storeplane-devel; echo storeplane-dev; echo other")
    KindCluster("dev").up()
    assert [call[:2] for call in _calls(calls)] == [["get", "clusters"], ["export", "kubeconfig"]]


def test_only_our_own_kind_cluster_is_deleted(tmp_path: Path, stub: Stub) -> None:
    calls = stub("kind", 'test "$1" = get && echo dev')
    (tmp_path / "state/kind-dev").mkdir(parents=True)
    KindCluster("dev").down()
    assert _calls(calls) == [["get", "clusters"]]
    assert not (tmp_path / "state/kind-dev").exists()


def test_kind_cluster_is_deleted_by_its_name(stub: Stub) -> None:
    calls = stub("kind", "echo storeplane-dev")
    KindCluster("dev").down()
    assert _calls(calls)[1][:4] == ["delete", "cluster", "--name", "storeplane-dev"]


def test_archives_are_loaded_one_by_one(stub: Stub) -> None:
    calls = stub("kind", "true")
    KindCluster("dev").load([Path("/a.tar"), Path("/b.tar")])
    assert _calls(calls) == [
        ["load", "image-archive", "/a.tar", "--name", "storeplane-dev"],
        ["load", "image-archive", "/b.tar", "--name", "storeplane-dev"],
    ]


def test_kinds_own_words_are_in_the_error(stub: Stub) -> None:
    stub("kind", "echo 'ERROR: failed to create cluster: port is taken' >&2; exit 1")
    with pytest.raises(DevclusterError, match="port is taken"):
        KindCluster("dev").up()
