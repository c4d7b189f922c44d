"""What the harness itself costs an I/O, beside fio's null engine replaying the same I/Os.

    python scripts/bench_floor.py [--ios 5000000] [--rounds 5] [--quick] [--json]

4 KiB reads, as fast as possible, depth 32, onto the `null` backend. `worker` is processor time of
the thread that drives the I/Os, rows into their columns included; `recorded` is time of the clock
of a whole replay, from the engine's start until the last Parquet part is closed, with the trace
read and the rows written beside it. fio's figures are its run time by its own account, without and
with a log of every latency, and what writing that log to its files adds. Everything in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from benchlib import Goal, fio, need_fio, report, spread, write_iolog, write_reads

from vaio_bench import _core, spec
from vaio_bench.runner import Settings, execute

DEPTH = 32
LENGTH_BYTES = 4096


def recorded(trace: Path, out: Path) -> dict[str, float]:
    """A whole replay through the Python interface: nanoseconds an I/O."""
    settings = Settings(pace="asap", depth=DEPTH, backend="null")
    run = execute(trace, [spec.direct()], 1, settings, None, out, force=True)
    manifest = json.loads((run / "manifest.json").read_text())
    totals = manifest["totals"]["direct"]["0"]
    ios = totals["rows"]
    stored = sum(part.stat().st_size for part in run.rglob("part-*.parquet"))
    return {
        "recorded_ns": totals["recording_ns"] / ios,
        "recorded_worker_ns": (totals["cpu_user_ns"] + totals["cpu_system_ns"]) / ios,
        "stored_bytes": stored / ios,
    }


def peer(iolog: Path, work: Path, *, log: bool) -> tuple[float, float]:
    """Nanoseconds an I/O of fio's run time, and of its whole life."""
    began = time.perf_counter()
    more = ["--write_lat_log=peer"] if log else []
    job = fio(iolog, "null", DEPTH, work, *more)
    seconds = time.perf_counter() - began
    for path in work.glob("peer_*.log"):
        path.unlink()
    ios = job["read"]["total_ios"]
    return job["read"]["runtime"] * 1e6 / ios, seconds * 1e9 / ios


def measure(trace: Path, iolog: Path, work: Path, ios: int, rounds: int) -> dict[str, list[float]]:
    """Every kind once a round, in turns."""
    found: dict[str, list[float]] = {}

    def note(**figures: float) -> None:
        for name, value in figures.items():
            found.setdefault(name, []).append(value)

    for _ in range(rounds):
        floor = _core.harness_floor(ios=ios, rounds=1)
        worker_ns = floor["null_ns_per_io"]
        note(worker_ns=worker_ns, with_pass_ns=worker_ns + floor["pass_ns_per_io"])
        note(clock_ns=floor["clock_ns"])
        run_ns, life_ns = peer(iolog, work, log=False)
        note(**recorded(trace, work / "run"))
        logged_ns, logged_life_ns = peer(iolog, work, log=True)
        # Reading the iolog is the same in both lives.
        stored_ns = logged_life_ns - life_ns + run_ns
        note(fio_ns=run_ns, fio_logged_ns=logged_ns, fio_stored_ns=stored_ns)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ios", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="500,000 I/Os, two rounds")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    need_fio("bench_floor")
    if args.quick:
        args.ios, args.rounds = 500_000, 2
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        offsets = np.random.default_rng(1).integers(0, 1 << 20, args.ios) * LENGTH_BYTES
        trace, iolog = work / "t.parquet", work / "t.iolog"
        write_reads(trace, np.arange(args.ios), offsets, LENGTH_BYTES)
        write_iolog(iolog, Path("peer.img"), offsets, LENGTH_BYTES)
        found = measure(trace, iolog, work, args.ios, args.rounds)
    middle = {name: statistics.median(values) for name, values in found.items()}
    # Another tenant of the machine can only add: the least of each tell the filter's cost.
    pass_ns = min(found["with_pass_ns"]) - min(found["worker_ns"])
    rows = [
        ("worker, rows into columns, ns", spread(found["worker_ns"])),
        ("  fio null, same iolog, run time, ns", spread(found["fio_ns"])),
        ("  ratio to fio", f"{middle['worker_ns'] / middle['fio_ns']:.2f}"),
        ("recorded, Parquet closed, ns", spread(found["recorded_ns"])),
        ("  of it the worker's processor time, ns", spread(found["recorded_worker_ns"])),
        ("  fio null with latency log, run time, ns", spread(found["fio_logged_ns"])),
        ("  the same, log files closed, ns", spread(found["fio_stored_ns"])),
        ("  ratio to fio's run time", f"{middle['recorded_ns'] / middle['fio_logged_ns']:.2f}"),
        ("  ratio to fio, files closed", f"{middle['recorded_ns'] / middle['fio_stored_ns']:.2f}"),
        ("stored, bytes a row", f"{middle['stored_bytes']:.1f}"),
        ("one reading of the clock, ns", f"{middle['clock_ns']:.1f}"),
    ]
    goals = [
        Goal("worker, median", middle["worker_ns"], 150, "ns"),
        Goal("pass filter, least with less least without", pass_ns, 30, "ns"),
        Goal("recorded, Parquet closed, median", middle["recorded_ns"], 400, "ns"),
    ]
    settings = {"ios": args.ios, "rounds": args.rounds, "depth": DEPTH}
    report("bench_floor", settings, rows, goals, found, as_json=args.json)


if __name__ == "__main__":
    main()
