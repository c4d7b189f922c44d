"""`snapshot`: its points, stuns, copies and merges, and the planner checked against it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import vaio_bench as vb
from vaio_bench.analyses.planned import planned

S = 10**9
MS = 10**6
MIB = 1 << 20

QUICK = 'use = "snapshot"\nlink = { bandwidth = "1Gbit/s" }\n'


def events(found: Any, kind: str) -> list[dict[str, Any]]:
    rows = vb.open_run(found.summary["run"]).events().filter(pl.col("kind") == kind)
    return [json.loads(detail) for detail in rows.sort("time_ns")["detail"]]


def spans(found: Any) -> list[tuple[float, float]]:
    """Cut and arrival of every point, seconds."""
    points = events(found, "restore_point")
    return [(p["cut_ns"] / S, p["recoverable_ns"] / S) for p in points]


@pytest.mark.parametrize(
    "policy",
    [
        'every = "300us"',
        'every = "500us"\ngranularity = "64KiB"\nredo = "copy-on-write"\nstun = "40us"',
        'every = "400us"\nredo = "copy-on-write"\n'
        'merge = { rate = "500MB/s", pause = "50us", iterations = 3 }',
    ],
)
def test_the_guest_sees_its_own_data(
    write_trace: Callable[..., Path], replay: Callable[..., Any], mixed_ios: Any, policy: str
) -> None:
    trace = write_trace(mixed_ios)
    for settings in ({"depth": 8}, {"pace": "recorded"}):
        found = replay(trace, QUICK + policy, **settings)
        assert found.summary["verified"] is True
        assert found.summary["errors"] == 0
        assert len(events(found, "restore_point")) > 1


def test_points_come_on_schedule_and_when_their_blocks_have_arrived(
    write_trace: Callable[..., Path], replay: Callable[..., Any]
) -> None:
    # 64 blocks twice before 10 s, nothing until 35 s, one block then.
    ios = [(i * 10 * MS, "write", i % 64 * 4096, 4096) for i in range(128)]
    ios += [(35 * S, "write", 0, 4096), (51 * S, "read", 0, 4096)]
    policy = 'use = "snapshot"\nevery = "10s"\nlink = { bandwidth = "4KiB/s", rtt = "20ms" }'
    found = replay(write_trace(ios), policy, pace="recorded")
    # Each block is sent once: 64 s; so the next cut is when that has ended. Then nothing changed.
    assert spans(found) == []
    policy = policy.replace("4KiB/s", "16KiB/s")
    found = replay(write_trace(ios), policy, pace="recorded")
    (first, sent), *rest = spans(found)
    assert (first, sent) == pytest.approx((10, 26.01), abs=0.002)
    # What had not changed by 30 s is a point at once; the block of 35 s goes at 40 s.
    assert rest == [
        pytest.approx((26.01, 26.01), abs=0.002),
        (30, 30),
        pytest.approx((40, 40.26), abs=0.002),
        (50, 50),
    ]
    sizes = [point["bytes"] for point in events(found, "restore_point")]
    assert sizes == [64 * 4096, 0, 0, 4096, 0]


def test_ten_minute_syncs_violate_from_12_15_to_12_20(
    write_trace: Callable[..., Path], replay: Callable[..., Any]
) -> None:
    """vSphere Replication's own example: RPO 15 min, 11:50 is 0 here, each sync takes 10 min."""
    ios = [(second * S + S // 2, "write", second * MIB, MIB) for second in range(3600)]
    ios.append((3600 * S, "read", 0, 4096))
    policy = 'use = "snapshot"\nevery = "10min"\nrpo = "15min"\nlink = { bandwidth = "1MiB/s" }'
    found = replay(write_trace(ios), policy, pace="recorded", verify=False)
    (one,) = vb.run_rpo(found.summary["run"]).to_dict()["modes"]
    # The first block is read before it is sent, so that a second's write more falls into a sync.
    missed = [(v["start_s"] / 60, v["end_s"] / 60) for v in one["violations"]]
    assert missed[:3] == [pytest.approx(each, abs=0.05) for each in ((15, 20), (25, 30), (35, 40))]
    assert one["rpo_s"]["max"] == pytest.approx(20 * 60, abs=3)
    assert one["met_sessions"] == 0


def test_a_stun_holds_the_guest_and_nothing_is_lost(
    write_trace: Callable[..., Path], replay: Callable[..., Any]
) -> None:
    # Fewer than may be in flight come during a stun, and none waits for another.
    ios = [(i * 2 * MS, "write" if i % 2 else "read", i * 4096, 4096) for i in range(1500)]
    policy = QUICK + 'every = "1s"\nstun = "400ms"'
    found = replay(write_trace(ios), policy, pace="recorded")
    stuns = events(found, "stun")
    assert len(stuns) == 2
    assert all(400 * MS <= stun["duration_ns"] < 401 * MS for stun in stuns)
    assert all(198 <= stun["held_ios"] <= 201 for stun in stuns)
    rows = found.rows.with_columns((pl.col("complete_ns") - pl.col("due_ns")).alias("response"))
    held = rows.filter(pl.col("response") > MS)
    # What was held reaches the device at once: for a moment others queue behind it there.
    within = held["due_ns"].is_between(S, S + 410 * MS) | held["due_ns"].is_between(
        2 * S, 2 * S + 410 * MS
    )
    assert within.all()
    assert rows.filter(pl.col("due_ns") == S + 100 * MS)["response"][0] == pytest.approx(
        300 * MS, abs=MS
    )
    # The cut is at the start of the stun, the transfer after it.
    assert spans(found)[0] == (pytest.approx(1, abs=0.001), pytest.approx(1.4, abs=0.03))


def test_the_first_overwrite_of_a_block_pays_for_its_copy(
    write_trace: Callable[..., Path], replay: Callable[..., Any]
) -> None:
    # Twice over the same blocks in each period; the transfer takes far longer than that.
    ios = [(i * 10 * MS, "write", i % 50 * 4096, 4096) for i in range(300)]
    policy = 'use = "snapshot"\nevery = "1s"\nlink = { bandwidth = "40KiB/s" }\n'
    trace = write_trace(ios)
    plain, copying = (
        replay(trace, policy + redo, pace="recorded").rows.with_columns(
            (pl.col("complete_ns") - pl.col("submit_ns")).alias("latency")
        )["latency"]
        for redo in ('redo = "none"', 'redo = "copy-on-write"')
    )
    # The snapshot exists from 1 s on (I/O 100): a read and a write more, once a block.
    assert copying[:100].equals(plain[:100])
    assert copying[101:150].median() > 2 * plain[101:150].median()
    assert copying[151:200].median() < 1.2 * plain[151:200].median()


@pytest.mark.parametrize(("redo", "waits"), [("none", False), ("copy-on-write", True)])
def test_only_copies_make_writes_to_one_block_wait(
    write_trace: Callable[..., Path], replay: Callable[..., Any], redo: str, waits: bool
) -> None:
    # Pairs in one block that do not overlap; the last cut has none under way.
    ios = [(i // 2 * 10 * MS, "write", i % 2 * 2048, 2048) for i in range(300)]
    policy = f'{QUICK}every = "1s"\nredo = "{redo}"'
    found = replay(write_trace(ios), policy, pace="recorded", depth=8)
    waited = found.rows["flags"].cast(pl.Int64).to_numpy() & 32
    assert waited.any() == waits
    assert events(found, "stun") == [], "nobody was held"
    assert len(events(found, "restore_point")) > 0


@pytest.mark.parametrize(
    ("written_per_s", "forced"),
    # Shares of the merge rate of 100 blocks a second.
    [(50, False), (150, True)],
)
def test_a_merge_ends_by_itself_if_less_is_written_than_it_merges(
    write_trace: Callable[..., Path],
    replay: Callable[..., Any],
    written_per_s: int,
    forced: bool,
) -> None:
    gap = S // written_per_s
    ios = [(i * gap, "write", i * 4096, 4096) for i in range(240 * written_per_s)]
    policy = (
        'use = "snapshot"\nevery = "10s"\nlink = { bandwidth = "400KiB/s" }\n'
        'merge = { rate = "400KiB/s", pause = "500ms", iterations = 3 }'
    )
    found = replay(write_trace(ios), policy, pace="recorded", verify=False)
    passes = events(found, "consolidate")
    begins = [number for number, one in enumerate(passes) if one["iteration"] == 0]
    first = [one["bytes"] for one in passes[: [*begins, None][1]]]
    if forced:
        # Each pass leaves one and a half times as much; after three the guest is held for all.
        assert len(first) == 4
        assert passes[3]["forced"] is True
        assert max(stun["duration_ns"] for stun in events(found, "stun")) > 10 * S
        assert first == sorted(first)
    else:
        ratios = [after / before for before, after in pairwise(first)]
        assert ratios == [pytest.approx(0.5, abs=0.05)] * len(ratios)
        assert not any(one["forced"] for one in passes)
        assert max(stun["duration_ns"] for stun in events(found, "stun")) <= 0.51 * S


def bursts(seed: int, seconds: int) -> list[tuple[int, str, int, int]]:
    """Writes that come and go, over blocks that are partly written again."""
    rng = random.Random(seed)
    ios, now = [], 0
    while now < seconds * S:
        rate = 20 if now // (30 * S) % 3 else 400
        now += int(rng.expovariate(rate) * S)
        ios.append((now, "write", rng.randrange(6000) * 4096, 4096 * rng.choice([1, 1, 2, 8])))
    return [*ios, (now + S, "read", 0, 4096)]


@pytest.mark.parametrize(
    ("every", "bandwidth", "granularity"),
    [("20s", "8Mbit/s", "4KiB"), ("20s", "2Mbit/s", "4KiB"), ("7s", "20Mbit/s", "64KiB"),
     ("60s", "1Gbit/s", "4KiB")],
)  # fmt: skip
def test_the_planner_agrees_with_the_replication(
    write_trace: Callable[..., Path],
    replay: Callable[..., Any],
    every: str,
    bandwidth: str,
    granularity: str,
) -> None:
    """p95, p99 and max within 5 % or a round trip, whichever is larger."""
    trace, rtt = write_trace(bursts(3, 600)), 0.02
    policy = (
        f'use = "snapshot"\nevery = "{every}"\nrpo = "30s"\ngranularity = "{granularity}"\n'
        f'link = {{ bandwidth = "{bandwidth}", rtt = "20ms" }}'
    )
    found = replay(trace, policy, pace="recorded", verify=False)
    (run,) = vb.run_rpo(found.summary["run"]).to_dict()["modes"]
    plan = vb.rpo(trace, link=f"{bandwidth},20ms", target_rpo="30s", snapshot_every=[every],
                  granularity=granularity).modes[1]  # fmt: skip
    for step in ("p95", "p99", "max"):
        planned = plan["rpo_s"][step]
        assert run["rpo_s"][step] == pytest.approx(planned, abs=max(0.05 * planned, rtt))
    assert run["met_time"] == pytest.approx(plan["met_time"], abs=0.02)
    assert run["points"] >= 5


@pytest.mark.parametrize(
    "faults",
    [
        ["outage,at=50s,for=45s", "reset,at=100s"],
        ["outage,at=61s,for=4s", "restart,at=121s,for=7s", "rtt,at=150s,rtt=2s"],
        ["bandwidth,at=90s,bandwidth=2Mbit/s", "bandwidth,at=400s,bandwidth=20Mbit/s"],
    ],
)
def test_the_planner_agrees_where_something_happens_to_the_link(
    write_trace: Callable[..., Path], replay: Callable[..., Any], faults: list[str]
) -> None:
    """p95, p99 and max within 1 % or a round trip, whichever is larger."""
    trace = write_trace(bursts(3, 600))
    tables = [dict(pair.split("=") for pair in f"kind={fault}".split(",")) for fault in faults]
    listed = ", ".join(
        "{ " + ", ".join(f'{key} = "{value}"' for key, value in table.items()) + " }"
        for table in tables
    )
    policy = 'use = "snapshot"\nevery = "20s"\nrpo = "30s"\n'
    policy += f'link = {{ bandwidth = "8Mbit/s", rtt = "20ms", faults = [{listed}] }}'
    found = replay(trace, policy, pace="recorded", verify=False)
    (run,) = vb.run_rpo(found.summary["run"]).to_dict()["modes"]
    asked = {"link": "8Mbit/s,20ms", "target_rpo": "30s", "snapshot_every": ["20s"]}
    undisturbed = vb.rpo(trace, **asked).modes[1]["rpo_s"]
    plan = vb.rpo(trace, **asked, faults=faults).modes[1]["rpo_s"]
    assert plan["max"] > undisturbed["max"] + 3
    for step in ("p95", "p99", "max"):
        assert run["rpo_s"][step] == pytest.approx(plan[step], abs=max(0.01 * plan[step], 0.02))
    [beside] = planned(vb.open_run(found.summary["run"]))
    assert beside.agrees, beside


def test_a_redo_log_on_the_wall_is_a_file_of_the_round_unless_it_is_named(
    write_trace: Callable[..., Path], replay: Callable[..., Any], tmp_path: Path
) -> None:
    ios = [(i * 5 * MS, "write", i % 20 * 4096, 4096) for i in range(200)]
    trace, target = write_trace(ios), tmp_path / "target.img"
    policy = QUICK + 'every = "100ms"\nredo = "copy-on-write"\nstun = "5ms"\n'
    policy += 'redo_size = "8MiB"\n'
    own = replay(trace, policy, target=target, pace="recorded")
    assert own.summary["verified"] is True
    assert len(events(own, "stun")) >= 5
    assert list(Path(own.summary["run"]).rglob("*redo*")) == []
    log = tmp_path / "redo.log"
    found = replay(trace, f'{policy}redo_file = "{log}"', target=target, pace="recorded")
    assert found.summary["verified"] is True
    assert log.stat().st_size == 8 * MIB
    assert len(events(found, "stun")) >= 5


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ('every = "1s"', "link: expected a link such as"),
        ('every = "0s"\nlink = { bandwidth = "1MB/s" }', "every: expected a time above zero"),
        ('every = "1s"\nlink = { rtt = "1ms" }', "link.bandwidth: expected a link"),
        ('every = "1s"\nlink = { bandwidth = "0bit/s" }', 'expected a rate such as "100Mbit/s"'),
        (
            'every = "1s"\ngranularity = "3000"\nlink = { bandwidth = "1MB/s", efficiency = 2 }',
            "granularity: expected a power of two",
        ),
        ('every = "1s"\nlink = { bandwidth = "1MB/s" }\nmerge = {}', "merge.rate: expected a rate"),
        (
            'every = "1s"\nlink = { bandwidth = "1MB/s", faults = [{ kind = "hail", at = "1s" }] }',
            'link.faults\\[0\\].kind: expected one of "outage"',
        ),
    ],
)
def test_wrong_parameters_are_named(
    write_trace: Callable[..., Path], replay: Callable[..., Any], policy: str, message: str
) -> None:
    with pytest.raises(vb.InputError, match=message):
        replay(write_trace([(0, "write", 0, 4096)]), f'use = "snapshot"\n{policy}')
