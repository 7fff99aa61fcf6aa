"""The shape of a cluster: addresses, settings, names, and the images and certificates it is made with."""

from __future__ import annotations

import ipaddress
import json
import tarfile
from itertools import combinations
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from devcluster.images.archive import references, write_archive
from devcluster.kubernetes import cluster as clusters
from devcluster.kubernetes.cluster import Cluster
from devcluster.kubernetes.network import Network
from devcluster.kubernetes.pki import Authority
from devcluster.kubernetes.settings import Settings, Wish
from devcluster.machine.errors import DevclusterError, WrongUsageError, log_tail
from devcluster.machine.paths import check_name, write_if_changed

if TYPE_CHECKING:
    from pathlib import Path


@settings(deadline=None)
@given(st.integers(0, 59), st.integers(0, 59))
def test_two_clusters_share_no_address(first: int, second: int) -> None:
    if first == second:
        return
    networks = [
        [f"{each.host_address}/24", each.cluster_cidr, each.service_cidr] for each in (Network(first), Network(second))
    ]
    for one in networks[0]:
        for other in networks[1]:
            assert not ipaddress.ip_network(one, strict=False).overlaps(ipaddress.ip_network(other, strict=False))


@settings(deadline=None)
@given(st.integers(0, 59))
def test_addresses_of_one_cluster_are_apart_and_in_their_ranges(index: int) -> None:
    network = Network(index)
    ranges = [ipaddress.IPv4Network(each) for each in (network.cluster_cidr, network.service_cidr)]
    for number in (1, 4):
        assert ipaddress.IPv4Network(network.pod_cidr(number)).subnet_of(ranges[0])
    assert ipaddress.ip_address(network.dns_address) in ranges[1]
    assert ipaddress.ip_address(network.api_service_address) == next(ranges[1].hosts())
    ends = [network.host_address, network.gateway_address, network.node_address(1), network.node_address(4)]
    assert all(one != other for one, other in combinations(ends, 2))


@pytest.mark.parametrize("name", ["", "Dev", "1st", "a_b", "a-", "x" * 21, "../x", "a b", "postgres-dev"])
def test_name_that_cannot_be_a_folder_or_a_cgroup_is_refused(name: str) -> None:
    with pytest.raises(WrongUsageError, match="cannot be a cluster's name"):
        check_name(name)


def test_dev_has_the_fixed_ports_and_others_free_ones() -> None:
    dev, other = Settings.first("dev"), Settings.first("other")

    assert (dev.api_port, dev.shops_port) == (8080, 8081)
    assert not {other.api_port, other.shops_port} & {0, 8080, 8081}


def test_wish_changes_what_it_names_and_keeps_the_rest(tmp_path: Path) -> None:
    settings = Settings.first("other").granting(Wish(nodes=2))

    settings.granting(Wish(controller_qps=200)).write(tmp_path / "cluster.json")

    kept = Settings.read(tmp_path / "cluster.json")
    assert kept is not None
    assert (kept.nodes, kept.controller_qps, kept.fake_nodes) == (2, 200, 0)
    with pytest.raises(WrongUsageError, match="not taken away"):
        kept.granting(Wish(nodes=1))


def test_damaged_settings_are_told_with_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text('{"index": 1')

    with pytest.raises(DevclusterError) as caught:
        Settings.read(tmp_path / "cluster.json")

    assert "next step" in caught.value.render()


def test_only_folders_of_clusters_count_as_clusters(tmp_path: Path) -> None:
    """``down --all`` removes what this names: a home that somebody else's folders share must not lose them."""
    root = tmp_path / "state"
    for name in ("www", "kind-dev", "lost+found", "postgres-dev"):
        (root / name).mkdir(parents=True)
    (root / "mine").mkdir()
    (root / "mine" / "index").write_text("59")

    assert "mine" in clusters.names()
    assert not {"www", "kind-dev", "lost+found", "postgres-dev"} & set(clusters.names())


def test_down_removes_a_cluster_whose_settings_are_damaged(tmp_path: Path) -> None:
    home = tmp_path / "state" / "mine"
    (home / "run").mkdir(parents=True)
    (home / "index").write_text("59")
    (home / "cluster.json").write_text('{"nodes": ')

    Cluster("mine").down()

    assert not home.exists()


def test_down_leaves_a_folder_that_is_not_a_clusters(tmp_path: Path) -> None:
    stranger = tmp_path / "state" / "www" / "page"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("not ours")

    Cluster("www").down()

    assert stranger.read_text() == "not ours"


def test_same_content_leaves_a_generated_file_untouched(tmp_path: Path) -> None:
    file = tmp_path / "made" / "config"
    write_if_changed(file, "one")
    before = file.stat().st_ino

    write_if_changed(file, "one")
    assert file.stat().st_ino == before

    write_if_changed(file, "two")
    assert file.read_text() == "two"


def test_archive_is_the_same_for_the_same_input_and_names_its_image(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")

    archives = [
        write_archive(
            tmp_path / name, reference="storeplane.local/x:1", files={"bin/x": program}, entrypoint=["/bin/x"]
        )
        for name in ("one.tar", "two.tar")
    ]

    assert archives[0].read_bytes() == archives[1].read_bytes()
    assert references(archives[0]) == ["storeplane.local/x:1"]
    with tarfile.open(archives[0]) as tar:
        layer = tar.extractfile("layer.tar")
        assert layer is not None
        with tarfile.open(fileobj=layer) as inner:
            assert inner.getmember("bin/x").mode == 0o755


def test_certificate_carries_user_group_and_names_and_is_issued_once(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "test")
    authority.create()

    pair = authority.issue("node", common_name="system:node:a", organization="system:nodes", hosts=["a", "10.0.0.1"])
    again = authority.issue("node", common_name="another", hosts=["b"])

    certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "system:node:a"
    assert certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "system:nodes"
    assert names.get_values_for_type(x509.DNSName) == ["a"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("10.0.0.1")]
    assert again == pair
    assert pair.key.stat().st_mode & 0o077 == 0


def test_report_ends_with_the_logs_last_lines_its_path_and_the_next_step(tmp_path: Path) -> None:
    log = tmp_path / "kubelet.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)) + json.dumps({"long": "x" * 5000}))

    report = DevclusterError("kubelet ended", log=log, remedy="mend it").render()

    assert "line 99" in report
    assert "line 80" not in report
    assert str(log) in report
    assert "next step: mend it" in report
    assert max(map(len, report.splitlines())) < 500
    assert log_tail(tmp_path / "absent.log") == []
