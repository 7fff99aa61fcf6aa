"""Simulated nodes: Jobs on them complete without a container, and ordinary pods stay off them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devcluster.kubernetes.fake_nodes import LABELS, TAINT
from devcluster.sources.choice import DevclusterSource, choose_source
from tests.support.cluster import Namespace, job, open_cluster, pod, run_devcluster

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

_NAME = "fake"
_NODES = 3


@pytest.fixture
def simulated() -> Iterator[Namespace]:
    if not isinstance(choose_source(_NAME), DevclusterSource):
        pytest.skip("other clusters have no simulated nodes")
    try:
        run_devcluster("up", "--name", _NAME, "--fake-nodes", str(_NODES))
        yield Namespace(open_cluster(_NAME), "default").settled()
    finally:
        run_devcluster("down", "--name", _NAME)


def test_jobs_complete_on_simulated_nodes_and_other_pods_do_not_land_there(simulated: Namespace) -> None:
    nodes = simulated.json("get", "nodes", "-l", "type=kwok")["items"]
    assert {node["metadata"]["name"] for node in nodes} == {f"fake-{number}" for number in range(1, _NODES + 1)}
    many = job("many", "never run", completions=20, parallelism=20)
    many["spec"]["template"]["spec"] |= {"nodeSelector": LABELS, "tolerations": [TAINT]}
    simulated.apply(many, pod("ordinary", "true", nodeSelector=LABELS))
    simulated.wait("condition=Complete", "job/many")
    pods = simulated.json("get", "pods", "-l", "job-name=many")["items"]
    assert {each["spec"]["nodeName"] for each in pods} <= {node["metadata"]["name"] for node in nodes}
    simulated.wait("condition=PodScheduled=false", "pod/ordinary")
