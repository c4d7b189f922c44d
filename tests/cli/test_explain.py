"""`explain`: every kind has a page, and a wrong name gets the nearest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from filters.vendor import build

from vaio_bench import catalogue
from vaio_bench.analyses import intervals
from vaio_bench.analyses.overhead import DEFAULT_MARGIN
from vaio_bench.cli import VERBS
from vaio_bench.errors import InputError
from vaio_bench.explaining import explain, pages
from vaio_bench.filters import Context, Io
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


def test_what_a_sweep_reads_has_a_page(cli: Callable[..., Any]) -> None:
    page = cli("explain", "experiment").stdout
    for table in ("[experiment]", "[grid]", "[workload]", "[target]", "sweep null-filter"):
        assert table in page


def test_the_page_of_compare_has_the_rules_of_its_verdicts() -> None:
    assert explain("run_rpo") == explain("run-rpo") == explain("analysis:run_rpo")
    (page,) = explain("compare")
    assert page.summary == "what policies cost against the direct path"
    for word in (*get_args(intervals.Verdict), "noise floor", "Holm", "TOST", "studentised"):
        assert word in page.text
    # The figures that the page names are those of the code.
    for figure in (
        f"{intervals.RESAMPLES:,} resamples",
        f"{intervals.BOOTSTRAP_ROUNDS_MIN} rounds on",
        f"counts {intervals.UNTIL_WIDER:g} times",
        f"(`--margin`, {DEFAULT_MARGIN:.0%}".replace("%", " %"),
    ):
        assert figure in " ".join(page.text.split())


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


def test_every_verb_has_a_page() -> None:
    for verb in VERBS:
        assert explain(verb.rstrip("_")), verb
    for name in ("site", "recover"):
        (page,) = explain(name)
        assert page.group == "verb"
        assert "## What it does" in page.text


def test_every_page_begins_with_words() -> None:
    for page in pages():
        assert page.summary, page.name
        assert len(page.text) > len(page.summary), page.name


def test_filters_of_other_makes_have_a_page(cli: Callable[..., Any]) -> None:
    assert "vaio_filter_entry" in cli("explain", "so").stdout
    assert "py:MODULE:CLASS" in cli("explain", "python").stdout


def test_the_page_of_filters_in_python_has_all_that_one_is_given() -> None:
    (page,) = explain("filter:python")
    # The base class's loop calls `turn_to`, nobody else.
    for kind, hidden in ((Context, {"turn_to"}), (Io, set())):
        offered = {name for name in dir(kind) if not name.startswith("_")} - hidden
        assert [name for name in sorted(offered) if f"`{name}" not in page.text] == []


def test_a_library_brings_its_own_page(tmp_path: Path, cli: Callable[..., Any]) -> None:
    # It cannot be used without a key, and says what it is all the same.
    library = build("scramble", tmp_path)
    (page,) = cli("explain", f"so:{library.name}", "--json", cwd=library.parent).document
    assert page["group"] == "filter"
    assert page["text"].startswith("# ")
    assert "may_defer" in page["text"]
    ended = cli("explain", f"so:{tmp_path}/none.so")
    assert ended.exit_status == 2
    assert "no such file" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_class_brings_its_docstring(tmp_path: Path, cli: Callable[..., Any]) -> None:
    source = 'raise SystemExit("it was run")\nclass Odd:\n    """Fails every second write."""\n'
    (tmp_path / "odd_filter.py").write_text(source)
    ended = cli("explain", "py:odd_filter:Odd", cwd=tmp_path)
    assert ended.exit_status == 0, ended.stderr
    assert ended.stdout.strip() == "# Odd\n\nFails every second write."
    for wrong in ("py:odd_filter:Even", "py:no_filter:Odd", "py:odd_filter"):
        ended = cli("explain", wrong, cwd=tmp_path)
        assert ended.exit_status == 2
        assert len(ended.stderr.splitlines()) == 1
