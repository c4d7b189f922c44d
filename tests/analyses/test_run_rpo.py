"""RPO of a run folder: figures from its events, and when it gives no verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import vaio_bench as vb
from tests.run_folder import Policy, make_run
from vaio_bench import schemas
from vaio_bench.analyses import run_rpo as analysis
from vaio_bench.reporting.figures import Palette
from vaio_bench.reporting.replication_part import measured_chart, measured_lines

S = 10**9


def event(kind: str, time_ns: int, disk: str = "disk0", **detail: Any) -> dict[str, Any]:
    return {
        "policy": "repl", "round": 0, "disk": disk, "time_ns": time_ns, "layer": "cdp",
        "kind": kind, "detail": json.dumps(detail),
    }  # fmt: skip


def point(number: int, cut_ns: int, recoverable_ns: int, disk: str = "disk0") -> dict[str, Any]:
    return event("restore_point", recoverable_ns, disk, id=number, cut_ns=cut_ns,
                 recoverable_ns=recoverable_ns, bytes=1000)  # fmt: skip


def stored(
    path: Path, events: list[dict[str, Any]], use: dict[str, Any], **changes: Any
) -> tuple[Path, int]:
    """A run of one policy with these events; and when its last I/O ended, ns."""
    run = make_run(path, policies={"repl": Policy(["cdp", "uring"])}, rounds=1, **changes)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["policies"]["repl"]["filters"] = [
        {"use": use.pop("use"), "class": "replication", "params": use}
    ]
    (run / "manifest.json").write_text(json.dumps(manifest))
    pq.write_table(pa.Table.from_pylist(events, schemas.EVENTS), run / "events.parquet")
    ends = [pq.read_table(part)["complete_ns"].to_numpy().max() for part in run.glob("ios/*/*/*")]
    return run, int(max(ends))


def test_figures_by_hand(tmp_path: Path) -> None:
    # The rows span about 0.6 s: points every 100 ms, that of 300 ms late.
    ms = S // 1000
    events = [
        point(1, 100 * ms, 110 * ms), point(2, 200 * ms, 210 * ms), point(3, 300 * ms, 450 * ms),
        event("hole", 450 * ms, from_ns=310 * ms, to_ns=370 * ms, reason="journal full",
              resync_bytes=4096, resync_compared_bytes=65536, resync_equal_bytes=61440),
        event("stun", 20 * ms, duration_ns=3 * ms),
    ]  # fmt: skip
    run, end = stored(tmp_path / "run", events, {"use": "cdp", "rpo": "180ms"})
    found = vb.run_rpo(run)
    assert found.refused is None
    (one,) = found.to_dict()["modes"]
    assert (one["policy"], one["round"], one["disk"]) == ("repl", 0, "disk0")
    assert (one["mode"], one["point_interval_s"], one["points"]) == ("cdp", 0.09, 3)
    assert one["rpo_s"]["max"] == pytest.approx(max(0.250, end / S - 0.3))
    first = one["violations"][0]
    assert (first["start_s"], first["end_s"]) == pytest.approx((0.380, 0.450))
    late = 0.070 + max(0, end / S - 0.480)
    assert one["met_time"] == pytest.approx(1 - late / (end / S))
    assert one["met_sessions"] == pytest.approx(2 / 3)
    assert one["no_restore_point_time"] == pytest.approx(0.060 / (end / S))
    [hole] = one["holes"]
    assert (hole["start_s"], hole["end_s"], hole["reason"]) == (0.31, 0.37, "journal full")
    assert (hole["resync_bytes"], hole["resync_compared_bytes"]) == (4096, 65536)
    assert hole["resync_equal_bytes"] == 61440
    assert (one["stuns"], one["stun_s_max"], one["sent_bytes"]) == (1, 0.003, 3000)
    # Something is always being written here, so exposure is all but RPO.
    assert one["exposure_s"]["max"] == pytest.approx(one["rpo_s"]["max"], abs=0.01)
    assert one["exposure_s"]["max"] < one["rpo_s"]["max"]


def test_sessions_complete_within_the_target_though_points_come_once_a_target(
    tmp_path: Path,
) -> None:
    ms = S // 1000
    arrivals = {100: 150, 200: 250, 300: 420, 400: 430}
    events = [point(cut, cut * ms, at * ms) for cut, at in arrivals.items()]
    # Cut so late that it cannot be told.
    events.append(point(9, 580 * ms, 10 * S))
    use = {"use": "cdp", "rpo": "100ms", "point_interval": "100ms"}
    run, _ = stored(tmp_path / "run", events, use)
    (one,) = vb.run_rpo(run).to_dict()["modes"]
    assert (one["met_sessions"], one["completed_sessions"]) == (0, 0.75)


@pytest.mark.parametrize("interval", ["0s", "100ms"])
def test_no_target_is_held_before_the_first_point(tmp_path: Path, interval: str) -> None:
    ms = S // 1000
    hole = event("hole", 150 * ms, from_ns=0, to_ns=150 * ms, reason="initial sync")
    events = [hole, point(1, 150 * ms, 200 * ms), point(2, 250 * ms, 260 * ms)]
    use = {"use": "cdp", "rpo": "10s", "point_interval": interval}
    run, end = stored(tmp_path / "run", events, dict(use))
    (one,) = vb.run_rpo(run).to_dict()["modes"]
    assert (one["first_point_s"], one["points"], one["rpo_s"]["max"]) == (0.2, 2, None)
    assert (one["violations"][0]["start_s"], one["violations"][0]["end_s"]) == (0, 0.2)
    assert one["met_time"] == pytest.approx(1 - 0.2 * S / end)
    # What a point replaces has to be one.
    assert one["met_sessions"] == (None if interval == "0s" else 1)
    assert one["series"]["rpo_s"][0] is None
    assert one["series"]["rpo_s"][-1] <= end / S - 0.25
    assert "no restore point for the first 200 ms" in measured_lines(vb.run_rpo(run))[0].text


def test_without_any_point_nothing_is_held(tmp_path: Path) -> None:
    hole = event("hole", S, from_ns=0, to_ns=10 * S, reason="initial sync")
    run, _ = stored(tmp_path / "run", [hole], {"use": "cdp", "rpo": "10s"})
    found = vb.run_rpo(run)
    (one,) = found.to_dict()["modes"]
    assert (one["first_point_s"], one["met_time"], one["met_sessions"]) == (None, 0, None)
    assert set(one["rpo_s"].values()) == {None}
    [line] = measured_lines(found)
    assert "no restore point was made" in line.text
    assert line.text.endswith("RPO of 10 s held 0 % of the time.")
    assert measured_chart(found, Palette()) is None
    json.dumps(found.to_dict(), allow_nan=False)


def test_continuous_replication_is_measured_by_exposure(tmp_path: Path) -> None:
    use = {"use": "cdp", "rpo": "1s", "point_interval": "0s"}
    run, end = stored(tmp_path / "run", [point(1, end_ := 10**9, end_)], use)
    (one,) = vb.run_rpo(run).to_dict()["modes"]
    assert one["rpo_s"] == one["exposure_s"]
    assert one["met_sessions"] is None
    assert one["rpo_s"]["max"] < end / S


def test_disks_are_told_apart(tmp_path: Path) -> None:
    use = {"use": "snapshot", "every": "15min"}
    events = [point(1, 10**8, 2 * 10**8, "b")]
    run, end = stored(tmp_path / "run", events, use, disks=("a", "b"))
    a, b = vb.run_rpo(run, target="1h").to_dict()["modes"]
    assert (a["disk"], a["points"], a["mode"], a["every_s"]) == ("a", 0, "snapshot", 900)
    assert a["rpo_s"]["max"] == pytest.approx(end / S)
    assert b["rpo_s"]["max"] == pytest.approx(end / S - 0.1)
    assert (a["met_time"], a["met_sessions"], b["met_sessions"]) == (1, None, 1)


def test_runs_without_replication_have_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rounds=1)
    assert vb.run_rpo(run).to_dict() == {"refused": None, "modes": []}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"pace": "asap"}, "paced asap, not as recorded"),
        ({"pacing": {"mode": "recorded", "speed": 10.0}}, "paced at 10.0 times"),
        ({"fit_to": {"wrapped": True}}, "wrapped"),
    ],
)
def test_no_verdict_on_other_paces(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    events = [point(1, 10**8, 2 * 10**8)]
    run, _ = stored(tmp_path / "run", events, {"use": "cdp", "rpo": "1ms"}, **changes)
    found = vb.run_rpo(run)
    assert found.refused is not None
    assert why in found.refused
    assert analysis.refused(vb.open_run(run)) == found.refused
    (one,) = found.to_dict()["modes"]
    assert (one["met_time"], one["violations"]) == (None, [])
