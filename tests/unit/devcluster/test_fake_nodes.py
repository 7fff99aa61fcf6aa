"""What is asked of KWOK."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from devcluster.kubernetes.fake_nodes import LABELS, TAINT, kwok_process, node_manifests
from devcluster.machine.paths import checkout

pytestmark = pytest.mark.unit


def test_fake_nodes_are_labelled_and_keep_ordinary_pods_off() -> None:
    nodes = list(node_manifests(3))
    assert [node["metadata"]["name"] for node in nodes] == ["fake-1", "fake-2", "fake-3"]
    assert all(LABELS.items() <= node["metadata"]["labels"].items() for node in nodes)
    assert all(node["spec"]["taints"] == [TAINT] for node in nodes)
    assert TAINT["effect"] == "NoSchedule"


def test_process_plays_the_labelled_nodes_only_and_runs_beside_a_real_one() -> None:
    command = kwok_process(Path("/kwok"), kubeconfig=Path("/config"), holder=42).command()
    assert command[:2] == ["nsenter", "--net=/proc/42/ns/net"]
    assert {"--manage-all-nodes=false", "--manage-nodes-with-label-selector=type=kwok"} <= set(command)


def test_stages_cover_a_nodes_and_a_pods_life() -> None:
    stages = list(yaml.safe_load_all((checkout() / "devcluster/kwok/stages.yaml").read_text()))
    assert [stage["spec"]["resourceRef"]["kind"] for stage in stages] == ["Node", "Pod", "Pod", "Pod"]
    assert len({stage["metadata"]["name"] for stage in stages}) == len(stages)
