"""The page in a real browser: nothing fetched, nothing complained of, every chart drawn."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from run_folder import POLICIES

import vaio_bench
from tests.conftest import find_tool, requires

pytestmark = requires("chromium")

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="requires playwright")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=find_tool("chromium"), args=QUIET)
        yield opened
        opened.close()


def until(page: Any, condition: str, seconds: float = 60) -> None:
    """Wait for a condition. The browser's own waiting evaluates text, which the page forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"not within {seconds} s: {condition}"
        page.wait_for_timeout(50)


def opened_page(browser: Any, path: Path, **settings: Any) -> tuple[Any, list[str], list[str]]:
    page = browser.new_page(**settings)
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    until(page, "Boolean(document.documentElement.dataset.charts)")
    fetched = [url for url in requests if not url.startswith(("data:", "blob:"))]
    return page, complaints, fetched


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
def test_every_chart_is_drawn_without_a_request_or_complaint(
    browser: Any, tmp_path: Path, make_example: Callable[..., Path], scheme: str, width: int
) -> None:
    out = tmp_path / "r.html"
    written = vaio_bench.report(make_example(tmp_path / "run"), out)
    page, complaints, fetched = opened_page(
        browser, out, color_scheme=scheme, viewport={"width": width, "height": 900}
    )
    assert page.evaluate("document.documentElement.dataset.charts") == "drawn"
    assert complaints == []
    assert fetched == [out.as_uri()]
    drawn = page.evaluate(
        """() => [...document.querySelectorAll('.chart')].map(chart => ({
            svg: chart.querySelectorAll('.main-svg').length,
            marks: chart.querySelectorAll('path.js-line, path.point, .point path').length,
            width: chart.getBoundingClientRect().width }))"""
    )
    assert len(drawn) == written.figures > 10
    assert all(chart["svg"] > 0 and chart["marks"] > 0 for chart in drawn), drawn
    # No part of the page reaches past the window: wide tables scroll in themselves.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_a_policy_has_one_colour_in_every_chart(
    browser: Any, tmp_path: Path, make_example: Callable[..., Path]
) -> None:
    out = tmp_path / "r.html"
    vaio_bench.report(make_example(tmp_path / "run"), out)
    page, _, _ = opened_page(browser, out)
    colours = page.evaluate(
        """() => { const found = {};
            for (const chart of document.querySelectorAll('.chart'))
                for (const trace of chart._fullData)
                    (found[trace.name] ??= new Set()).add(
                        trace.type === 'scatter' && trace.mode === 'lines'
                            ? trace.line.color : trace.marker.color);
            return Object.fromEntries(Object.entries(found).map(([k, v]) => [k, [...v]])); }"""
    )
    for policy in ("crypt", "cache"):
        assert len(colours[policy]) == 1, colours
    assert colours["crypt"] != colours["cache"]
    page.close()


def test_colours_follow_the_scheme(
    browser: Any, tmp_path: Path, make_example: Callable[..., Path]
) -> None:
    out = tmp_path / "r.html"
    vaio_bench.report(make_example(tmp_path / "run", rounds=2, ios=200), out)
    page, complaints, _ = opened_page(browser, out, color_scheme="light")
    colour = "document.querySelector('.chart')._fullLayout.font.color"
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    until(page, f"{colour} !== {light!r}")
    page.emulate_media(media="print", color_scheme="dark")
    until(page, f"{colour} === {light!r}")
    assert complaints == []
    page.close()


def test_tables_are_complete_without_scripts(
    browser: Any, tmp_path: Path, make_example: Callable[..., Path]
) -> None:
    out = tmp_path / "r.html"
    vaio_bench.report(make_example(tmp_path / "run", rounds=2, ios=200), out)
    page = browser.new_page(java_script_enabled=False)
    page.goto(out.as_uri())
    text = page.inner_text("body")
    assert all(policy in text for policy in POLICIES)
    assert "every table is complete" in text
    page.close()
