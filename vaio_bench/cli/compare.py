"""`vaio-bench compare`: what policies cost against the direct path.

## What is measured
A round runs the baseline, the baseline once more (`NAME-again`, the A/A pair) and each policy: each
in a process of its own, from the same state of the target, in an order drawn anew from the seed.
The rounds are the samples, never the I/Os: those of one round queue behind one another.

## The figures
- change: the geometric mean over the rounds of policy / baseline, both of the same round.
- 95 % interval: Student's t over the paired log ratios of the rounds, and as much further as the
  clock's resolution can have moved them. With `--until` the standard error counts 1.1 times, as
  rounds that happen to lie close together end a run early. Of several run folders, whose rounds
  were not interleaved, it is Welch's.
- noise floor: how far the baseline differs from itself. It is the half-width of the A/A pair's
  interval, or the far end of that where it leaves out 1; of several run folders, how far their
  baselines lie apart; without either, the scatter of the baseline's rounds.
- `p`, `p_holm` (JSON, report): the t test's p value of "no difference", and the same adjusted for
  several policies (Holm).
- `bootstrap_low`, `bootstrap_high` (JSON, report): the studentised bootstrap (bootstrap-t) over
  4,000 resamples of the rounds, from 5 rounds on. It supposes no shape and decides no verdict:
  where it differs from the interval, a few rounds decide. Percentile and BCa intervals are not
  used: over a dozen rounds they are too narrow.
- outliers: rounds with a modified z-score above 3.5. They are counted, and kept.

## The verdict
The first of these that holds, for each metric and policy by itself:
1. `no difference shown`: there is no interval, or the change is within the noise floor.
2. `equivalent`: the whole interval lies within 1/(1 + margin) to 1 + margin (`--margin`, 2 %), even
   if it leaves out 1. These are two one-sided tests (TOST) at 2.5 % each, as the interval is one of
   95 %; customary is 5 %, so that this claims less.
3. `slower` or `faster`, which are worse or better whatever the metric: the interval leaves out 1,
   and `p_holm` is below 5 %. Holm's adjustment is over the policies of a metric, in a `sweep` over
   its cells as well; metrics are not adjusted for one another.
4. `no difference shown`, which is not a proof that there is none: more rounds may show one.

Rounds that a filter or a server took with it, or that were cut short, are in no figure, and I/Os
that failed are in no latency and no rate. Both are told beside the figures; a lost round or a
failed I/O makes the exit status 1, of a stored run as well (`compare RUN`); `report RUN` warns of
it. A policy whose server let two rounds in a row run into their timeout is given up: its other
rounds count as lost. Text counts rounds from 1, JSON, rows and folders from 0.

## Source
D. J. Schuirmann, A comparison of the two one-sided tests procedure and the power approach, 1987.
S. Holm, A simple sequentially rejective multiple test procedure, 1979.
B. L. Welch, The generalization of "Student's" problem, 1947.
B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap, 1993, 12.5.
B. Iglewicz, D. C. Hoaglin, How to Detect and Handle Outliers, 1993.
Y. S. Chow, H. Robbins, On the asymptotic theory of fixed-width sequential confidence intervals,
1965.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from vaio_bench.cli import options as o
from vaio_bench.errors import InputError

# The lines of the table; the document and the report have every metric.
_SHOWN = (
    "latency_p50_ns",
    "latency_p99_ns",
    "response_p50_ns",
    "iops",
    "cpu_ns_per_io",
    "context_switches_per_io",
)

_SHOWING = frozenset({"margin", "as_json", "quiet"})
_BESIDE_RESUME = _SHOWING | {"resume", "rounds", "until", "max_rounds", "force"}
_BESIDE_RUNS = _SHOWING | {"source", "baseline"}


def register(app: typer.Typer) -> None:
    """Adds the verb."""

    @app.command()
    def compare(
        context: typer.Context,
        source: Annotated[
            list[Path] | None, typer.Argument(help="A trace (Parquet), or run folders to compare.")
        ] = None,
        out: Annotated[Path | None, typer.Option("-o", "--out", help="Run folder to make.")] = None,
        target: o.Target = None,
        policy: o.Policies = None,
        baseline: o.Baseline = "direct",
        rounds: o.Rounds = None,
        warmup: o.Warmup = "0",
        until: o.Until = None,
        max_rounds: o.MaxRounds = None,
        resume: o.Resume = None,
        margin: o.Margin = 0.02,
        pace: o.Pace = "recorded",
        speed: o.Speed = 1.0,
        depth: o.Depth = 32,
        inflight: o.Inflight = 1024,
        spin: o.Spin = "75us",
        backend: o.Backend = "uring",
        direct: o.Direct = None,
        conflicts: o.Conflicts = "order",
        verify: o.Verify = False,
        compressible: o.Compressible = 0.0,
        dedupe: o.Dedupe = 0.0,
        payload: o.Payload = "made",
        content: o.Content = True,
        fit_to: o.FitTo = None,
        disk: o.Disk = None,
        skip: o.Skip = 0,
        limit: o.Limit = None,
        seed: o.Seed = 0,
        destroy_data: o.DestroyData = False,
        precondition: o.Precondition = None,
        force: o.ForceResume = False,
        as_json: o.AsJson = False,
        quiet: o.Quiet = False,
    ) -> None:
        """Paired rounds of policies and the direct path; ratios with intervals and a verdict."""
        given = dict(locals())
        from vaio_bench.comparing import check_sound

        found = _found(given)
        if as_json:
            print(json.dumps(found))
        else:
            show(found)
        check_sound(found)


def _found(given: dict[str, Any]) -> dict[str, Any]:
    """The comparison that the options ask for: of stored runs, of a run gone on with, or new."""
    from vaio_bench import comparing

    source, run = given["source"] or [], given["resume"]
    if run is not None:
        if source or given["out"] or given["policy"]:
            raise InputError("--resume: expected no trace, policy or -o beside it")
        o.refuse_others(given["context"], _BESIDE_RESUME, f"--resume {run}, which has its own")
        return _measured(
            given, run, comparing.resume, run=run, rounds=given["rounds"], force=given["force"]
        )
    if source and source[0].is_dir():
        o.refuse_others(given["context"], _BESIDE_RUNS, "runs, which are stored")
        named = None if given["baseline"] == "direct" else given["baseline"]
        return comparing.compare_stored(source, baseline=named, margin=given["margin"])
    if given["out"] is None or len(source) != 1:
        raise InputError("compare: expected one trace and -o RUN, run folders, or --resume RUN")
    if given["max_rounds"] is not None and given["until"] is None:
        raise InputError("--max-rounds: expected --until beside it")
    return _measured(
        given, given["out"], comparing.compare, trace=source[0], policies=given["policy"] or [],
        rounds=comparing.DEFAULT_ROUNDS if given["rounds"] is None else given["rounds"],
        settings=o.settings_of(given),
        **{name: given[name] for name in ("out", "target", "baseline", "warmup", "force")},
    )  # fmt: skip


def _measured(
    given: dict[str, Any], folder: Path, verb: Callable[..., dict[str, Any]], **arguments: Any
) -> dict[str, Any]:
    from vaio_bench.cli.run_progress import run_progress
    from vaio_bench.comparing import parse_until

    if given["until"] is not None:
        arguments["until"] = parse_until(given["until"])
    if given["max_rounds"] is not None:
        arguments["rounds_max"] = given["max_rounds"]
    with run_progress(quiet=given["quiet"]) as progress, _told_how_to_go_on(folder):
        return verb(**arguments, margin=given["margin"], progress=progress)


@contextmanager
def _told_how_to_go_on(run: Path) -> Iterator[None]:
    """After Ctrl-C, the command that goes on where it stopped."""
    try:
        yield
    except KeyboardInterrupt:
        if (run / "manifest.json").is_file():
            print(f"vaio-bench: go on with: vaio-bench compare --resume {run}", file=sys.stderr)
        raise


def show(found: dict[str, Any]) -> None:
    """Prints what each policy costs, the table behind it, and what it stands on."""
    from vaio_bench.reporting import words

    for line in found["answers"]:
        print(line)
    print()
    rows = [("", "", found["baseline"], "with it", "change (95 % interval)", "verdict")]
    for policy in found["policies"]:
        lost = policy["lost"]
        if lost and not policy["metrics"]:
            rows.append((policy["name"], f"lost all {lost['of']} rounds", "", "", "", ""))
        for metric in _SHOWN:
            line = policy["metrics"].get(metric)
            if line is None:
                continue
            interval = words.span(line["ci_low"], line["ci_high"])
            rows.append(
                (
                    policy["name"],
                    words.METRICS[metric],
                    words.metric_value(metric, line["baseline"]),
                    words.metric_value(metric, line["value"]),
                    f"{words.change(line['ratio'])} ({interval})",
                    line["verdict"],
                )
            )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    _show_hops(found)
    _show_ground(found)


def _show_hops(found: dict[str, Any]) -> None:
    """Of policies with a placed filter, what the way there costs beside the filters."""
    from vaio_bench.placement import LAYER
    from vaio_bench.reporting import words

    by_policy: dict[str, list[dict[str, Any]]] = {}
    for layer in found.get("layers", ()):
        by_policy.setdefault(layer["policy"], []).append(layer)
    lines = [
        f"{name}, self time of each layer (mean): "
        + ", ".join(f"{each['layer']} {words.duration(each['self_mean_ns'])}" for each in layers)
        for name, layers in by_policy.items()
        if any(each["layer"] == LAYER for each in layers)
    ]
    if lines:
        print("\n" + "\n".join(lines))


def _show_ground(found: dict[str, Any]) -> None:
    """What the figures stand on: rounds, noise, the harness, and everything to be wary of."""
    from vaio_bench.analyses.inspected import Inspected
    from vaio_bench.reporting import words
    from vaio_bench.warnings import line_of

    floors = found["noise_floor"]
    told = ", ".join(f"{words.METRICS[m]} {words.share(floors[m])}" for m in _SHOWN if m in floors)
    print(
        f"\n{found['rounds']} rounds; noise floor ({found['noise_floor_from']}): {told or 'none'}"
    )
    harness = found.get("harness") or {}
    if harness.get("null_ns_per_io") is not None:
        print(
            f"harness: {words.duration(harness['null_ns_per_io'])} per I/O, a pass filter "
            f"{words.more(harness['pass_ns_per_io'])}, a clock reading "
            f"{words.duration(harness['clock_ns'])}"
        )
    for each in found.get("inspected", ()):
        print(Inspected(**each))
    outlying = sorted(
        (
            (of["outlier_rounds"], f"{words.METRICS[metric]} of {policy['name']}")
            for policy in found["policies"]
            for metric, of in policy["metrics"].items()
            if of["outlier_rounds"]
        ),
        key=lambda each: -each[0],
    )
    if outlying:
        told = ", ".join(f"{what} in {rounds}" for rounds, what in outlying[:3])
        more = f" and {len(outlying) - 3} other figures" if len(outlying) > 3 else ""
        print(f"outliers: rounds stand apart in {told}{more}; all are kept")
    for each in found.get("layer_sums", ()):
        if not each["adds_up"]:
            print(f"note: {each['policy']}: self times do not add up in {each['beyond']} I/Os")
    until = found.get("until")
    if until and not until["reached"]:
        width = "no interval" if until["half_width"] is None else words.share(until["half_width"])
        print(f"note: --until {words.share(until['asked'])} was not reached: ±{width}")
    for note in found["notes"]:
        print(f"note: {note}")
    for warning in found["warnings"]:
        print(f"warning: {line_of(warning)}")
