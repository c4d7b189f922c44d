"""Filters on another thread and in another process: same bytes, same counts, one layer more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from filters.vendor import build
from replay_kit import Io, mixed, rows_of, write_trace

import vaio_bench as vb
from vaio_bench import placement, spec
from vaio_bench.analyses.layers import layer_sums, layers
from vaio_bench.errors import InputError
from vaio_bench.runner import Settings

PLACES = ("inline", "thread", "process")
HELD_NS = 100_000
FILTERS = {
    "pass": 'use = "pass"',
    "delay": 'use = "delay"\nread = "100us"\nwrite = "50us"',
    "crypt": 'use = "crypt"\nkey = "KEY"\nsector = 4096',
    "throttle": 'use = "throttle"\niops = 20000',
    "cache": 'use = "cache"\ncapacity = "256KiB"',
    "cache-back": 'use = "cache"\ncapacity = "256KiB"\nwrite_policy = "back"',
    "library": 'use = "so:LIBRARY"\nkey = 42',
    "yara": 'use = "yara"\nrules = "RULES"',
}


@pytest.fixture
def policy(tmp_path: Path) -> Callable[..., Path]:
    """Writes a policy of one filter in a place; `KEY` and the like become files of this test."""
    key = tmp_path / "key"
    key.write_bytes(bytes(range(64)))
    rules = tmp_path / "rules.yar"
    rules.write_text('rule eicar { strings: $a = "EICAR-STANDARD" condition: $a }\n')

    def write(name: str, placement: str) -> Path:
        text = FILTERS[name].replace("KEY", f"file:{key}").replace("RULES", str(rules))
        if "LIBRARY" in text:
            text = text.replace("LIBRARY", str(build("scramble", tmp_path)))
        file = tmp_path / f"{name}-{placement}.toml"
        file.write_text(f"[[filter]]\n{text}\nplacement = {_placed(placement)}\n")
        return file

    return write


def _placed(placement: str) -> str:
    return placement if placement.startswith("{") else f'"{placement}"'


@pytest.mark.parametrize("name", FILTERS)
def test_the_same_bytes_wherever_it_runs(
    tmp_path: Path, engine: Callable[..., Any], policy: Callable[..., Path], name: str
) -> None:
    # What a discard leaves is anybody's guess, and at a depth above 1 so is the order of hits.
    ops = ("read", "read", "write", "write", "flush", "write_zeroes")
    ios = mixed(3, 300, align=512, ops=ops)
    depth = 1 if name.startswith("cache") else 8
    images, hits = set(), set()
    for place in PLACES:
        target = tmp_path / f"{place}.img"
        done = engine(
            ios, target=target, policy=policy(name, place), clock="wall", backend="psync",
            pace="asap", depth=depth, verify=True,
        )  # fmt: skip
        assert done.found["errors"] == 0, done.found["told_errors"]
        assert not done.found["mismatches"]
        assert done.totals["verified_bytes"] > 0
        images.add(target.read_bytes())
        rows = rows_of(done.run, done.found["policy"])
        hits.add(tuple(rows.select("blocks", "hit_blocks").sum().row(0)))
        names = [layer.layer for layer in layers(done.run)]
        hop = [] if place == "inline" else ["hop"]
        assert names == [*hop, spec.load_policy(policy(name, place)).filters[0].use, "psync"]
        (sums,) = layer_sums(done.run)
        assert sums.beyond == 0
        assert all(layer.self_mean_ns >= 0 for layer in layers(done.run))
        if hop:
            assert layers(done.run)[0].self_mean_ns > 0
    assert len(images) == 1
    assert len(hits) == 1


def test_a_held_io_is_the_filter_s_time_and_the_way_there_the_hop_s(
    engine: Callable[..., Any], policy: Callable[..., Path]
) -> None:
    ios = [Io(i * 10_000, "read", i * 4096, 4096) for i in range(200)]
    for place in ("thread", "process"):
        done = engine(ios, policy=policy("delay", place), clock="wall", pace="asap", depth=1)
        rows = rows_of(done.run, done.found["policy"])
        own = rows.select(
            pl.col("self_ns").list.get(at).min().alias(name)
            for at, name in enumerate(("hop", "held"))
        )
        # However busy the machine is, a hop that had the wait in it would never be shorter.
        assert own["held"][0] >= HELD_NS
        assert own["hop"][0] < HELD_NS
        assert (rows["flags"] & 4 == 4).all()
    passed = engine(ios, policy=policy("pass", "thread"), clock="wall", pace="asap", depth=1)
    rows = rows_of(passed.run, passed.found["policy"])
    assert (rows["flags"] & 4 == 0).all(), "handing over is not deferring"


def test_what_the_other_side_uses_is_told(
    engine: Callable[..., Any], policy: Callable[..., Path]
) -> None:
    ios = [Io(i * 10_000, "write", i * 4096, 4096) for i in range(2000)]
    for place in ("thread", "process"):
        file = policy("cache", f'{{ at = "{place}", spin = "0s" }}')
        done = engine(ios, policy=file, clock="wall", pace="asap", depth=1)
        gauges = done.run.gauges(done.found["policy"], 0).collect()
        last = dict(gauges.group_by("gauge").agg(pl.col("value").last()).iter_rows())
        assert last["hop_cpu_ns"] > 0
        assert last["hop_sleeps"] > 0
        assert last["cache_requests"] == 2000
        of = gauges.filter(pl.col("gauge") == "cache_requests")
        assert of["layer"].unique().to_list() == ["cache"]


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ('use = "pass"\nplacement = "moon"', "placement", '"inline", "thread" or "process"'),
        ('use = "pass"\nplacement = 3', "placement", "got 3"),
        ('use = "pass"\nplacement = { at = "x" }', "placement.at", "got"),
        ('use = "pass"\nplacement = { at = "thread", spin = 5 }', "placement.spin", "a time"),
        ('use = "pass"\nplacement = { at = "thread", spun = "5s" }', "placement.spun", "unknown"),
        (
            'use = "cache"\ncapacity = "1MiB"\nscope = "group"\nplacement = "thread"',
            "placement", "placement-scope",
        ),
        ('use = "nbd://localhost"\nplacement = "process"', "placement", "placement-server"),
    ],
)  # fmt: skip
def test_what_cannot_be_placed_is_refused_by_name(text: str, path: str, words: str) -> None:
    with pytest.raises(spec.PolicyError) as caught:
        spec.parse_policy(f"[[filter]]\n{text}\n", "p.toml")
    (fault,) = caught.value.faults
    assert fault.startswith(f"p.toml: filter[0].{path}: ")
    assert words in fault


def test_virtual_time_has_no_hop(engine: Callable[..., Any], policy: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="rule placement-clock"):
        engine([Io(0, "read", 0, 4096)], policy=policy("pass", "thread"), clock="virtual")


def test_a_policy_keeps_its_placement(policy: Callable[..., Path]) -> None:
    placed = spec.load_policy(policy("pass", '{ at = "process", spin = "1ms" }'))
    stored = spec.Policy.from_dict(placed.to_dict())
    assert stored.filters[0].placement == placed.filters[0].placement
    assert stored.engine_filters() == placed.engine_filters()
    assert placed.to_dict()["filters"][0]["spin_ns"] == 1_000_000
    assert placed.layers("mem") == ["hop", "pass", "mem"]


def test_more_sides_than_processors_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, policy: Callable[..., Path]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    chosen = [spec.load_policy(policy("pass", place)) for place in PLACES]
    asleep = spec.load_policy(policy("pass", '{ at = "thread", spin = "0s" }'))
    assert placement.warnings([*chosen, asleep], disks=1) == []
    raised = placement.warnings([*chosen, asleep], disks=2)
    assert [warning.code for warning in raised] == ["spin-crowded"] * 2


# Numbers of broken.c.
SEGFAULT, ABORT, HANG = 1, 2, 3


@pytest.mark.parametrize(
    ("how", "word", "kind"),
    [
        (SEGFAULT, "crashed (SIGSEGV)", "filter_crash"),
        (HANG, "hung (no return in 1 s)", "filter_hang"),
    ],
)
def test_a_process_that_dies_costs_its_disk_alone(
    tmp_path: Path, how: int, word: str, kind: str
) -> None:
    library = build("broken", tmp_path, f"-DBREAKS={how}", "-DAT=20")
    file = tmp_path / "broken.toml"
    file.write_text(f'[[filter]]\nuse = "so:{library}"\nplacement = "process"\n')
    # Only the first disk has twenty I/Os.
    ios = [Io(i * 1000, "write", i * 4096, 4096, "a") for i in range(60)]
    ios += [Io(i * 1000, "write", i * 4096, 4096, "b") for i in range(15)]
    trace = write_trace(tmp_path / "t.parquet", sorted(ios, key=lambda io: io.time_ns))
    settings = Settings(pace="asap", depth=4, backend="mem", hang_s=1.0)
    found = vb.replay(trace, out=tmp_path / "run", policy=file, settings=settings)
    (lost,) = found["lost_disks"]
    assert f'disk a: filter "so:{library}" {word} in io_start of I/O ' in lost
    run = vb.open_run(tmp_path / "run")
    rows = rows_of(run, "broken")
    assert rows.filter(pl.col("disk") == "b")["status"].to_list() == [0] * 15
    of_a = rows.filter(pl.col("disk") == "a").sort("seq")["status"]
    assert len(of_a) == 60
    assert set(of_a.to_list()) == {0, 5}
    assert (of_a == 0).sum() >= 16
    assert run.events().filter(pl.col("kind") == kind)["disk"].to_list() == ["a"]
    assert "disks-lost" in [warning["code"] for warning in run.manifest["warnings"]]


def test_nothing_is_left_behind_when_a_run_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text('[[filter]]\nuse = "pass"\nplacement = "process"\n')
    ios = [Io(i * 50_000_000, "read", 0, 4096) for i in range(400)]
    trace = write_trace(tmp_path / "t.parquet", ios)
    command = [
        sys.executable, "-c", "from vaio_bench.cli import main; main()", "replay", str(trace),
        "--policy", str(file), "--backend", "mem", "-o", str(tmp_path / "run"), "--quiet",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        family = _wait_for(lambda: _family(process.pid, depth=2))
        # The round's process, then the filter's.
        os.kill(family[0], signal.SIGKILL)
        assert _wait_for(lambda: not any(_lives(pid) for pid in family))
    finally:
        process.kill()
        process.wait()


def _wait_for(seen: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = seen()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it never came")


def _family(pid: int, *, depth: int) -> list[int]:
    """One child, its child, and so on; empty until all are there."""
    found: list[int] = []
    for _ in range(depth):
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        children = [int(child) for task in tasks for child in _text(task).split()]
        if not children:
            return []
        pid = children[0]
        found.append(pid)
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # The thread has ended meanwhile.


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_disk_that_is_lost_fails_the_command(tmp_path: Path, cli: Callable[..., Any]) -> None:
    library = build("broken", tmp_path, f"-DBREAKS={ABORT}", "-DAT=5")
    file = tmp_path / "broken.toml"
    file.write_text(f'[[filter]]\nuse = "so:{library}"\nplacement = "process"\n')
    ios = [Io(i * 1000, "write", i * 4096, 4096) for i in range(20)]
    trace = write_trace(tmp_path / "t.parquet", ios)
    ended = cli(
        "replay", trace, "--policy", file, "--backend", "mem", "--pace", "asap", "-o", "run"
    )
    assert ended.exit_status == 1
    assert "crashed (SIGABRT) in io_start of I/O 4" in ended.stderr
