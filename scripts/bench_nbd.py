"""Our NBD client beside fio's nbd engine (libnbd) and QEMU's, each on the same nbdkit server.

    python scripts/bench_nbd.py [--pairs 11] [--ios 150000] [--depth 1 32] [--bytes 4096 131072]
        [--quick] [--json]

Random reads, then writes, as fast as possible on an export of nbdkit's memory plugin over a Unix
socket, one connection a client, at each depth and each length; `qemu-img bench` walks the export in
order, which memory does not care about. In each round every client runs once, in an order drawn
anew; a ratio is ours over the peer's of the same round, and what counts is the median with its
bootstrap interval. Our I/Os per second are from the run's rows, first submission to last
completion; the peers' are their own. Each of our writes has data of its own, which at depth 1 is
made between two I/Os; the peers send the same bytes again. `--ios` are those of 4 KiB at depth 32;
a lower depth and longer I/Os have fewer, so that every case takes about as long.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from benchlib import Goal, median_interval, report, spread

from vaio_bench import spec
from vaio_bench.errors import VaioBenchError
from vaio_bench.runner import Settings, execute
from vaio_bench.store import open_run
from vaio_bench.trace import SCHEMA, TraceWriter

EXPORT_BYTES = 1 << 30
TOOLS = {"nbdkit": "nbdkit", "fio": "fio", "qemu-img": "qemu-utils"}


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"bench_nbd: {command[0]} failed: {done.stderr.strip()}")
    return done.stdout


class Bench:
    """One server, and the clients by name."""

    def __init__(self, folder: Path, ios: int, depth: int, length_bytes: int) -> None:
        self.folder = folder
        self.length_bytes = length_bytes
        share = (4 if depth < 8 else 1) * (8 if length_bytes > 32 << 10 else 1)
        self.ios = max(2000, ios // share)
        self.depth = depth
        self.uri = f"nbd+unix:///?socket={folder / 'bench.sock'}"

    def serve(self) -> subprocess.Popen[bytes]:
        """Starts nbdkit and writes all of its export: a hole is not read from memory."""
        path = self.folder / "bench.sock"
        command = ["nbdkit", "-f", "-U", str(path), "memory", str(EXPORT_BYTES)]
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not path.exists():
            if time.monotonic() > deadline or server.poll() is not None:
                raise SystemExit("bench_nbd: nbdkit did not start")
            time.sleep(0.02)
        self._fio("write", "--bs=1m", f"--size={EXPORT_BYTES}")
        return server

    def trace(self, op: str) -> Path:
        """Random I/Os of one kind."""
        path = self.folder / f"{op}.parquet"
        blocks = np.random.default_rng(1).integers(0, EXPORT_BYTES // self.length_bytes, self.ios)
        word = {
            name: pa.DictionaryArray.from_arrays(pa.array(np.zeros(self.ios, np.int32)), [name])
            for name in ("d", op)
        }
        columns = [
            pa.array(np.arange(self.ios)), word["d"], word[op],
            pa.array(blocks * self.length_bytes),
            pa.array(np.full(self.ios, self.length_bytes)), pa.nulls(self.ios, pa.int64()),
            pa.array(np.zeros(self.ios, np.uint32)), pa.nulls(self.ios, pa.uint32()),
        ]  # fmt: skip
        with TraceWriter(path, force=True) as writer:
            writer.write(pa.record_batch(columns, schema=SCHEMA))
            writer.close({"source_format": "bench"})
        return path

    def ours(self, op: str) -> float:
        """I/Os per second of a replay."""
        policy = spec.parse_policy(f'[[filter]]\nuse = "{self.uri}"\n', "bench.toml")
        settings = Settings(pace="asap", depth=self.depth, destroy_data=True)
        trace = self.folder / f"{op}.parquet"
        out = execute(trace, [policy], 1, settings, None, self.folder / "run", force=True)
        rows = open_run(out).scan_ios().select(
            pl.len().alias("ios"), pl.col("submit_ns").min(), pl.col("complete_ns").max()
        )  # fmt: skip
        found = rows.collect().row(0, named=True)
        return float(found["ios"] / (found["complete_ns"] - found["submit_ns"]) * 1e9)

    def fio(self, op: str) -> float:
        """I/Os per second of fio's nbd engine."""
        job = self._fio(f"rand{op}", f"--bs={self.length_bytes}", f"--number_ios={self.ios}")[op]
        return float(job["total_ios"] / job["runtime"] * 1e3)

    def _fio(self, pattern: str, *more: str) -> dict[str, dict[str, float]]:
        command = [
            "fio", "--name=peer", "--ioengine=nbd", f"--uri={self.uri}", f"--rw={pattern}",
            f"--iodepth={self.depth}", "--output-format=json", f"--size={EXPORT_BYTES}", *more,
        ]  # fmt: skip
        told = run(command, self.folder)
        job: dict[str, dict[str, float]] = json.loads(told[told.index("{") :])["jobs"][0]
        return job

    def qemu(self, op: str) -> float:
        """I/Os per second of `qemu-img bench`."""
        command = [
            "qemu-img", "bench", "-f", "raw", "-t", "none", "-c", str(self.ios), "-d",
            str(self.depth), "-s", str(self.length_bytes), *(["-w"] if op == "write" else []),
            self.uri,
        ]  # fmt: skip
        told = re.search(r"completed in ([0-9.]+) seconds", run(command, self.folder))
        if told is None:
            raise SystemExit("bench_nbd: qemu-img told no time")
        return self.ios / float(told[1])


def measure(bench: Bench, pairs: int) -> dict[str, dict[str, list[float]]]:
    """I/Os per second by kind and client, round by round."""
    order = random.Random(3)
    clients = {"ours": bench.ours, "fio": bench.fio, "qemu": bench.qemu}
    found: dict[str, dict[str, list[float]]] = {}
    server = bench.serve()
    try:
        for op in ("read", "write"):
            bench.trace(op)
            found[op] = {name: [] for name in clients}
            for _ in range(pairs):
                for name in order.sample(list(clients), len(clients)):
                    found[op][name].append(clients[name](op))
    finally:
        server.terminate()
        server.wait()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument("--ios", type=int, default=150_000)
    parser.add_argument("--depth", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--bytes", type=int, nargs="+", default=[4096, 128 << 10])
    parser.add_argument("--quick", action="store_true", help="40,000 I/Os, five rounds")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            print(f"bench_nbd: skipped: needs {tool} (Debian package {package})")
            sys.exit(0)
    if args.quick:
        args.ios, args.pairs = 40_000, 5
    rows, goals, figures = [], [], {}
    for depth, length in itertools.product(args.depth, args.bytes):
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(Path(folder), args.ios, depth, length)
            try:
                found = measure(bench, args.pairs)
            except VaioBenchError as error:
                raise SystemExit(f"bench_nbd: {error}") from None
        for op, rates in found.items():
            case = f"{op}, {length >> 10} KiB, depth {depth}"
            figures[case] = rates
            for name, each in rates.items():
                rows.append((f"{case}, {name}, kI/O/s", spread([rate / 1e3 for rate in each])))
            for peer in ("fio", "qemu"):
                ratios = [a / b for a, b in zip(rates["ours"], rates[peer], strict=True)]
                low, high = median_interval(ratios)
                middle = statistics.median(ratios)
                name = f"{case}, to {peer}"
                rows.append((name, f"{middle:.3f} [{low:.3f}, {high:.3f}]"))
                goals.append(Goal(name, middle, 1.0, "", at_least=True))
    settings = {"ios": args.ios, "pairs": args.pairs, "depths": args.depth, "bytes": args.bytes}
    report("bench_nbd", settings, rows, goals, figures, as_json=args.json)


if __name__ == "__main__":
    main()
