"""`fio replay`: fio's own replay of a trace in turns with ours, on one file and at one depth.

Both issue as fast as there is room. fio replays an I/O log that is exported from the trace; what
such a log cannot hold is left out of both. Overlapping I/Os are not put in order by either.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vaio_bench import spec, target_state
from vaio_bench.analyses.rounds import RATE_SHARE, round_figures
from vaio_bench.comparing import DEFAULT_ROUNDS, arms, stored_comparison
from vaio_bench.errors import InputError, VaioBenchError, WorkError
from vaio_bench.fio import folder as kept
from vaio_bench.fio import jobs, program
from vaio_bench.fio.iolog import Exported, export
from vaio_bench.fio.results import Result
from vaio_bench.round_loop import Progress, RoundLoop
from vaio_bench.run_writer import write_json, write_result
from vaio_bench.runner import Plan, Settings, execute
from vaio_bench.spec import Policy
from vaio_bench.store import Run, open_run, part_folder
from vaio_bench.trace import FLAGS, Trace, TraceWriter, open_trace

FIO = "fio"
# Half a bucket of fio's histograms, of which there are 64 an octave.
BUCKET_SHARE = 1 / 128
SECTOR_BYTES = 512
_DURABLE = FLAGS["fua"] | FLAGS["preflush"]
FLAGS_LEFT_OUT = "flags (FUA, preflush)"
_OPS = ("read", "write", "flush", "discard", "write_zeroes")
# Runs of fio for a round, see `_InTurns._complete`.
ATTEMPTS = 5
# What fio counts an I/O as. Of a log's trims it does none beside reads and writes (3.33: "bad
# ddir").
_COUNTED = {"read": "read", "write": "write", "flush": "sync"}


def crosscheck(
    trace: str | Path,
    *,
    target: str | Path,
    out: str | Path,
    rounds: int = DEFAULT_ROUNDS,
    settings: Settings | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Replays a trace by this tool and by fio, in turns, and holds one against the other.

    Args:
        trace: canonical trace.
        target: file or block device.
        out: run folder to make.
        rounds: of each.
        settings: depth, window, seed, O_DIRECT; pace and conflicts are set.
        force: replace an earlier run in `out`.
        progress: called with (what, done, of how many).

    Returns:
        The document of `fio replay --json`: counts and bytes of both, whether they are equal, the
        ratio of latencies, and the noise floor that it is to be read by.

    Raises:
        InputError: something given is wrong, or fio is not installed.
        WorkError: a round failed.
    """
    fio, version = program.find()
    out, target = Path(out), Path(target)
    settings = replace(settings or Settings(), pace="asap", conflicts="allow")
    if settings.backend not in ("uring", "psync"):
        raise InputError(f"--backend: expected uring or psync, got {settings.backend}")
    if settings.fit_to_bytes is not None:
        raise InputError("--fit-to: fio replays a trace where it lies: leave it out")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fio-replay-", dir=out.parent) as aside:
        alike, log, aligned = _alike(trace, settings, Path(aside), version)
        if not aligned and settings.direct == "always":
            raise InputError(f"--direct: {trace} has I/Os below 512 bytes, which fio cannot do so")
        settings = settings if aligned else replace(settings, direct="never")
        # Disk, skip and limit are in the trace that both replay.
        within = replace(settings, disks=(), skip=0, limit=None)
        policies = [*arms(spec.direct(), [Policy(FIO, "fio's replay of the same I/Os")])]

        def loop(*given: Any) -> _InTurns:
            return _InTurns(*given, fio=fio, version=version, log=log)

        plan = Plan(rounds, baseline=spec.DIRECT)
        path = execute(alike, policies, plan, within, target, out, force=force, progress=progress,
                       loop=loop)  # fmt: skip
        shutil.move(alike, path / "trace.parquet")
        shutil.move(log.path, path / "trace.iolog")
    return _concluded(path, str(trace), version, log)


def _alike(
    source: str | Path, settings: Settings, folder: Path, version: str
) -> tuple[Path, Exported, bool]:
    """The I/Os that both can do, as our trace and as fio's log, and whether O_DIRECT takes them."""
    path = folder / "trace.parquet"
    with open_trace(source) as trace:
        disks = list(settings.disks) or trace.disks
        if len(disks) != 1 or disks[0] not in trace.disks:
            raise InputError(
                f"{trace.path}: fio replays one disk: name one with --disk, of "
                f"{', '.join(trace.disks[:10])}"
            )
        left, aligned = _copy(trace, path, disks[0], settings)
    with open_trace(path) as trace:
        if not trace.rows:
            raise InputError(f"{source}: no I/O is left that fio can replay")
        form = 3 if _release(version) >= (3, 31) else 2
        log = export(trace, folder / "trace.iolog", version=form, flushes_after=settings.depth)
    return path, replace(log, left_out=left), aligned


def _copy(trace: Trace, path: Path, disk: str, settings: Settings) -> tuple[dict[str, int], bool]:
    """The wanted I/Os of a disk; what is left out by operation, and are all in whole sectors."""
    wanted = list(_COUNTED)
    left: dict[str, int] = {}
    aligned = True
    skip, room = settings.skip, settings.limit
    with TraceWriter(path) as writer:
        for whole in trace.batches():
            own = whole.filter(pc.equal(whole.column("disk").cast(pa.string()), disk))
            rows = own.slice(min(skip, own.num_rows), room)
            skip = max(0, skip - own.num_rows)
            room = None if room is None else room - rows.num_rows
            ops = rows.column("op").cast(pa.string())
            keep = pc.is_in(ops, pa.array(wanted))
            for op in ops.filter(pc.invert(keep)).to_pylist():
                left[op] = left.get(op, 0) + 1
            names = [name for name in rows.schema.names if name != "content"]
            kept_rows = rows.select(names).filter(keep)
            flagged = int(np.count_nonzero(kept_rows.column("flags").to_numpy() & _DURABLE))
            if flagged:
                left[FLAGS_LEFT_OUT] = left.get(FLAGS_LEFT_OUT, 0) + flagged
            flags = pa.array(np.zeros(kept_rows.num_rows, np.uint32))
            kept_rows = kept_rows.set_column(names.index("flags"), "flags", flags)
            for name in ("offset_bytes", "length_bytes"):
                aligned &= not np.any(kept_rows.column(name).to_numpy() % SECTOR_BYTES)
            writer.write(kept_rows)
        writer.close({"source_format": trace.metadata.get("source_format"), "disk": disk})
    return left, bool(aligned)


def _release(version: str) -> tuple[int, int]:
    found = re.search(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


class _InTurns(RoundLoop):
    """The rounds of a comparison of which one arm is fio's."""

    def __init__(self, *given: Any, fio: str, version: str, log: Exported) -> None:
        super().__init__(*given)
        self.fio = fio
        self.log = log
        self.writer.manifest["fio"] = {"verb": "replay", "version": version, "repeated": 0}
        # fio's rounds pass none of our layers.
        self.writer.manifest["policies"][FIO]["layers"] = [kept.LAYER]

    def _one(self, name: str, number: int, *, warmup: bool = False) -> None:
        if name != FIO:
            super()._one(name, number, warmup=warmup)
            return
        ios = self.job.scan["ios"]
        if self.progress:
            self.progress(f"{name}, round {number + 1}", self._done * ios, self._planned * ios)
        try:
            result = self._complete(part_folder(self.writer.path, name, number, "fio"))
        except VaioBenchError as error:
            raise type(error)(f"{name}, round {number + 1}: {error}") from None
        kept.keep_round(self.writer, name, number, result)
        self._done += 1

    def _complete(self, folder: Path) -> Result:
        """A run of fio that counted the bytes of every I/O, or the last of `ATTEMPTS`.

        fio leaves the bytes of what is in flight when its log ends out of its totals (3.33), though
        it did and counted the I/Os. The flushes at the log's end are there to be it; on a busy
        machine a read or write can be under way for longer than they take.
        """
        path = self.options["targets"][0]
        fills = self.writer.manifest["round_state"]["fills"]
        for attempt in range(ATTEMPTS):
            self.writer.manifest["fio"]["repeated"] += attempt > 0
            target_state.restore([path], fills=fills)
            result = program.run(self.fio, self._job(path), folder, inside=os.getcwd())
            # The log ends with these, which the trace has not: no figure of fio's may count them.
            result.ios["sync"] -= self.job.settings.depth
            counts, moved = _fio_counts(result.ios, result.bytes)
            if counts != _by_op(self.log.ios, _COUNTED) or moved == _by_op(self.log.bytes, moved):
                break
        return result

    def _job(self, path: str) -> str:
        depth = self.job.settings.depth
        backend = self.options["backend"]
        engine = "io_uring" if backend == "uring" else "psync" if depth == 1 else "libaio"
        direct = self.writer.manifest["target"].get("direct", _can_direct(path))
        direct = direct and self.job.settings.direct != "never"
        lines = {
            "read_iolog": jobs.escaped(self.log.path.absolute()),
            "replay_redirect": jobs.escaped(Path(path).absolute()),
            "replay_no_stall": "1",
            "ioengine": engine,
            "iodepth": str(depth),
            "direct": str(int(direct)),
            "lat_percentiles": "1",
            "thread": "1",
        }
        return "[replay]\n" + "".join(f"{key}={value}\n" for key, value in lines.items())


def _can_direct(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        return False
    return True


def _concluded(path: Path, source: str, version: str, log: Exported) -> dict[str, Any]:
    run = open_run(path)
    manifest = dict(run.manifest)
    manifest["trace"] = {**manifest["trace"], "path": str(path / "trace.parquet"),
                         "made_of": source, "left_out": log.left_out}  # fmt: skip
    write_json(path / "manifest.json", manifest)
    run = open_run(path)
    compared = stored_comparison(run)
    depth = manifest["pacing"]["depth"]
    counts = {name: _counts(run, name) for name in run.policies}
    ours = counts[spec.DIRECT]
    wrong = [
        f"{name}, round {number + 1}: expected {ours[0]}, got {found}"
        for name, rounds in counts.items()
        for number, found in enumerate(rounds)
        if found != ours[0]
    ]
    fios = next(each for each in compared["policies"] if each["name"] == FIO)
    shares = [share for share in round_figures(run)[RATE_SHARE].to_list() if share is not None]
    rate_share = max(shares, default=0.0)
    found = {
        "run": str(path),
        "fio_version": version,
        "rounds": compared["rounds"],
        "depth": depth,
        "counts": {"ours": ours[0]["ios"], "fio": counts[FIO][0]["ios"]},
        "bytes": {"ours": ours[0]["bytes"], "fio": counts[FIO][0]["bytes"]},
        "equal": not wrong,
        "unequal": wrong,
        "repeated": manifest["fio"]["repeated"],
        "left_out": log.left_out,
        "latency": {name: _latency(name, of, rate_share) for name, of in fios["metrics"].items()
                    if name in ("latency_p50_ns", "latency_p99_ns", "iops")},
        "bucket_share": BUCKET_SHARE,
        "comparison": compared,
        "exit": run.exit,
    }  # fmt: skip
    write_result(path, "fio-replay", found)
    if run.exit != "ok":
        raise WorkError(f"{path}: {run.exit}")
    return found


def _latency(metric: str, of: dict[str, Any], rate_share: float) -> dict[str, Any]:
    """The figure of fio against ours, and whether they differ by more than noise and rounding.

    Latencies of fio are rounded to buckets, its rates by a run time in whole milliseconds, of
    which `rate_share` is half a one. A floor above 1 hides a factor of two: nothing is then known.
    """
    floor = of["floor"]
    rounded = BUCKET_SHARE if metric.startswith("latency") else rate_share
    known = None if floor is None or floor > 1 else math.log1p(floor) + math.log1p(rounded)
    return {
        "ours": of["baseline"],
        "fio": of["value"],
        "ratio": of["ratio"],
        "noise_floor": floor,
        "rounded_share": rounded,
        "within": None if known is None else abs(math.log(of["ratio"])) <= known,
    }


def _counts(run: Run, policy: str) -> list[dict[str, Any]]:
    """I/Os and bytes of each round by operation, as each of the two counted them."""
    found = []
    for number in run.rounds(policy):
        of = run.totals(policy, number)
        if policy == FIO:
            ios, moved = _fio_counts(of["ios_by_direction"], of["bytes_by_direction"])
        else:
            by_op: Sequence[int] = of["ios_by_op"]
            ios = {op: by_op[_OPS.index(op)] for op in _COUNTED}
            moved = {op: of["bytes_by_op"][_OPS.index(op)] for op in ("read", "write")}
        found.append({"ios": ios, "bytes": moved})
    return found


def _fio_counts(
    ios: Mapping[str, int], moved: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, int]]:
    """I/Os and bytes by operation of what fio counted by direction."""
    return (
        {op: ios[word] for op, word in _COUNTED.items()},
        {op: moved[op] for op in ("read", "write")},
    )


def _by_op(counts: Mapping[str, int], ops: Iterable[str]) -> dict[str, int]:
    return {op: counts.get(op, 0) for op in ops}
