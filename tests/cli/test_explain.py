"""`explain`: every kind has a page, and a wrong name gets the nearest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vaio_bench import catalogue
from vaio_bench.errors import InputError
from vaio_bench.explaining import explain, pages
from vaio_bench.warnings import WarningKind


def test_lists_all_groups(cli: Callable[..., Any]) -> None:
    ended = cli("explain")
    assert ended.exit_status == 0, ended.stderr
    for kind in catalogue.kinds():
        assert f"\n  {kind.name} " in ended.stdout
    for warning in WarningKind:
        assert f"\n  {warning.code} " in ended.stdout


def test_shows_a_page(cli: Callable[..., Any]) -> None:
    ended = cli("explain", "crypt")
    assert ended.exit_status == 0, ended.stderr
    assert ended.stdout.strip() == catalogue.filters()["crypt"].page.strip()


def test_json_is_one_document(cli: Callable[..., Any]) -> None:
    (page,) = cli("explain", "turbo", "--json").document
    assert page["group"] == "warning"
    assert page["text"] == WarningKind.TURBO.page
    assert len(cli("explain", "--json").document) == len(pages())


def test_unknown_name_gets_the_nearest(cli: Callable[..., Any]) -> None:
    ended = cli("explain", "crpyt")
    assert ended.exit_status == 2
    assert "did you mean crypt" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_shared_name_shows_all_its_pages_and_a_group_picks_one() -> None:
    for page in pages():
        assert page in explain(page.name)
        assert explain(f"{page.group}:{page.name}") == [page]
    with pytest.raises(InputError):
        explain("warning:crypt")


def test_every_page_begins_with_words() -> None:
    for page in pages():
        assert page.summary, page.name
        assert len(page.text) > len(page.summary), page.name
