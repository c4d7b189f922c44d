"""`vaio-bench fio`: fio's jobs in rounds, its results, its replay and fio-plot's charts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vaio_bench.cli import options as o
from vaio_bench.errors import InputError, WorkError

_BESIDE_RESUME = frozenset({"resume", "rounds", "as_json", "quiet"})
_Lists = Annotated[str | None, typer.Option(help="A list of values: a cell of the grid each.")]


def register(app: typer.Typer) -> None:
    """Adds the verb with its own verbs."""
    fio = typer.Typer(
        name="fio",
        help="fio's jobs in rounds, its results and replay beside ours, fio-plot's charts.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    _add_run(fio)
    _add_import(fio)
    _add_replay(fio)
    _add_export(fio)
    _add_plot(fio)
    app.add_typer(fio)


def _add_run(fio: typer.Typer) -> None:
    @fio.command()
    def run(
        context: typer.Context,
        jobs: Annotated[list[Path] | None, typer.Argument(help="Job files of fio.")] = None,
        out: Annotated[Path | None, typer.Option("-o", "--out", help="Run folder to make.")] = None,
        target: Annotated[
            Path | None, typer.Option(help="File or device of all jobs; made if it is not there.")
        ] = None,
        size: Annotated[str | None, typer.Option(help="Of the target, and of its range.")] = None,
        rw: _Lists = None,
        bs: _Lists = None,
        iodepth: _Lists = None,
        numjobs: _Lists = None,
        runtime: Annotated[str | None, typer.Option(help="Of each run: 10s.")] = None,
        option: Annotated[
            list[str] | None,
            typer.Option(help="Any option of fio for every job, KEY=VALUE; repeatable."),
        ] = None,
        grid: Annotated[
            list[str] | None, typer.Option(help="One more list: KEY=A,B,C; repeatable.")
        ] = None,
        baseline: Annotated[
            str | None, typer.Option(help="The cell that the others are compared with.")
        ] = None,
        rounds: Annotated[int | None, typer.Option(help="Of each cell; 5 by default.")] = None,
        seed: Annotated[int, typer.Option(help="Of the order of runs.")] = 0,
        per_io: Annotated[
            bool, typer.Option("--per-io", help="Log every I/O, and keep a row of each.")
        ] = False,
        resume: Annotated[
            Path | None, typer.Option(help="Go on with this run; --rounds may ask for more.")
        ] = None,
        destroy_data: o.DestroyData = False,
        force: o.Force = False,
        as_json: o.AsJson = False,
        quiet: o.Quiet = False,
    ) -> None:
        """Runs job files, or a grid of jobs on --target, in interleaved rounds."""
        lists = {"rw": rw, "bs": bs, "iodepth": iodepth, "numjobs": numjobs}
        found = _ran(dict(locals()), lists)
        show(found, as_json=as_json)


def _add_import(fio: typer.Typer) -> None:
    @fio.command(name="import")
    def import_(
        sources: Annotated[list[Path], typer.Argument(help="fio's JSON, or folders of it.")],
        out: o.Out,
        baseline: Annotated[
            str | None, typer.Option(help="The result that the others are compared with.")
        ] = None,
        per_io: Annotated[
            bool, typer.Option("--per-io", help="Make rows of the logs beside the results.")
        ] = False,
        force: o.Force = False,
        as_json: o.AsJson = False,
    ) -> None:
        """Makes a run folder of results that fio or bench-fio wrote."""
        from vaio_bench.fio.importing import import_results

        found = import_results(sources, out=out, baseline=baseline, per_io=per_io, force=force)
        show(found, as_json=as_json)


def _add_replay(fio: typer.Typer) -> None:
    @fio.command()
    def replay(
        trace: o.Trace,
        out: o.Out,
        target: Annotated[Path, typer.Option(help="File or block device; made if not there.")],
        depth: o.Depth = 32,
        rounds: o.Rounds = None,
        backend: o.Backend = "uring",
        direct: o.Direct = None,
        disk: o.Disk = None,
        skip: o.Skip = 0,
        limit: o.Limit = None,
        seed: o.Seed = 0,
        destroy_data: o.DestroyData = False,
        force: o.Force = False,
        as_json: o.AsJson = False,
        quiet: o.Quiet = False,
    ) -> None:
        """Replays a trace by fio and by this tool, in turns, and compares the two."""
        from vaio_bench.cli.run_progress import run_progress
        from vaio_bench.comparing import DEFAULT_ROUNDS
        from vaio_bench.fio.crosscheck import crosscheck
        from vaio_bench.runner import Settings

        settings = Settings(
            depth=depth, backend=backend, disks=tuple(disk or ()), skip=skip, limit=limit,
            direct="auto" if direct is None else "always" if direct else "never", seed=seed,
            destroy_data=destroy_data,
        )  # fmt: skip
        with run_progress(quiet=quiet) as progress:
            found = crosscheck(
                trace, target=target, out=out, rounds=rounds or DEFAULT_ROUNDS, settings=settings,
                force=force, progress=progress,
            )  # fmt: skip
        if as_json:
            print(json.dumps(found))
        else:
            _show_replay(found)
        if not found["equal"]:
            raise WorkError(f"{found['run']}: counts differ: {found['unequal'][0]}")


def _add_export(fio: typer.Typer) -> None:
    @fio.command()
    def export(
        trace: o.Trace,
        out: Annotated[Path, typer.Option("-o", "--out", help="I/O log to make.")],
        iolog_version: Annotated[int, typer.Option(help="2, or 3 for fio 3.31 and later.")] = 3,
        disk: Annotated[str | None, typer.Option(help="Of several, the one to write.")] = None,
        force: o.Force = False,
        as_json: o.AsJson = False,
    ) -> None:
        """Writes a trace as an I/O log for fio's read_iolog."""
        from vaio_bench.fio.iolog import export as write
        from vaio_bench.trace import open_trace

        with open_trace(trace) as opened:
            made = write(opened, out, disk=disk, version=iolog_version, force=force)
        if as_json:
            document = {"iolog": str(out), "version": made.version, "ios": made.ios,
                        "bytes": made.bytes, "left_out": made.left_out}  # fmt: skip
            print(json.dumps(document))
            return
        told = ", ".join(f"{count:,} {op}" for op, count in made.ios.items())
        print(f"{out}: version {made.version}, {told}")
        for op, count in made.left_out.items():
            print(f"left out: {count:,} {op}, which an I/O log cannot hold")


def _add_plot(fio: typer.Typer) -> None:
    @fio.command()
    def plot(
        runs: Annotated[list[Path], typer.Argument(help="Run folders, of fio or of this tool.")],
        out: Annotated[Path, typer.Option("-o", "--out", help="Folder to make.")],
        charts: Annotated[
            bool, typer.Option("--charts/--no-charts", help="Draw, or lay the data out alone.")
        ] = True,
        force: o.Force = False,
        as_json: o.AsJson = False,
    ) -> None:
        """Lays results out as fio-plot reads them, and draws its charts."""
        from vaio_bench.fio.plotting import plot as draw

        found = draw(runs, out=out, charts=charts, force=force)
        if as_json:
            print(json.dumps(found))
            return
        for path in found["charts"] or found["data"]:
            print(path)
        for why in found["left_out"]:
            print(f"left out: {why}")


def _show_replay(found: dict[str, Any]) -> None:
    from vaio_bench.reporting import words

    of = found["counts"]
    word = "equal" if found["equal"] else "DIFFERENT"
    told = ", ".join(f"{count:,} {op}" for op, count in of["ours"].items() if count)
    moved = " and ".join(f"{words.size(size)} {op}" for op, size in found["bytes"]["ours"].items())
    print(f"counts and bytes: {word} in {found['rounds']} rounds ({told}; {moved})")
    for why in found["unequal"][:5]:
        print(f"  {why}")
    if found["repeated"]:
        print(f"fio was run again {found['repeated']} times: it told fewer bytes than it had moved")
    for op, count in found["left_out"].items():
        print(f"left out of both: {count:,} {op}")
    rows = [("", "ours", "fio", "fio / ours", "noise floor", "")]
    for metric, each in found["latency"].items():
        within = {True: "within it", False: "beyond it", None: "nothing to be seen"}[each["within"]]
        rows.append(
            (
                words.METRICS[metric],
                words.metric_value(metric, each["ours"]),
                words.metric_value(metric, each["fio"]),
                f"{each['ratio']:.3f}",
                words.share(each["noise_floor"]),
                within,
            )
        )
    _print_table(rows)
    print(
        f"depth {found['depth']}, {found['fio_version']}; to the floor is added how fio rounds: "
        f"latencies to ±{words.share(found['bucket_share'])}, the rate to "
        f"±{words.share(found['latency']['iops']['rounded_share'])}"
    )
    print(f"run folder: {found['run']}")


def _ran(given: dict[str, Any], lists: dict[str, str | None]) -> dict[str, Any]:
    from vaio_bench.cli.run_progress import run_progress
    from vaio_bench.fio import running

    if given["resume"] is not None:
        if given["jobs"] or given["out"] or any(lists.values()):
            raise InputError("--resume: expected no job file, list or -o beside it")
        o.refuse_others(
            given["context"], _BESIDE_RESUME, f"--resume {given['resume']}, which has its own"
        )
        with run_progress(quiet=given["quiet"]) as progress:
            return running.resume(given["resume"], rounds=given["rounds"], progress=progress)
    if given["out"] is None:
        raise InputError("fio run: expected -o RUN, or --resume RUN")
    pairs = [_pair("--grid", text) for text in given["grid"] or ()]
    axes = {key: _values(f"--{key}", text) for key, text in lists.items() if text is not None}
    axes |= {key: _values("--grid", text) for key, text in pairs}
    options = dict(_pair("--option", text) for text in given["option"] or ())
    if given["runtime"] is not None:
        options["runtime"] = given["runtime"]
        options.setdefault("time_based", "1")
    plan = running.Plan(
        given["rounds"] or running.DEFAULT_ROUNDS, given["seed"], given["baseline"],
        given["per_io"], given["destroy_data"],
    )  # fmt: skip
    with run_progress(quiet=given["quiet"]) as progress:
        return running.run(
            given["jobs"] or (), out=given["out"], axes=axes, options=options,
            target=given["target"], size=given["size"], plan=plan, force=given["force"],
            progress=progress,
        )  # fmt: skip


def _pair(option: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"{option}: expected KEY=VALUE, got {text!r}")
    return key.strip(), value.strip()


def _values(option: str, text: str) -> list[str]:
    values = [value.strip() for value in text.split(",")]
    if not all(values) or len(set(values)) < len(values):
        raise InputError(f"{option}: expected values with commas between, each once, got {text!r}")
    return values


def show(found: dict[str, Any], *, as_json: bool) -> None:
    """Prints what became of each cell, and of the comparison."""
    if as_json:
        print(json.dumps(found))
        return
    from vaio_bench.reporting import words

    if found["comparison"]:
        for line in found["comparison"]["answers"]:
            print(line)
        print()
    rows = [("", "I/Os per second", "throughput", "p50", "p99", "p99.9", "longest", "rounds")]
    for cell in found["cells"]:
        of = cell["latency_ns"]
        rows.append(
            (
                cell["name"],
                words.metric_value("iops", cell["iops"]),
                words.metric_value("bytes_per_s", cell["bytes_per_s"]),
                *(words.duration(of[level]) for level in ("p50", "p99", "p999", "max")),
                str(cell["rounds"]),
            )
        )
    _print_table(rows)
    kinds = sorted({str(cell["latency_from"]) for cell in found["cells"]} - {"None"})
    print(f"\nmedians of the rounds; latency is {' and '.join(kinds) or 'not told'} of fio", end="")
    print(f" ({found['fio_version']})" if found["fio_version"] else "")
    floor = (found["comparison"] or {}).get("noise_floor", {}).get("latency_p50_ns")
    if floor is not None:
        print(f"noise floor of the median (the baseline against itself): {words.share(floor)}")
    if found.get("no_comparison"):
        print(f"note: {found['no_comparison']}")
    print(f"run folder: {found['run']}")


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
