"""`compare` as a function: policies against the direct path, round by round.

The direct path runs twice in every round, as `direct` and as `direct-again`: what differs between
the two is the noise of this machine at this hour, and no claim is made below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vaio_bench import spec
from vaio_bench.analyses.across import overhead_of_runs
from vaio_bench.analyses.overhead import DEFAULT_MARGIN, check_margin, overhead
from vaio_bench.errors import InputError, WorkError
from vaio_bench.run_writer import write_result
from vaio_bench.runner import Progress, Settings, execute
from vaio_bench.store import BASELINE, BASELINE_AGAIN, Run, open_run

DEFAULT_ROUNDS = 8


def compare(
    trace: str | Path,
    *,
    policies: Sequence[str | Path],
    out: str | Path,
    target: str | Path | None = None,
    rounds: int = DEFAULT_ROUNDS,
    settings: Settings | None = None,
    margin: float = DEFAULT_MARGIN,
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Replays a trace directly, directly again, and through each policy, interleaved.

    Args:
        trace: canonical trace.
        policies: storage policies, files or shipped names, of different names.
        out: run folder to make.
        target: file, device or folder.
        rounds: of each policy; the interval narrows with their square root.
        settings: pacing, backend, data and window.
        margin: relative difference that is called equivalent.
        force: replace an earlier run in `out`.
        progress: called with (what, done, of how many).

    Returns:
        The document of `compare --json`, which is also kept in the run folder.

    Raises:
        InputError: something given is wrong; nothing was written.
        WorkError: a round failed; the run folder keeps those before it.
    """
    check_margin(margin)
    settings = settings or Settings()
    if settings.clock != "wall":
        raise InputError("--clock virtual charges no CPU: no overhead can be told from it")
    if rounds < 2:
        raise InputError(f"--rounds: expected 2 or more, an interval needs them, got {rounds}")
    chosen = spec.load_policies(list(policies))
    for policy in chosen:
        if policy.name in (BASELINE, BASELINE_AGAIN):
            raise InputError(f"--policy {policy.name}: the baseline runs by itself")
    if not chosen:
        raise InputError("--policy: expected at least one to compare with the direct path")
    direct = spec.direct()
    everything = [direct, replace(direct, name=BASELINE_AGAIN), *chosen]
    path = execute(trace, everything, rounds, settings, target, out, force=force, progress=progress)
    run = open_run(path)
    document = stored_comparison(run, margin)
    write_result(path, "compare", document)
    _refuse_broken(run)
    return document


def stored_comparison(run: Run, margin: float = DEFAULT_MARGIN) -> dict[str, Any]:
    """The document of `compare --json` for one run folder."""
    return {"run": str(run.path), **overhead(run, margin=margin).to_dict()}


def compare_stored(
    runs: Sequence[str | Path], *, baseline: str = BASELINE, margin: float = DEFAULT_MARGIN
) -> dict[str, Any]:
    """Compares stored runs; see `overhead_of_runs` for what that can and cannot tell."""
    if len(runs) == 1:
        return stored_comparison(open_run(runs[0]), margin)
    found = overhead_of_runs(list(runs), baseline=baseline, margin=margin)
    return {"run": [str(run) for run in runs], **found.to_dict()}


def _refuse_broken(run: Run) -> None:
    """A comparison of rounds in which I/Os failed compares nothing."""
    if run.exit != "ok":
        raise WorkError(f"{run.path}: {run.exit}")
