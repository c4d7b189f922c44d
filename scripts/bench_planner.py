"""Planning speed: `vb.rpo` with all its searches against NumPy doing one part of it, on one core.

The trace has 10 M I/Os, 70 % of them writes, with a load that comes and goes. The planner answers
for CDP and for snapshots, all percentiles and the bandwidth for five shares of the time. The peer
has the trace's columns in memory already and only searches the bandwidth that holds the target
throughout with continuous replication, the queue as a running maximum; both must find the same.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import vaio_bench as vb

TARGET_NS = 5_000_000_000
RTT_NS = 20_000_000
GOAL_S = 3.0


def make_trace(path: Path, ios: int) -> tuple[np.ndarray, np.ndarray]:
    """Stores the trace; gives the times and sizes of its writes."""
    random = np.random.default_rng(1)
    times = np.cumsum(random.exponential(1e9 / 2800, ios))
    # The rate swings by half, up and down, every half hour.
    times = (times * (1 + 0.3 * np.sin(times / 3e11))).astype(np.int64)
    times = np.sort(times) - times.min()
    is_write = random.random(ios) < 0.7
    sizes = np.where(random.random(ios) < 0.7, 4096, 16384).astype(np.int64)
    columns = {
        "time_ns": times,
        "disk": pa.DictionaryArray.from_arrays(np.zeros(ios, np.int32), ["disk"]),
        "op": pa.DictionaryArray.from_arrays(is_write.astype(np.int32), ["read", "write"]),
        "offset_bytes": random.integers(0, 5_000_000, ios) * 4096,
        "length_bytes": sizes,
    }
    pq.write_table(pa.table(columns), path, row_group_size=1 << 20, compression="zstd")
    return times[is_write], sizes[is_write]


def peer(times: np.ndarray, sizes: np.ndarray) -> int:
    """Smallest bits per second with every write recoverable within the target."""
    after = np.cumsum(sizes)
    before = after - sizes
    allowed = TARGET_NS - RTT_NS / 2

    def late(bps: int) -> bool:
        byte_ns = 8e9 / bps
        start = np.maximum.accumulate(times - before * byte_ns)
        return bool((start + after * byte_ns - times).max() > allowed + 1)

    too_little, enough = 1, 1 << 40
    while enough - too_little > 1:
        middle = (too_little + enough) // 2
        if late(middle):
            too_little = middle
        else:
            enough = middle
    return enough


def timed(work: Callable[[], object]) -> tuple[float, float, object]:
    """Seconds of the clock and of the processor, and what came out."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return time.perf_counter() - wall, time.process_time() - cpu, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ios", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "t.parquet"
        times, sizes = make_trace(trace, options.ios)

        def plan(interval: str | None) -> object:
            return vb.rpo(trace, link="500Mbit/s,20ms", target_rpo="5s", point_interval=interval)

        kinds = {
            "rpo: cdp, snapshots": lambda: plan(None),
            "rpo: continuous, snapshots": lambda: plan("0"),
            "NumPy: one share, continuous": lambda: peer(times, sizes),
        }
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
        found: dict[str, object] = {}
        for _ in range(options.rounds):
            for name, work in kinds.items():
                wall, cpu, found[name] = timed(work)
                taken[name].append((wall, cpu))
    needed = found["rpo: continuous, snapshots"].modes[0]["bandwidth_for_target_bps"]["100"]
    same = abs(needed - found["NumPy: one share, continuous"]) <= 1
    print(f"{options.ios:,} I/Os, medians of {options.rounds} interleaved rounds, one core")
    median = {name: statistics.median(cpu for _, cpu in each) for name, each in taken.items()}
    for name, each in taken.items():
        wall = statistics.median(wall for wall, _ in each)
        print(f"  {name:30} {median[name]:6.2f} s of CPU, {wall:6.2f} s of the clock")
    *ours, theirs = median
    for name in ours:
        goal = "within" if median[name] <= GOAL_S else "MISSES"
        ratio = median[theirs] / median[name]
        print(f"  {name}: {ratio:.2f} times the peer's speed; {goal} the goal of {GOAL_S:g} s")
    print(f"  bandwidth for 100 %: {needed:,} bit/s, {'the same' if same else 'NOT THE SAME'}")


if __name__ == "__main__":
    main()
