"""What the hop to another thread or process costs: `pass` inline, there, and there asleep.

    python scripts/bench_placement.py [--rounds 7] [--ios 20000] [--quick] [--json] [--target DIR]

4 KiB random reads of a file by io_uring (O_DIRECT where the file system has it), the policies
interleaved, their order drawn anew in each round, each round a process of its own. At depth 1 what
a placement adds to inline's median latency, round by round; at depth 32 its share of inline's I/Os
per second. `asleep` is `spin = "0s"`: every hop wakes somebody up, and beside it stands a bare
round trip between two processes over eventfd, measured between the rounds. CPU per I/O is user and
system, of the worker and of the other side, its spinning included.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from benchlib import Goal, median_interval, report, spread, write_reads

from vaio_bench import spec
from vaio_bench.errors import VaioBenchError
from vaio_bench.runner import Settings, execute
from vaio_bench.store import open_run

LENGTH_BYTES = 4096
SIZE_BYTES = 256 << 20
PLACES = {
    "inline": '"inline"',
    "thread": '"thread"',
    "process": '"process"',
    "thread-asleep": '{ at = "thread", spin = "0s" }',
    "process-asleep": '{ at = "process", spin = "0s" }',
}
DEEP = ("inline", "thread", "process")


def policy(name: str) -> spec.Policy:
    text = f'[policy]\nname = "{name}"\n[[filter]]\nuse = "pass"\nplacement = {PLACES[name]}\n'
    return spec.parse_policy(text, f"{name}.toml")


def eventfd_round_trip_us(trips: int = 2000) -> float:
    """The median of a round trip between two processes that both sleep."""
    there, back = os.eventfd(0), os.eventfd(0)
    pid = os.fork()
    if pid == 0:
        for _ in range(trips):
            os.eventfd_read(there)
            os.eventfd_write(back, 1)
        os._exit(0)
    taken = []
    for _ in range(trips):
        began = time.perf_counter_ns()
        os.eventfd_write(there, 1)
        os.eventfd_read(back)
        taken.append(time.perf_counter_ns() - began)
    os.waitpid(pid, 0)
    os.close(there)
    os.close(back)
    return statistics.median(taken) / 1e3


def measure(folder: Path, target: Path, names: tuple[str, ...], depth: int, args: Any) -> Any:
    """By policy: p50 latency and hop (us), I/Os per second, CPU per I/O (us), round by round."""
    ios = args.ios * (1 if depth == 1 else 4)
    blocks = np.random.default_rng(1).integers(0, SIZE_BYTES // LENGTH_BYTES, ios)
    trace = folder / f"reads-{depth}.parquet"
    write_reads(trace, np.arange(ios), blocks * LENGTH_BYTES, LENGTH_BYTES)
    settings = Settings(pace="asap", depth=depth, backend=args.backend, verify=False)
    chosen = [policy(name) for name in names]
    out = execute(trace, chosen, args.rounds, settings, target, folder / f"run-{depth}", force=True)
    run = open_run(out)
    found: dict[str, dict[str, list[float]]] = {}
    for name in names:
        of: dict[str, list[float]] = {"p50_us": [], "iops": [], "cpu_us": [], "hop_us": []}
        for number in range(args.rounds):
            rows = run.scan_ios(name, number)
            row = rows.select(
                (pl.col("complete_ns") - pl.col("submit_ns")).median().alias("p50"),
                (pl.col("complete_ns").max() - pl.col("submit_ns").min()).alias("wall"),
                pl.col("self_ns").list.get(0).median().alias("first"),
                pl.len().alias("ios"),
            ).collect().row(0, named=True)  # fmt: skip
            totals = run.totals(name, number)
            cpu = totals["cpu_user_ns"] + totals["cpu_system_ns"]
            of["p50_us"].append(row["p50"] / 1e3)
            of["iops"].append(row["ios"] / row["wall"] * 1e9)
            of["cpu_us"].append(cpu / row["ios"] / 1e3)
            of["hop_us"].append(0.0 if name == "inline" else row["first"] / 1e3)
        found[name] = of
    return found


def judge(one: Any, deep: Any) -> tuple[list[tuple[str, str]], list[Goal]]:
    """The table's rows, and the goals."""
    rows: list[tuple[str, str]] = []
    goals: list[Goal] = []
    for name, of in one.items():
        rows.append((f"depth 1, {name}, p50 us", spread(of["p50_us"])))
        if name != "inline":
            added = [a - b for a, b in zip(of["p50_us"], one["inline"]["p50_us"], strict=True)]
            low, high = median_interval(added)
            middle = statistics.median(added)
            rows.append((f"depth 1, {name}, adds us", f"{middle:.1f} [{low:.1f}, {high:.1f}]"))
            rows.append((f"depth 1, {name}, hop p50 us", spread(of["hop_us"])))
            if name in DEEP:
                limit = 10 if name == "thread" else 20
                goals.append(Goal(f"depth 1, {name}, adds to p50", middle, limit, "us"))
        rows.append((f"depth 1, {name}, CPU us per I/O", spread(of["cpu_us"])))
    for name, of in deep.items():
        rows.append((f"depth 32, {name}, kI/Os per s", spread([x / 1e3 for x in of["iops"]])))
        rows.append((f"depth 32, {name}, p50 us", spread(of["p50_us"])))
        rows.append((f"depth 32, {name}, CPU us per I/O", spread(of["cpu_us"])))
        if name != "inline":
            ratios = [a / b for a, b in zip(of["iops"], deep["inline"]["iops"], strict=True)]
            middle = statistics.median(ratios)
            low, high = median_interval(ratios)
            rows.append((f"depth 32, {name}, share", f"{middle:.3f} [{low:.3f}, {high:.3f}]"))
            goals.append(Goal(f"depth 32, {name}, share of inline", middle, 0.5, "", at_least=True))
    return rows, goals


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--ios", type=int, default=20_000)
    parser.add_argument("--backend", default="uring")
    parser.add_argument("--target", type=Path, help="a folder on the file system to measure")
    parser.add_argument("--quick", action="store_true", help="5,000 I/Os, three rounds")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.ios, args.rounds = 5_000, 3
    with tempfile.TemporaryDirectory(dir=args.target) as name:
        folder = Path(name)
        target = folder / "target.img"
        bare = [eventfd_round_trip_us()]
        try:
            one = measure(folder, target, tuple(PLACES), 1, args)
            bare.append(eventfd_round_trip_us())
            deep = measure(folder, target, DEEP, 32, args)
            bare.append(eventfd_round_trip_us())
        except VaioBenchError as error:
            raise SystemExit(f"bench_placement: {error}") from None
    rows, goals = judge(one, deep)
    rows.append(("bare eventfd round trip, us", spread(bare)))
    figures = {"depth_1": one, "depth_32": deep, "eventfd_us": bare}
    settings = {"ios": args.ios, "rounds": args.rounds, "backend": args.backend}
    report("bench_placement", settings, rows, goals, figures, as_json=args.json)


if __name__ == "__main__":
    main()
