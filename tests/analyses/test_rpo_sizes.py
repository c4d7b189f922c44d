"""What the planner says beside RPO: folding, disks and groups, capacity, other bandwidths."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vaio_bench as vb
from tests.analyses import rpo_oracle as plain
from tests.analyses.test_rpo import MS, check_mode, store, workloads, writes_of
from vaio_bench import sizing
from vaio_bench.analyses.rpo_sheets import write_sheets
from vaio_bench.errors import InputError

S = 1000 * MS
KB, MB = 1000, 1_000_000


def plan(path: Path, rows: list[Any], **options: Any) -> dict[str, Any]:
    return vb.rpo(store(path / "t.parquet", rows), **{"link": "8Mbit/s", **options}).to_dict()


def unique(writes: Sequence[plain.Write], block: int) -> int:
    numbers = {
        (w.disk, number)
        for w in writes
        for number in range(w.offset // block, (w.offset + w.length - 1) // block + 1)
    }
    return len(numbers) * block


@settings(max_examples=60, deadline=None)
@given(rows=workloads(), interval=st.integers(1, 12), bps=st.sampled_from([8000, 10**6, 10**10]))
def test_folding_sends_the_blocks_of_a_point_when_it_is_cut(
    rows: list[Any], interval: int, bps: int
) -> None:
    end, writes = rows[-1][0], writes_of(rows)
    step = max(1, end // interval)
    oracle = plain.Oracle(writes, end, bps, 20)

    def points(at: plain.Oracle) -> list[tuple[Fraction, Fraction]]:
        found, free, ready = [], Fraction(0), Fraction(0)
        for k in range(end // step + 1):
            cut = k * step
            inside = [w for w in at.writes if cut - step <= w.time < cut]
            if inside:
                free = at.sent(max(free, Fraction(cut)), unique(inside, 2048))
                ready = at.landed(free)
            found.append((Fraction(cut), max(ready, Fraction(cut))))
        return found

    with tempfile.TemporaryDirectory() as folder:
        found = plan(Path(folder), rows, link=f"{bps}bit/s,20ns", point_interval=f"{step}ns",
                     target_rpo=f"{2 * step}ns", granularity=2048, fold=True)  # fmt: skip
    cdp = found["modes"][0]
    assert cdp["fold"] is True
    check_mode(cdp, oracle, points, 2 * step)
    cut_off = end // step * step
    sent = sum(
        unique([w for w in writes if k * step <= w.time < (k + 1) * step], 2048)
        for k in range(cut_off // step)
    )
    assert cdp["sent_bytes"] == sent


def test_the_folding_curve(tmp_path: Path) -> None:
    # One block over and over for a minute, another one each second besides.
    rows = []
    for second in range(60):
        rows.append((second * S, "d", "write", 0, 4096))
        rows.append((second * S + S // 2, "d", "write", 4096 * (1 + second), 4096))
    rows.append((60 * S, "d", "read", 0, 4096))
    curve = {at["window_s"]: at for at in plan(tmp_path, rows, growth=1.0)["folding"]}
    assert [*curve] == [1, 2.5, 5, 15, 60]
    # Two blocks a second; then 1 + w blocks in w seconds. Growth doubles the bytes.
    assert curve[1]["unique_bytes"] == 2 * 120 * 4096
    assert (curve[1]["gain"], curve[60]["gain"]) == (0, pytest.approx(1 - 61 / 120))
    assert curve[15]["unique_bytes_max"] == 2 * 16 * 4096
    assert curve[15]["bandwidth_bps"] == round(2 * 4 * 16 * 4096 * 8 / 60)
    assert curve[60]["bandwidth_peak_bps"] == round(2 * 61 * 4096 * 8 / 60)


def busy_in_turn() -> list[Any]:
    """Disk a1 writes 60 MB in the first minute, a2 in the second, b a little all the time."""
    rows = []
    for second in range(180):
        disk = "a1" if second < 60 else "a2"
        if second < 120:
            rows.append((second * S, disk, "write", second * MB, MB))
        rows.append((second * S, "b", "write", 0, 50 * KB))
        rows.append((second * S, "b", "read", 0, 50 * KB))
    return [*rows, (180 * S, "b", "flush", 0, 0)]


def test_a_groups_peak_is_the_peak_of_the_sum(tmp_path: Path) -> None:
    found = plan(tmp_path, busy_in_turn(), groups={"vm": ["a*"], "other": ["b", "a2"]})
    loads = {load["name"]: load for load in found["loads"]}
    assert [*loads] == ["all disks", "vm", "other", "a1", "b", "a2"]
    peak = {name: load["written_bytes_per_s"]["peak"] for name, load in loads.items()}
    assert peak["a1"] == peak["a2"] == peak["vm"] == pytest.approx(MB)
    assert loads["vm"]["sum_of_peaks_bytes_per_s"] == pytest.approx(2 * MB)
    assert peak["all disks"] == peak["other"] == pytest.approx(1.05 * MB)
    assert loads["vm"]["disks"] == ["a1", "a2"]
    # Of three windows 1, 1 and 0 MB/s; 95 % of them takes all.
    assert loads["vm"]["written_bytes_per_s"]["percentile"] == pytest.approx(MB)
    assert loads["vm"]["written_bytes_per_s"]["mean"] == pytest.approx(2 / 3 * MB)
    assert loads["b"]["iops"]["mean"] == pytest.approx(2)
    assert (loads["b"]["reads"], loads["b"]["writes"]) == (180, 180)


def test_a_disks_bandwidth_is_what_it_needs_alone(tmp_path: Path) -> None:
    rows = busy_in_turn()
    loads = {load["name"]: load for load in plan(tmp_path, rows)["loads"]}
    for name in ("a1", "b"):
        own = [row for row in rows if row[1] == name] + [rows[-1]]
        alone = plan(tmp_path, own)["modes"][0]["bandwidth_for_target_bps"]
        assert loads[name]["bandwidth_for_target_bps"] == alone
    whole = plan(tmp_path, rows)["modes"][0]["bandwidth_for_target_bps"]
    assert loads["all disks"]["bandwidth_for_target_bps"] == whole


def test_a_percentile_and_growth_move_the_rates(tmp_path: Path) -> None:
    found = plan(tmp_path, busy_in_turn(), percentile="33%", growth=0.3, headroom=0.2,
                 compression=0.5, link_efficiency=0.8)  # fmt: skip
    rate = found["loads"][0]["written_bytes_per_s"]
    # The quietest of the three windows has 50 kB/s.
    assert rate["percentile"] == pytest.approx(1.3 * 0.05 * MB)
    assert rate["peak"] == pytest.approx(1.3 * 1.05 * MB)
    sized = found["sizing"]
    wire = sizing.wire_rate(1.3 * 0.05 * MB * 8, 0.5) / 0.8
    assert sized["link_for_percentile_bps"] == pytest.approx(1.2 * wire)
    needed = found["modes"][0]["bandwidth_for_target_bps"]["100"]
    assert sized["link_for_target_bps"] == pytest.approx(1.2 * needed)


def test_hot_disks_are_named_with_the_reason(tmp_path: Path) -> None:
    rows: list[Any] = []
    for i in range(60):
        # 3 MB/s in 1 MB: fits; 6 MB/s in writes of 8 KiB: not even the larger disks take it.
        rows += [(i * S, "large", "write", 0, MB)] * 3
        rows += [(i * S, "small", "write", 0, 8192)] * 733
        rows += [(i * S, "reads", "read", 0, 512)] * 11
    rows += [(60 * S, "small", "read", 0, 512)]
    found = {load["name"]: load["exceeded"] for load in plan(tmp_path, rows)["loads"]}
    assert found["large"] == found["reads"] == []
    (one,) = found["small"]
    assert (one["verdict"], one["product"]) == ("incompatible", "Azure Site Recovery")
    assert one["reason"] == "6.0 MB/s written with writes of 8 KiB on average, limit 5"
    hot = {load["name"]: load["exceeded"] for load in plan(tmp_path, rows, growth=0.5)["loads"]}
    assert [each["limit"] for each in hot["small"]] == [5, 840]
    assert found["all disks"] == []


def test_initial_sync_by_hand(tmp_path: Path) -> None:
    # 1 MB/s of link, 0.5 MB/s of writes: 30 MB take 60 s.
    rows = [(i * S, "d", "write", 0, 500 * KB) for i in range(100)] + [(100 * S, "d", "read", 0, 1)]
    first = plan(tmp_path, rows, initial_bytes="30MB", initial_sync_within="80s")["initial_sync"]
    assert first["seconds"] == pytest.approx(60, abs=0.51)
    assert not first["extrapolated"]
    # (30 MB + 40 MB) in 80 s.
    assert first["bandwidth_bps"] == pytest.approx(7 * MB, rel=0.02)
    # 100 MB: 50 MB left after the trace, and half of the link free.
    long = plan(tmp_path, rows, initial_bytes="100MB")["initial_sync"]
    assert (long["seconds"], long["extrapolated"]) == (pytest.approx(200, abs=1), True)
    assert plan(tmp_path, rows, link="4Mbit/s")["initial_sync"]["seconds"] is None
    # Up to the last byte touched; at this bandwidth it does take that long.
    reach = plan(tmp_path, rows, initial_sync_within="90s")["initial_sync"]
    assert reach["bytes"] == 500 * KB
    again = plan(tmp_path, rows, link=f"{first['bandwidth_bps']}bit/s", initial_bytes="30MB")
    assert again["initial_sync"]["seconds"] == pytest.approx(80, abs=1)


def test_catching_up_by_hand(tmp_path: Path) -> None:
    # 0.5 MB/s, and 1 MB/s on one block from 40 s to 60 s; the link carries 1 MB/s.
    rows = []
    for i in range(120):
        busy = 40 <= i < 60
        rows.append((i * S, "d", "write", 0 if busy else i * MB, (1000 if busy else 500) * KB))
    rows.append((120 * S, "d", "read", 0, 1))
    found = plan(tmp_path, rows, outage="20s", granularity=512)["catch_up"]
    assert (found["from_s"], found["backlog_bytes"]) == (40, 20 * MB)
    assert found["seconds"] == pytest.approx(40, abs=0.51)
    assert found["changed_bytes"] == 1954 * 512
    assert found["changed_seconds"] == pytest.approx(2, abs=0.51)
    long = plan(tmp_path, rows, outage="1h")["catch_up"]
    assert long["extrapolated"]
    assert long["backlog_bytes"] == pytest.approx(70 * MB * 30)


def test_journals_by_the_published_rules(tmp_path: Path) -> None:
    # 10 Mbit/s throughout, one block over and over.
    rows = [(i * S, "d", "write", 0, 1_250_000) for i in range(600)] + [
        (600 * S, "d", "read", 0, 1)
    ]
    found = plan(tmp_path, rows, retention="24h", point_interval="5s")["journal"]
    assert found["recoverpoint_bytes"] == pytest.approx(141.75e9)
    assert found["bytes"] == pytest.approx(108e9)
    assert found["with_over_retention_bytes"] == pytest.approx(135e9)
    assert (found["extrapolated"], found["points"]) == (True, 17_280)
    # A fifth of it is the last version in each point.
    assert found["folded_bytes"] == pytest.approx(108e9 / 5, rel=0.01)
    busiest = plan(tmp_path, rows, retention="100s", compression=0.5, over_retention=0)["journal"]
    assert busiest["bytes"] == busiest["with_over_retention_bytes"] == 50 * 1_250_000
    assert not busiest["extrapolated"]


def test_long_term_points_hold_what_changed_since_the_one_before(tmp_path: Path) -> None:
    # A hundred blocks in turn, one a second: an interval of 50 s changes 50 of them, of 200 s 100.
    rows = [(t * S, "d", "write", t % 100 * 4096, 4096) for t in range(400)]
    rows.append((400 * S, "d", "read", 0, 512))
    for every, blocks, points in (("50s", 50, 72), ("200s", 100, 18)):
        kept = plan(tmp_path, rows, long_term=f"{every},1h", growth=0.5)["journal"]["long_term"]
        assert (kept["points"], kept["extrapolated"]) == (points, False)
        assert kept["bytes"] == points * blocks * 4096 * 1.5
    longer = plan(tmp_path, rows, long_term="800s,8000s", compression=0.5)["journal"]["long_term"]
    assert (longer["points"], longer["extrapolated"]) == (10, True)
    assert longer["bytes"] == 10 * 200 * 4096 / 2
    assert plan(tmp_path, rows)["journal"]["long_term"] is None
    for wrong in ("8h", "0s,1h", "2h,1h"):
        with pytest.raises(InputError, match="long-term"):
            plan(tmp_path, rows, long_term=wrong)


def test_initial_sync_by_bandwidth(tmp_path: Path) -> None:
    rows = [(0, "d", "write", 0, 4096), (100 * S, "d", "read", 0, 512)]
    first = plan(tmp_path, rows, link="8Mbit/s", initial_bytes="30MB")["initial_sync"]
    found = {at["bandwidth_bps"]: at["seconds"] for at in first["at"]}
    assert found[8_000_000] == first["seconds"]
    for bps, seconds in found.items():
        assert seconds == pytest.approx((30e6 + 4096) * 8 / bps, rel=0.01)


@pytest.mark.parametrize("interval", ["0", "2s"])
def test_the_frontier_is_what_a_plan_for_that_link_says(tmp_path: Path, interval: str) -> None:
    rows = [(i * 100 * MS, "d", "write", i % 50 * 4096, (1 + i // 300 % 3) * 30_000)
            for i in range(2000)]  # fmt: skip
    options = {"target_rpo": "5s", "point_interval": interval, "snapshot_every": ["20s"]}
    found = plan(tmp_path, rows, link="3Mbit/s,10ms", **options)
    for number, mode in enumerate(found["modes"]):
        asked = [at["bandwidth_bps"] for at in mode["frontier"]]
        assert asked == sorted(asked)
        assert 3_000_000 in asked
        for at in mode["frontier"][::2]:
            other = plan(tmp_path, rows, link=f"{at['bandwidth_bps']}bit/s,10ms", **options)
            same = other["modes"][number]
            assert at["met_time"] == pytest.approx(same["met_time"], abs=1e-12)
            assert at["violations_count"] == same["violations_count"]
            longest = max((v["end_s"] - v["start_s"] for v in same["violations"]), default=0)
            assert at["violation_s_max"] == pytest.approx(longest)
            assert at["rpo_s"]["max"] == pytest.approx(same["rpo_s"]["max"])
            assert at["daily_peak_s"] == ([at["rpo_s"]["max"]] if "holds" in at else [])
            for step in ("p95", "p99"):
                exact = same["rpo_s"][step]
                assert exact - 1e-9 <= at["rpo_s"][step] <= exact * 1.01 + 1e-9
        held = mode["achievable_rpo_s"]
        assert (held["100"], held["99"]) == (mode["rpo_s"]["max"], mode["rpo_s"]["p99"])
        assert held["100"] >= held["99.9"] >= held["99"] >= held["95"] >= held["90"]
    held = {at.get("holds"): at for at in found["modes"][0]["frontier"]}
    assert {"link", "100", "95", "90"} <= {*held}
    assert held["100"]["violations_count"] == 0
    assert held["90"]["met_time"] >= 0.9


def test_days_have_their_own_peaks(tmp_path: Path) -> None:
    day = 86_400
    rows = [(at * S, "d", "write", 0, size * MB)
            for at, size in ((0, 1), (day + 5, 40), (3 * day - 10, 30))]  # fmt: skip
    rows.append((3 * day * S + S, "d", "read", 0, 1))
    mode = plan(tmp_path, rows, point_interval="0")["modes"][0]
    at = next(at for at in mode["frontier"] if at.get("holds") == "link")
    # The last one is 10 s old at midnight, and 11 s when the trace ends.
    assert at["daily_peak_s"] == pytest.approx([1, 40, 10, 11])


def test_sheets_have_the_documents_figures(tmp_path: Path) -> None:
    found = plan(tmp_path, busy_in_turn(), groups={"vm": ["a*"]})
    paths = {path.stem: path for path in write_sheets(found, tmp_path / "sheets")}
    assert {*paths} >= {"inputs", "modes", "bandwidth", "frontier", "daily", "violations",
                        "folding", "loads", "capacity", "lag"}  # fmt: skip
    loads = paths["loads"].read_text().splitlines()
    assert len(loads) == 1 + 5
    assert loads[2].startswith("group,vm,")
    with pytest.raises(vb.InputError, match=r"the file exists \(--force replaces it\)"):
        write_sheets(found, tmp_path / "sheets")
    write_sheets(found, tmp_path / "sheets", force=True)
    with pytest.raises(vb.InputError, match="found a file"):
        write_sheets(found, paths["loads"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": {"vm": ["c"]}}, r"group vm: expected disks of the trace \(a1, b, a2\), got c"),
        ({"percentile": "0"}, "percentile: expected a share above 0"),
        ({"headroom": "x"}, "--headroom: expected a share"),
        ({"retention": "0s"}, "retention: expected a time above zero"),
        ({"rate_window": "0"}, "rate-window: expected a time above zero"),
        ({"fold": True, "point_interval": "0"}, "fold: expected a point interval above zero"),
        ({"initial_bytes": "much"}, "--initial-bytes: expected a size"),
    ],
)
def test_wrong_inputs_are_named(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(vb.InputError, match=message):
        plan(tmp_path, busy_in_turn(), **options)
