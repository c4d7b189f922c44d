import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from run_folder import POLICIES, Policy, make_run, write_result

import vaio_bench
from tests.eviction.traces import write_requests
from vaio_bench.analyses.rounds import round_figures
from vaio_bench.errors import InputError
from vaio_bench.reporting import overhead_part, run_part
from vaio_bench.reporting.figures import Palette
from vaio_bench.reporting.page import _script_json
from vaio_bench.store import open_run, part_folder

Make = Callable[..., Path]


def test_the_page_is_one_file_with_the_verdict_first(tmp_path: Path, make_example: Make) -> None:
    written = vaio_bench.report(make_example(tmp_path / "run"), tmp_path / "r.html")
    html = (tmp_path / "r.html").read_text()
    assert written.size_bytes == len(html.encode()) < 3_000_000
    assert "RPO over time" in html
    assert '<th scope="col">bootstrap low</th>' in html
    assert "self times add up to the latency." in html
    assert html.index("What does it cost?") < html.index("<h2>Overhead</h2>")
    assert html.count('class="figure"') == written.figures > 10
    tags = re.findall(r"<(?:script|link|img|iframe|source|object)\b[^>]*>", html)
    assert not [tag for tag in tags if re.search(r'(src|href)="(?!data:)', tag)]
    assert list(tmp_path.glob("*.writing")) == []
    answers = written.answers[str(tmp_path / "run")]
    assert answers["What does it cost?"][0] in html.replace("\N{NO-BREAK SPACE}", " ")
    assert json.loads(json.dumps(written.to_dict()))["runs"][0]["overhead"]["baseline"] == "direct"


def test_a_report_of_the_same_run_has_the_same_bytes(tmp_path: Path, make_example: Make) -> None:
    run = make_example(tmp_path / "run")
    for name in ("a.html", "b.html"):
        vaio_bench.report(run, tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_nothing_is_overwritten_without_force(tmp_path: Path, make_example: Make) -> None:
    run = make_example(tmp_path / "run", rounds=1, ios=100)
    out = tmp_path / "r.html"
    out.write_text("mine")
    with pytest.raises(InputError, match=r"r\.html: is there already \(--force"):
        vaio_bench.report(run, out)
    assert out.read_text() == "mine"
    vaio_bench.report(run, out, force=True)
    assert out.read_text().startswith("<!DOCTYPE html>")
    with pytest.raises(InputError, match=r"its folder .* does not exist"):
        vaio_bench.report(run, tmp_path / "gone" / "r.html")
    with pytest.raises(InputError, match="expected a run folder"):
        vaio_bench.report(tmp_path / "nothing", tmp_path / "n.html")


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script>"
    policies = {"direct": Policy(), name: Policy([name, "uring"], added_ns=5_000)}
    run = make_run(tmp_path / "run", policies=policies, rounds=2, ios=200)
    vaio_bench.report(run, tmp_path / "r.html")
    assert "<script>alert" not in (tmp_path / "r.html").read_text()
    assert json.loads(_script_json({"a": name})) == {"a": name}


def test_a_killed_run_is_reported_and_says_so(tmp_path: Path, make_example: Make) -> None:
    run = make_example(tmp_path / "run", rounds=3, exit="running")
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["totals"]["crypt"]["2"]
    (run / "manifest.json").write_text(json.dumps(manifest))
    torn = part_folder(run, "crypt", 2) / "part-2.parquet"
    torn.write_bytes(torn.read_bytes()[:100])
    (run / "timeline.parquet").unlink()
    written = vaio_bench.report(run, tmp_path / "r.html")
    trust = written.answers[str(run)]["Can the figures be trusted?"]
    assert trust[0] == "The run did not end: it was killed, or is still going."
    html = (tmp_path / "r.html").read_text()
    assert "This run did not end" in html
    assert "ios/crypt/2/part-2.parquet" in html
    assert "policy crypt, round 3: cut short, left out" in html
    assert "crypt, round 1<" in html
    assert "round 0" not in html
    assert "I/Os per second" in html


def test_a_run_that_stored_nothing_yet_is_reported(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", policies={}, rounds=0, exit="running")
    written = vaio_bench.report(run, tmp_path / "r.html")
    assert written.figures == 0
    assert "found: none" in (tmp_path / "r.html").read_text()


def test_a_manifest_of_little_is_enough(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", policies=POLICIES, rounds=2, ios=100)
    (run / "manifest.json").write_text('{"schema_version": 1}')
    vaio_bench.report(run, tmp_path / "r.html")
    assert "This run did not end" in (tmp_path / "r.html").read_text()


def test_absent_parts_say_why(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", policies={"direct": Policy()}, rounds=2, ios=100, pace="asap")
    vaio_bench.report(run, tmp_path / "r.html")
    html = (tmp_path / "r.html").read_text()
    assert "holds one policy, direct, and nothing to compare it with" in html
    assert "no plan in results/rpo.json" in html
    assert "no policy of this run has a cache" in html
    assert "as soon as possible at depth 32" in html


def test_a_replay_is_told_in_figures_of_its_own(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", policies={"crypt": POLICIES["crypt"]}, rounds=2, ios=100)
    written = vaio_bench.report(run, tmp_path / "r.html")
    [line] = written.answers[str(run)]["What does it cost?"]
    assert line.startswith("crypt: 200 I/Os in 2 rounds, ")
    assert "holds one policy, crypt, and nothing to compare it with: `vaio-bench compare`" in line
    assert "response, from due to completion" in (tmp_path / "r.html").read_text()
    modelled = make_run(tmp_path / "m", policies={"crypt": Policy()}, rounds=1, ios=50,
                        clock="virtual")  # fmt: skip
    written = vaio_bench.report(modelled, tmp_path / "m.html")
    [line] = written.answers[str(modelled)]["What does it cost?"]
    assert "The run holds one policy, crypt, and nothing" in line


def test_rounds_shorter_than_an_interval_have_no_course_over_time(tmp_path: Path) -> None:
    run = open_run(make_run(tmp_path / "run", rounds=1, ios=100))
    found = run_part.timeline_section(run, run_part.over_time(run), Palette())
    assert found.figures == []
    assert "No first round took longer than one interval (100 ms)" in found.lead
    longer = open_run(make_run(tmp_path / "longer", rounds=1, ios=2_000))
    assert run_part.timeline_section(longer, run_part.over_time(longer), Palette()).figures


def test_a_library_is_called_by_its_file_in_a_legend(tmp_path: Path) -> None:
    use = "so:/opt/vendor/lib/filter.so"
    policies = {"direct": Policy(), "theirs": Policy([use, "uring"], added_ns=5_000)}
    run = open_run(make_run(tmp_path / "run", policies=policies, rounds=1, ios=100))
    found = overhead_part.layers_section(run, Palette())
    for chart in found.figures:
        assert [each["name"] for each in chart.data] == ["uring", "filter.so"]
        assert use in chart.data[1]["hovertemplate"]
    assert f"theirs: {use}" in [row[0] for row in found.tables[0].rows]


def test_a_virtual_clock_has_no_overhead(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rounds=2, ios=100, clock="virtual")
    written = vaio_bench.report(run, tmp_path / "r.html")
    cost = written.answers[str(run)]["What does it cost?"][0]
    assert "virtual" in cost
    assert written.to_dict()["runs"][0]["overhead"] is None
    assert "simulated" in (tmp_path / "r.html").read_text()


def test_trouble_is_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rounds=1, ios=100, exit="failed: No space left", verify=True)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["totals"]["crypt"]["0"] |= {"errors": 3, "mismatches": 2}
    manifest["warnings"] = [{"code": "page-cache", "seen": "it", "why": "y", "remedy": "z"}]
    (run / "manifest.json").write_text(json.dumps(manifest))
    written = vaio_bench.report(run, tmp_path / "r.html")
    text = " ".join(written.answers[str(run)]["Can the figures be trusted?"])
    assert "No space left" in text
    assert "3 I/Os failed" in text
    assert "2 reads gave back other data" in text
    assert "It. Y. Z." in text


def test_simulated_hit_ratios_are_drawn(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rounds=1, ios=100, policies={"direct": Policy()})
    results = [
        {"policy": p, "size_bytes": size, "requests": 10, "hits": 4, "miss_ratio": 0.6}
        for p in ("lru", "arc")
        for size in (1 << 20, 1 << 24)
    ]
    write_result(run, "cache", {"block_bytes": 4096, "unit": "block", "results": results})
    vaio_bench.report(run, tmp_path / "r.html")
    assert "Miss ratio by cache size" in (tmp_path / "r.html").read_text()


def test_several_runs_are_chapters_and_compared(tmp_path: Path) -> None:
    direct = make_run(tmp_path / "a", policies={"direct": Policy()}, rounds=3, ios=300)
    crypt = make_run(tmp_path / "b", policies={"crypt": POLICIES["crypt"]}, rounds=3, ios=300)
    written = vaio_bench.report([direct, crypt], tmp_path / "r.html")
    html = (tmp_path / "r.html").read_text()
    assert "Across the runs" in html
    assert "not interleaved" in html
    assert list(written.answers) == [str(direct), str(crypt)]


def test_the_printed_snippet_gives_the_reports_figures(tmp_path: Path, make_example: Make) -> None:
    run = open_run(make_example(tmp_path / "run", rounds=2))
    code = run_part.recompute_section(run).snippets[0].code
    scope: dict[str, object] = {}
    exec(code, scope)
    printed = scope["per_round"]
    assert isinstance(printed, pl.DataFrame)
    ours = round_figures(run).sort("policy", "round")
    printed = printed.with_columns(pl.col("policy").cast(pl.String)).sort("policy", "round")
    for column in ("latency_p50_ns", "latency_p99_ns", "iops"):
        assert printed[column].to_list() == pytest.approx(ours[column].to_list())


def test_a_long_timeline_is_thinned_and_keeps_its_sums(tmp_path: Path) -> None:
    run = open_run(make_run(tmp_path / "run", rounds=1, ios=3_000, policies={"direct": Policy()}))
    table = run_part.over_time(run)
    whole = run.scan_ios().collect()
    seconds = table["time_s"][1] - table["time_s"][0]
    assert table["iops"].sum() * seconds == pytest.approx(whole.height)
    latency = (whole["complete_ns"] - whole["submit_ns"]).max()
    assert table["latency_p99_ns"].max() <= latency


def test_a_study_of_caches_is_drawn_with_its_advice(tmp_path: Path) -> None:
    trace = tmp_path / "t.parquet"
    blocks = (np.random.default_rng(1).random(4_000) ** 3 * 900).astype(np.int64)
    write_requests(trace, blocks, blocks % 3 == 0)
    study = vaio_bench.cache(
        trace, policies=["lru", "arc"], sizes=["10%"], curve=True, write_policy="back"
    )
    run = make_run(tmp_path / "run", rounds=1, ios=100, policies={"direct": Policy()})
    write_result(run, "cache", study.to_dict())
    vaio_bench.report(run, tmp_path / "r.html")
    html = (tmp_path / "r.html").read_text()
    assert study.document["recommendation"]["reason"] in html.replace("\N{NO-BREAK SPACE}", " ")
    for title in ("Miss ratio by cache size", "Working set over time", "age of the oldest dirty"):
        assert title in html
