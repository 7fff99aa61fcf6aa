from __future__ import annotations

import pytest

from tests.support.noop.noop import Words

pytestmark = pytest.mark.unit


def test_name_without_words_says_nothing() -> None:
    words = Words("Our shop: late in the year", 1)
    assert [word for word in ("late", "hold", "end", "exit", "silent", "oom") if word in words] == []


def test_values_are_read() -> None:
    words = Words("shop at=setup hold=2.5 end=retryable", 1)
    assert (words.get("at"), words.seconds("hold"), words.get("end")) == ("setup", 2.5, "retryable")


@pytest.mark.parametrize(("attempt", "holds"), [(1, True), (2, True), (3, False)])
def test_limit_is_the_last_attempt_a_word_holds_in(attempt: int, holds: bool) -> None:  # noqa: FBT001 -- a table
    words = Words("shop end=permanent:2 silent:2", attempt)
    assert ("end" in words, "silent" in words) == (holds, holds)


@pytest.mark.parametrize("attempt", [1, 5])
def test_limit_of_oom_is_its_own(attempt: int) -> None:
    assert Words("shop oom:1", attempt).get("oom") == "1"
    assert Words("shop oom", attempt).get("oom", "?") == ""


def test_unknown_word_is_an_error() -> None:
    with pytest.raises(ValueError, match="hodl=5"):
        Words("shop hodl=5", 1)
