"""The one Secret of a store that the control plane may get, as the API server itself decides it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from controlplane.domain.credentials import Credentials, NoCredentials
from controlplane.kube.client import KubeClient
from controlplane.kube.jobs import JobGateway
from provisioner_job.contract import CREDENTIALS_SECRET, OBSERVER_ROLE, STORE_LABEL
from tests.support.installation import STORE_ID, store_name
from tests.support.polling import poll

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.installation import Account, Installation

pytestmark = pytest.mark.cluster

TEXTS = {"username": "admin@example.org", "password": "a word, ü", "publishable_key": "pk_0"}
OTHERS = ("store-secrets", "sh.helm.release.v1.medusa.v1", "store-credentials-2")


def _secret(namespace: str, name: str = CREDENTIALS_SECRET, **labels: str) -> dict[str, Any]:
    marked = {STORE_LABEL: str(STORE_ID)} | labels
    metadata = {"name": name, "namespace": namespace, "labels": marked}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": TEXTS}


def _may(account: Account, verb: str, what: str, namespace: str) -> bool:
    asked = account.run("auth", "can-i", verb, what, f"--namespace={namespace}")
    assert asked.stdout.strip() in {"yes", "no"}, asked.stderr
    return asked.stdout.strip() == "yes"


@pytest.fixture
def own_store(installed: Installation) -> str:
    """Give the name of another store's namespace, which the test may change; nobody looks into it yet."""
    made = installed.store_namespace()
    name: str = made["metadata"]["name"]
    provisioner = installed.provisioner
    assert provisioner.create(made) == ""
    assert provisioner.create(installed.binding(name, "store-admin", provisioner)) == ""
    poll(lambda: _may(provisioner, "create", "secrets", name), what="the provisioner's rights are seen")
    return name


@pytest.fixture
async def gateway(installed: Installation, tmp_path: Path) -> AsyncIterator[JobGateway]:
    """Give the control plane's own way to the cluster, with its own account's token."""
    account = installed.controlplane
    token = installed.kube.do("create", "token", account.name, f"--namespace={account.namespace}").strip()
    config = json.loads(installed.kube.do("config", "view", "--raw", "--minify", "--output=json"))
    config["users"] = [{"name": "it", "user": {"token": token}}]
    config["contexts"][0]["context"]["user"] = "it"
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(config))
    client = await KubeClient.connect(file)
    yield JobGateway(client, installed.jobs)
    await client.close()


def test_of_all_secrets_the_control_plane_may_get_one_in_its_stores(installed: Installation, store: str) -> None:
    account = installed.controlplane
    poll(lambda: _may(account, "get", f"secrets/{CREDENTIALS_SECRET}", store), what="the observer's rights are seen")
    wrong = [f"get secrets/{name} in {store}" for name in OTHERS if _may(account, "get", f"secrets/{name}", store)]
    for verb in ("list", "watch", "create", "update", "patch", "delete", "deletecollection"):
        wrong += [
            f"{verb} {what}"
            for what in ("secrets", f"secrets/{CREDENTIALS_SECRET}")
            if _may(account, verb, what, store)
        ]
    for elsewhere in ("default", "kube-system", installed.name, installed.jobs):
        wrong += [
            f"{verb} in {elsewhere}"
            for verb in ("get", "list")
            if _may(account, verb, f"secrets/{CREDENTIALS_SECRET}", elsewhere)
        ]
    assert wrong == []


def test_server_refuses_what_the_rules_do_not_name(installed: Installation, store: str) -> None:
    """The answers themselves, because a rule with a name is read differently for each verb."""
    account, named = installed.controlplane, f"--field-selector=metadata.name={CREDENTIALS_SECRET}"
    for name in (CREDENTIALS_SECRET, *OTHERS):
        installed.kube.apply(_secret(store, name))
    path = f"/api/v1/namespaces/{store}/secrets"
    found = poll(lambda: account.run("get", "--raw", f"{path}/{CREDENTIALS_SECRET}").stdout, what="the one is told")
    assert set(json.loads(found)["data"]) == set(TEXTS)
    asked = {
        "other": ["get", "--raw", f"{path}/store-secrets"],
        "list": ["get", "--raw", path],
        "named list": ["get", "secrets", f"--namespace={store}", named],
        "watch": ["get", "--raw", f"{path}?watch=true&timeoutSeconds=2"],
        "named watch": ["get", "--raw", f"{path}?watch=true&timeoutSeconds=2&fieldSelector=metadata.name%3Dx"],
        "everywhere": ["get", "--raw", "/api/v1/secrets"],
    }
    answers = {what: account.run(*words) for what, words in asked.items()}
    told = {what: (each.returncode, "forbidden" in each.stderr.lower()) for what, each in answers.items()}
    assert told == dict.fromkeys(asked, (1, True))


async def test_control_plane_reads_it_with_its_own_account(
    installed: Installation, own_store: str, gateway: JobGateway
) -> None:
    async def until(wanted: Credentials | NoCredentials) -> None:
        # The server's authorizer sees a binding, and its removal, a moment later.
        async with asyncio.timeout(60):
            while await gateway.store_credentials(own_store, STORE_ID) != wanted:  # noqa: ASYNC110 -- of another process
                await asyncio.sleep(0.05)

    provisioner = installed.provisioner
    assert await gateway.store_credentials(own_store, STORE_ID) is NoCredentials.NO_RIGHT
    assert provisioner.create(installed.binding(own_store, OBSERVER_ROLE, installed.controlplane)) == ""
    await until(NoCredentials.NO_SECRET)
    assert provisioner.create(_secret(own_store)) == ""
    await until(Credentials(TEXTS))
    installed.kube.apply(_secret(own_store, **{STORE_LABEL: "00000000-0000-0000-0000-000000000008"}))
    await until(NoCredentials.FOREIGN)
    installed.kube.do("delete", "rolebinding", OBSERVER_ROLE, f"--namespace={own_store}")
    await until(NoCredentials.NO_RIGHT)


async def test_namespace_that_is_not_there_is_told_from_a_missing_right(gateway: JobGateway) -> None:
    assert await gateway.store_credentials(store_name(), STORE_ID) is NoCredentials.NO_NAMESPACE
