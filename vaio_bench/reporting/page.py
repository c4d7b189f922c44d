"""Puts a report together: chapters from run folders, one self-contained HTML page out of them.

The page asks nothing of the network: styles, script and plotly are in it, and its own content
security policy forbids the rest. plotly.js is embedded once, compressed, and inflated by the
browser (`DecompressionStream`), which takes the page from 5 MB to 2.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from vaio_bench.analyses.across import overhead_of_runs
from vaio_bench.analyses.failed import shortfall
from vaio_bench.analyses.fidelity import fidelity
from vaio_bench.analyses.hits import hits
from vaio_bench.analyses.layers import inside_ns
from vaio_bench.analyses.overhead import Overhead
from vaio_bench.analyses.run_rpo import run_rpo
from vaio_bench.analyses.sweep import is_sweep, sweep_shortfall
from vaio_bench.errors import InputError, WorkError
from vaio_bench.reporting import (
    grid_part,
    overhead_part,
    rpo_part,
    run_part,
    sweep_part,
    words,
)
from vaio_bench.reporting.figures import Palette
from vaio_bench.reporting.model import Chapter, Section
from vaio_bench.store import Run, open_run


@dataclass(frozen=True)
class Report:
    """A report that was written; `answers` maps run to question to its sentences.

    `failed` maps the runs whose work was not all done to why.
    """

    path: Path
    size_bytes: int
    figures: int
    answers: dict[str, dict[str, list[str]]]
    overhead: dict[str, dict[str, Any]]
    failed: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The document of `report --json`."""
        return {
            "report": str(self.path),
            "size_bytes": self.size_bytes,
            "figures": self.figures,
            "runs": [
                {
                    "run": run,
                    "answers": answers,
                    "overhead": self.overhead.get(run),
                    "failed": self.failed.get(run),
                }
                for run, answers in self.answers.items()
            ],
        }


def report(
    runs: Sequence[str | Path] | str | Path, out: str | Path, *, force: bool = False
) -> Report:
    """Write one HTML page about run and sweep folders; reads nothing but the folders.

    Args:
        runs: one or more folders; of several, each is a chapter.
        out: the page to write, aside first and then renamed.
        force: write over a file that is there.

    Raises:
        InputError: a folder is no run, or `out` is there or cannot be written.
    """
    paths = [runs] if isinstance(runs, str | Path) else list(runs)
    if not paths:
        raise InputError("expected at least one run folder")
    out = Path(out)
    check_writable(out, force)
    opened = {str(path): open_run(path) for path in paths if not is_sweep(path)}
    runs_read = list(opened.values())
    palette = Palette(baseline=runs_read[0].baseline) if runs_read else Palette()
    chapters, compared = {}, {}
    for path in map(str, paths):
        if path not in opened:
            chapters[path] = sweep_part.chapter(Path(path), palette)
            continue
        chapters[path], found = chapter_of(opened[path], palette)
        if found:
            compared[path] = found.to_dict()
    across = [_across(runs_read, palette)] if len(runs_read) > 1 else []
    html, figures = render([*across, *chapters.values()])
    write_aside(out, html)
    answers = {
        path: {
            given.question: [line.text for line in given.lines] or [given.absent]
            for given in chapter.answers
        }
        for path, chapter in chapters.items()
    }
    why = {path: sweep_shortfall(path) if is_sweep(path) else shortfall(opened[path])
           for path in chapters}  # fmt: skip
    failed = {path: each for path, each in why.items() if each is not None}
    return Report(out, out.stat().st_size, figures, answers, compared, failed)


def check_writable(out: Path, force: bool) -> None:
    """Raise InputError where `out` is there (without `force`) or its folder is not."""
    if out.is_dir():
        raise InputError(f"{out}: expected a file to write, found a folder")
    if out.exists() and not force:
        raise InputError(f"{out}: is there already (--force writes over it)")
    if not out.parent.is_dir():
        raise InputError(f"{out}: its folder {out.parent} does not exist")


def write_aside(out: Path, text: str) -> None:
    """Write a file under another name, then give it its own: a reader never sees half of it."""
    aside = out.with_name(f"{out.name}.writing")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, out)
    except PermissionError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}") from error
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise WorkError(f"{out}: writing failed: {error.strerror}") from error


def chapter_of(run: Run, palette: Palette) -> tuple[Chapter, Overhead | None]:
    """Everything about one run, and its overhead where it can be told."""
    for policy in (name for name in run.policies if name != run.baseline):
        palette.colour(policy)
    found, why = overhead_part.found_overhead(run)
    results = run.results()
    plan = results.get("rpo")
    hit = hits(run)
    replicated = run_rpo(run)
    timed = fidelity(run)
    table = run_part.over_time(run)
    # One policy is a replay: there is nothing that it could cost more than.
    alone = len(run.attempted) == 1 and run.pooled_policies == run.attempted
    answers = [
        overhead_part.replay_answer(run)
        if alone
        else overhead_part.answer(found, why, inside_ns(run) if found else {}),
        rpo_part.rpo_answer(plan, replicated),
        rpo_part.hits_answer(run, hit, results.get("cache")),
        run_part.trust_answer(run, timed, found),
    ]
    sections = [
        overhead_part.replay_section(run)
        if alone
        else overhead_part.section(found, why, palette, run.manifest.get("pacing") or {}),
        *_some(grid_part.section(run)),
        overhead_part.distribution_section(run, palette),
        overhead_part.layers_section(run, palette),
        run_part.timeline_section(run, table, palette),
        rpo_part.rpo_section(run, plan, palette, replicated, found),
        rpo_part.hits_section(run, hit, results.get("cache"), palette, table),
        run_part.fidelity_section(run, timed),
        run_part.environment_section(run),
        run_part.recompute_section(run),
    ]
    return Chapter(run.path.resolve().name, _facts(run), _problems(run), answers, sections), found


def _some(section: Section | None) -> list[Section]:
    return [] if section is None else [section]


def _across(runs: Sequence[Run], palette: Palette) -> Chapter:
    """The chapter that compares the policies of several runs with the first one's baseline."""
    found, why = None, ""
    try:
        found = overhead_of_runs(runs)
    except InputError as error:
        why = str(error)
    for name in found.policies if found else ():
        palette.colour(name)
    given = overhead_part.answer(found, why, {})
    section = overhead_part.section(found, why, palette, runs[0].manifest.get("pacing") or {})
    facts = [("Runs", ", ".join(run.path.resolve().name for run in runs))]
    return Chapter("Across the runs", facts, [], [given], [section])


def _facts(run: Run) -> list[tuple[str, str]]:
    manifest = run.manifest
    trace, pacing = manifest.get("trace") or {}, manifest.get("pacing") or {}
    machine, target = manifest.get("environment") or {}, manifest.get("target") or {}
    backend = manifest.get("backend") or {}
    mode = pacing.get("mode", "not known")
    pace = {"recorded": "as recorded", "asap": "as soon as possible"}.get(mode, mode)
    if pacing.get("speed") not in (None, 1, 1.0):
        pace += f" at {pacing['speed']} times the speed"
    if mode == "asap" and pacing.get("depth"):
        pace += f", depth {pacing['depth']}"
    used = backend.get("used", "not known")
    if target.get("direct") is not None:
        used += ", O_DIRECT" if target["direct"] else ", through the page cache"
    number = max((len(run.rounds(name)) for name in run.policies), default=0)
    facts = [
        ("Trace", Path(str(trace.get("path", "not known"))).name),
        ("I/Os", words.count(trace.get("ios"))),
        ("Recorded over", words.seconds(trace.get("duration_s"))),
        ("Rounds", _rounds(number, run.attempted)),
        ("Paced", pace),
        ("Backend", used),
        ("Clock", str(manifest.get("clock", "not known"))),
        ("Processor", _processor(machine)),
        ("Taken", _date(str(manifest.get("created", "")))),
        ("Tool", f"vaio-bench {manifest.get('tool_version', '?')}"),
    ]
    return [(name, value) for name, value in facts if value]


def _rounds(number: int, policies: Sequence[str]) -> str:
    """How many rounds a run has, of what."""
    if len(policies) == 1:
        return f"{number} of {policies[0]}"
    return f"{number} of each of {len(policies)} policies"


def _processor(machine: dict[str, Any]) -> str:
    cpu = machine.get("cpu", "not known")
    if not isinstance(cpu, dict):
        return f"{cpu}, {machine.get('cores', '?')} cores"
    return f"{cpu.get('model') or 'not known'}, {cpu.get('allowed') or cpu.get('online')} cores"


def _date(created: str) -> str:
    try:
        return datetime.fromisoformat(created).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return created


def _problems(run: Run) -> list[str]:
    problems = []
    if run.exit == "running":
        problems.append(
            "This run did not end: it was killed, or is still going. What it stored is shown."
        )
    elif run.exit != "ok":
        problems.append(f"This run ended as: {run.exit}. What it stored until then is shown.")
    if run.unreadable:
        names = ", ".join(str(part.relative_to(run.path)) for part in run.unreadable[:3])
        more = f" and {len(run.unreadable) - 3} more" if len(run.unreadable) > 3 else ""
        problems.append(f"Left out, as they were never finished: {names}{more}.")
    if run.virtual_clock:
        problems.append("Times in this run are simulated (virtual clock), not measured.")
    return problems


def render(chapters: Sequence[Chapter]) -> tuple[str, int]:
    """The page of some chapters, and how many charts it has."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("vaio_bench.reporting", "assets"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["script_json"] = _script_json
    environment.filters["bound"] = _bound
    charts = sum(len(section.figures) for chapter in chapters for section in chapter.sections)
    single = chapters[0] if len(chapters) == 1 else None
    html = environment.get_template("report.html.j2").render(
        chapters=chapters,
        title=f"I/O filters: {single.title if single else 'several runs'}",
        style=_asset("report.css"),
        script=_asset("report.js"),
        plotly=_plotly_base64() if charts else "",
    )
    return html, charts


def _script_json(value: Any) -> str:
    """JSON that may stand in a script element: nothing in it can end the element."""
    from markupsafe import Markup

    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


# A number and its unit stay on one line.
_UNIT = re.compile(
    r"(?<=[0-9]) (?=(?:%|ns|µs|ms|s|min|h|days|B|[KMGTP]iB|[kMG]?bit/s)(?![A-Za-z]))"
)


def _bound(text: str) -> str:
    return _UNIT.sub("\N{NO-BREAK SPACE}", text)


def _asset(name: str) -> str:
    return files("vaio_bench.reporting").joinpath("assets", name).read_text(encoding="utf-8")


@cache
def _plotly_base64() -> str:
    from plotly.offline import get_plotlyjs

    # mtime=0: the same report has the same bytes.
    packed = gzip.compress(get_plotlyjs().encode("utf-8"), compresslevel=9, mtime=0)
    return base64.b64encode(packed).decode("ascii")
