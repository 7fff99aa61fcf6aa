"""What several versions of Kubernetes take as an object, by their own descriptions; a field they do not know is wrong.

The schemas are those of the package kubernetes-validate, whose own function reads a version's megabytes anew for every
object: here they are read once.
"""

from __future__ import annotations

import functools
import json
import re
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import kubernetes_validate
from jsonschema.validators import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["VERSIONS", "wrong_fields"]

_OLDEST: Final = (1, 30)
_FOLDER: Final = resources.files(kubernetes_validate) / "kubernetes-json-schema"


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


VERSIONS: Final = sorted(
    {
        found[1]
        for folder in _FOLDER.iterdir()
        if (found := re.fullmatch(r"v(\d+\.\d+)\.\d+-local-strict", folder.name)) and _number(found[1]) >= _OLDEST
    },
    key=_number,
)
"""Every version from 1.30 on that the package knows."""


def wrong_fields(document: Mapping[str, Any], version: str) -> list[str]:
    """Return what a version of Kubernetes finds wrong with an object: a kind, a field or a type it does not know."""
    group = str(document["apiVersion"]).partition("/")
    short = f"{group[0].partition('.')[0]}-{group[2]}" if group[1] else group[0]
    validator = _validator(version, f"{str(document['kind']).lower()}-{short}.json")
    if validator is None:
        return [f"{document['apiVersion']} {document['kind']}: unknown to Kubernetes {version}"]
    return list(_told(validator, document))


def _told(validator: Draft202012Validator, document: Mapping[str, Any]) -> Iterator[str]:
    for error in validator.iter_errors(document):
        yield f"{error.json_path}: {error.message}"


def _text(version: str, name: str) -> Any:
    return json.loads((_FOLDER / f"v{version}.0-local-strict" / name).read_text(encoding="utf-8"))


@functools.cache
def _registry(version: str) -> Registry[Any]:
    definitions = Resource.from_contents(_text(version, "_definitions.json"), default_specification=DRAFT202012)
    # Searched through once, not at each reference.
    made: Registry[Any] = Registry().with_resource("_definitions.json", definitions).crawl()
    return made


@functools.cache
def _validator(version: str, name: str) -> Draft202012Validator | None:
    try:
        schema = _text(version, name)
    except FileNotFoundError:
        return None
    return Draft202012Validator(schema, registry=_registry(version))
