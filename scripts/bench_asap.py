"""Replay as fast as possible on a real file, beside fio replaying the same I/Os on it.

    python scripts/bench_asap.py [--folder DIR] [--pairs 15] [--ios 150000] [--quick] [--json]
                                 [--kind "uring, depth 32"]

4 KiB random reads on a file of 1 GiB with O_DIRECT: io_uring at depth 32, psync at depth 1, and
psync at depth 32. fio's psync has one I/O in flight whatever --iodepth says, so that at depth 32
it gets the iolog dealt out to 32 jobs; that is another shape of program and has no goal. Each pair
is one run of each, in an order drawn anew; the ratio of a pair is ours over fio's, and what counts
is the median of the pairs with its bootstrap interval. Our I/Os per second are from the run's
rows, first submission to last completion; fio's are from its own JSON.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from benchlib import (
    Goal,
    fio,
    median_interval,
    need_fio,
    report,
    spread,
    write_iolog,
    write_reads,
)

from vaio_bench import spec
from vaio_bench.errors import VaioBenchError
from vaio_bench.runner import Settings, execute
from vaio_bench.store import open_run

FILE_BYTES = 1 << 30
LENGTH_BYTES = 4096


@dataclass(frozen=True)
class Kind:
    """One comparison."""

    backend: str
    engine: str
    depth: int
    """In flight; with several jobs, one each."""
    jobs: int = 1
    share: float = 1.0
    """Of --ios: one read at a time takes several times as long."""
    has_goal: bool = True

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.backend}, depth {self.depth}"


KINDS = [
    Kind("uring", "io_uring", 32),
    Kind("psync", "psync", 1, share=0.25),
    Kind("psync", "psync", 32, jobs=32, has_goal=False),
]


def make_file(path: Path) -> None:
    """A file whose blocks are all written: holes and unwritten extents are not read."""
    block = np.random.default_rng(2).bytes(1 << 20)
    with path.open("wb") as file:
        for _ in range(FILE_BYTES // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())


def ours(trace: Path, target: Path, kind: Kind, out: Path) -> float:
    """I/Os per second of a replay, from its rows."""
    settings = Settings(pace="asap", depth=kind.depth, backend=kind.backend, direct="always")
    run = open_run(execute(trace, [spec.direct()], 1, settings, target, out, force=True))
    if run.manifest["backend"]["used"] != kind.backend:
        raise SystemExit(f"bench_asap: {kind.backend}: {run.manifest['backend']['why']}")
    rows = run.scan_ios().select(
        pl.len().alias("ios"), pl.col("submit_ns").min(), pl.col("complete_ns").max()
    )
    found = rows.collect().row(0, named=True)
    return float(found["ios"] / (found["complete_ns"] - found["submit_ns"]) * 1e9)


def peer(iologs: list[Path], kind: Kind, work: Path) -> float:
    """I/Os per second of fio."""
    more = ["--direct=1"]
    if kind.jobs > 1:
        more += [f"--numjobs={kind.jobs}", "--group_reporting"]
    depth = 1 if kind.jobs > 1 else kind.depth
    read = fio(":".join(map(str, iologs)), kind.engine, depth, work, *more)["read"]
    return float(read["total_ios"] / read["runtime"] * 1e3)


def measure(folder: Path, ios: int, pairs: int, kinds: list[Kind]) -> list[dict[str, list[float]]]:
    """I/Os per second of both, for each of `kinds`."""
    target = folder / "target.img"
    make_file(target)
    offsets = np.random.default_rng(1).integers(0, FILE_BYTES // LENGTH_BYTES, ios) * LENGTH_BYTES
    found = []
    order = random.Random(3)
    for kind in kinds:
        chosen = offsets[: int(ios * kind.share)]
        trace = folder / "t.parquet"
        write_reads(trace, np.arange(len(chosen)), chosen, LENGTH_BYTES)
        iologs = [folder / f"{job}.iolog" for job in range(kind.jobs)]
        for job, iolog in enumerate(iologs):
            write_iolog(iolog, target, chosen[job :: kind.jobs], LENGTH_BYTES)
        rates: dict[str, list[float]] = {"ours": [], "fio": []}
        for _ in range(pairs):
            for who in order.sample(["ours", "fio"], 2):
                if who == "ours":
                    rate = ours(trace, target, kind, folder / "run")
                else:
                    rate = peer(iologs, kind, folder)
                rates[who].append(rate)
        found.append(rates)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", default="/var/tmp", help="where the file is made")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--ios", type=int, default=150_000)
    parser.add_argument("--kind", choices=[kind.name for kind in KINDS], help="this one alone")
    parser.add_argument("--quick", action="store_true", help="20,000 I/Os, five pairs")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    need_fio("bench_asap")
    if args.quick:
        args.ios, args.pairs = 20_000, 5
    kinds = [kind for kind in KINDS if args.kind in (None, kind.name)]
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        try:
            found = measure(Path(folder), args.ios, args.pairs, kinds)
        except VaioBenchError as error:
            raise SystemExit(f"bench_asap: {error}") from None
    rows, goals = [], []
    for kind, rates in zip(kinds, found, strict=True):
        ratios = [a / b for a, b in zip(rates["ours"], rates["fio"], strict=True)]
        low, high = median_interval(ratios)
        middle = statistics.median(ratios)
        jobs = f", {kind.jobs} jobs" if kind.jobs > 1 else ""
        rows += [
            (f"{kind.name}, kI/Os per s", spread([rate / 1e3 for rate in rates["ours"]])),
            (f"  fio {kind.engine}{jobs}, kI/Os per s", spread([r / 1e3 for r in rates["fio"]])),
            ("  ratio to fio, median of pairs", f"{middle:.3f} [{low:.3f}, {high:.3f}]"),
        ]
        if kind.has_goal:
            goals += [
                Goal(f"{kind.name}: median ratio", middle, 0.98, "", at_least=True),
                Goal(f"{kind.name}: lower bound of 95 %", low, 0.95, "", at_least=True),
            ]
    figures = {kind.name: rates for kind, rates in zip(kinds, found, strict=True)}
    settings = {"ios": args.ios, "pairs": args.pairs}
    report("bench_asap", settings, rows, goals, figures, as_json=args.json)


if __name__ == "__main__":
    main()
