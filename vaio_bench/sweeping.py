"""`sweep` as a function: an experiment's cells, each a comparison with a run folder of its own.

A sweep folder holds `sweep.json` (the experiment as resolved, and how each cell ended),
`traces/`, `cells/<cell>/` (a run folder each) and `results/sweep.json`.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vaio_bench import comparing, engine_build, experiment, spec, whereabouts
from vaio_bench.analyses.failed import shortfall
from vaio_bench.analyses.overhead import DEFAULT_MARGIN, check_margin
from vaio_bench.analyses.sweep import (
    FAILED,
    SWEEP_FILE,
    SWEEP_SCHEMA_VERSION,
    open_sweep,
    sweep_document,
)
from vaio_bench.errors import InputError, VaioBenchError, WorkError
from vaio_bench.experiment import Cell, Experiment
from vaio_bench.round_loop import Progress
from vaio_bench.run_writer import write_json, write_result
from vaio_bench.runner import Settings
from vaio_bench.store import open_run
from vaio_bench.synthetic.run import synth
from vaio_bench.trace import open_trace

_FLOOR = "pass"
# A trace needs times; with --pace asap they say the order alone.
_RATE = 1000.0
_PATTERNS = {"random": "uniform", "sequential": "sequential"}


@dataclass(frozen=True)
class _Sweep:
    """What every cell needs."""

    folder: Path
    experiment: Experiment
    policies: Sequence[str]
    baseline: str
    target: Path | None
    margin: float
    destroy_data: bool
    force: bool


def sweep(
    source: str | Path,
    *,
    out: str | Path,
    target: str | Path | None = None,
    margin: float = DEFAULT_MARGIN,
    destroy_data: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Runs every cell of an experiment.

    Args:
        source: an experiment, a TOML file or the name of one that is shipped.
        out: the sweep folder to make.
        target: a folder for the disks, or a file or device where no cell has several disks.
        margin: relative difference that is called equivalent.
        destroy_data: what existing targets hold may be overwritten.
        progress: called with (what, done, of how many).

    Returns:
        The document of `sweep --json`, which is also kept in the folder. Cells that lost rounds, a
        baseline's all included, that a round ended, or whose I/Os failed, are under `failed` with
        the first that failed; the other cells run all the same.

    Raises:
        InputError: the experiment or something else given is wrong.
        WorkError: every cell failed, or the folder cannot be written; it keeps what there is, for
            `resume`. Where that is no cell, no folder is left.
    """
    check_margin(margin)
    found, path = experiment.load_experiment(source)
    policies = _policies(found, path)
    baseline = _beside(found.experiment.baseline, path)
    resolved = found.to_dict()
    if found.workload.trace is not None:
        resolved["workload"]["trace"] = _beside(found.workload.trace, path)
        open_trace(resolved["workload"]["trace"])
    # What is wrong with a policy is told before the first cell.
    comparing.arms(spec.load_policy(baseline), spec.load_policies(list(policies)))
    comparing.parse_warmup(found.experiment.warmup)
    _check_target(found, target)
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: expected a new folder for the sweep (or --resume {out})")
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    document = {
        "schema_version": SWEEP_SCHEMA_VERSION,
        "tool_version": version("vaio-bench"),
        "engine_build": engine_build.build_id(),
        "source": str(path),
        "began_in": whereabouts.here(),
        "experiment": resolved,
        "policies": list(policies),
        "baseline": baseline,
        "target": None if target is None else str(target),
        "destroy_data": destroy_data,
        "margin": margin,
        "cells": [{"id": cell.id, "at": cell.at} for cell in found.cells()],
        "exit": "running",
    }
    write_json(out / SWEEP_FILE, document)
    try:
        return _run(out, document, progress)
    except VaioBenchError:
        if not any(out.glob("cells/*/manifest.json")):
            _discard(out, is_new=is_new)
        raise


def _discard(out: Path, *, is_new: bool) -> None:
    """Takes a sweep away again of which no cell has begun."""
    (out / SWEEP_FILE).unlink(missing_ok=True)
    for name in ("traces", "cells"):
        shutil.rmtree(out / name, ignore_errors=True)
    if is_new:
        with suppress(OSError):
            out.rmdir()


def resume(
    folder: str | Path, *, force: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Goes on with a sweep: cells that have ended stay, one cut short goes on, others are run.

    Rounds that were lost are run again. With `force` it may have been begun by another build of the
    engine, which is warned of.

    Returns:
        As `sweep`.

    Raises:
        InputError: it is no sweep, or begun by another version or another build of the engine.
        WorkError: as `sweep`.
    """
    document = open_sweep(folder)
    if document["tool_version"] != version("vaio-bench"):
        raise InputError(
            f"{folder}: expected a sweep of version {version('vaio-bench')}, but it was begun "
            f"with {document['tool_version']}"
        )
    if any(each.get("exit") != "ok" for each in document["cells"]):
        builds = engine_build.builds_of(document)
        engine_build.check_same(folder, builds, force=force)
        if engine_build.build_id() not in builds:
            document.setdefault("resumed", []).append({"engine_build": engine_build.build_id()})
    needed = [("trace", document["experiment"]["workload"].get("trace"))]
    needed += [("policy", name) for name in document["policies"] if name.endswith(".toml")]
    path = Path(folder).absolute()
    with whereabouts.as_begun(Path(folder), document.get("began_in"), needed):
        return _run(path, document, progress, force=force)


def _policies(found: Experiment, path: Path) -> list[str]:
    named = [_beside(name, path) for name in found.experiment.policies]
    floor = found.experiment.floor and found.experiment.baseline != _FLOOR
    return named if not floor or _FLOOR in named else [_FLOOR, *named]


def _beside(name: str, path: Path) -> str:
    """A file beside the experiment, where there is one; else the name as it is."""
    beside = path.parent / name
    return str(beside) if beside.is_file() else name


def _check_target(found: Experiment, target: str | Path | None) -> None:
    if found.target.backend not in ("uring", "psync"):
        return
    if target is None:
        raise InputError(
            f"--target: expected a folder for the disks for backend {found.target.backend}"
        )
    several = found.workload.trace is None and max(found.grid.disks) > 1
    if several and Path(target).exists() and not Path(target).is_dir():
        raise InputError(f"{target}: expected a folder, as cells have several disks")


def _run(
    folder: Path, document: dict[str, Any], progress: Progress | None, *, force: bool = False
) -> dict[str, Any]:
    found = experiment.parse_experiment(document["experiment"], str(folder / SWEEP_FILE))
    target = None if document["target"] is None else Path(document["target"])
    if target is not None and not target.exists() and not target.suffix:
        target.mkdir(parents=True)
    whole = _Sweep(
        folder, found, document["policies"], document["baseline"], target, document["margin"],
        document["destroy_data"], force,
    )  # fmt: skip
    cells = found.cells()
    try:
        for number, cell in enumerate(cells):
            document["cells"][number]["exit"] = _ended(
                whole, cell, _told(progress, f"cell {number + 1} of {len(cells)}, {cell.id}")
            )
            write_json(folder / SWEEP_FILE, document)
    except KeyboardInterrupt:
        write_json(folder / SWEEP_FILE, {**document, "exit": "interrupted"})
        raise
    except VaioBenchError as error:
        write_json(folder / SWEEP_FILE, {**document, "exit": f"{FAILED}{error}"})
        raise
    failed = [each for each in document["cells"] if each["exit"] != "ok"]
    told = f"{FAILED}{len(failed)} of {len(cells)} cells" if failed else "ok"
    write_json(folder / SWEEP_FILE, {**document, "exit": told})
    result = sweep_document(folder)
    write_result(folder, "sweep", result)
    return result


def _told(progress: Progress | None, where: str) -> Progress | None:
    if progress is None:
        return None
    return lambda what, done, of: progress(f"{where}: {what}", done, of)


def _ended(whole: _Sweep, cell: Cell, progress: Progress | None) -> str:
    """Runs a cell that has not ended, and tells how it ended: what fails costs the one cell."""
    run = whole.folder / "cells" / cell.id
    try:
        _one(whole, cell, progress)
        why = shortfall(open_run(run))
    except WorkError as error:
        why = str(error).removeprefix(f"{run}: ")
    return open_run(run).exit if why is None else f"{FAILED}{why}"


def _one(whole: _Sweep, cell: Cell, progress: Progress | None) -> None:
    """Runs a cell that has not ended."""
    run = whole.folder / "cells" / cell.id
    if (run / "manifest.json").is_file():
        if open_run(run).exit != "ok":
            comparing.resume(run, margin=whole.margin, force=whole.force, progress=progress)
        return
    head = whole.experiment.experiment
    comparing.compare(
        _trace(whole, cell),
        policies=whole.policies,
        out=run,
        target=whole.target,
        baseline=whole.baseline,
        rounds=head.rounds,
        warmup=head.warmup,
        settings=Settings(
            pace="asap",
            depth=cell.at["depth"],
            seed=head.seed,
            backend=whole.experiment.target.backend,
            direct={None: "auto", True: "always", False: "never"}[whole.experiment.target.direct],
            destroy_data=whole.destroy_data,
        ),
        margin=whole.margin,
        progress=progress,
    )


def _trace(whole: _Sweep, cell: Cell) -> Path:
    """The trace of a cell: the experiment's, or one made for its disks, blocks and pattern."""
    work, at = whole.experiment.workload, cell.at
    if work.trace is not None:
        return Path(work.trace)
    path = whole.folder / "traces" / f"{cell.workload_id}.parquet"
    if path.is_file():
        return path
    path.parent.mkdir(exist_ok=True)
    block = at["block"]
    ios = max(1, min(work.ios, work.bytes // block)) * at["disks"]
    size = {"read": block, "write": block}
    made = {
        "seed": whole.experiment.experiment.seed,
        "ios": ios,
        "disks": at["disks"],
        "arrival": {"process": "constant", "rate": _RATE},
        "address": {
            "pattern": _PATTERNS[at["pattern"]],
            "footprint": work.size // block * block,
            "block": block,
        },
        "mix": {"read": at["read"]},
        "size": size,
    }
    synth(made, path)
    return path
