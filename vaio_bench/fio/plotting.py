"""`fio plot`: results of run folders laid out as fio-plot reads them, and its charts of them.

fio-plot reads folders of fio's JSON named `<rw>-<iodepth>-<numjobs>.json`, as bench-fio makes them.
Of a policy that fio ran, that is fio's own document of the round with the median rate; of one that
this tool ran, a document of the same shape from its rows. A policy is a folder; the cells of a grid
that differ in depth alone are one folder besides, for the charts by depth.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from vaio_bench.analyses import quantiles
from vaio_bench.analyses.rounds import round_figures
from vaio_bench.errors import InputError, WorkError
from vaio_bench.fio.program import OUTPUT
from vaio_bench.fio.results import read_result
from vaio_bench.run_writer import write_json
from vaio_bench.store import Run, open_run, part_folder
from vaio_bench.targets import escape

_TIMEOUT_S = 300
# The buckets of fio's coarse histograms, their upper bounds.
_BOUNDS = (2, 4, 10, 20, 50, 100, 250, 500, 750, 1000)
_MIXED = frozenset({"rw", "readwrite", "randrw"})
_DRAWN = frozenset({"read", "write", "randread", "randwrite", *_MIXED})


@dataclass(frozen=True)
class Data:
    """A document that was laid out."""

    folder: Path
    name: str
    """`<run>: <policy>`."""
    rw: str
    iodepth: int
    numjobs: int
    bs: str
    file: Path

    @property
    def filters(self) -> list[str]:
        """The directions that a chart is drawn of."""
        return ["read", "write"] if self.rw in _MIXED else [self.rw.removeprefix("rand")]


def plot(
    runs: Sequence[str | Path], *, out: str | Path, charts: bool = True, force: bool = False
) -> dict[str, Any]:
    """Lays out results and draws fio-plot's charts of them.

    Args:
        runs: run folders, of fio or of this tool.
        out: folder to make: `data/<run>/<policy>/` and the PNG files.
        charts: draw; False lays the data out alone.
        force: write into a folder that is there.

    Returns:
        `{"folder", "data": [...], "charts": [...], "left_out": [...]}`.

    Raises:
        InputError: fio-plot is not installed, a run folder is none, or `out` is there.
        WorkError: fio-plot failed.
    """
    if charts and importlib.util.find_spec("fio_plot") is None:
        raise InputError(
            "fio-plot is not installed, which draws the charts: pip install 'vaio-bench[fio]' "
            "(--no-charts lays the data out without it)"
        )
    out = Path(out)
    if out.exists() and not force and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is there already (--force writes into it)")
    opened = [open_run(run) for run in runs]
    names = [run.path.resolve().name for run in opened]
    if len(set(names)) < len(names):
        raise InputError(f"expected run folders of different names, got {', '.join(names)}")
    found: list[Data] = []
    left: list[str] = []
    for name, run in zip(names, opened, strict=True):
        for policy in run.policies:
            document, why = _document(run, policy)
            if document is None:
                left.append(f"{name}: {policy}: {why}")
                continue
            found.append(_laid_out(out / "data" / escape(name) / escape(policy),
                                   f"{name}: {policy}", document))  # fmt: skip
    if not found:
        told = "; ".join(left)
        raise InputError(f"{', '.join(map(str, runs))}: nothing to draw: {told or 'no rounds'}")
    drawn = _draw(found, out) if charts else []
    return {
        "folder": str(out),
        "data": [str(each.file) for each in found],
        "charts": [str(path) for path in drawn],
        "left_out": left,
    }


def _laid_out(folder: Path, name: str, document: dict[str, Any]) -> Data:
    folder.mkdir(parents=True, exist_ok=True)
    options = document["jobs"][0]["job options"]
    depth, jobs = int(options["iodepth"]), int(options["numjobs"])
    file = folder / f"{options['rw']}-{depth}-{jobs}.json"
    write_json(file, document)
    return Data(folder, name, options["rw"], depth, jobs, str(options["bs"]), file)


def _document(run: Run, policy: str) -> tuple[dict[str, Any] | None, str]:
    """A document as fio-plot reads it, or None and why there is none."""
    rounds = run.rounds(policy, complete_only=True)
    if not rounds:
        return None, "no round of it has ended"
    figures = round_figures(run).filter(pl.col("policy") == policy).sort("iops")
    middle = int(figures["round"][figures.height // 2])
    if run.layers(policy) != ["fio"]:
        return _synthesised(run, policy, figures), ""
    file = part_folder(run.path, policy, middle, "fio") / OUTPUT
    if not file.is_file():
        kept = {each["file"] for each in (run.manifest.get("fio") or {}).get("sources", [])}
        return None, "its document was not kept" + (f" (it is one of {len(kept)})" if kept else "")
    result = read_result(file)
    document = result.document
    # fio leaves out what has its default, and fio-plot needs it.
    options = {"rw": "read", "bs": "4k", "iodepth": "1", "numjobs": "1", **result.options}
    if "read_iolog" in options:
        options |= {"rw": "randrw", "bs": "trace"}
    if options["rw"] not in _DRAWN:
        return None, f"fio-plot knows no {options['rw']}"
    jobs = [{**job, "job options": options} for job in document["jobs"]]
    return {**document, "global options": {}, "jobs": jobs}, ""


def _synthesised(run: Run, policy: str, figures: pl.DataFrame) -> dict[str, Any]:
    """What fio would have written of our own rounds: rates as means, latencies of all rounds."""
    rows = quantiles.completed(run.pooled_ios(policy)).with_columns(pl.col("op").cast(pl.String))
    latency = quantiles.LATENCY_NS
    sums = {
        row["op"]: row
        for row in rows.group_by("op")
        .agg(pl.len(), pl.col("length_bytes").sum(), latency.mean().alias("mean"),
             latency.std().fill_null(0).alias("stddev"), latency.min().alias("min"),
             latency.max().alias("max"))
        .collect(engine="streaming").to_dicts()
    }  # fmt: skip
    total = sum(row["len"] for row in sums.values())
    rates = figures["iops"].to_numpy()
    rate, spread_ = float(rates.mean()), float(rates.std(ddof=1)) if len(rates) > 1 else 0.0
    spread = quantiles.distributions(rows, latency)[()]
    pacing = run.manifest.get("pacing") or {}
    depth = pacing.get("depth", 1) if pacing.get("mode") == "asap" else 1
    moves = {op for op in ("read", "write") if op in sums}
    kind = "randrw" if len(moves) != 1 else f"rand{next(iter(moves))}"
    cpu = figures["cpu_user_ns_per_io"].mean(), figures["cpu_system_ns_per_io"].mean()
    shares = [100 * float(each or 0) * rate / 1e9 for each in cpu]  # type: ignore[arg-type]
    job = {
        "jobname": policy,
        "job options": {"rw": kind, "iodepth": str(depth), "numjobs": "1", "bs": "trace"},
        **{name: _direction(sums.get(name), total, rate, spread_) for name in ("read", "write")},
        "trim": _direction(sums.get("discard"), total, rate, spread_),
        "usr_cpu": shares[0],
        "sys_cpu": shares[1],
        **_coarse(spread),
    }
    version = f"vaio-bench {run.manifest.get('tool_version', '?')}"
    return {"fio version": version, "global options": {}, "jobs": [job]}


def _direction(
    row: dict[str, Any] | None, total: int, rate: float, spread: float
) -> dict[str, Any]:
    row = row or {"len": 0, "length_bytes": 0, "mean": 0, "stddev": 0, "min": 0, "max": 0}
    share = row["len"] / max(total, 1)
    bytes_per_io = row["length_bytes"] / max(row["len"], 1)
    return {
        "io_bytes": row["length_bytes"],
        "total_ios": row["len"],
        "bw": round(rate * share * bytes_per_io / 1024),
        "iops": rate * share,
        "iops_stddev": spread * share,
        "lat_ns": {"min": row["min"], "max": row["max"], "mean": row["mean"],
                   "stddev": row["stddev"], "N": row["len"]},
    }  # fmt: skip


def _coarse(spread: quantiles.Distribution) -> dict[str, dict[str, float]]:
    """The `latency_ns`, `_us` and `_ms` of fio: shares in per cent up to each bound of its unit."""
    found: dict[str, dict[str, float]] = {}
    below = 0.0
    share = np.cumsum(spread.count) / max(spread.n, 1)

    def up_to(bound_ns: float) -> float:
        at = int(np.searchsorted(spread.upper, bound_ns, side="right"))
        return float(share[at - 1]) if at else 0.0

    for unit, factor in (("ns", 1), ("us", 1_000), ("ms", 1_000_000)):
        own = {}
        for bound in (*_BOUNDS, 2000) if unit == "ms" else _BOUNDS:
            reached = up_to(bound * factor)
            own[str(bound)] = 100 * max(reached - below, 0.0)
            below = max(below, reached)
        found[f"latency_{unit}"] = own
    found["latency_ms"][">=2000"] = 100 * max(1 - below, 0.0)
    return found


def _draw(found: Sequence[Data], out: Path) -> list[Path]:
    """The charts that fio-plot has for what there is."""
    drawn = []
    alike: dict[tuple[str, int, int], list[Data]] = {}
    grids: dict[tuple[str, str, int, Path], list[Data]] = {}
    for each in found:
        alike.setdefault((each.rw, each.iodepth, each.numjobs), []).append(each)
        if not each.folder.name.endswith("-again"):
            key = (each.rw, each.bs, each.numjobs, each.folder.parent)
            grids.setdefault(key, []).append(each)
    for (rw, depth, jobs), of in alike.items():
        if len(of) > 1:
            drawn += _chart(out / f"compare-{rw}-{depth}-{jobs}", "-C", of[0],
                            [each.folder for each in of], [depth],
                            f"{rw}, depth {depth}, {jobs} job(s)")  # fmt: skip
    for (rw, bs, jobs, parent), of in grids.items():
        depths = sorted({each.iodepth for each in of})
        if len(depths) < 2 or len(depths) < len(of):
            continue
        folder = parent / escape(f"depths of {rw} {bs} {jobs}")
        folder.mkdir(exist_ok=True)
        for each in of:
            (folder / each.file.name).write_text(each.file.read_text())
        drawn += _chart(out / f"depths-{rw}-{bs}-{jobs}", "-l", of[0], [folder], depths,
                        f"{rw}, {bs}, {jobs} job(s)")  # fmt: skip
    for each in found:
        name = f"histogram-{each.folder.parent.name}-{each.folder.name}"
        drawn += _chart(out / name, "-H", each, [each.folder], [each.iodepth], each.name,
                        filters=each.filters[:1])  # fmt: skip
    return drawn


def _chart(
    out: Path,
    kind: str,
    of: Data,
    folders: Sequence[Path],
    depths: Sequence[int],
    title: str,
    *,
    filters: Sequence[str] | None = None,
) -> list[Path]:
    """One PNG a direction, by fio-plot in a process of its own."""
    made = []
    for direction in filters or of.filters:
        several = len(of.filters) > 1 and filters is None
        png = out.with_name(f"{out.name}-{direction}.png" if several else f"{out.name}.png")
        command = [
            sys.executable, "-m", "fio_plot", kind, "-r", of.rw, "-f", direction,
            "-n", str(of.numjobs), "-d", *map(str, depths), "-T", title, "-o", str(png.absolute()),
            "--xlabel-parent", "0", "--disable-fio-version", "-i",
            *(str(folder.absolute()) for folder in folders),
        ]  # fmt: skip
        environment = {**os.environ, "MPLBACKEND": "Agg"}
        try:
            ended = subprocess.run(command, capture_output=True, text=True, env=environment,
                                   timeout=_TIMEOUT_S, check=False)  # fmt: skip
        except subprocess.TimeoutExpired:
            raise WorkError(f"{png}: fio-plot did not end within {_TIMEOUT_S} s") from None
        if ended.returncode != 0 or not png.is_file() or not png.stat().st_size:
            said = [line for line in (ended.stderr or ended.stdout).splitlines() if line.strip()]
            raise WorkError(f"{png}: fio-plot failed: {said[-1] if said else 'it said nothing'}")
        made.append(png)
    return made
