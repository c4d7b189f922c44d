"""Published figures and hand-made timelines that the planner must give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import vaio_bench as vb
from tests.analyses.test_rpo import MS, store
from vaio_bench import sizing

S, MIN, H = 1000 * MS, 60_000 * MS, 3_600_000 * MS
MIB = 1 << 20


def full_syncs(path: Path, sync_min: float, hours: int = 4) -> tuple[Path, str]:
    """A trace with the same changes in every minute, and the link on which a snapshot of
    `sync_min` minutes, taken as often, takes just as long to send."""
    rows = [(0, "d", "read", 0, 512)]
    for second in range(hours * 3600):
        rows.append((second * S + S // 2, "d", "write", second * MIB, MIB))
    rows.append((hours * H, "d", "read", 0, 512))
    return store(path, rows), "1MiB/s"


def snapshots(trace: Path, link: str, every: str, target: str = "15min") -> dict[str, Any]:
    return vb.rpo(trace, link=link, target_rpo=target, snapshot_every=[every]).modes[1]


class TestVsphereReplicationSchedule:
    """RPO 15 min. 11:50 is 0 here, in sync: 12:00 is minute 10, where the first sync starts."""

    def test_ten_minute_syncs_violate_from_12_15_to_12_20(self, tmp_path: Path) -> None:
        trace, link = full_syncs(tmp_path / "t.parquet", 10)
        mode = snapshots(trace, link, "10min")
        assert mode["sync_s_max"] == 600
        spans = [(v["start_s"] / 60, v["end_s"] / 60) for v in mode["violations"]]
        # 12:00 is recoverable at 12:10 and the newest until 12:20.
        assert (25, 30) in spans
        assert spans[:3] == [(15, 20), (25, 30), (35, 40)]
        # Half of the time from the first sync's end on, as 2T - RPO over T says.
        assert sizing.violation_share(10, 15) == 0.5
        assert mode["rpo_s"]["max"] == 20 * 60
        assert mode["met_sessions"] == 0
        assert mode["met_time"] == pytest.approx(1 - 23 * 5 / 240)

    def test_seven_and_a_half_minutes_fit_exactly(self, tmp_path: Path) -> None:
        trace, link = full_syncs(tmp_path / "t.parquet", 7.5)
        mode = snapshots(trace, link, "450s")
        assert mode["sync_s_max"] == 450
        assert mode["violations"] == []
        assert (mode["met_time"], mode["met_sessions"]) == (1, 1)
        assert mode["rpo_s"]["max"] == 900
        assert sizing.violation_share(7.5, 15) == 0
        # And not a bit less.
        assert mode["bandwidth_for_target_bps"]["100"] == 8 * MIB

    def test_five_minutes_may_start_ten_minutes_after_the_last(self, tmp_path: Path) -> None:
        assert sizing.latest_start_s(5 * 60, 15 * 60) == 10 * 60
        trace, _ = full_syncs(tmp_path / "t.parquet", 5)
        # Every 10 min at twice the speed is 5 min on the link.
        mode = snapshots(trace, "2MiB/s", "10min")
        assert (mode["sync_s_max"], mode["violations"]) == (300, [])
        late = snapshots(trace, "2MiB/s", "11min")
        assert late["violations"] != []

    def test_a_target_below_two_syncs_needs_the_bandwidth_for_them(self, tmp_path: Path) -> None:
        trace, link = full_syncs(tmp_path / "t.parquet", 10)
        needed = snapshots(trace, link, "10min")["bandwidth_for_target_bps"]
        # 600 MiB in the 5 min that the target leaves after the next start.
        assert needed["100"] == 2 * 8 * MIB
        assert snapshots(trace, link, "20min")["bandwidth_for_target_bps"]["100"] is None


@pytest.mark.parametrize(("every", "sends"), [("1h", 24), ("24h", 1)])
def test_a_block_written_hourly_is_sent_once_a_snapshot(
    tmp_path: Path, every: str, sends: int
) -> None:
    rows = [(hour * H, "d", "write", 8192, 4096) for hour in range(24)]
    trace = store(tmp_path / "t.parquet", [*rows, (24 * H, "d", "flush", 0, 0)])
    mode = snapshots(trace, "1Mbit/s", every)
    assert (mode["sent_bytes"], mode["syncs"]) == (sends * 4096, sends)
    assert mode["written_bytes"] == 24 * 4096


def test_a_small_write_sends_its_whole_blocks(tmp_path: Path) -> None:
    rows = [(0, "d", "write", 4000, 200), (S, "e", "write", 4000, 96), (MIN, "d", "read", 0, 512)]
    trace = store(tmp_path / "t.parquet", rows)
    assert snapshots(trace, "1Mbit/s", "1min")["sent_bytes"] == 3 * 4096
    plan = vb.rpo(trace, link="1Mbit/s", snapshot_every=["1min"], granularity="256KiB")
    assert plan.modes[1]["sent_bytes"] == 2 * 256 * 1024


def test_two_gib_an_hour_need_4_77_mbit_per_second(tmp_path: Path) -> None:
    assert sizing.mean_rate_bps(2 << 30, 3600) / 1e6 == pytest.approx(4.77, abs=0.005)
    # 256 writes of 8 MiB each hour.
    rows = [(i * H // 256, "d", "write", i * 8 * MIB, 8 * MIB) for i in range(3 * 256)]
    trace = store(tmp_path / "t.parquet", [*rows, (3 * H, "d", "read", 0, 512)])
    # Hourly snapshots that have an hour for each sync.
    mode = snapshots(trace, "10Mbit/s", "1h", target="2h")
    assert mode["bandwidth_for_target_bps"]["100"] / 1e6 == pytest.approx(4.77, abs=0.005)


def test_published_rates_and_journals() -> None:
    assert sizing.mean_rate_bps(1e12, 86_400) / 1e6 == pytest.approx(92.6, abs=0.05)
    assert sizing.wire_rate(200, 0.4) == pytest.approx(120)
    assert sizing.appliances(640e6, 0.5) == 2
    assert sizing.journal_bytes(10e6, 86_400) * 8 / 1e6 == pytest.approx(1_134_000)
    assert sizing.journal_bytes(10e6, 86_400) / 1e9 == pytest.approx(141.75)
    assert sizing.with_headroom([5, 7], 0) == 12
    assert sizing.with_headroom([5, 7]) == pytest.approx(14.4)


@pytest.mark.parametrize(("sync", "share"), [(5, 0), (7.5, 0), (10, 0.5), (15, 1), (60, 1)])
def test_share_of_violation_back_to_back(sync: float, share: float) -> None:
    assert sizing.violation_share(sync, 15) == share


def test_cdp_by_hand(tmp_path: Path) -> None:
    """One second of a 1 MB/s link a write, 40 ms of round trip, a point each 2 s."""
    rows = [(t * S, "d", "write", 0, 1_000_000) for t in (1, 1, 1, 7)]
    trace = store(tmp_path / "t.parquet", [*rows, (10 * S, "d", "read", 0, 512)])

    def plan(interval: str) -> dict[str, Any]:
        return vb.rpo(trace, link="8Mbit/s,40ms", target_rpo="2s", point_interval=interval).modes[0]

    continuous = plan("0")
    # All three are at 1 s and the last arrives at 4.02 s; the fourth takes 1.02 s.
    assert continuous["violations"] == [{"start_s": 3.0, "end_s": 4.02}]
    assert continuous["rpo_s"]["max"] == pytest.approx(3.02)
    assert continuous["exposure_s"] == continuous["rpo_s"]
    assert continuous["backlog_bytes_max"] == 3_000_000
    assert continuous["met_sessions"] is None
    # Three writes in 2 s less 20 ms.
    assert continuous["bandwidth_for_target_bps"]["100"] == -(-24_000_000 * 100 // 198)
    points = plan("2s")
    # The points of 2 s and 4 s are there at 4.02 s, that of 6 s at once, that of 8 s at 8.02 s.
    assert points["violations"] == [
        {"start_s": 2.0, "end_s": 4.02}, {"start_s": 8.0, "end_s": 8.02}
    ]  # fmt: skip
    assert points["rpo_s"]["max"] == pytest.approx(4.02)
    assert points["sessions"] == 5
    assert points["met_sessions"] == pytest.approx(2 / 5)


def test_inputs_scale_the_link_and_the_load(tmp_path: Path) -> None:
    rows = [(i * 100 * MS, "d", "write", i * 4096, 100_000) for i in range(100)]
    trace = store(tmp_path / "t.parquet", rows)
    plain = vb.rpo(trace, link="6Mbit/s", target_rpo="4s").to_dict()
    scaled = vb.rpo(
        trace, link="6Mbit/s", target_rpo="4s",
        compression="40%", link_efficiency=0.75, growth="25%",
    ).to_dict()  # fmt: skip
    given = {"compression": 0.4, "link_efficiency": 0.75, "growth": 0.25}
    assert {name: scaled["inputs"][name] for name in given} == given
    # 1.25 * 0.6 / 0.75 = 1: the same lag, more bytes.
    assert plain["modes"][0]["rpo_s"] == pytest.approx(scaled["modes"][0]["rpo_s"])
    assert scaled["modes"][0]["written_bytes"] == 12_500_000
    assert scaled["sizing"]["wire_bps_mean"] == pytest.approx(
        sizing.wire_rate(scaled["sizing"]["write_bps_mean"], 0.4) / 0.75
    )
