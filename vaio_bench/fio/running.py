"""`fio run`: the cells of a grid, round by round, in an order drawn anew for each."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vaio_bench import _core, target_state, targets, units
from vaio_bench.errors import InputError, VaioBenchError
from vaio_bench.fio import folder as kept
from vaio_bench.fio import jobs, program
from vaio_bench.fio.jobs import Cell
from vaio_bench.fio.summary import document
from vaio_bench.round_loop import Progress, shuffled_rounds
from vaio_bench.run_writer import RunWriter, write_result
from vaio_bench.store import again_of, open_run, part_folder

DEFAULT_ROUNDS = 5
_LOG = "io"


@dataclass(frozen=True)
class Plan:
    """What `fio run` runs, beside its cells."""

    rounds: int = DEFAULT_ROUNDS
    seed: int = 0
    baseline: str | None = None
    """A cell's name; the first one's if None."""
    per_io: bool = False
    destroy_data: bool = False


def run(
    files: Sequence[str | Path],
    *,
    out: str | Path,
    axes: Mapping[str, Sequence[str]] | None = None,
    options: Mapping[str, str] | None = None,
    target: str | Path | None = None,
    size: str | None = None,
    plan: Plan | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Runs job files, or a grid of jobs of our own, by fio.

    Args:
        files: job files; without any, jobs of our own on `target`.
        out: run folder to make.
        axes: option of fio to its values: `{"bs": ["4k", "64k"], "iodepth": ["1", "8"]}`.
        options: options of every job, which win over those of the files.
        target: file or device that every job goes to; of job files, instead of their own.
        size: of a target that is made, and the range that jobs use of it.
        plan: rounds, seed and the rest.
        force: replace an earlier run in `out`.
        progress: called with (what, done, of how many).

    Returns:
        The document of `fio run --json`, which is also kept in the run folder.

    Raises:
        InputError: something given is wrong, or fio is not installed; nothing was written.
        WorkError: fio failed; the run folder keeps the rounds before it.
    """
    plan = plan or Plan()
    fio, version = program.find()
    if plan.rounds < 1:
        raise InputError(f"--rounds: expected 1 or more, got {plan.rounds}")
    axes, options = dict(axes or {}), dict(options or {})
    sources = [Path(file) for file in files]
    path = None if target is None else Path(target)
    fixed = _fixed(sources, options, path, size)
    cells = jobs.grid(axes, fixed, sources)
    cells, baseline = _with_baseline(cells, plan.baseline)
    used: list[Path] = []
    for cell in cells:
        of_target = plan.destroy_data or path is not None
        used += jobs.check_writes(cell, destroy_data=of_target)
    out = Path(out)
    RunWriter.check(out, force=force)
    prepared = _target(path, size, cells, plan, progress)
    names = [cell.name for cell in cells]
    document_ = kept.new_manifest(
        {cell.name: {"description": _described(cell)} for cell in cells},
        rounds=plan.rounds,
        order=shuffled_rounds(names, plan.rounds, plan.seed),
        seed=plan.seed,
        baseline=baseline,
        target=path or next(iter(used), None),
        fio={
            "verb": "run",
            "version": version,
            "cells": [cell.to_dict() for cell in cells],
            "per_io": plan.per_io,
            "inside": os.getcwd(),
            "created": prepared,
            "files": sorted({str(each) for each in used}),
        },
    )
    writer = RunWriter.create(out, document_)
    return _to_its_end(writer, fio, progress)


def resume(
    out: str | Path, *, rounds: int | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Goes on with a run of fio that was interrupted, or adds rounds to one.

    Args:
        out: the run folder.
        rounds: how many in all; None: as planned.
        progress: called with (what, done, of how many).

    Raises:
        InputError: it is no run of `fio run`, fio is of another version, or somebody writes it.
        WorkError: fio failed.
    """
    run_ = open_run(out)
    known = run_.manifest.get("fio") or {}
    if known.get("verb") != "run":
        raise InputError(f"{run_.path}: expected a run of `fio run`")
    fio, version = program.find()
    if version != known["version"]:
        raise InputError(
            f"{run_.path}: expected {known['version']}, which its first rounds are of, found "
            f"{version}"
        )
    planned = int(run_.manifest["rounds"])
    if rounds is not None and rounds < planned:
        raise InputError(f"--rounds: expected at least the {planned} of the run, got {rounds}")
    writer = RunWriter.reopen(run_)
    names = [cell["name"] for cell in known["cells"]]
    with writer.held():
        complete = [set(run_.rounds(name, complete_only=True)) for name in names]
        begun = {number for of in complete for number in of}
        # Rounds are compared in pairs taken close together: a half one is run again.
        writer.forget_rounds([n for n in sorted(begun) if any(n not in of for of in complete)])
        writer.manifest["rounds"] = rounds or planned
        order = shuffled_rounds(names, rounds or planned, writer.manifest["seed"])
        writer.manifest["order"] = [list(entry) for entry in order]
        writer.save()
    return _to_its_end(writer, fio, progress)


def _fixed(
    files: Sequence[Path], options: dict[str, str], target: Path | None, size: str | None
) -> dict[str, str]:
    """The options of every job."""
    fixed = {"lat_percentiles": "1"}
    if not files:
        engine = "io_uring" if _core.uring_refused() is None else "libaio"
        fixed |= {"ioengine": engine, "direct": "1", "thread": "1", "group_reporting": "1"}
        if "runtime" in options:
            fixed["time_based"] = "1"
        if target is None and not {"filename", "uri"} & set(options) and (
            options.get("ioengine") != "null"
        ):  # fmt: skip
            raise InputError("fio run: expected job files, or --target and the lists of a grid")
    if target is not None:
        fixed["filename"] = jobs.escaped(target.absolute())
    if size is not None:
        fixed["size"] = str(units.parse_size(size, "--size"))
    return {**fixed, **options}


def _with_baseline(cells: list[Cell], asked: str | None) -> tuple[list[Cell], str]:
    """The cells, and where there are several, the baseline once more."""
    names = [cell.name for cell in cells]
    if asked is not None and asked not in names:
        raise InputError(f"--baseline: expected one of {', '.join(names[:10])}, got {asked}")
    baseline = next(cell for cell in cells if asked in (None, cell.name))
    if len(cells) > 1:
        at = cells.index(baseline) + 1
        cells = [*cells[:at], replace(baseline, name=again_of(baseline.name)), *cells[at:]]
    return cells, baseline.name


def _described(cell: Cell) -> str:
    grid = ", ".join(f"{key}={value}" for key, value in cell.at.items())
    return ": ".join(part for part in (cell.source, grid) if part) or "a job of fio"


def _target(
    target: Path | None, size: str | None, cells: Sequence[Cell], plan: Plan,
    progress: Progress | None,
) -> list[str]:  # fmt: skip
    """Makes or checks the target; what was made."""
    if target is None:
        return []
    bytes_ = 0 if size is None else units.parse_size(size, "--size")
    if not target.exists() and not bytes_:
        raise InputError(f"{target}: does not exist: add --size, and it is made")
    kinds = [of.get("rw", of.get("readwrite", "read")) for cell in cells
             for _, of in jobs.jobs(cell.job)]  # fmt: skip
    prepared = targets.prepare(
        target,
        [targets.Need("fio", bytes_, bytes_, exact=False)],
        writes=any(kind not in jobs.READING for kind in kinds),
        destroy_data=plan.destroy_data,
        precondition=bytes_ <= targets.PRECONDITION_MAX_BYTES,
        progress=(lambda done, of: progress("target", done, of)) if progress else None,
    )
    return prepared.created


def _to_its_end(writer: RunWriter, fio: str, progress: Progress | None) -> dict[str, Any]:
    """Runs what is missing, and sums up.

    Raises:
        KeyboardInterrupt: after Ctrl-C; the rounds before it are kept.
        WorkError: fio failed.
    """
    with writer.held():
        try:
            _rounds(writer, fio, progress)
        except KeyboardInterrupt:
            writer.end("interrupted")
            raise
        except VaioBenchError as error:
            writer.end(f"failed: {error}")
            raise
        totals = [each for of in writer.manifest["totals"].values() for each in of.values()]
        errors = sum(each["errors"] for each in totals)
        writer.end(f"failed: {errors} I/O errors" if errors else "ok")
        found = document(open_run(writer.path))
        write_result(writer.path, "fio", found)
    return found


def _rounds(writer: RunWriter, fio: str, progress: Progress | None) -> None:
    known = writer.manifest["fio"]
    cells = {cell["name"]: cell for cell in known["cells"]}
    totals = writer.manifest["totals"]
    missing = [(name, number) for name, number in writer.manifest["order"]
               if str(number) not in totals.get(name, {})]  # fmt: skip
    for done, (name, number) in enumerate(missing):
        if progress:
            progress(f"{name}, round {number + 1}", done, len(missing))
        _one(writer, fio, cells[name], number)
    if progress:
        progress("rounds", len(missing), len(missing))


def _one(writer: RunWriter, fio: str, cell: dict[str, Any], number: int) -> None:
    known, name = writer.manifest["fio"], cell["name"]
    inside = Path(known["inside"])
    if not inside.is_dir():
        raise InputError(f"{inside}: is gone, the folder that the job files' names start from")
    there = [inside / path for path in known["files"]]
    target_state.restore([str(path) for path in there if path.exists()], fills=False)
    folder = part_folder(writer.path, name, number, "fio").resolve()
    job = cell["job"]
    if known["per_io"]:
        logged = {"write_lat_log": str(folder / _LOG), "log_offset": "1", "log_avg_msec": "0"}
        job = jobs.overridden(job, logged)
    try:
        result = program.run(fio, job, folder, inside=inside)
    except VaioBenchError as error:
        raise type(error)(f"{name}, round {number + 1}: {error}") from None
    if known["per_io"]:
        logs = sorted(folder.glob(f"{_LOG}_lat.*.log"))
        rows = kept.keep_logs(writer, name, number, logs)
        kept.warn_of_logs(writer)
        (folder / "rows.json").write_text(json.dumps({"rows": rows}) + "\n")
        # They are rows now; fio's slat and clat beside them are never read.
        for log in folder.glob(f"{_LOG}_*.log"):
            log.unlink()
    kept.keep_round(writer, name, number, result)
