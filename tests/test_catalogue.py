"""The engine's list of kinds, as Python reads it."""

from __future__ import annotations

import pytest

from vaio_bench import catalogue


@pytest.mark.parametrize(
    ("page", "summary"),
    [
        ("# a\n\n## b\nOne two\nthree. Four.\n", "One two three"),
        ("# a\n\n  First\nparagraph\n\nsecond.", "First paragraph"),
        ("`x` takes 0.5 of it: more", "`x` takes 0.5 of it: more"),
        ("# a\n", ""),
    ],
)
def test_the_summary_is_the_first_sentence(page: str, summary: str) -> None:
    assert catalogue.summary_of(page) == summary


def test_names_are_unique_in_their_group() -> None:
    names = [(kind.kind, kind.name) for kind in catalogue.kinds()]
    assert len(names) == len(set(names))
    assert {kind for kind, _ in names} <= {"filter", "format", "eviction", "backend"}


def test_filters_are_what_policies_can_name() -> None:
    filters = catalogue.filters()
    assert filters["pass"].filter_class is None
    assert catalogue.check_filter("pass", {}) == []
    ((path, message),) = catalogue.check_filter("pass", {"surplus": 1})
    assert path == "surplus"
    assert message.startswith("unknown key")
