"""What a hit in a cache on a file costs, beside the file itself, and what its map takes in memory.

    python scripts/bench_cache_file.py [--folder DIR] [--rounds 5] [--quick] [--json]

4 KiB random reads with O_DIRECT, depth 1, as fast as possible, over 4096 blocks that are all in the
cache file, which lies in DIR beside the target. `target`: the same reads of the target through
`pass`; `hit`: through a cache on a file, of which hits are taken; both in one run, in turns. `fio`:
its own random reads of the cache file, in turns with the runs. Medians of the latency over the
I/Os, then over the rounds; the ratios are of one round each.

The map: reads of a million blocks from the `null` backend into caches of a million blocks and of
one; the difference of the most memory that their processes took, by block.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from benchlib import Goal, fio, need_fio, report, spread, write_iolog, write_reads

from vaio_bench import spec
from vaio_bench.runner import Settings, execute
from vaio_bench.store import open_run

LENGTH_BYTES = 4096
BLOCKS = 4096
MAP_BLOCKS = 1 << 20


def policy(work: Path, name: str, keys: str) -> spec.Policy:
    """A policy of one filter."""
    path = work / f"{name}.toml"
    path.write_text(f'[policy]\nname = "{name}"\n[[filter]]\n{keys}\n')
    return spec.load_policy(path)


def on_file(work: Path, capacity_bytes: int) -> str:
    """A cache on a file."""
    return f'use = "cache"\ncapacity = "{capacity_bytes}B"\nfile = "{work / "cache"}"'


def latencies(trace: Path, work: Path, rounds: int, offsets: np.ndarray) -> dict[str, list[float]]:
    """Median nanoseconds from submit to completion, by what is read and round."""
    capacity = 2 * BLOCKS * LENGTH_BYTES
    keys = {"target": 'use = "pass"', "hit": on_file(work, capacity)}
    policies = [policy(work, name, each) for name, each in keys.items()]
    settings = Settings(pace="asap", depth=1, direct="always", backend="psync")
    found: dict[str, list[float]] = {name: [] for name in (*keys, "fio")}
    log = work / "iolog"
    for number in range(rounds):
        out = work / f"run-{number}"
        run = open_run(execute(trace, policies, 1, settings, work / "target", out))
        for name in keys:
            rows = run.scan_ios(name)
            if name == "hit":
                rows = rows.filter(pl.col("hit_blocks") == pl.col("blocks"))
            took = (pl.col("complete_ns") - pl.col("submit_ns")).median()
            found[name].append(float(rows.select(took).collect().item()))
        write_iolog(log, work / "cache", offsets, LENGTH_BYTES)
        job = fio(log, "psync", 1, work, "--direct=1", "--clat_percentiles=1")
        found["fio"].append(float(job["read"]["clat_ns"]["percentile"]["50.000000"]))
    return found


def map_bytes(work: Path) -> float:
    """Bytes of memory for each cached block."""
    trace = work / "all.parquet"
    numbers = np.arange(MAP_BLOCKS)
    write_reads(trace, numbers, numbers * LENGTH_BYTES, LENGTH_BYTES)
    most = []
    for name, blocks in (("one", 1), ("all", MAP_BLOCKS)):
        chain = [policy(work, name, on_file(work, blocks * LENGTH_BYTES))]
        settings = Settings(pace="asap", depth=1, backend="null")
        execute(trace, chain, 1, settings, None, work / name)
        most.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
    return (most[1] - most[0]) / MAP_BLOCKS


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where target and cache file are made")
    parser.add_argument("--ios", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="20,000 I/Os, two rounds")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.ios, args.rounds = 20_000, 2
    need_fio("bench_cache_file")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        work = Path(folder)
        by_block = map_bytes(work)
        offsets = np.random.default_rng(1).integers(0, BLOCKS, args.ios) * LENGTH_BYTES
        trace = work / "t.parquet"
        write_reads(trace, np.arange(args.ios), offsets, LENGTH_BYTES)
        found = latencies(trace, work, args.rounds, offsets)
    ratios = {
        peer: [hit / beside for hit, beside in zip(found["hit"], found[peer], strict=True)]
        for peer in ("target", "fio")
    }
    rows = [(f"{name}, ns", spread(values)) for name, values in found.items()]
    rows += [(f"a hit to {peer}", f"{statistics.median(of):.3f}") for peer, of in ratios.items()]
    goals = [
        Goal("a hit to the same reads by fio", statistics.median(ratios["fio"]), 1.2, ""),
        Goal("memory for a cached block", by_block, 100, "B"),
    ]
    settings = {"ios": args.ios, "rounds": args.rounds, "depth": 1}
    figures = {**found, "map_bytes_per_block": by_block}
    report("bench_cache_file", settings, rows, goals, figures, as_json=args.json)


if __name__ == "__main__":
    main()
