"""What the benches share: traces and iologs of the same I/Os, fio, intervals, and the verdict."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vaio_bench.trace import SCHEMA, TraceWriter

ROOT = Path(__file__).resolve().parent.parent
DISK = "d"
_STEP = 1 << 20


@dataclass(frozen=True)
class Goal:
    """A figure beside what it should be."""

    name: str
    value: float
    limit: float
    unit: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the value is on the right side of its limit."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def write_reads(path: Path, times_ns: np.ndarray, offsets: np.ndarray, length: int) -> None:
    """A canonical trace of reads of one disk."""
    write_ios(path, times_ns, offsets, length, "read")


def write_ios(
    path: Path, times_ns: np.ndarray, offsets: np.ndarray, length: int, operation: str
) -> None:
    """A canonical trace of I/Os of one operation and length on one disk."""
    with TraceWriter(path, force=True) as writer:
        for at in range(0, len(offsets), _STEP):
            part = offsets[at : at + _STEP]
            rows = len(part)
            word = {
                name: pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), [name])
                for name in (DISK, operation)
            }
            columns = [
                pa.array(times_ns[at : at + _STEP].astype(np.int64)),
                word[DISK],
                word[operation],
                pa.array(part.astype(np.int64)),
                pa.array(np.full(rows, length)),
                pa.nulls(rows, pa.int64()),
                pa.array(np.zeros(rows, np.uint32)),
                pa.nulls(rows, pa.uint32()),
            ]
            writer.write(pa.record_batch(columns, schema=SCHEMA))
        writer.close({"source_format": "bench"})


def write_iolog(path: Path, file: Path, offsets: np.ndarray, length: int) -> None:
    """The same reads as an iolog of fio, version 2, on `file`."""
    with path.open("w", encoding="ascii") as log:
        log.write(f"fio version 2 iolog\n{file} add\n{file} open\n")
        for at in range(0, len(offsets), _STEP):
            part = offsets[at : at + _STEP].tolist()
            log.write("".join(f"{file} read {offset} {length}\n" for offset in part))
        log.write(f"{file} close\n")


def need_fio(bench: str) -> None:
    """Leaves by name where there is no fio."""
    if shutil.which("fio") is None:
        print(f"{bench}: skipped: needs fio")
        sys.exit(0)


def cdp_peers(bench: str) -> Path:
    """The program that replication is compared with, built as the engine is."""
    cargo = shutil.which("cargo")
    if cargo is None:
        print(f"{bench}: skipped: needs cargo")
        sys.exit(0)
    command = [cargo, "build", "--quiet", "--release", "-p", "vaio-bench-core"]
    subprocess.run([*command, "--example", "cdp_peers"], cwd=ROOT, check=True)
    return ROOT / "target" / "release" / "examples" / "cdp_peers"


def run_peer(peers: Path, *words: str) -> str:
    """What it prints."""
    done = subprocess.run([peers, *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{peers.name} failed: {done.stderr.strip()}")
    return done.stdout


def fio(iolog: str | Path, engine: str, depth: int, cwd: Path, *more: str) -> dict[str, Any]:
    """Replays an iolog as fast as fio can; the job's part of its JSON.

    Several iologs, one a job, are parted by colons. `cwd` is where logs that it writes go.
    """
    command = ["fio", "--name=peer", f"--ioengine={engine}", f"--iodepth={depth}"]
    command += [f"--read_iolog={iolog}", "--replay_no_stall=1", "--output-format=json", *more]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"fio failed: {done.stderr.strip() or done.stdout.strip()}")
    # Some versions print notes before the document.
    job: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    return job


def median_interval(
    values: Sequence[float], *, confidence: float = 0.95, draws: int = 10_000
) -> tuple[float, float]:
    """Percentile bootstrap interval of the median."""
    random = np.random.default_rng(0)
    sample = np.asarray(values, dtype=float)
    medians = np.median(random.choice(sample, (draws, len(sample))), axis=1)
    low, high = np.quantile(medians, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def spread(values: Sequence[float]) -> str:
    """Median and range of a figure, for the table."""
    return f"{statistics.median(values):.1f} [{min(values):.1f}, {max(values):.1f}]"


def report(
    bench: str,
    settings: dict[str, Any],
    rows: Sequence[tuple[str, str]],
    goals: Sequence[Goal],
    figures: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """Prints the table, or one JSON document with all figures."""
    if as_json:
        met = [{**asdict(goal), "met": goal.met} for goal in goals]
        json.dump({"bench": bench, **settings, "figures": figures, "goals": met}, sys.stdout)
        print()
        return
    print(f"{bench}: " + ", ".join(f"{key} {value}" for key, value in settings.items()))
    for name, text in rows:
        print(f"  {name:44} {text}")
    for goal in goals:
        sign = ">=" if goal.at_least else "<="
        verdict = "met" if goal.met else "NOT MET"
        figure = f"{goal.value:10.3f}" if abs(goal.value) < 10 else f"{goal.value:10.1f}"
        print(f"  {goal.name:44}{figure} {goal.unit:5} goal {sign} {goal.limit:g}: {verdict}")
