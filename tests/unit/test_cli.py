from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.wishes import ENVIRONMENT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


def storeplane(
    *arguments: str, environment: dict[str, str], text: str = "", module: str = "controlplane"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=environment,
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "changes", "said"),
    [
        (["serve"], {"DATABASE_URL": None}, "DATABASE_URL: Field required"),
        (["migrate"], {"DATABASE_URL": None}, "DATABASE_URL: Field required"),
        (["serve"], {"STOREPLANE_TOKEN_KEY": "short"}, "STOREPLANE_TOKEN_KEY"),
        (["serve"], {"STOREPLANE_MEDUSA_IMGE": "x"}, "unknown setting STOREPLANE_MEDUSA_IMGE"),
        (["migrate"], {"STOREPLANE_TYPO": "x"}, "unknown setting STOREPLANE_TYPO"),
        (["serve"], {"STOREPLANE_KUBECONFIG": "/no/such/file"}, "there is no file /no/such/file"),
        (["serve", "--port", "70000"], {}, "65535"),
        (["serve", "--ready-file", "/no/such/folder/f"], {}, "there is no folder /no/such/folder"),
        (["users", "add", "x", "--token-stdin"], {}, "standard input has no line"),
        (["users", "add", "x", "--role", "king"], {}, "king"),
        (["roles", "password", "postgres"], {}, "unknown role postgres"),
        (["fly"], {}, "No such command"),
    ],
)
def test_bad_input_is_told_and_ends_with_2(arguments: list[str], changes: dict[str, str | None], said: str) -> None:
    environment = {name: value for name, value in (ENVIRONMENT | changes).items() if value is not None}
    text = "password\n" if arguments[0] == "roles" else ""
    ended = storeplane(*arguments, environment=environment, text=text)
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 2


def test_variables_of_the_projects_other_programs_are_no_typos() -> None:
    others = {"STOREPLANE_CACHE": "/cache", "STOREPLANE_URL": "http://x", "STOREPLANE_TOKEN": "t"}
    ended = storeplane("migrate", environment=ENVIRONMENT | others)
    assert "unknown setting" not in ended.stderr
    assert ended.returncode == 1


def test_secret_settings_are_not_repeated() -> None:
    ended = storeplane("serve", environment=ENVIRONMENT | {"STOREPLANE_TOKEN_KEY": "hunter2"})
    assert "hunter2" not in ended.stdout + ended.stderr


def test_database_that_does_not_answer_ends_with_1() -> None:
    ended = storeplane("migrate", environment=ENVIRONMENT)
    assert "The database does not answer" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 1


def test_provisioner_without_its_environment_names_what_is_missing() -> None:
    ended = storeplane("single", environment={"STORE_ID": "x"}, module="provisioner_job")
    assert ended.returncode == 20
    assert "OPERATION_ID" in ended.stdout
    assert storeplane("twice", environment={}, module="provisioner_job").returncode == 2


def test_help_needs_no_setting(tmp_path: Path) -> None:
    ended = storeplane("--help", environment={"HOME": str(tmp_path)})
    assert ended.returncode == 0
    assert "serve" in ended.stdout
