"""The client's own conduct towards a cluster that refuses, on the loopback."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web

from controlplane.domain.errors import ConfigurationError
from controlplane.kube.client import KubeClient
from controlplane.kube.errors import KubeUnauthorizedError
from tests.support.faulty_cluster import Credentials, FaultyCluster, faulty_cluster, refusal

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

FRESH = "Bearer fresh"


def _wants_fresh_token(cluster: FaultyCluster) -> None:
    def answer(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") == FRESH:
            return web.json_response({"kind": "Job"})
        return web.json_response(refusal("Unauthorized", "Unauthorized"), status=401)

    cluster.answers["GET", "/job"] = answer


async def test_refused_token_is_read_again_once_for_all_calls() -> None:
    loads = 0

    async def load() -> Credentials:
        nonlocal loads
        loads += 1
        await asyncio.sleep(0)
        return Credentials("fresh")

    async with faulty_cluster() as (cluster, plain), aiohttp.ClientSession() as session:
        _wants_fresh_token(cluster)
        client = KubeClient(plain._base_url, Credentials("stale"), session, load=load)  # noqa: SLF001 -- its address
        answers = await asyncio.gather(*(client.request("GET", "/job") for _ in range(5)))
        assert [answer["kind"] for answer in answers] == ["Job"] * 5
        assert loads == 1


async def test_token_that_stays_refused_is_an_error_after_one_repeat() -> None:
    async def load() -> Credentials:
        return Credentials("still stale")

    async with faulty_cluster() as (cluster, plain), aiohttp.ClientSession() as session:
        _wants_fresh_token(cluster)
        client = KubeClient(plain._base_url, Credentials("stale"), session, load=load)  # noqa: SLF001 -- its address
        with pytest.raises(KubeUnauthorizedError):
            await client.request("GET", "/job")
        assert cluster.calls["GET", "/job"] == 2


async def test_credentials_that_cannot_be_read_again_are_told() -> None:
    async def load() -> Credentials:
        message = "no file"
        raise ConfigurationError(message)

    async with faulty_cluster() as (cluster, plain), aiohttp.ClientSession() as session:
        _wants_fresh_token(cluster)
        client = KubeClient(plain._base_url, Credentials("stale"), session, load=load)  # noqa: SLF001 -- its address
        with pytest.raises(KubeUnauthorizedError, match="cannot be read again: no file"):
            await client.request("GET", "/job")


def _kubeconfig(folder: Path, **user: str) -> Path:
    path = folder / "kubeconfig"
    cluster = {"server": "https://127.0.0.1:1", "certificate-authority": str(folder / "ca.crt")}
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": {"token": "t", **user}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    return path


async def test_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("not a certificate")
    with pytest.raises(ConfigurationError, match=r"ca\.crt"):
        await KubeClient.connect(_kubeconfig(tmp_path))


async def test_missing_ca_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"ca\.crt"):
        await KubeClient.connect(_kubeconfig(tmp_path))
