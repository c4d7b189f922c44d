#!/usr/bin/env python3
"""`cdp` over a modelled link against `pass`, in turns, in virtual time: I/Os a second of one core.

The trace is of 4 KiB writes to random places; data are tokens, and no Parquet is written. Goal:
2 million I/Os a second with `cdp`. Exit status 1 below it. Beside the worker, which is the one
core, run the trace's reader and the thread that takes rows apart, on another where there is one:
what the worker itself takes for an I/O is a row of its own.

The line is idle when a write comes, so that each is an entry, a frame and a confirmation of its
own: the most that `cdp` can have to do. To take confirmations without a timer each and in the step
in which their entry arrives, to use entries again whole, to keep what the model sends small, to
fetch a place of the token store when its I/O is staged, and to keep that store in huge pages, saves
two fifths of the worker's time for an I/O. What is left is spread over some fifty functions, none
of which takes a tenth: more than half of it is the harness (rows in and out, range locks, the
chain's walk), the rest the journal and the model.

The rate is that of a machine to itself: whatever else runs on the two processors, or beside them on
their host, takes from it, to less than a half. The worker's time for an I/O suffers less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import benchlib
import numpy as np

from vaio_bench import _core
from vaio_bench.trace import open_trace

COLUMNS = ["time_ns", "disk", "op", "offset_bytes", "length_bytes", "latency_ns", "flags"]
GAP_NS = 50_000


def rate(path: Path, ios: int, filters: list[dict[str, Any]]) -> tuple[float, float]:
    """I/Os per second of one round, and what one took of the worker's time in nanoseconds."""
    trace = open_trace(path)
    window = {"disks": [benchlib.DISK], "skip": 0, "limit": None}
    scan = _core.Scan(trace.reader(COLUMNS), str(path), json.dumps(window), None)
    options = {
        "policy": "bench", "round": 0, "filters": filters, "window": window, "targets": [],
        "read_only": False, "backend": "mem", "direct": "auto", "clock": "virtual",
        "pace": "recorded", "speed": 1.0, "depth": 32, "inflight": 1024, "spin_ns": 60_000,
        "conflicts": "order", "verify": False, "prefill": True, "compressible": 0.0,
        "dedupe": 0.0, "seed": 0, "fit_to_bytes": None, "workers": 1,
    }  # fmt: skip
    began = time.perf_counter()
    round_ = _core.Round(json.dumps(options), scan, trace.reader(COLUMNS), str(path))
    while round_.next(1.0)[0] != "end":
        pass
    totals = json.loads(round_.finish())
    worker_ns = totals["cpu_user_ns"] + totals["cpu_system_ns"]
    return ios / (time.perf_counter() - began), worker_ns / ios


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ios", type=int, default=3_000_000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    link = {"bandwidth": "1Gbit/s", "rtt": "10ms"}
    chains = {
        "pass": [{"name": "pass", "params": {}}],
        "cdp": [{"name": "cdp", "params": {"rpo": "5s", "link": link}}],
    }
    rates: dict[str, list[float]] = {name: [] for name in chains}
    worker_ns: dict[str, list[float]] = {name: [] for name in chains}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "writes.parquet"
        offsets = np.random.default_rng(1).integers(0, 1 << 18, args.ios) * 4096
        benchlib.write_ios(path, np.arange(args.ios) * GAP_NS, offsets, 4096, "write")
        for _ in range(args.rounds):
            for name, chain in chains.items():
                ios_per_s, taken_ns = rate(path, args.ios, chain)
                rates[name].append(ios_per_s / 1e6)
                worker_ns[name].append(taken_ns)
    ratios = [cdp / pass_ for cdp, pass_ in zip(rates["cdp"], rates["pass"], strict=True)]
    goal = benchlib.Goal(
        "cdp, I/Os a second", statistics.median(rates["cdp"]), 2.0, "M/s", at_least=True
    )
    rows = [(f"{name}, million I/Os a second", benchlib.spread(of)) for name, of in rates.items()]
    rows += [(f"{name}, worker's ns an I/O", benchlib.spread(of)) for name, of in worker_ns.items()]
    rows.append(("cdp to pass", benchlib.spread(ratios)))
    benchlib.report(
        "bench_cdp", {"rounds": args.rounds, "ios": args.ios}, rows, [goal],
        {"rates": rates, "worker_ns": worker_ns, "ratios": ratios}, as_json=args.json,
    )  # fmt: skip
    return int(not goal.met)


if __name__ == "__main__":
    sys.exit(main())
