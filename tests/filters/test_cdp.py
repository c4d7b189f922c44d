"""The claims of `cdp` from end to end, in virtual time: points, holes, and their return."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.replay_kit import Io, Raw, filters, policy_file, write_trace
from vaio_bench import replaying
from vaio_bench.runner import Settings
from vaio_bench.store import open_run

SECOND = 1_000_000_000


def run(tmp_path: Path, ios: list[Io], **keys: Any) -> dict[str, list[dict[str, Any]]]:
    """Replays in virtual time; the events' details by kind."""
    trace = write_trace(tmp_path / "t.parquet", ios)
    policy = policy_file(tmp_path, filters({"use": "cdp", "rpo": "2s", **keys}))
    settings = Settings(clock="virtual", backend="sim")
    replaying.replay(trace, out=tmp_path / "run", policy=policy, settings=settings)
    events: dict[str, list[dict[str, Any]]] = {}
    for kind, detail in open_run(tmp_path / "run").events().select("kind", "detail").iter_rows():
        events.setdefault(kind, []).append(json.loads(detail))
    return events


def writes(seconds: int, bytes_per_s: int) -> list[Io]:
    every = SECOND * 4096 // bytes_per_s
    count = seconds * bytes_per_s // 4096
    return [Io(i * every, "write", (i * 7919) % 4096 * 4096, 4096) for i in range(count)]


def test_a_fast_link_makes_every_point_recoverable_at_once(tmp_path: Path) -> None:
    link = '{ bandwidth = "80Mbit/s", rtt = "20ms" }'
    events = run(tmp_path, writes(10, 1 << 20), link=Raw(link))
    points = events["restore_point"]
    assert [p["cut_ns"] for p in points][:9] == [n * SECOND for n in range(1, 10)]
    ages = [p["recoverable_ns"] - p["cut_ns"] for p in points]
    # Half of the round trip, and what was on its way when the point was cut.
    assert all(10_000_000 <= age <= 12_000_000 for age in ages), ages
    assert "hole" not in events


def test_an_outage_makes_a_hole_that_ends_by_itself(tmp_path: Path) -> None:
    link = (
        '{ bandwidth = "80Mbit/s", rtt = "20ms", '
        'faults = [{ kind = "outage", at = "4s", for = "6s" }] }'
    )
    events = run(tmp_path, writes(20, 1 << 20), link=Raw(link), journal=Raw('{ memory = "2MiB" }'))
    [hole] = events["hole"]
    assert 3 * SECOND <= hole["from_ns"] <= 5 * SECOND
    assert 10 * SECOND <= hole["to_ns"] <= 15 * SECOND
    modes = [mode["mode"] for mode in events["mode"]]
    assert modes == ["bitmap", "resync", "normal"]
    cuts = [p["cut_ns"] for p in events["restore_point"]]
    assert not [cut for cut in cuts if hole["from_ns"] < cut < hole["to_ns"]]
    assert hole["to_ns"] in cuts
    assert max(cuts) >= 19 * SECOND


def test_a_target_below_the_round_trip_is_warned_about(tmp_path: Path) -> None:
    link = Raw('{ bandwidth = "80Mbit/s", rtt = "3s" }')
    run(tmp_path, writes(1, 1 << 20), link=link)
    found = {w["code"] for w in open_run(tmp_path / "run").manifest["warnings"]}
    assert "rpo-below-round-trip" in found


@pytest.mark.parametrize(
    ("link", "keys", "code", "seen"),
    [
        ("", {}, None, ""),
        # Of 5 MiB, what six seconds at 0.5 MB/s do not carry.
        (', bandwidth = "4Mbit/s"', {"drain": "1s"}, "left",
         r"3 restore point\(s\) and 2\.1\d MiB"),
        (', bandwidth = "4Mbit/s"', {"initial_sync": "during", "drain": "1s"}, "hole",
         r"\(initial sync\), and .* were not at the replica"),
        (', faults = [{ kind = "restart", at = "2s", for = "60s" }]', {"drain": "1s"}, "down",
         "down when the round ended: the site is gone"),
    ],
)  # fmt: skip
def test_what_is_not_at_the_replica_in_the_end_is_warned_about(
    tmp_path: Path, link: str, keys: dict[str, Any], code: str | None, seen: str
) -> None:
    rate = "" if "bandwidth" in link else ', bandwidth = "80Mbit/s"'
    run(tmp_path, writes(5, 1 << 20), link=Raw(f'{{ rtt = "20ms"{rate}{link} }}'), **keys)
    found = {w["code"]: w["seen"] for w in open_run(tmp_path / "run").manifest["warnings"]}
    told = {name.removeprefix("replication-"): text for name, text in found.items()
            if name.startswith("replication-")}  # fmt: skip
    assert (code in told) == (code is not None), told
    assert re.search(seen, told.get(str(code), "")), told


def test_lag_grows_and_shrinks_without_a_hole(tmp_path: Path) -> None:
    link = (
        '{ bandwidth = "80Mbit/s", rtt = "0s", '
        'faults = [{ kind = "outage", at = "4s", for = "6s" }] }'
    )
    events = run(tmp_path, writes(20, 1 << 20), link=Raw(link), degrade="lag")
    assert "hole" not in events
    ages = {p["cut_ns"]: p["recoverable_ns"] - p["cut_ns"] for p in events["restore_point"]}
    assert ages[5 * SECOND] >= 5 * SECOND
    assert ages[16 * SECOND] < SECOND / 10
