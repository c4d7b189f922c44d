"""A run's cache hits exactly what a simulation of its requests does, whatever the policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from replay_kit import Io, Raw, filters, mixed, policy_file, round_here, write_trace

import vaio_bench as vb
from vaio_bench import catalogue, round_loop, runner
from vaio_bench.analyses.simulated import Simulated, simulated
from vaio_bench.runner import Settings
from vaio_bench.trace import SCHEMA, TraceWriter

ONLINE = [
    kind.name for kind in catalogue.kinds() if kind.kind == "eviction" and kind.name != "belady"
]
WRITE_POLICIES = ("through", "back", "around")
BUNDLED = Path(__file__).parents[2] / "traces" / "oltp-8s.blktrace"
VIRTUAL = {"backend": "sim", "clock": "virtual", "pace": "recorded"}
SEED = 7


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Replays a trace through a cache here and now: its run folder."""
    monkeypatch.setattr(round_loop, "run_round", round_here)
    monkeypatch.setattr(runner._core, "harness_floor", lambda: {"null_ns": 100.0})
    count = 0

    def replay(
        trace: Path, keys: dict[str, Any], target: Path | None = None, **settings: Any
    ) -> Path:
        nonlocal count
        count += 1
        policy = policy_file(tmp_path, filters({"use": "cache", **keys}), f"cache{count}")
        out = tmp_path / f"run{count}"
        chosen = Settings(**{"seed": SEED, "verify": True, **settings})
        found = vb.replay(trace, out=out, target=target, policy=policy, settings=chosen)
        assert (found["errors"], found["verified"]) == (0, True)
        return out

    return replay


def counted(trace: Path, keys: dict[str, Any]) -> tuple[int, int, int, int]:
    """What `vaio-bench cache` says: requests, hits, I/Os, I/Os that hit."""
    study = vb.cache(
        trace,
        policies=[keys.get("eviction", "lru")],
        sizes=[keys["capacity"]],
        block=keys.get("block", "4KiB"),
        write_policy=keys.get("write_policy", "through"),
        shared=keys.get("scope") == "group",
        seed=SEED,
    )
    (of,) = study.results
    return of["requests"], of["hits"], of["ios"], of["io_hits"]


def the_same(out: Path, trace: Path, keys: dict[str, Any]) -> Simulated:
    """The only round's hits, which those of the simulated trace and of the rows must be."""
    (found,) = simulated(out)
    assert found.is_same, found
    assert found.why is None
    assert (found.requests, found.hits, found.ios, found.io_hits) == counted(trace, keys)
    return found


@pytest.fixture(scope="module")
def meeting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """I/Os of several disks that overlap in flight: parts of blocks, many blocks, FUA, preflush,
    discards, flushes; the disks end inside a block."""
    folder = tmp_path_factory.mktemp("meeting")
    ios = mixed(2, 800, reach=(1 << 20) + 512, align=512, disks=("y", "x", "z"))
    return write_trace(folder / "t.parquet", ios)


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first I/Os of the trace that comes with the tool."""
    folder = tmp_path_factory.mktemp("bundled")
    sources = [BUNDLED.with_name(f"{BUNDLED.name}.{at}.zst") for at in (0, 1)]
    vb.import_trace(sources, folder / "whole.parquet")
    rows = pl.read_parquet(folder / "whole.parquet").head(1500).to_arrow()
    trace = folder / "t.parquet"
    with TraceWriter(trace) as writer:
        for batch in rows.select(SCHEMA.names).cast(SCHEMA).to_batches():
            writer.write(batch)
        writer.close({"source_format": "test"})
    return trace


@pytest.mark.parametrize("write_policy", WRITE_POLICIES)
@pytest.mark.parametrize("eviction", ONLINE)
def test_virtual_time_hits_what_is_simulated(
    run: Callable[..., Path], meeting: Path, bundled: Path, eviction: str, write_policy: str
) -> None:
    keys = {"eviction": eviction, "write_policy": write_policy, "capacity": "300KiB"}
    found = the_same(run(meeting, keys, **VIRTUAL), meeting, keys)
    assert 0 < found.io_hits < found.hits < found.requests
    group = {**keys, "scope": "group"}
    assert the_same(run(meeting, group, **VIRTUAL), meeting, group).hits != found.hits
    deep = {**VIRTUAL, "pace": "asap", "depth": 32}
    small = {**keys, "capacity": "4KiB"}
    the_same(run(meeting, small, **deep), meeting, small)
    real = {**keys, "capacity": "1MiB"}
    the_same(run(bundled, real, **VIRTUAL), bundled, real)


@pytest.mark.parametrize("write_policy", WRITE_POLICIES)
@pytest.mark.parametrize("block", ["512B", "64KiB"])
def test_blocks_of_other_sizes(
    run: Callable[..., Path], meeting: Path, block: str, write_policy: str
) -> None:
    keys = {"capacity": "512KiB", "block": block, "eviction": "arc", "write_policy": write_policy}
    the_same(run(meeting, keys, **VIRTUAL), meeting, keys)


@pytest.mark.parametrize("write_policy", WRITE_POLICIES)
@pytest.mark.parametrize("eviction", ONLINE)
def test_a_real_file_hits_what_is_simulated(
    run: Callable[..., Path], meeting: Path, tmp_path: Path, eviction: str, write_policy: str
) -> None:
    keys = {"eviction": eviction, "write_policy": write_policy, "capacity": "300KiB"}
    out = run(meeting, keys, target=tmp_path / "disks", pace="asap", depth=1)
    assert the_same(out, meeting, keys).hits > 0


def test_a_discard_of_the_whole_disk_is_forgotten_alike(
    run: Callable[..., Path], tmp_path: Path
) -> None:
    ios = mixed(4, 400, reach=1 << 20, align=512)
    whole = Io(ios[-1].time_ns, "discard", 0, 8 << 30)
    again = [replace(io, time_ns=io.time_ns + 10**9) for io in ios]
    trace = write_trace(tmp_path / "t.parquet", [*ios, whole, *again])
    for eviction in ("arc", "lirs", "2q"):
        keys = {"eviction": eviction, "capacity": "256KiB"}
        the_same(run(trace, keys, **VIRTUAL), trace, keys)


def test_what_keeps_them_apart_is_said(
    run: Callable[..., Path], meeting: Path, tmp_path: Path
) -> None:
    keys = {"capacity": "300KiB"}
    deep = run(meeting, keys, target=tmp_path / "deep", pace="asap", depth=32)
    (found,) = simulated(deep)
    assert found.is_same is False
    assert "several I/Os in flight" in str(found.why)
    of = found.to_dict()
    assert of["difference"] == of["hit_ratio"] - of["simulated_hit_ratio"]
    assert found.simulated_hits == counted(meeting, keys)[1]
    (ahead,) = simulated(run(meeting, {**keys, "read_ahead": "64KiB"}, **VIRTUAL))
    assert "read-ahead" in str(ahead.why) or ahead.is_same
    (by_content,) = simulated(run(meeting, {**keys, "dedup": Raw("true")}, **VIRTUAL))
    assert by_content.is_same is None
    assert "content" in str(by_content.why)


def test_disks_left_out_and_a_window(run: Callable[..., Path], meeting: Path) -> None:
    keys = {"capacity": "300KiB", "eviction": "w-tinylfu", "scope": "group"}
    out = run(meeting, keys, disks=("z", "y"), skip=100, limit=700, **VIRTUAL)
    (found,) = simulated(out)
    assert found.is_same
    assert 0 < found.hits < found.requests
