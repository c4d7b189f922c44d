"""`replay` as a function: runs one policy and sums its rows up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vaio_bench import servers, spec
from vaio_bench.analyses.fidelity import LATE_SHARE_MAX
from vaio_bench.analyses.inspected import inspected
from vaio_bench.analyses.planned import planned
from vaio_bench.analyses.simulated import simulated
from vaio_bench.analyses.summary import summary
from vaio_bench.errors import WorkError
from vaio_bench.round_loop import Progress
from vaio_bench.run_writer import write_result
from vaio_bench.runner import Settings, execute
from vaio_bench.store import open_run
from vaio_bench.warnings import line_of


def replay(
    trace: str | Path,
    *,
    out: str | Path,
    target: str | Path | None = None,
    policy: str | Path | None = None,
    rounds: int = 1,
    settings: Settings | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Replays a trace and returns its summary (see `summary`), with the fidelity gate's verdict.

    Args:
        trace: canonical trace.
        out: run folder to make.
        target: file, device or folder; not needed for the backends null, mem and sim.
        policy: storage policy, a file or a shipped name; None is the direct path.
        rounds: how often.
        settings: pacing, backend, data and window.
        force: replace an earlier run in `out`.
        progress: called with (what, done, of how many).

    Raises:
        InputError: something given is wrong; nothing was written.
        WorkError: the round failed; the run folder says why.
    """
    chosen = spec.direct() if policy is None else spec.load_policy(policy)
    settings = settings or Settings()
    path = execute(trace, [chosen], rounds, settings, target, out, force=force, progress=progress)
    run = open_run(path)
    lost = [f"round {each['round'] + 1}: {each['reason']}"
            for each in run.manifest.get("lost_rounds", [])]  # fmt: skip
    if lost and not run.rounds(chosen.name):
        raise WorkError(f"{path}: {lost[0]}")
    found = summary(run)
    found["lost_rounds"] = lost
    disks = run.manifest.get("lost_disks", [])
    found["lost_disks"] = [f"round {each['round'] + 1}: {each['reason']}" for each in disks]
    found["notes"] = servers.state_notes(run.manifest["policies"], found["rounds"])
    found["inspected"] = [each.to_dict() for each in inspected(run)]
    found["cache"] = [each.to_dict() for each in simulated(run)]
    found["replication"] = [each.to_dict() for each in planned(run)]
    late = [
        run.totals(chosen.name, number).get("lateness", {}).get("late_share", 0.0)
        for number in run.rounds(chosen.name)
    ]
    told = [
        line
        for number in run.rounds(chosen.name)
        for line in run.totals(chosen.name, number).get("told_errors", [])
    ]
    worst = max(late, default=0.0)
    kept = settings.pace != "recorded" or settings.clock == "virtual" or worst <= LATE_SHARE_MAX
    found["gate"] = None if kept else f"{worst:.1%} of the I/Os were more than 1 ms late"
    found["told_errors"] = told[:10]
    found["warning_texts"] = [line_of(each) for each in run.manifest.get("warnings", [])]
    write_result(path, "replay", found)
    return found
