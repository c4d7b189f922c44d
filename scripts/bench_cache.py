"""What a hit in the cache filter costs an I/O, beside the `pass` filter in the same run.

    python scripts/bench_cache.py [--ios 1000000] [--rounds 5] [--quick] [--json]

4 KiB reads over 4096 blocks that all fit into the cache, as fast as possible, depth 1, onto the
`mem` backend, which copies 4 KiB as the cache does. `pass` is a read through `pass` from that
backend; `hit` the cache filter answering in the backend's place. `filter` is the time inside the
filter's callbacks (`cpu_ns` of the rows, time stamps included), `latency` submit to completion;
medians over the I/Os, then over the rounds, policies in turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from benchlib import Goal, report, spread, write_reads

from vaio_bench import spec
from vaio_bench.runner import Settings, execute
from vaio_bench.store import open_run

LENGTH_BYTES = 4096
BLOCKS = 4096
POLICIES = {"pass": 'use = "pass"', "hit": 'use = "cache"\ncapacity = "64MiB"'}


def measure(trace: Path, work: Path, rounds: int) -> dict[str, list[float]]:
    """Nanoseconds by policy: in the filter's callbacks, and from submit to completion."""
    policies = []
    for name, keys in POLICIES.items():
        path = work / f"{name}.toml"
        path.write_text(f'[policy]\nname = "{name}"\n[[filter]]\n{keys}\n')
        policies.append(spec.load_policy(path))
    settings = Settings(pace="asap", depth=1, backend="mem")
    run = open_run(execute(trace, policies, rounds, settings, None, work / "run", force=True))
    found: dict[str, list[float]] = {}
    for name in POLICIES:
        rows = run.scan_ios(name).with_columns(
            (pl.col("complete_ns") - pl.col("submit_ns")).alias("latency"),
            pl.col("cpu_ns").list.first().alias("filter"),
            (pl.col("hit_blocks") == pl.col("blocks")).alias("hit"),
        )
        if name == "hit":
            rows = rows.filter("hit")
        table = rows.group_by("round").agg(pl.col("filter", "latency").median()).collect()
        found[f"{name}_filter_ns"] = table["filter"].to_list()
        found[f"{name}_latency_ns"] = table["latency"].to_list()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ios", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="200,000 I/Os, two rounds")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.ios, args.rounds = 200_000, 2
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        offsets = np.random.default_rng(1).integers(0, BLOCKS, args.ios) * LENGTH_BYTES
        trace = work / "t.parquet"
        write_reads(trace, np.arange(args.ios), offsets, LENGTH_BYTES)
        found = measure(trace, work, args.rounds)
    middle = {name: statistics.median(values) for name, values in found.items()}
    rows = [(name.replace("_", " "), spread(values)) for name, values in found.items()]
    hit, beside = middle["hit_latency_ns"], middle["pass_latency_ns"]
    rows.append(("a hit to a read from memory through pass", f"{hit / beside:.2f}"))
    goals = [Goal("hit of 4 KiB, in the filter", middle["hit_filter_ns"], 1000, "ns")]
    settings = {"ios": args.ios, "rounds": args.rounds, "depth": 1}
    report("bench_cache", settings, rows, goals, found, as_json=args.json)


if __name__ == "__main__":
    main()
