"""The sections on the run itself: timeline, fidelity, machine, warnings, and how to recompute."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import polars as pl

from vaio_bench.analyses.fidelity import LATE_AFTER_NS, Fidelity
from vaio_bench.analyses.inspected import inspected
from vaio_bench.analyses.intervals import rounds_for
from vaio_bench.analyses.overhead import Overhead
from vaio_bench.analyses.timeline import INTERVAL_NS, round_timeline
from vaio_bench.reporting import figures, words
from vaio_bench.reporting.figures import MAX_POINTS, Palette
from vaio_bench.reporting.model import Answer, Cell, Line, Section, Snippet, Table
from vaio_bench.store import Run

_COLUMNS = ["policy", "start_ns", "interval_ns", "ios", "read_bytes", "write_bytes"]
_COLUMNS += ["latency_p99_ns", "blocks", "hit_blocks"]


def over_time(run: Run) -> pl.DataFrame:
    """The first complete round of each policy over time, disks together, thinned for a chart.

    Columns `policy, time_s, iops, mib_per_s, latency_p99_ns, hit_percent`. Neighbouring intervals
    are put together where there are more than a chart can show: rates are then their means, and
    the 99th percentile is the worst of them.
    """
    stored = run.timeline()
    found = [_thinned(run, stored, policy) for policy in run.pooled_policies]
    tables = [table for table in found if table is not None]
    if tables:
        return pl.concat(tables)
    columns = ("time_s", "iops", "mib_per_s", "latency_p99_ns", "hit_percent")
    return pl.DataFrame(schema={"policy": pl.String} | dict.fromkeys(columns, pl.Float64))


def _thinned(run: Run, stored: pl.DataFrame, policy: str) -> pl.DataFrame | None:
    first = run.pooled_rounds(policy)[0]
    own = stored.filter((pl.col("policy") == policy) & (pl.col("round") == first)).select(_COLUMNS)
    if own.is_empty():  # the run died before it was written
        pieces = [pl.from_arrow(each) for each in round_timeline(run, policy, first)]
        frames = [each.select(_COLUMNS) for each in pieces if isinstance(each, pl.DataFrame)]
        if not frames:
            return None
        own = pl.concat(frames)
    interval = int(own["interval_ns"][0] or INTERVAL_NS)
    last = int(own["start_ns"].max())  # type: ignore[arg-type]
    step = interval * max(1, -(-(last // interval + 1) // MAX_POINTS))
    gathered = own.group_by((pl.col("start_ns") // step).alias("cell")).agg(
        pl.col("ios", "read_bytes", "write_bytes", "blocks", "hit_blocks").sum(),
        pl.col("latency_p99_ns").max(),
    )
    # An interval in which nothing completed has no row: its rate is zero.
    cells = pl.DataFrame({"cell": range(last // step + 1)}, schema={"cell": pl.Int64})
    return (
        cells.join(gathered, on="cell", how="left")
        .sort("cell")
        .select(
            pl.lit(policy).alias("policy"),
            (pl.col("cell") * (step / 1e9)).alias("time_s"),
            (pl.col("ios").fill_null(0) * (1e9 / step)).alias("iops"),
            ((pl.col("read_bytes") + pl.col("write_bytes")).fill_null(0) * (1e9 / step / 2**20))
            .alias("mib_per_s"),
            pl.col("latency_p99_ns").cast(pl.Float64),
            pl.when(pl.col("blocks") > 0)
            .then(pl.col("hit_blocks") / pl.col("blocks") * 100)
            .alias("hit_percent"),
        )
    )  # fmt: skip


def timeline_section(run: Run, table: pl.DataFrame, palette: Palette) -> Section:
    """Rate, throughput and tail latency over the first round of each policy."""
    made = Section("timeline", "Timeline")
    if table.is_empty():
        made.absent = "the run has no rows"
        return made
    made.lead = "The first round of each policy, all disks together."
    worst = "The worst 99th percentile among disks and intervals of 100 ms."
    largest = table["latency_p99_ns"].max()
    factor, unit = figures.time_unit(largest if isinstance(largest, float) else 0.0)
    scaled = table.with_columns(pl.col("latency_p99_ns") / factor)
    made.figures = [
        figures.series(table, "iops", "I/Os per second", "", palette),
        figures.series(scaled, "latency_p99_ns", "Latency, p99", unit, palette, worst),
        figures.series(table, "mib_per_s", "Throughput", "MiB/s", palette),
    ]
    if table.group_by("policy").len()["len"].max() == 1:
        made.lead = (
            f"No first round took longer than one interval ({words.duration(INTERVAL_NS)}): there "
            "is no course over time to draw."
        )
        made.figures = []
    events = run.events()
    if events.height:
        counted = events.group_by("policy", "kind").len().sort("policy", "kind")
        rows: list[list[Cell | str]] = [
            [str(policy), str(kind), words.count(number)] for policy, kind, number in counted.rows()
        ]
        made.tables.append(Table(["policy", "event", "count"], rows, caption="Events"))
    made.notes += [f"{each}." for each in inspected(run)]
    return made


def fidelity_section(run: Run, found: list[Fidelity]) -> Section:
    """Were the I/Os issued when, as fast and in the order that the trace says?"""
    made = Section("fidelity", "Replay fidelity")
    pacing = run.manifest.get("pacing", {})
    if pacing.get("mode") == "asap":
        made.absent = (
            f"the I/Os were issued as soon as possible at depth {pacing.get('depth')}, not at the "
            "trace's times: there is no time to be late for"
        )
        return made
    if not found:
        made.absent = "the run has no rows"
        return made
    made.lead = (
        "The issue error is submit less due. A replay that issues late measures its own lateness; "
        f"more than {words.duration(LATE_AFTER_NS)} counts as late."
    )
    columns = ["", "I/Os", "issue error, median", "p99", "largest", "late", "drift at the end"]
    columns += ["rate kept", "out of order"]
    worst = [
        _worst([each for each in found if each.policy == policy])
        for policy in dict.fromkeys(each.policy for each in found)
    ]
    caption = "The worst of the rounds, column by column"
    made.tables = [
        Table(columns, [_fidelity_row(each.policy, each) for each in worst], caption=caption),
        Table(
            columns,
            [_fidelity_row(f"{each.policy}, round {each.round + 1}", each) for each in found],
            collapsed="Every round",
        ),
    ]
    return made


def _worst(rounds: list[Fidelity]) -> Fidelity:
    rates = [each.rate_ratio for each in rounds if each.rate_ratio is not None]
    return Fidelity(
        policy=rounds[0].policy,
        round=rounds[0].round,
        ios=sum(each.ios for each in rounds),
        issue_error_p50_ns=max(each.issue_error_p50_ns for each in rounds),
        issue_error_p99_ns=max(each.issue_error_p99_ns for each in rounds),
        issue_error_max_ns=max(each.issue_error_max_ns for each in rounds),
        late_share=max(each.late_share for each in rounds),
        drift_ns=max((each.drift_ns for each in rounds), key=abs),
        rate_ratio=max(rates, key=lambda rate: abs(rate - 1)) if rates else None,
        out_of_order=max(each.out_of_order for each in rounds),
    )


def _fidelity_row(name: str, each: Fidelity) -> list[Cell | str]:
    return [
        name,
        words.count(each.ios),
        words.duration(each.issue_error_p50_ns),
        words.duration(each.issue_error_p99_ns),
        words.duration(each.issue_error_max_ns),
        words.share(each.late_share),
        words.duration(each.drift_ns),
        words.share(each.rate_ratio),
        words.count(each.out_of_order),
    ]


def trust_answer(run: Run, found: list[Fidelity], compared: Overhead | None = None) -> Answer:
    """Whether the figures stand on firm ground: ended, error-free, on time, verified, warned."""
    given = Answer("Can the figures be trusted?")
    manifest = run.manifest
    if run.exit != "ok":
        told = f"The run ended as: {run.exit}."
        if run.exit == "running":
            told = "The run did not end: it was killed, or is still going."
        given.lines.append(Line("not complete", "problem", told))
    errors = _sum(manifest, "errors")
    if errors:
        given.lines.append(Line("errors", "problem", f"{words.count(errors)} I/Os failed."))
    given.lines += _verified(manifest)
    given.lines += _noise(compared)
    if found and manifest.get("pacing", {}).get("mode") == "recorded":
        p99 = max(each.issue_error_p99_ns for each in found)
        late = max(each.late_share for each in found)
        good = late < 0.01
        text = (
            f"In the worst round 99 % of the I/Os were issued within {words.duration(p99)} of "
            f"their time; {words.share(late)} came later than {words.duration(LATE_AFTER_NS)}."
        )
        given.lines.append(Line("on time" if good else "late", "good" if good else "problem", text))
    warnings = manifest.get("warnings") or []
    if warnings:
        more = " The others are listed with the environment." if len(warnings) > 1 else ""
        number = f"{len(warnings)} warning{'s' if more else ''}"
        given.lines.append(Line(number, "neutral", warning_text(warnings[0]) + more))
    if not given.lines:
        given.lines.append(
            Line("ok", "good", "The run ended, no I/O failed, nothing was warned of.")
        )
    return given


def _noise(compared: Overhead | None) -> list[Line]:
    """What the rounds can show of the median at all, where that is not fine."""
    floor = compared and compared.noise_floor.get("latency_p50_ns")
    if compared is None or not floor or floor <= _FINE or compared.rounds < 2:
        return []
    needed = rounds_for(floor, compared.rounds, _FINE)
    more = (
        f"about {needed} rounds like these would show {words.share(_FINE)}"
        if needed
        else f"no number of rounds like these shows {words.share(_FINE)}: the machine is restless"
    )
    text = (
        f"{compared.rounds} rounds with a noise floor of {words.share(floor)}: no smaller "
        f"difference of the median can be seen; {more}."
    )
    return [Line("coarse", "problem" if floor > _COARSE else "neutral", text)]


# Noise floors of the median above these are told, and called a problem.
_FINE, _COARSE = 0.05, 0.25


def _verified(manifest: dict[str, Any]) -> list[Line]:
    mismatches = _sum(manifest, "mismatches")
    if mismatches:
        text = f"{words.count(mismatches)} reads gave back other data than was last written."
        return [Line("data wrong", "problem", text)]
    checked = _sum(manifest, "verified_bytes")
    if not manifest.get("verify") or not checked:
        return []
    return [Line("verified", "good", f"{words.size(checked)} read back as last written.")]


def _sum(manifest: dict[str, Any], key: str) -> int:
    rounds = [each for of in (manifest.get("totals") or {}).values() for each in of.values()]
    return sum(int(each.get(key) or 0) for each in rounds if isinstance(each, dict))


def warning_text(warning: Any) -> str:
    """A manifest's warning as a sentence or three."""
    if not isinstance(warning, dict):
        return str(warning)
    keys = ("text",) if warning.get("text") else ("seen", "why", "remedy")
    parts = [str(warning[key]) for key in keys if warning.get(key)]
    joined = ". ".join(part[:1].upper() + part[1:].rstrip(".") for part in parts)
    return f"{joined or warning.get('code', 'warning')}."


# Parts of the manifest that are shown as they are.
_MANIFEST = {
    "environment": "The machine",
    "target": "The target",
    "backend": "The backend",
    "pacing": "The pacing",
    "round_state": "What each round starts from",
    "trace": "The trace",
    "harness": "The harness's own cost",
    "fit_to": "How the trace was fitted to the target",
}


def environment_section(run: Run, warnings: list[dict[str, Any]] | None = None) -> Section:
    """The machine, the target, the policies as resolved, and every warning (by default its own)."""
    manifest = run.manifest
    warnings = (manifest.get("warnings") or []) if warnings is None else warnings
    made = Section("environment", "Environment")
    warned: list[list[Cell | str]] = [
        [str(each.get("code", "warning")) if isinstance(each, dict) else "warning",
         warning_text(each)]
        for each in warnings
    ]  # fmt: skip
    if warned:
        made.tables.append(Table(["warning", "what was seen"], warned))
    else:
        made.lead = "Nothing was warned of."
    policies: list[list[Cell | str]] = []
    for name, of in (manifest.get("policies") or {}).items():
        chain = " → ".join(["guest", *[str(layer) for layer in of.get("layers", [])]])
        settings = "; ".join(_settings(each) for each in of.get("filters", []))
        policies.append(
            [name, chain, settings or "the direct path", str(of.get("description", ""))]
        )
    made.tables.append(Table(["policy", "the way of an I/O", "filters", ""], policies))
    for key, title in _MANIFEST.items():
        values = manifest.get(key)
        if isinstance(values, dict) and values:
            rows: list[list[Cell | str]] = [
                [name, _plain(value)] for name, value in flat(values) if name not in _LONG
            ]
            made.tables.append(Table(["", ""], rows, collapsed=title))
    return made


# Of the manifest, too long to be read in a table.
_LONG = frozenset({"map"})


def flat(values: dict[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested objects, each under the names on the way to it."""
    for key, value in values.items():
        name = f"{within}{key}"
        if isinstance(value, dict):
            yield from flat(value, f"{name}: ")
        else:
            yield name, value


def _settings(filter_: Any) -> str:
    if not isinstance(filter_, dict):
        return str(filter_)
    params = filter_.get("params", {key: of for key, of in filter_.items() if key != "use"})
    rest = ", ".join(f"{key} = {_plain(value)}" for key, value in flat(params))
    return f"{filter_.get('use', '?')} ({rest})" if rest else str(filter_.get("use", "?"))


def _plain(value: Any) -> str:
    if value is None:
        return "not known"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:200] + "…"


def recompute_section(run: Run) -> Section:
    """How each figure follows from the stored files, as code that runs."""
    made = Section("recompute", "Recompute")
    made.lead = (
        "All of it follows from the Parquet files of the run folder. A quantile is the smallest "
        "value with at least that share of the I/Os at or below it (nearest rank)."
    )
    files = f"{run.path}/ios/*/*/part-*.parquet"
    made.snippets = [
        Snippet("Python, Polars", POLARS.replace("FILES", json.dumps(files))),
        Snippet("SQL, DuckDB", DUCKDB.replace("FILES", files.replace("'", "''"))),
    ]
    return made


POLARS = """\
import polars as pl

rows = pl.scan_parquet(FILES).filter(
    pl.col("status") == 0, pl.col("flags").cast(pl.Int64) & 128 == 0
)
latency = pl.col("complete_ns") - pl.col("submit_ns")      # response: less due_ns instead
wall_s = (pl.col("complete_ns").max() - pl.col("due_ns").min()) / 1e9
per_round = rows.group_by("policy", "round").agg(
    latency.quantile(0.50, "equiprobable").alias("latency_p50_ns"),
    latency.quantile(0.99, "equiprobable").alias("latency_p99_ns"),
    (pl.len() / wall_s).alias("iops"),
    (pl.col("hit_blocks").sum() / pl.col("blocks").sum()).alias("hit_ratio"),
    pl.col("self_ns").list.get(0).mean().alias("first_layer_self_ns"),
    (pl.col("submit_ns") - pl.col("due_ns")).quantile(0.99, "equiprobable").alias("late_p99_ns"),
).sort("policy", "round").collect()
# The ratio of a policy: exp of the mean over rounds of log(policy / direct); its interval:
# exp(mean -+ t * s / sqrt(n)) with s the standard deviation of those logs, t Student's at 97.5 %.
"""

DUCKDB = """\
SELECT policy, round,
       quantile_disc(complete_ns - submit_ns, 0.50) AS latency_p50_ns,
       quantile_disc(complete_ns - submit_ns, 0.99) AS latency_p99_ns,
       count(*) / ((max(complete_ns) - min(due_ns)) / 1e9) AS iops,
       sum(hit_blocks) / nullif(sum(blocks), 0) AS hit_ratio,
       avg(self_ns[1]) AS first_layer_self_ns,
       quantile_disc(submit_ns - due_ns, 0.99) AS late_p99_ns
FROM read_parquet('FILES')
WHERE status = 0 AND flags & 128 = 0
GROUP BY policy, round ORDER BY policy, round;
"""
