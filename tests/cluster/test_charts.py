"""Every chart as it is installed, decided on by a real API server: it knows each field, and takes each object."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.charts import INSTALLATIONS, Installation, rendered

if TYPE_CHECKING:
    from tests.support.cluster import Namespace

pytestmark = pytest.mark.cluster


def _in(namespace: Namespace, installation: Installation) -> list[dict[str, Any]]:
    """Return the objects, all of them in the one namespace that is there."""
    documents = copy.deepcopy(list(rendered(installation).values()))
    for document in documents:
        if "namespace" in document["metadata"]:
            document["metadata"]["namespace"] = namespace.name
    return documents


def _refusal(namespace: Namespace, documents: list[dict[str, Any]]) -> str:
    """Have the server decide, refusing fields it does not know; return its words, empty when it takes them all."""
    words = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "--filename=-")
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    ended = namespace.kube.run(f"--namespace={namespace.name}", *words, stdin=text)
    return ended.stderr if ended.returncode else ""


@pytest.mark.parametrize("installation", INSTALLATIONS, ids=str)
def test_server_takes_every_object_and_knows_every_field(namespace: Namespace, installation: Installation) -> None:
    assert _refusal(namespace, _in(namespace, installation)) == ""


def test_server_refuses_a_field_that_is_misspelt(namespace: Namespace) -> None:
    documents = _in(namespace, INSTALLATIONS[0])
    wrong = next(each for each in documents if each["kind"] == "Deployment")
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePullPolcy"] = "Always"
    assert "imagePullPolcy" in _refusal(namespace, documents)
