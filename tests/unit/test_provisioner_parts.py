from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import pytest

from controlplane.domain.catalogue import CATALOGUE, supported
from provisioner_job.cluster import Cluster
from provisioner_job.contract import SPEC_VERSION
from provisioner_job.errors import PhaseError, RetryableError
from provisioner_job.journal import Journal, Redactor
from provisioner_job.phases import phases_of
from provisioner_job.release import marked_failed
from provisioner_job.runner import run
from provisioner_job.setup import failed_container
from provisioner_job.shop import products_in, question_of
from provisioner_job.store_secrets import new_texts, secret_among
from provisioner_job.work import Work
from tests.support import wishes
from tests.support.polling import poll

if TYPE_CHECKING:
    from provisioner_job.job_input import JobInput

pytestmark = pytest.mark.unit

STORE = UUID("0198c2a0-0000-7000-8000-000000000002")


def test_secrets_are_fresh_and_have_the_agreed_keys() -> None:
    recipes = wishes.spec()["secret"]
    first, second = (new_texts(recipes, "shop-abcdefg2.localhost") for _ in range(2))
    assert set(first) == {
        "POSTGRES_PASSWORD",
        "REDIS_PASSWORD",
        "JWT_SECRET",
        "COOKIE_SECRET",
        "ADMIN_EMAIL",
        "ADMIN_PASSWORD",
        "PUBLISHABLE_KEY",
        "DATABASE_URL",
        "REDIS_URL",
    }
    assert {key for key in first if first[key] == second[key]} == {"ADMIN_EMAIL"}
    assert first["PUBLISHABLE_KEY"].startswith("pk_")
    assert len(first["PUBLISHABLE_KEY"]) == 67
    assert first["POSTGRES_PASSWORD"] in first["DATABASE_URL"]


def test_recipes_have_no_order() -> None:
    """They come out of the database as `jsonb` has them."""
    recipes = wishes.spec()["secret"]
    texts = new_texts(dict(sorted(recipes.items(), key=lambda item: len(item[0]))), "shop.example")
    assert texts["REDIS_PASSWORD"] in texts["REDIS_URL"]


async def test_order_of_another_version_is_refused_before_anything_is_asked() -> None:
    class Untouched(Cluster):
        async def get(self, *_: object) -> dict[str, Any] | None:
            raise AssertionError

    journal = Journal(Redactor(), as_json=False)
    (namespace, *_) = phases_of("create")
    spec = wishes.spec() | {"version": SPEC_VERSION - 1}
    work = Work(cast("JobInput", None), spec, Untouched(journal), journal)
    with pytest.raises(PhaseError, match="refresh_spec") as caught:
        await namespace.act(work)
    assert caught.value.code == "SPEC_VERSION"


@pytest.mark.parametrize("engine", [each.name for each in supported(CATALOGUE)])
def test_spec_is_as_this_version_of_it_was_agreed(engine: str) -> None:
    """What differs here another provisioner reads: a key that changes its meaning wants a new version."""
    kept = Path(__file__).parents[1] / "data" / "specs" / f"{engine}-{SPEC_VERSION}.json"
    spec = wishes.spec(engine)
    if os.environ.get("STOREPLANE_TEST_UPDATE"):
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(spec, indent=1, sort_keys=True) + "\n")
    assert spec == json.loads(kept.read_text())


def test_log_may_show_what_is_made_of_the_host_alone() -> None:
    recipes = wishes.spec()["secret"]
    texts = new_texts(recipes, "shop.example")
    shown = set(texts.values()) - set(secret_among(recipes, texts))
    assert shown == {"admin@shop.example"}


@pytest.mark.parametrize("recipe", [{"rot13": "x"}, {"text": "{LATER}"}])
def test_recipe_that_cannot_be_followed_is_named(recipe: dict[str, str]) -> None:
    with pytest.raises(PhaseError, match=r"rot13|LATER") as caught:
        new_texts({"KEY": recipe, "LATER": {"text": "x"}}, "shop.example")
    assert caught.value.code == "SECRET_RECIPE"


def test_shop_is_asked_as_a_browser_would_with_what_its_row_names() -> None:
    spec = wishes.spec()
    question = question_of(spec, "store-ns", {"PUBLISHABLE_KEY": "pk_1"})
    assert (question.address, question.port) == ("medusa.store-ns.svc.cluster.local", 9000)
    assert question.headers["Host"] == "shop-abcdefg2.localhost:8081"
    assert question.headers["x-publishable-api-key"] == "pk_1"


def test_killed_release_is_marked_failed_and_nothing_else_changes() -> None:
    release = {"name": "medusa", "version": 2, "info": {"status": "pending-upgrade", "first_deployed": "x"}}
    packed = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(release).encode()))).decode()
    secret = {
        "metadata": {"name": "sh.helm.release.v1.medusa.v2", "labels": {"status": "pending-upgrade", "version": "2"}},
        "data": {"release": packed},
    }
    made = marked_failed(secret)
    stored = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(made["data"]["release"]))))
    assert made["metadata"]["labels"] == {"status": "failed", "version": "2"}
    assert stored["info"]["status"] == "failed"
    assert stored["info"]["first_deployed"] == "x"
    assert secret["metadata"]["labels"]["status"] == "pending-upgrade"  # type: ignore[index]  # nested plain JSON


def test_release_stored_in_another_way_is_refused() -> None:
    with pytest.raises(PhaseError, match="cannot be read"):
        marked_failed({"metadata": {"labels": {}}, "data": {"release": "!"}})


def test_cause_of_a_failed_setup_is_the_newest_pod_s_first_failing_container() -> None:
    def pod(name: str, made: str, codes: dict[str, int | None]) -> dict[str, object]:
        statuses = [
            {"name": each, "state": {} if code is None else {"terminated": {"exitCode": code, "reason": "Error"}}}
            for each, code in codes.items()
        ]
        return {
            "metadata": {"name": name, "creationTimestamp": made},
            "status": {"initContainerStatuses": statuses, "containerStatuses": [{"name": "done", "state": {}}]},
        }

    older = pod("a", "2026-01-01T00:00:00Z", {"migrate": 2})
    newer = pod("b", "2026-01-01T00:01:00Z", {"migrate": 0, "seed": 1})
    assert failed_container([older, newer]) == ("b", "seed", "Error, exit code 1")
    assert failed_container([pod("c", "2026-01-01T00:00:00Z", {"migrate": None})]) is None


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b'{"products": []}'), (200, b"<html>"), (200, b"[]"), (503, b'{"products": [1]}'), (400, b"no key")],
)
def test_answer_without_products_is_no_shop(status: int, body: bytes) -> None:
    with pytest.raises(RetryableError, match=f"HTTP {status}"):
        products_in(status, body, "products")


def test_products_are_counted() -> None:
    assert products_in(200, b'{"products": [1, 2, 3, 4]}', "products") == 4
    assert products_in(200, b"[1, 2]", "") == 2


async def test_output_is_bounded_redacted_and_from_both_streams() -> None:
    redactor = Redactor()
    redactor.learn("sesame-open")
    script = (
        "import sys; print('x' * 600_000); print('sesame-open', flush=True); sys.stderr.write('last\\n'); sys.exit(3)"
    )
    ended = await run([sys.executable, "-c", script], environment={}, limit_seconds=60, redactor=redactor)
    assert ended.exit_code == 3
    assert len(ended.output) <= 256 * 1024
    assert ended.last_lines(2) == "[redacted]\nlast"


async def test_program_has_only_the_environment_it_was_given() -> None:
    script = "import os; print(sorted(set(os.environ) - {'LC_CTYPE'}))"
    ended = await run([sys.executable, "-c", script], environment={"A": "1"}, limit_seconds=60, redactor=Redactor())
    assert ended.output.strip() == "['A']"


async def test_overdue_program_is_told_to_stop_with_its_children(tmp_path: Path) -> None:
    file = tmp_path / "child"
    # The shell ignores the signal and waits for its child: both end only if the whole group is told.
    script = f"trap '' TERM; (trap - TERM; exec sleep 1000) & echo $! > {file}; wait; wait; exit 0"
    with pytest.raises(RetryableError, match="took too long"):
        await run(
            ["/bin/sh", "-c", script],
            environment={"PATH": "/bin:/usr/bin"},
            limit_seconds=2,
            redactor=Redactor(),
        )
    child = Path("/proc") / file.read_text().strip()
    # Ended, or a corpse that nobody collects where the first process does not.
    await asyncio.to_thread(
        poll,
        lambda: not child.exists() or " Z " in (child / "stat").read_text(),
        what="the child has ended",
    )


async def test_cancelled_run_lets_the_program_end_in_order(tmp_path: Path) -> None:
    began, ended = tmp_path / "began", tmp_path / "ended"
    script = f"trap 'touch {ended}; exit 0' TERM; touch {began}; while :; do sleep 0.05; done"
    task = asyncio.create_task(
        run(["/bin/sh", "-c", script], environment={"PATH": "/bin:/usr/bin"}, limit_seconds=60, redactor=Redactor())
    )
    await asyncio.to_thread(poll, began.exists, what="the program has set its trap")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.exists()


async def test_missing_program_is_named() -> None:
    with pytest.raises(PhaseError, match="no-such-program cannot be started"):
        await run(["no-such-program"], environment={}, limit_seconds=1, redactor=Redactor())
