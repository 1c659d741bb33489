"""What an error says: rule, value and remedy, each of bounded length."""

from __future__ import annotations

from typing import Any

import pytest

from vtw_search.errors import TaskError, VtwError, shown, unknown_name


def nested(depth: int) -> list[Any]:
    return [] if depth == 0 else [nested(depth - 1)]


def test_a_short_message_is_whole() -> None:
    assert str(VtwError("a must be b", value="c", remedy="make it b")) == "a must be b, got 'c'; make it b"
    assert str(VtwError("a must be b")) == "a must be b"


@pytest.mark.parametrize("value", ["x" * 10**6, ["x"] * 10**5, {"x" * 10**6: 1}, b"\0" * 10**6])
def test_a_message_is_cut_whatever_its_parts_hold(value: Any) -> None:
    for error in (
        VtwError("r", value=value),
        VtwError(str(value), remedy=str(value)),
        unknown_name("k", str(value), []),
    ):
        assert len(str(error)) < 2500
        assert "characters)" in str(error)
    assert VtwError("r", value=value).value is value


def test_a_value_that_is_too_deep_to_show_is_still_named() -> None:
    value = nested(900)
    for _ in range(9_000):
        value = [value]
    assert shown(value) == "a list that is nested too deeply to show"


def test_an_error_keeps_its_parts_where_it_is_told_from_elsewhere() -> None:
    error = TaskError("a must be b", value="c", remedy="make it b").at("sample '1'")
    assert isinstance(error, TaskError)
    assert str(error) == "sample '1': a must be b, got 'c'; make it b"


def test_a_message_is_one_line_that_can_be_printed() -> None:
    error = VtwError("rule\n\ud800", value="a\nb\ud800", remedy="remedy\x1b[2J \u2028")
    assert str(error).isprintable()
    assert str(error).startswith(r"rule\n\ud800, got 'a\nb\ud800'; remedy\x1b[2J")
