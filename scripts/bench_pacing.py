"""Recorded pacing as the kernel saw it, beside a bare loop with the same deadlines.

    python scripts/bench_pacing.py [--seconds 10] [--rate 5000] [--rounds 3] [--spin-us N]
                                    [--quick] [--json]

Poisson arrivals of 4 KiB reads on a loop device. The lateness of a read is the time of its
block_bio_queue event less its due time: neither program is asked. The bare loop
(bench_pacing_loop.c) sleeps until 100 us before a deadline, spins the rest, and does nothing else.
Both run in turns. The share of a processor is that of the thread that issues the I/Os. Needs root,
a loop device, tracefs and cc.

What limits it: nearly all of the median is the kernel's own way from io_uring_enter to the event.
The bare loop has it too, and more of it: our buffers are registered with the ring, its are mapped
at each read (registered as well, its median falls by a quarter to a third). An I/O that is late by
more than 30 us was, by sched_switch events, mostly one whose thread had no processor when it was
due: the loop device's kworker, ksoftirqd or another program had it. The bare loop has the same, so
that on a busy machine both have their 99th percentile in milliseconds, and its ratio says nothing:
read it on an idle one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from benchlib import Goal, report, spread, write_reads
from kernel_events import BioQueueEvents, NoTracefsError

from vaio_bench import spec
from vaio_bench.runner import Settings, execute
from vaio_bench.store import open_run

FILE_BYTES = 1 << 30
LENGTH_BYTES = 4096
BLOCKS = FILE_BYTES // LENGTH_BYTES
# No read is issued earlier than this before its due time.
AHEAD_NS = 1_000_000
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
# The last I/Os, whose median lateness is the drift: a single one may meet a preemption.
LAST = 100


def skip(why: str) -> None:
    """Leaves by name: this machine cannot show it."""
    print(f"bench_pacing: skipped: {why}")
    sys.exit(0)


@contextmanager
def loop_device(folder: Path) -> Iterator[Path]:
    """A loop device over a new file whose blocks are all written."""
    file = folder / "loop.img"
    block = np.random.default_rng(2).bytes(1 << 20)
    with file.open("wb") as image:
        for _ in range(FILE_BYTES // len(block)):
            image.write(block)
        image.flush()
        os.fsync(image.fileno())
    losetup = shutil.which("losetup", path=PATH) or "losetup"
    made = subprocess.run(
        [losetup, "--find", "--show", file], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        skip(f"needs a loop device: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        yield Path(device)
    finally:
        subprocess.run([losetup, "--detach", device], check=True)


def build_loop(folder: Path) -> Path:
    """Compiles the bare loop."""
    source = Path(__file__).with_name("bench_pacing_loop.c")
    program = folder / "bench_pacing_loop"
    subprocess.run(["cc", "-O2", "-o", program, source], check=True)
    return program


def bare_loop(program: Path, device: Path, schedule: Path) -> tuple[int, float]:
    """Runs the bare loop: its start on CLOCK_MONOTONIC, and its share of a processor."""
    done = subprocess.run([program, device, schedule], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr.strip())
    found = json.loads(done.stdout)
    return found["start_monotonic_ns"], found["cpu_ns"] / found["wall_ns"]


def replay(trace: Path, device: Path, out: Path, spin_ns: int) -> tuple[int, float]:
    """Replays the trace: its start on CLOCK_MONOTONIC, and the worker's share of a processor."""
    settings = Settings(pace="recorded", backend="uring", direct="always", spin_ns=spin_ns)
    run = open_run(execute(trace, [spec.direct()], 1, settings, device, out, force=True))
    if run.manifest["backend"]["used"] != "uring":
        skip(run.manifest["backend"]["why"])
    totals = run.totals("direct", 0)
    share = (totals["cpu_user_ns"] + totals["cpu_system_ns"]) / totals["wall_ns"]
    return totals["start_monotonic_ns"], share


def lateness_ns(
    events: BioQueueEvents, start_ns: int, due_ns: np.ndarray, offsets: np.ndarray
) -> np.ndarray:
    """Each event's time less its due time. No offset comes twice in the schedule."""
    times, seen, lengths = events.take()
    # Others look at a new device too, for its partition table and the like, before the start.
    ours = (lengths == LENGTH_BYTES) & (times >= start_ns - AHEAD_NS)
    # A read that found no room in the device's queue is queued again: its first event counts.
    known, first = np.unique(seen[ours], return_index=True)
    at = np.searchsorted(known, offsets)
    if len(known) < len(offsets) or not np.array_equal(known[at], offsets):
        raise SystemExit(
            f"bench_pacing: expected {len(offsets)} reads of different blocks, the kernel saw "
            f"{len(known)}"
        )
    return times[ours][first[at]] - start_ns - due_ns


def measure(
    folder: Path, due_ns: np.ndarray, rounds: int, spin_ns: int
) -> dict[str, dict[str, list[float]]]:
    """Lateness (us), share of a processor and drift (us) of both, round by round."""
    offsets = np.random.default_rng(4).permutation(BLOCKS)[: len(due_ns)] * LENGTH_BYTES
    trace, schedule = folder / "t.parquet", folder / "schedule"
    write_reads(trace, due_ns, offsets, LENGTH_BYTES)
    np.column_stack([due_ns, offsets]).astype(np.uint64).tofile(schedule)
    program = build_loop(folder)
    found: dict[str, dict[str, list[float]]] = {"ours": {}, "loop": {}}
    with loop_device(folder) as device, BioQueueEvents(device) as recording:
        for _ in range(rounds):
            for who, figures in found.items():
                recording.clear()
                if who == "ours":
                    start_ns, share = replay(trace, device, folder / "run", spin_ns)
                else:
                    start_ns, share = bare_loop(program, device, schedule)
                late_us = lateness_ns(recording, start_ns, due_ns, offsets) / 1e3
                for name, value in {
                    "p50_us": np.quantile(late_us, 0.5),
                    "p99_us": np.quantile(late_us, 0.99),
                    "p999_us": np.quantile(late_us, 0.999),
                    "max_us": late_us.max(),
                    "drift_us": np.median(late_us[-LAST:]),
                    "cpu_share": share,
                }.items():
                    figures.setdefault(name, []).append(float(value))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=5000.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--spin-us", type=int, default=Settings().spin_ns // 1000)
    parser.add_argument("--quick", action="store_true", help="two seconds, one round")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if os.geteuid() != 0:
        skip("needs root")
    for tool in ("cc", "losetup", "mount"):
        if shutil.which(tool, path=PATH) is None:
            skip(f"needs {tool}")
    if args.quick:
        args.seconds, args.rounds = 2.0, 1
    if args.rate * args.seconds > BLOCKS:
        parser.error(f"expected {BLOCKS} I/Os at most: no block is read twice")
    gaps_ns = np.random.default_rng(3).exponential(1e9 / args.rate, int(args.rate * args.seconds))
    due_ns = np.cumsum(gaps_ns).astype(np.int64)
    due_ns -= due_ns[0]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        try:
            found = measure(Path(folder), due_ns, args.rounds, args.spin_us * 1000)
        except NoTracefsError:
            skip("needs tracefs")
    rows = []
    for name, of, unit, scale in (
        ("lateness p50", "p50_us", "us", 1),
        ("lateness p99", "p99_us", "us", 1),
        ("lateness p99.9", "p999_us", "us", 1),
        ("lateness, longest", "max_us", "us", 1),
        (f"lateness of the last {LAST}, p50", "drift_us", "us", 1),
        ("processor time, share of one", "cpu_share", "%", 100),
    ):
        for who, label in (("ours", name), ("loop", "  bare loop")):
            text = spread([value * scale for value in found[who][of]])
            rows.append((f"{label}, {unit}", text))
    mine = {name: statistics.median(values) for name, values in found["ours"].items()}
    pairs = zip(found["ours"]["p99_us"], found["loop"]["p99_us"], strict=True)
    p99_ratio = statistics.median(a / b for a, b in pairs)
    goals = [
        Goal("lateness p50", mine["p50_us"], 3, "us"),
        Goal("lateness p99 over the bare loop's", p99_ratio, 1.3, ""),
        Goal("processor time, share of one", mine["cpu_share"] * 100, 35, "%"),
        Goal("drift at the end", abs(mine["drift_us"]) / 1e3, 1, "ms"),
    ]
    settings = {"ios": len(due_ns), "seconds": args.seconds, "rounds": args.rounds}
    settings["spin_us"] = args.spin_us
    report("bench_pacing", settings, rows, goals, found, as_json=args.json)


if __name__ == "__main__":
    main()
