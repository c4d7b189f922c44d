"""Import speed beside blkparse's, on a real blktrace capture repeated to 20 M events or more.

    VAIO_BENCH_TRACES=... python scripts/bench_import.py [--events 20000000] [--rounds 3]

Rounds are interleaved; ratios are of the medians. `blkparse` formats text to /dev/null; `decode`
is the engine's decoding and matching into Arrow batches; `import` is the command end to end, to
a closed Parquet file with the sources' SHA-256.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
GOALS = {"decode": 20.0, "import": 8.0}
DECODE = """
import sys
from pathlib import Path
from vaio_bench import _core
reader = _core.TraceReader([Path(p) for p in sys.argv[1:]], Path("."))
while reader.next_batch() is not None:
    pass
"""


def record_starts(data: bytes) -> np.ndarray:
    """Where the records of a version 7 file start: 48 bytes each, and the pdu."""
    starts = []
    at = 0
    while at < len(data):
        starts.append(at)
        at += 48 + int.from_bytes(data[at + 46 : at + 48], "little")
    return np.array(starts)


def repeat(source: Path, target: Path, times: int, shift_ns: int) -> int:
    """Writes the capture `times` times, each later by `shift_ns`; the number of events."""
    data = subprocess.run(["zstd", "-dcq", source], capture_output=True, check=True).stdout
    where = record_starts(data)[:, None] + 8 + np.arange(8)
    raw = np.frombuffer(data, dtype=np.uint8).copy()
    stamps = raw[where].copy().view("<u8").reshape(-1)
    with target.open("wb") as file:
        for i in range(times):
            raw[where] = (stamps + np.uint64(i * shift_ns)).view(np.uint8).reshape(-1, 8)
            raw.tofile(file)
    return len(where) * times


def prepare(sources: list[Path], work: Path, events: int) -> tuple[int, int]:
    """Writes the capture once and often; events in one copy, and the number of copies."""
    small = sum(repeat(s, work / f"one.blktrace.{i}", 1, 0) for i, s in enumerate(sources))
    times = -(-events // small)
    for i, source in enumerate(sources):
        repeat(source, work / f"many.blktrace.{i}", times, 46_000_000_000)
    return small, times


def timed(command: list[str], cwd: Path) -> tuple[float, int]:
    """Seconds, and the peak resident memory in bytes, of a command."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{command[0]} failed: {command}")
    return seconds, usage.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    traces = os.environ.get("VAIO_BENCH_TRACES")
    blkparse = shutil.which("blkparse", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if not traces or not blkparse:
        sys.exit("bench_import: skipped: needs VAIO_BENCH_TRACES and blkparse (package blktrace)")
    sources = sorted((Path(traces) / "own").glob("oltp.blktrace.*.zst"))
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        work = Path(folder)
        # In another process: a child's peak memory counts from that of its parent.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            small, times = pool.apply(prepare, (sources, work, args.events))
        many = [str(path) for path in sorted(work.glob("many.blktrace.*"))]
        cli = [sys.executable, "-c", "from vaio_bench.cli import main; main()"]
        commands = {
            # The text of 20 M events takes minutes and gigabytes: its rate is that of one copy.
            "blkparse": ([blkparse, "-q", "-i", "one", "-o", "/dev/null"], small),
            "decode": ([sys.executable, "-c", DECODE, *many], small * times),
            "import": ([*cli, "import", "many", "-o", "t.parquet", "--force"], small * times),
        }
        rates: dict[str, list[float]] = {name: [] for name in commands}
        peaks = dict.fromkeys(commands, 0)
        for _ in range(args.rounds):
            for name, (command, events) in commands.items():
                seconds, peak = timed(command, work)
                rates[name].append(events / seconds)
                peaks[name] = max(peaks[name], peak)
    report(rates, peaks, small * times, as_json=args.json)


def report(
    rates: dict[str, list[float]], peaks: dict[str, int], events: int, *, as_json: bool
) -> None:
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {name: medians[name] / medians["blkparse"] for name in GOALS}
    if as_json:
        document = {
            "events": events,
            "events_per_s": medians,
            "ratios": ratios,
            "peak_bytes": peaks,
        }
        json.dump(document, sys.stdout)
        return
    print(f"{events:,} events; medians of {len(rates['blkparse'])} interleaved rounds")
    for name, rate in medians.items():
        ratio = f", {ratios[name]:5.1f} x blkparse (goal {GOALS[name]:g})" if name in GOALS else ""
        print(f"{name:10} {rate / 1e6:7.2f} M events/s, peak {peaks[name] >> 20:5d} MiB{ratio}")


if __name__ == "__main__":
    main()
