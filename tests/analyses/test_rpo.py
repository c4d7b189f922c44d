"""The planner against a slow recount in fractions, over random workloads."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import vaio_bench as vb
from tests.analyses import rpo_oracle as plain

SHARES = {"100": 0, "99.9": Fraction(1, 1000), "99": Fraction(1, 100), "95": Fraction(5, 100),
          "90": Fraction(1, 10)}  # fmt: skip
MS = 10**6


def store(path: Path, rows: list[tuple[int, str, str, int, int]]) -> Path:
    """A canonical trace of (time_ns, disk, op, offset, length), in small row groups."""
    columns = list(zip(*rows, strict=True)) if rows else [[]] * 5
    name = pa.dictionary(pa.int32(), pa.string())
    kinds = (pa.int64(), name, name, pa.int64(), pa.int64())
    names = ("time_ns", "disk", "op", "offset_bytes", "length_bytes")
    table = pa.table(
        {n: pa.array(list(c), k) for n, c, k in zip(names, columns, kinds, strict=True)}
    )
    pq.write_table(table, path, row_group_size=7)
    return path


@st.composite
def workloads(draw: st.DrawFn) -> list[tuple[int, str, str, int, int]]:
    unit = draw(st.sampled_from([1, 7, MS, 250 * MS, 1000 * MS]))
    now, rows = 0, []
    for _ in range(draw(st.integers(1, 25))):
        op = draw(st.sampled_from(["write", "write", "write", "write_zeroes", "read", "flush"]))
        offset = draw(st.integers(0, 12)) * 2048
        length = 0 if op == "flush" else draw(st.sampled_from([0, 512, 4096, 6000, 20_000]))
        rows.append((now, draw(st.sampled_from("ab")), op, offset, length))
        now += draw(st.integers(0, 8)) * unit
    return rows


def writes_of(rows: list[tuple[int, str, str, int, int]]) -> list[plain.Write]:
    return [
        plain.Write(time, disk, offset, length)
        for time, disk, op, offset, length in rows
        if op in ("write", "write_zeroes") and length
    ]


def check_quantiles(found: dict[str, float], expected: list[plain.Piece], total: int) -> None:
    """Each is the smallest value that is not exceeded for more than its share of the time."""
    top = max((end - origin for _, end, origin in expected), default=Fraction(0))
    assert found["max"] * 1e9 == pytest.approx(float(top), rel=1e-9, abs=1e-3)
    room = Fraction(total, 10**9) + Fraction(1, 100)
    for key, share in {"p50": Fraction(1, 2), "p95": SHARES["95"], "p99": SHARES["99"]}.items():
        value, allowed = found[key] * 1e9, share * total
        assert plain.time_above(expected, value) <= allowed + room
        below = value * (1 - 1e-9) - 0.1
        assert below <= 0 or plain.time_above(expected, below) > allowed - room


def check_mode(
    mode: dict[str, Any], oracle: plain.Oracle, points: Any, target: int
) -> list[plain.Piece]:
    """All figures of time; `points` gives the restore points at the oracle's bandwidth."""
    listed = points(oracle)
    rpo, exposure = plain.pieces(oracle, listed)
    check_quantiles(mode["rpo_s"], rpo, oracle.end)
    check_quantiles(mode["exposure_s"], exposure, oracle.end)
    lost = plain.beyond(rpo, target)
    share = float(1 - lost / oracle.end) if oracle.end else 1.0
    assert mode["met_time"] == pytest.approx(share, abs=1e-9)
    expected = [(float(a) / 1e9, float(b) / 1e9) for a, b in plain.missed(rpo, target)]
    spans = [(v["start_s"], v["end_s"]) for v in mode["violations"]]
    assert len(spans) == len(expected) == mode["violations_count"]
    for got, wanted in zip(spans, expected, strict=True):
        assert got == pytest.approx(wanted, rel=1e-12, abs=1e-12)
    if listed is not None:
        met = plain.sessions_met(listed, target)
        assert mode["met_sessions"] == (None if met is None else pytest.approx(met, abs=1e-12))
    else:
        assert mode["met_sessions"] is None
    assert max(mode["series"]["rpo_s"]) == pytest.approx(mode["rpo_s"]["max"], abs=1e-12)
    return rpo


def check_bandwidth(mode: dict[str, Any], oracle: plain.Oracle, points: Any, target: int) -> None:
    """What is said to be needed is enough, one bit per second less is not.

    A piece that is beyond the target by no more than a nanosecond, the trace's resolution, is not
    missed to the planner: it is above the next one that counts. A transmission that ends as an
    outage begins arrives before or after it by the rounding of a double.
    """

    def rpo(at: plain.Oracle) -> list[plain.Piece]:
        return plain.pieces(at, points(at))[0]

    room = Fraction(oracle.end, 10**9) + Fraction(1, 100)
    for key, share in SHARES.items():
        bps, allowed = mode["bandwidth_for_target_bps"][key], share * oracle.end
        if bps is None:
            assert plain.holds(oracle, 1 << 50, rpo, target) > allowed - room
        elif bps:
            slack = bps // 10**12 + 1 if oracle.outages else 0
            assert plain.holds(oracle, bps + slack, rpo, target + 1) <= allowed + room
            less = bps - max(1, slack)
            assert less < 1 or plain.holds(oracle, less, rpo, target) > allowed - room
        else:
            assert not oracle.writes


def disturbed(
    oracle: plain.Oracle, faults: list[tuple[str, int, int]]
) -> tuple[plain.Oracle, list[str]]:
    """With faults at eighths of the trace, and in the words of `--fault`.

    All outages together are short of the 10 s after which a connection is given up.
    """
    words = []
    for kind, eighths, size in sorted(faults, key=lambda fault: fault[1]):
        at = oracle.end * eighths // 8
        if kind == "outage":
            lasts = max(1, min(oracle.end, 9 * 10**9) * size // 8 // 3)
            oracle.outages.append((at, at + lasts))
            words.append(f"outage,at={at}ns,for={lasts}ns")
        else:
            bps = max(1, oracle.bps * size // 4)
            oracle.rates.append((at, Fraction(bps, oracle.bps)))
            words.append(f"bandwidth,at={at}ns,bandwidth={bps}bit/s")
    return oracle, words


@settings(max_examples=200, deadline=None)
@given(
    rows=workloads(),
    bps=st.sampled_from([1, 8000, 64_000, 3_000_001, 10**9, 8 * 10**12]),
    rtt=st.sampled_from([0, 1, 20 * MS, 3000 * MS]),
    target=st.sampled_from([1, 10 * MS, 700 * MS, 5000 * MS]),
    interval=st.sampled_from([0, 5, 350 * MS, 2500 * MS]),
    every=st.sampled_from([20, 900 * MS, 4000 * MS]),
    faults=st.lists(
        st.tuples(
            st.sampled_from(["outage", "outage", "bandwidth"]),
            st.integers(0, 8),
            st.sampled_from([1, 3, 8]),
        ),
        max_size=3,
    ),
)
# Each write is a nanosecond beyond a target of one.
@example(
    rows=[(n * MS, "a", "write", 0, 512) for n in range(4)],
    bps=1,
    rtt=0,
    target=1,
    interval=0,
    every=20,
    faults=[],
)
# What a write waited for arrives while points that were cut meanwhile are held up by an outage.
@example(
    rows=[(0, "a", "write", 0, 512), (2_500 * MS, "a", "write", 0, 0)],
    bps=8000,
    rtt=3000 * MS,
    target=1,
    interval=5,
    every=20,
    faults=[("outage", 7, 1)],
)
def test_every_figure_agrees_with_the_recount(
    *,
    rows: list[tuple[int, str, str, int, int]],
    bps: int,
    rtt: int,
    target: int,
    interval: int,
    every: int,
    faults: list[tuple[str, int, int]],
) -> None:
    end = rows[-1][0]
    # The recount takes a step a point.
    interval = interval if not interval or end // interval < 200 else end // 50 + 1
    every = every if end // every < 200 else end // 50 + 1
    writes = writes_of(rows)
    oracle, words = disturbed(plain.Oracle(writes, end, bps, rtt), faults)
    with tempfile.TemporaryDirectory() as folder:
        plan = vb.rpo(
            store(Path(folder) / "t.parquet", rows),
            link=f"{bps}bit/s,{rtt}ns",
            target_rpo=f"{target}ns",
            point_interval=f"{interval}ns",
            snapshot_every=[f"{every}ns"],
            granularity=2048,
            faults=words,
        )
    cdp, snapshot = plan.modes

    def cuts(at: plain.Oracle) -> Any:
        return at.cuts(interval) if interval else None

    def syncs(at: plain.Oracle) -> Any:
        return at.syncs(every, 2048)[0]

    check_mode(cdp, oracle, cuts, target)
    check_bandwidth(cdp, oracle, cuts, target)
    check_mode(snapshot, oracle, syncs, target)
    check_bandwidth(snapshot, oracle, syncs, target)
    written = sum(w.length for w in writes)
    assert cdp["sent_bytes"] == cdp["written_bytes"] == snapshot["written_bytes"] == written
    assert abs(cdp["backlog_bytes_max"] - oracle.backlog_max()) <= Fraction(501, 1000)
    sizes = oracle.syncs(every, 2048)[1]
    assert snapshot["sent_bytes"] == sum(sizes)
    assert snapshot["backlog_bytes_max"] == max(sizes, default=0)
    assert cdp["no_restore_point_time"] == snapshot["no_restore_point_time"] == 0


@pytest.mark.parametrize("interval", ["0", "130ms"])
def test_a_search_agrees_with_a_walk_on_a_long_trace(tmp_path: Path, interval: str) -> None:
    """Runs of writes are passed at once by the search and one by one by the report."""
    rows, now = [], 0
    for i in range(20_000):
        now += (i * 7919 % 13) * MS if i % 2000 < 1500 else 10_000
        rows.append((now, "d", "write", i * 7919 % 1000 * 4096, 4096 * (1 + i % 3)))
    trace = store(tmp_path / "t.parquet", rows)

    def plan(bps: int) -> dict[str, Any]:
        link, every = f"{bps}bit/s,10ms", ["2s"]
        return vb.rpo(
            trace, link=link, target_rpo="300ms", point_interval=interval, snapshot_every=every
        ).modes[0]

    needed = plan(10**7)["bandwidth_for_target_bps"]
    for key, share in SHARES.items():
        assert plan(needed[key])["met_time"] >= 1 - float(share) - 1e-11
        assert plan(needed[key] - 1)["met_time"] < 1 - float(share)
    assert sorted(needed.values(), reverse=True) == list(needed.values())


def test_lag_over_time_is_a_frame(tmp_path: Path) -> None:
    rows = [(i * 100 * MS, "d", "write", 0, 125_000) for i in range(101)]
    plan = vb.rpo(store(tmp_path / "t.parquet", rows), link="5Mbit/s", snapshot_every=["4s", "2s"])
    lag = plan.lag()
    assert lag.columns == ["mode", "time_s", "rpo_s", "exposure_s"]
    assert lag["mode"].unique(maintain_order=True).to_list() == [
        "cdp, a point every 2.5 s", "snapshots every 4 s", "snapshots every 2 s"
    ]  # fmt: skip
    # A write takes 200 ms and comes every 100 ms: the point of 5 s arrives at 10 s.
    assert plan.modes[0]["rpo_s"]["max"] == pytest.approx(7.5)
    assert plan.modes[0]["backlog_bytes_max"] == 125_000 * 101 - 10 * 625_000
