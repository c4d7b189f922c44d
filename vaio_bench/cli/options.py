"""Options that several verbs share, and what is checked of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaio_bench import units
from vaio_bench.errors import InputError

if TYPE_CHECKING:
    from vaio_bench.runner import Settings

Trace = Annotated[Path, typer.Argument(help="Canonical trace (Parquet); see `import`, `synth`.")]
Target = Annotated[
    Path | None,
    typer.Option(help="File, device, or folder for several disks; made when it does not exist."),
]
Out = Annotated[Path, typer.Option("-o", "--out", help="Run folder to make.")]
Pace = Annotated[str, typer.Option(help="recorded, asap or closed.")]
Speed = Annotated[float, typer.Option(help="Recorded time runs this many times as fast.")]
Depth = Annotated[int, typer.Option(help="I/Os in flight with --pace asap.")]
Inflight = Annotated[int, typer.Option(help="I/Os in flight at most, with the other paces.")]
Spin = Annotated[str, typer.Option(help="Stop sleeping this long before an I/O is due.")]
Backend = Annotated[str, typer.Option(help="uring, psync, mem, null or sim.")]
Clock = Annotated[str, typer.Option(help="wall or virtual.")]
Direct = Annotated[
    bool | None,
    typer.Option("--direct/--buffered", help="O_DIRECT or the page cache; O_DIRECT if it can be."),
]
Conflicts = Annotated[
    str, typer.Option(help="I/Os that overlap one in flight: order, allow or drop.")
]
Verify = Annotated[bool, typer.Option("--verify", help="Check what every read gives back.")]
Compressible = Annotated[float, typer.Option(help="Share of written data that compresses away.")]
Dedupe = Annotated[float, typer.Option(help="Share of written 4 KiB blocks that are copies.")]
Payload = Annotated[
    str, typer.Option(help="made, or trace: what the writes of the trace really wrote.")
]
Content = Annotated[
    bool,
    typer.Option(
        "--content/--no-content", help="Written data follow the trace's contents, if any."
    ),
]
FitTo = Annotated[str | None, typer.Option(help="Fold each disk onto a target of this size.")]
Disk = Annotated[list[str] | None, typer.Option(help="Replay this disk only; repeatable.")]
Skip = Annotated[int, typer.Option(help="Leave out this many I/Os at the start.")]
Limit = Annotated[int | None, typer.Option(help="Replay this many I/Os at most.")]
Seed = Annotated[int, typer.Option(help="Seed of data, models and the order of rounds.")]
DestroyData = Annotated[
    bool, typer.Option("--destroy-data", help="What an existing target holds may be overwritten.")
]
Precondition = Annotated[
    bool | None,
    typer.Option(help="Write every block of a new target once; by default up to 8 GiB."),
]
Policies = Annotated[
    list[str] | None, typer.Option("--policy", help="Storage policy: a file or a name; repeatable.")
]
Baseline = Annotated[str, typer.Option(help="The policy that the others are compared with.")]
Rounds = Annotated[int | None, typer.Option(help="Rounds of each policy; 8 by default.")]
Warmup = Annotated[str, typer.Option(help="Rounds that do not count, or a time in each (10s).")]
Until = Annotated[
    str | None,
    typer.Option(help="Add rounds, 8 or more, until the median's interval is as narrow: 1%."),
]
MaxRounds = Annotated[int | None, typer.Option(help="Rounds at most with --until; 100 by default.")]
Resume = Annotated[
    Path | None, typer.Option(help="Go on with this run; --rounds and --until may ask for more.")
]


def _margin(text: object) -> float:
    return units.parse_reach(text, "--margin")


Margin = Annotated[
    float,
    typer.Option(parser=_margin, metavar="SHARE", help="Difference that is called equivalent: 2%."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Fail when the pace was not kept.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an earlier run in the folder.")]
ForceResume = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Replace an earlier run in the folder; with --resume, go on with one that another "
        "build of the engine began, and mark it.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")]


def refuse_others(context: typer.Context, allowed: frozenset[str], beside: str) -> None:
    """Raises InputError where an option was given that would be ignored."""
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        given = source is not None and source.name == "COMMANDLINE"
        if given and parameter.name not in allowed:
            raise InputError(f"{parameter.opts[0]}: expected no such option beside {beside}")


# What `settings_of` takes from a verb's options.
_SETTINGS = (
    "spin", "direct", "fit_to", "disk", "pace", "speed", "depth", "inflight", "backend",
    "conflicts", "verify", "compressible", "dedupe", "content", "skip", "limit", "seed",
    "destroy_data", "precondition", "payload",
)  # fmt: skip


def settings_of(given: dict[str, Any]) -> Settings:
    """The settings of a run from all options of a verb, by name.

    Raises:
        InputError: an option cannot be read.
    """
    return settings(**{name: given[name] for name in _SETTINGS})


def settings(
    *, spin: str, direct: bool | None, fit_to: str | None, disk: Any, **rest: Any
) -> Settings:
    """The settings of a run, units parsed.

    Raises:
        InputError: an option cannot be read.
    """
    from vaio_bench.runner import Settings

    for name in ("compressible", "dedupe"):
        if not 0 <= rest[name] <= 1:
            raise InputError(f"--{name}: expected a share from 0 to 1, got {rest[name]}")
    return Settings(
        spin_ns=units.parse_time_ns(spin, "--spin"),
        direct="auto" if direct is None else "always" if direct else "never",
        fit_to_bytes=None if fit_to is None else units.parse_size(fit_to, "--fit-to"),
        disks=tuple(disk or ()),
        **rest,
    )


def check_result(run: Path | None, verb: str, *, force: bool) -> None:
    """Whether a verb's result may be kept in this run folder; before the work, not after it.

    Raises:
        InputError: it is no run folder, or holds such a result already and `force` is not given.
    """
    from vaio_bench.store import open_run

    if run is None:
        return
    open_run(run)
    kept = run / "results" / f"{verb}.json"
    if kept.exists() and not force:
        raise InputError(f"{kept}: the file exists (--force replaces it)")
