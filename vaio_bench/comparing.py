"""`compare` as a function: policies against a baseline, round by round.

The baseline (by default the direct path) runs twice in every round, the second time as
`NAME-again`: what differs between the two is the noise of this machine at this hour, and no claim
is made below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vaio_bench import runner, spec, units
from vaio_bench.analyses.across import overhead_of_runs
from vaio_bench.analyses.failed import failures, losses, shortfall
from vaio_bench.analyses.inspected import inspected
from vaio_bench.analyses.layers import inside_ns, layer_sums, layers
from vaio_bench.analyses.overhead import (
    DEFAULT_MARGIN,
    Overhead,
    check_margin,
    overhead,
)
from vaio_bench.errors import InputError, WorkError
from vaio_bench.round_loop import Progress
from vaio_bench.run_writer import write_result
from vaio_bench.runner import ROUNDS_MAX, Plan, Settings, execute
from vaio_bench.spec import Policy
from vaio_bench.store import Run, again_of, open_run

DEFAULT_ROUNDS = 8


def compare(
    trace: str | Path,
    *,
    policies: Sequence[str | Path],
    out: str | Path,
    target: str | Path | None = None,
    baseline: str | Path = spec.DIRECT,
    rounds: int = DEFAULT_ROUNDS,
    warmup: str | int = 0,
    until: float | None = None,
    rounds_max: int = ROUNDS_MAX,
    settings: Settings | None = None,
    margin: float = DEFAULT_MARGIN,
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Replays a trace through the baseline, the baseline again, and each policy, interleaved.

    Args:
        trace: canonical trace.
        policies: storage policies, files or shipped names, of different names.
        out: run folder to make.
        target: file, device or folder.
        baseline: the policy that the others are compared with; by default the direct path.
        rounds: of each policy; the interval narrows with their square root.
        warmup: rounds before the first that counts, or a time at the start of each ("10s").
        until: add rounds until the interval of the median's ratio is as narrow (0.01: ±1 %).
        rounds_max: rounds at most with `until`.
        settings: pacing, backend, data and window.
        margin: relative difference that is called equivalent.
        force: replace an earlier run in `out`.
        progress: called with (what, done, of how many).

    Returns:
        The document of `compare --json`, which is also kept in the run folder. I/Os that failed
        are under `failed` (see `check_sound`), rounds that a filter or a server took with it under
        `lost_rounds`.

    Raises:
        InputError: something given is wrong; nothing was written.
        WorkError: a round failed; the run folder keeps those before it.
    """
    check_margin(margin)
    settings = settings or Settings()
    if settings.clock != "wall":
        raise InputError("--clock virtual charges no CPU: no overhead can be told from it")
    if settings.backend == "sim":
        raise InputError("--backend sim is a modelled device: no overhead can be told from it")
    if rounds < 2:
        raise InputError(f"--rounds: expected 2 or more, an interval needs them, got {rounds}")
    against = spec.load_policy(baseline)
    everything = arms(against, spec.load_policies(list(policies)))
    warmup_rounds, warmup_ns = parse_warmup(warmup)
    plan = Plan(rounds, warmup_rounds, warmup_ns, against.name, until, rounds_max)
    path = execute(trace, everything, plan, settings, target, out, force=force, progress=progress)
    return _concluded(path, margin)


def resume(
    run: str | Path,
    *,
    rounds: int | None = None,
    until: float | None = None,
    rounds_max: int | None = None,
    margin: float = DEFAULT_MARGIN,
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Goes on with a comparison that was interrupted, or adds rounds to one; see `runner.resume`.

    Returns:
        As `compare`.
    """
    check_margin(margin)
    if not open_run(run).manifest.get("comparison"):
        raise InputError(f"{run}: expected the run of a comparison, found one of a replay")
    path = runner.resume(
        run, rounds=rounds, until=until, rounds_max=rounds_max, force=force, progress=progress
    )
    return _concluded(path, margin)


def arms(against: Policy, chosen: Sequence[Policy]) -> list[Policy]:
    """What runs in each round: the baseline, the same again, and the policies.

    Raises:
        InputError: there is none to compare, or one has the name of the baseline.
    """
    again = again_of(against.name)
    for policy in chosen:
        if policy.name in (against.name, again):
            raise InputError(f"--policy {policy.name}: the baseline runs by itself")
    if not chosen:
        raise InputError(f"--policy: expected at least one to compare with {against.name}")
    return [against, replace(against, name=again), *chosen]


def parse_warmup(text: str | int) -> tuple[int, int]:
    """Rounds and nanoseconds of `--warmup`: "2" is two rounds, "10s" a time in each round.

    Raises:
        InputError: it is neither.
    """
    if isinstance(text, int) or text.strip().isdigit():
        return int(text), 0
    try:
        return 0, units.parse_time_ns(text, "--warmup")
    except InputError:
        raise InputError(
            f'--warmup: expected a number of rounds or a time such as "10s", got "{text}"'
        ) from None


def parse_until(text: str) -> float:
    """The share of `--until`: "1%", "±1%" and "0.01" are one.

    Raises:
        InputError: it is none.
    """
    return units.parse_reach(text, "--until")


def stored_comparison(run: Run, margin: float = DEFAULT_MARGIN) -> dict[str, Any]:
    """The document of `compare --json` for one run folder.

    Raises:
        InputError: it is no run of a comparison.
        WorkError: its baseline lost every round.
    """
    lost = losses(run).get(run.baseline)
    if lost is not None and lost.is_all and len(run.attempted) > 1:
        raise WorkError(f"{run.path}: {shortfall(run)}")
    found = overhead(run, margin=margin)
    return {
        "run": str(run.path),
        "answers": answers(found, inside_ns(run)),
        **found.to_dict(),
        "layers": [each.to_dict() for each in layers(run)],
        "layer_sums": [each.to_dict() for each in layer_sums(run)],
        "inspected": [each.to_dict() for each in inspected(run)],
        "harness": run.manifest.get("harness"),
        "warmup": run.manifest.get("warmup"),
        "round_state": run.manifest.get("round_state"),
        "until": _until(run, found),
        "failed": [each.to_dict() for each in failures(run)],
        # What is left of the rounds still compares.
        "lost_rounds": run.manifest.get("lost_rounds", []),
        "warnings": run.manifest.get("warnings") or [],
    }


def answers(found: Overhead, inside: dict[str, int] | None = None) -> list[str]:
    """What each policy costs, in a sentence or two."""
    from vaio_bench.reporting import words

    return [
        words.overhead_sentence(name, each, found, inside) for name, each in found.policies.items()
    ]


def _until(run: Run, found: Overhead) -> dict[str, Any] | None:
    asked = (run.manifest.get("comparison") or {}).get("until")
    if asked is None:
        return None
    widths = [of["latency_p50_ns"].interval.half_width for of in found.policies.values()
              if "latency_p50_ns" in of]  # fmt: skip
    widths.append(found.noise_floor.get("latency_p50_ns"))
    known = [width for width in widths if width is not None]
    reached = len(known) == len(widths) and max(known) <= asked
    return {"asked": asked, "half_width": max(known, default=None), "reached": reached}


def compare_stored(
    runs: Sequence[str | Path], *, baseline: str | None = None, margin: float = DEFAULT_MARGIN
) -> dict[str, Any]:
    """Compares stored runs; see `overhead_of_runs` for what that can and cannot tell."""
    if len(runs) == 1 and baseline is None:
        return stored_comparison(open_run(runs[0]), margin)
    found = overhead_of_runs(list(runs), baseline=baseline, margin=margin)
    names = [str(run) for run in runs]
    known = [each for run in runs for each in open_run(run).manifest.get("warnings") or []]
    return {
        "run": names if len(names) > 1 else names[0],
        "answers": answers(found),
        **found.to_dict(),
        "warnings": [each for at, each in enumerate(known) if each not in known[:at]],
    }


def _concluded(path: Path, margin: float) -> dict[str, Any]:
    """The document of a run that has ended, kept in its folder."""
    run = open_run(path)
    document = stored_comparison(run, margin)
    write_result(path, "compare", document)
    return document


def check_sound(found: dict[str, Any]) -> None:
    """Whether every round of the runs of a comparison, new or stored, and every I/O was done.

    Raises:
        WorkError: rounds were lost, or I/Os failed or gave back wrong data; names the first.
    """
    runs = found["run"] if isinstance(found["run"], list) else [found["run"]]
    for path in runs:
        why = shortfall(open_run(path), found["baseline"])
        if why is not None:
            raise WorkError(f"{path}: {why}")
