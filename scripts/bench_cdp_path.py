"""What `cdp` adds to a 4 KiB write on the guest's path: against `pass`, on the wall clock.

    python scripts/bench_cdp_path.py [--rounds 7] [--ios 10000] [--json] [--target DIR]

4 KiB writes to random places, one every 100 us, into memory and into a file (io_uring, O_DIRECT
where the file system has it); `pass` and `cdp` interleaved, their order drawn anew in each round,
each round a process of its own. `cdp` replicates to a site on loopback, a process beside the run:
on two processors the worker has one, its link, the site and the writer of rows share the other.

`adds` is the difference of the medians of latency (from submit to acknowledgement), round by
round; `callbacks` is the time inside `cdp`'s callbacks for a write, which no slow device can hide.
Goal: what one copy of 4 KiB into the journal costs, measured in the same run between the rounds,
and a microsecond; in memory for both figures, on a file for the callbacks, because there the spread
of the device's own latency is many times a microsecond. What follows an acknowledgement (handing
entries to the link, waking its thread) is the worker's time, but no longer the write's.

The file is measured twice: with the site's store on its disk, as a run on one machine has it, and
with the store in memory (`--memory`). With 7 rounds of 10,000 writes on a virtual disk that takes
one in 58 us, `cdp` adds 23 us [17, 24] to the median with the store beside the file and 13 us
[10, 14] with it in memory, 0.6 us of it in callbacks: about half is the store's own writes and
flushes on the disk that is measured. What the rest is made of is not parted here; link, site and
the writer of rows have one processor.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from benchlib import Goal, cdp_peers, median_interval, report, run_peer, spread, write_ios

from vaio_bench import spec
from vaio_bench.errors import VaioBenchError
from vaio_bench.runner import Settings, execute
from vaio_bench.store import open_run

LENGTH_BYTES = 4096
SIZE_BYTES = 256 << 20
GAP_NS = 100_000
POLICIES = {
    "pass": 'use = "pass"\n',
    "cdp": 'use = "cdp"\nrpo = "2s"\ninitial_sync = "never"\nlink = { bandwidth = "10Gbit/s" }\n',
}


def policy(name: str) -> spec.Policy:
    text = f'[policy]\nname = "{name}"\n[[filter]]\n{POLICIES[name]}'
    return spec.parse_policy(text, f"{name}.toml")


def copy_ns(peers: Path) -> float:
    """Nanoseconds of one copy of 4 KiB into the journal."""
    return statistics.median(float(line) for line in run_peer(peers, "copy").split())


def measure(
    trace: Path, target: Path | None, runs: Path, peers: Path, rounds: int
) -> dict[str, Any]:
    """By policy: latency's median and mean, and the first layer's callbacks (ns), by round.

    `runs` is where the run's folder goes, with the site's store in it.
    """
    backend = "uring" if target else "mem"
    settings = Settings(pace="recorded", backend=backend, verify=False)
    chosen = [policy(name) for name in POLICIES]
    copies = [copy_ns(peers)]
    out = execute(trace, chosen, rounds, settings, target, runs / "run", force=True)
    copies.append(copy_ns(peers))
    run = open_run(out)
    found: dict[str, Any] = {"copy_ns": copies}
    latency = pl.col("complete_ns") - pl.col("submit_ns")
    for name in POLICIES:
        of: dict[str, list[float]] = {"p50_ns": [], "mean_ns": [], "p99_ns": [], "calls_ns": []}
        for number in range(rounds):
            rows = run.scan_ios(name, number)
            row = rows.select(
                latency.median().alias("p50_ns"), latency.mean().alias("mean_ns"),
                latency.quantile(0.99).alias("p99_ns"),
                pl.col("cpu_ns").list.get(0).median().alias("calls_ns"),
            ).collect().row(0, named=True)  # fmt: skip
            for key, values in of.items():
                values.append(row[key])
        found[name] = of
    return found


def judge(case: str, found: Any) -> tuple[list[tuple[str, str]], list[Goal]]:
    """The table's rows, and the goal."""
    rows: list[tuple[str, str]] = []
    for key in ("p50_ns", "mean_ns", "p99_ns"):
        pairs = list(zip(found["cdp"][key], found["pass"][key], strict=True))
        added = [cdp - without for cdp, without in pairs]
        low, high = median_interval(added)
        middle = statistics.median(added)
        ratio = statistics.median(cdp / without for cdp, without in pairs)
        for name in POLICIES:
            rows.append((f"{case}, {name}, {key[:-3]} ns", spread(found[name][key])))
        text = f"{middle:.0f} [{low:.0f}, {high:.0f}], ratio {ratio:.3f}"
        rows.append((f"{case}, cdp adds to {key[:-3]}, ns", text))
        if key == "p50_ns":
            adds = middle
    for name in POLICIES:
        rows.append((f"{case}, {name}, callbacks ns", spread(found[name]["calls_ns"])))
    copied = statistics.median(found["copy_ns"])
    rows.append((f"{case}, one copy of 4 KiB, ns", spread(found["copy_ns"])))
    goals = []
    if case == "mem":
        goals.append(Goal(f"{case}, cdp adds to a write", adds, round(copied + 1000), "ns"))
    calls = statistics.median(found["cdp"]["calls_ns"])
    goals.append(Goal(f"{case}, in cdp's callbacks", calls, round(copied + 1000), "ns"))
    return rows, goals


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--ios", type=int, default=10_000)
    parser.add_argument("--target", type=Path, help="a folder on the file system to measure")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="a folder in memory")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    peers = cdp_peers("bench_cdp_path")
    rows: list[tuple[str, str]] = []
    goals: list[Goal] = []
    figures: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory(dir=args.target) as name,
        tempfile.TemporaryDirectory(dir=args.memory) as memory,
    ):
        folder, target = Path(name), Path(name) / "target.img"
        blocks = np.random.default_rng(1).integers(0, SIZE_BYTES // LENGTH_BYTES, args.ios)
        trace = folder / "writes.parquet"
        write_ios(trace, np.arange(args.ios) * GAP_NS, blocks * LENGTH_BYTES, LENGTH_BYTES, "write")
        for case, file, runs in (
            ("mem", None, folder),
            ("uring", target, folder),
            ("uring, store in memory", target, Path(memory)),
        ):
            try:
                found = measure(trace, file, runs, peers, args.rounds)
            except VaioBenchError as error:
                raise SystemExit(f"bench_cdp_path: {error}") from None
            more_rows, more_goals = judge(case, found)
            rows += more_rows
            goals += more_goals
            figures[case] = found
    settings = {"ios": args.ios, "rounds": args.rounds}
    report("bench_cdp_path", settings, rows, goals, figures, as_json=args.json)


if __name__ == "__main__":
    main()
