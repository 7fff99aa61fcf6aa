from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain import names
from controlplane.domain.errors import InvalidInputError, NameReservedError, NameTooLongError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("My Shop", "my-shop"),
        ("  Ünïcode & Söhne ", "n-code-s-hne"),
        ("a__b..c", "a-b-c"),
        ("--x--", "x"),
        ("123", "123"),
        ("no", "no"),
        ("x" * 48, "x" * 48),
    ],
)
def test_slug_is_made_from_the_name(name: str, slug: str) -> None:
    assert names.slug_from_name(name) == slug


@pytest.mark.parametrize("name", ["platform", "Admin", "API", "-System-", "TEST"])
def test_reserved_names_are_refused_whatever_the_case(name: str) -> None:
    with pytest.raises(NameReservedError, match=r"^Store name is reserved$"):
        names.slug_from_name(name)


@pytest.mark.parametrize("slug", ["admin", "ADMIN"])
def test_reserved_slugs_are_refused_whatever_the_case(slug: str) -> None:
    with pytest.raises(NameReservedError):
        names.validated_slug(slug)


@pytest.mark.parametrize("slug", ["", "-a", "a-", "A", "a_b", "a.b", "a\n", "ä"])
def test_slug_that_is_no_label_is_refused(slug: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        names.validated_slug(slug)
    assert caught.value.problems[0].pointer == "#/slug"


def test_limit_is_the_namespace_of_63_characters() -> None:
    assert len(names.namespace("x" * names.SLUG_LIMIT, "abcdefg2")) == 63
    with pytest.raises(NameTooLongError, match="Kubernetes limit"):
        names.validated_slug("x" * (names.SLUG_LIMIT + 1))


@pytest.mark.parametrize("name", ["", "   ", "x" * 61, "a\x00b", "a\nb"])
def test_display_name_that_cannot_be_shown_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError):
        names.display_name(name)


@pytest.mark.parametrize("suffix", ["", "ABCDEFGH", "abcdefg1", "abcdefgh2", "abc-efgh"])
def test_wrong_suffix_is_a_bug(suffix: str) -> None:
    with pytest.raises(ValueError, match="namespace suffix"):
        names.namespace("shop", suffix)


@given(st.text(max_size=80))
def test_whatever_is_accepted_is_a_namespace(name: str) -> None:
    try:
        slug = names.slug_from_name(names.display_name(name))
    except InvalidInputError:
        return
    namespace = names.namespace(slug, "abcdefg2")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", namespace)
    assert len(namespace) <= 63
    assert names.validated_slug(slug) == slug
