"""The sections on overhead: the table of verdicts, distributions, and where the time goes."""

from __future__ import annotations

from typing import Any

import polars as pl

from vaio_bench.analyses import quantiles
from vaio_bench.analyses.failed import Losses
from vaio_bench.analyses.layers import layer_sums, layers
from vaio_bench.analyses.overhead import Comparison, Overhead, alone, overhead
from vaio_bench.analyses.summary import summary
from vaio_bench.errors import InputError
from vaio_bench.reporting import figures, words
from vaio_bench.reporting.figures import Palette
from vaio_bench.reporting.model import Answer, Cell, Line, Section, Table, Tone
from vaio_bench.store import Run

_TONES: dict[str, Tone] = {"slower": "bad", "faster": "good", "equivalent": "good"}


def tone_of(verdict: str) -> Tone:
    """The colour of a verdict's badge."""
    return _TONES.get(verdict, "neutral")


def found_overhead(run: Run) -> tuple[Overhead | None, str]:
    """The comparison of a run, or None and the reason why there is none."""
    try:
        return overhead(run), ""
    except InputError as error:
        return None, str(error).removeprefix(f"{run.path}: ")


def answer(found: Overhead | None, why: str, inside: dict[str, int]) -> Answer:
    """What the filters cost, a sentence a policy; `inside` is that of `layers.inside_ns`."""
    given = Answer("What does it cost?", absent=why)
    for name, metrics in (found.policies if found else {}).items():
        median = metrics.get("latency_p50_ns")
        word = median.verdict if median else "no difference shown"
        text = words.overhead_sentence(name, metrics, found, inside) if found else ""
        if found is not None and name in found.lost and not metrics:
            given.lines.append(Line("lost", "problem", text))
        else:
            given.lines.append(Line(word, tone_of(word), text))
    return given


def replay_answer(run: Run) -> Answer:
    """What the one policy of a run did, where there is nothing to compare it with."""
    found = summary(run)
    latency = found["latency_ns"]
    rounds = "1 round" if found["rounds"] == 1 else f"{found['rounds']} rounds"
    failed = f", {words.count(found['errors'])} of which failed" if found["errors"] else ""
    text = (
        f"{found['policy']}: {words.count(found['ios'])} I/Os in {rounds}{failed}, "
        f"{words.count(found['iops'])} a second and {words.size(found['bytes_per_s'])}/s; latency "
        f"{words.duration(latency['p50'])} in the median, {words.duration(latency['p99'])} at the "
        f"99th percentile. The run {alone(found['policy'])}."
    )
    return Answer("What does it cost?", [Line("replay", "neutral", text)])


def replay_section(run: Run) -> Section:
    """The figures of the one policy of a run."""
    found = summary(run)
    made = Section("overhead", "The replay", lead=f"The run {alone(found['policy'])}.")
    levels = {"p50": "median", "p99": "p99", "p999": "p99.9", "max": "longest"}
    names = {
        "latency_ns": "latency, from submit to completion",
        "response_ns": "response, from due to completion",
        "issue_error_ns": "issue error, from due to submit",
    }
    rows: list[list[Cell | str]] = [
        [title, *(words.duration(found[key].get(level)) for level in levels)]
        for key, title in names.items()
    ]
    made.tables.append(Table([found["policy"], *levels.values()], rows))
    return made


def section(found: Overhead | None, why: str, palette: Palette, pacing: dict[str, Any]) -> Section:
    """The verdict table: a row a metric, a column a policy; every figure behind it below."""
    made = Section("overhead", "Overhead", absent=why)
    if found is None:
        return made
    paired = "paired by round" if found.paired else "not paired"
    made.lead = (
        f"Against {found.baseline}, over {found.rounds} rounds, {paired}. Each cell: the change, "
        "its 95 % interval, and what may be said of it: slower is worse and faster better, "
        f"whatever the metric. Nothing is claimed below the noise "
        f"floor ({found.floor_from}); within ±{words.share(found.margin)} is called equivalent."
    )
    made.tables.append(
        _matrix(found, [m for m in words.METRICS if not m.startswith("response")], with_lost=True)
    )
    response = [m for m in words.METRICS if m.startswith("response")]
    response_table = _matrix(
        found, response, "Response time: from due, so waiting for a turn counts"
    )
    made.tables += [response_table, _details(found)]
    if any(found.policies.values()):
        made.figures.append(figures.forest(found, palette))
    made.notes = [*found.notes, _several_tests(found)]
    outlying = sum(each.outliers for of in found.policies.values() for each in of.values())
    if outlying:
        made.notes.append(
            f"{outlying} figures of rounds stand apart from the others; all are kept."
        )
    if pacing.get("mode") == "recorded":
        made.notes.append(
            "Paced as recorded, I/Os per second and throughput are the trace's own: they show "
            "whether a policy kept up, not what it could do (--pace asap shows that)."
        )
    return made


def _several_tests(found: Overhead) -> str:
    return (
        f"Slower and faster are said at 95 % for all {len(found.policies)} policies of a metric "
        "together (Holm); the metrics are not adjusted for one another."
        if len(found.policies) > 1
        else "Each metric is judged by itself, at 95 %."
    )


def _matrix(
    found: Overhead, metrics: list[str], collapsed: str = "", *, with_lost: bool = False
) -> Table:
    rows: list[list[Cell | str]] = []
    if with_lost and found.lost:
        lost = [_lost_cell(found.lost.get(name)) for name in found.policies]
        rows.append(["rounds lost", _lost_cell(found.lost.get(found.baseline)), *lost])
    for metric in metrics:
        known = {name: of[metric] for name, of in found.policies.items() if metric in of}
        if not known:
            continue
        baseline = next(iter(known.values())).baseline
        cells: list[Cell | str] = [words.METRICS[metric], words.metric_value(metric, baseline)]
        cells += [_verdict_cell(metric, known.get(name)) for name in found.policies]
        rows.append(cells)
    return Table(["", found.baseline, *found.policies], rows, collapsed=collapsed)


def _lost_cell(lost: Losses | None) -> Cell | str:
    if lost is None:
        return "0"
    many = "all" if lost.is_all else str(len(lost.rounds))
    return Cell(f"{many} of {lost.of}", "", "problem", "lost")


def _verdict_cell(metric: str, of: Comparison | None) -> Cell | str:
    if of is None:
        return "–"  # noqa: RUF001
    return Cell(
        words.metric_value(metric, of.value),
        f"{words.change(of.interval.ratio)} ({words.span(of.interval.low, of.interval.high)})",
        tone_of(of.verdict),
        of.verdict,
    )


def _details(found: Overhead) -> Table:
    rows: list[list[Cell | str]] = []
    for name, metrics in found.policies.items():
        for metric, of in metrics.items():
            p = "–" if of.interval.p is None else f"{of.interval.p:.2g}"  # noqa: RUF001
            adjusted = "–" if of.p_adjusted is None else f"{of.p_adjusted:.2g}"  # noqa: RUF001
            floor = "none" if of.floor is None else words.share(of.floor)
            ends = (of.interval.low, of.interval.high, *(of.bootstrap or (None, None)))
            rows.append(
                [
                    f"{name}: {words.METRICS[metric]}",
                    words.metric_value(metric, of.baseline),
                    words.metric_value(metric, of.value),
                    f"{of.interval.ratio:.4f}",
                    *("–" if end is None else f"{end:.4f}" for end in ends),  # noqa: RUF001
                    floor,
                    p,
                    adjusted,
                    of.verdict,
                ]
            )
    of_ratio = ["ratio", "low", "high", "bootstrap low", "bootstrap high"]
    columns = ["", "baseline", "value", *of_ratio, "noise floor", "p", "p (Holm)", "verdict"]
    return Table(columns, rows, collapsed="Every ratio, interval and p value")


def spreads(run: Run, value: pl.Expr) -> dict[str, quantiles.Distribution]:
    """The distribution of `value` over the complete rounds of each policy that has rows."""
    found = {
        policy: quantiles.distributions(quantiles.completed(run.pooled_ios(policy)), value)
        for policy in run.pooled_policies
    }
    return {policy: of[()] for policy, of in found.items() if of}


def latencies(run: Run) -> dict[str, quantiles.Distribution]:
    """The latencies of each policy, of rows or of another tool's histograms."""
    found = spreads(run, quantiles.LATENCY_NS)
    for policy in (name for name in run.policies if name not in run.policies_with_rows):
        rounds = [run.histogram(policy, number) for number in run.pooled_rounds(policy)]
        if not rounds:
            continue
        spread = quantiles.counted(pl.concat(rounds))
        if spread.n:
            found[policy] = spread
    return {policy: found[policy] for policy in run.policies if policy in found}


def distribution_section(run: Run, palette: Palette) -> Section:
    """The distributions of latency and, where it can differ, of response time."""
    made = Section("latency", "Latency distributions")
    spread = latencies(run)
    if not spread:
        made.absent = "the run has no I/O that succeeded"
        return made
    made.lead = (
        "Latency is the service time, from submit to completion. Response is counted from the "
        "moment the I/O was due, so it holds what it waited for its turn as well."
    )
    made.figures = [
        figures.ecdf(spread, palette, "latency"),
        figures.ladder(spread, palette, "latency"),
    ]
    if run.manifest.get("pacing", {}).get("mode") == "asap":
        made.notes.append("Issued as soon as possible: due is submit, so response is latency.")
        return made
    response = spreads(run, quantiles.RESPONSE_NS)
    if not response:
        made.notes.append("fio keeps no due times: there is no response time beside the latency.")
        return made
    made.figures += [
        figures.ecdf(response, palette, "response"),
        figures.ladder(response, palette, "response"),
    ]
    return made


def _adds_up(run: Run) -> str:
    sums = layer_sums(run)
    wrong = [each for each in sums if each.beyond]
    if wrong:
        told = ", ".join(f"{each.policy} ({words.count(each.beyond)} I/Os)" for each in wrong)
        return f"The self times do not add up to the latency within the clock's error: {told}."
    ios = words.count(sum(each.ios for each in sums))
    return f"Checked in all {ios} I/Os: the layers' self times add up to the latency."


def layers_section(run: Run, palette: Palette) -> Section:
    """Self time and CPU of each layer."""
    made = Section("layers", "Where the time goes")
    found = layers(run)
    if not found:
        made.absent = "the rows hold no times of layers"
        return made
    made.figures = [
        figures.stacked(found, palette, "self"),
        figures.stacked(found, palette, "cpu"),
    ]
    rows: list[list[Cell | str]] = [
        [
            f"{each.policy}: {each.layer}",
            words.duration(each.self_mean_ns),
            words.duration(each.self_p50_ns),
            words.duration(each.self_p99_ns),
            words.duration(each.cpu_mean_ns),
        ]
        for each in found
    ]
    columns = ["layer", "self time, mean", "median", "p99", "CPU, mean"]
    made.tables.append(Table(columns, rows))
    made.notes += [_adds_up(run)]
    floor = run.manifest.get("harness") or {}
    if floor.get("null_ns_per_io") is not None:
        made.notes.append(
            f"The harness itself costs {words.duration(floor['null_ns_per_io'])} per I/O on this "
            f"machine (null backend), a pass filter {words.more(floor.get('pass_ns_per_io'))}, "
            f"reading the clock {words.duration(floor.get('clock_ns'))}."
        )
    return made
