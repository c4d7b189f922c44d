"""Experiments: a grid of workloads and depths, and the policies that each cell compares.

    [experiment]
    name = "null-filter"
    policies = ["pass"]             # beside the baseline; files are found beside the experiment
    baseline = "direct"
    rounds = 6                      # of each policy in each cell
    warmup = "1"                    # rounds, or a time in each
    seed = 1
    floor = true                    # `pass` runs as well: the framework's own cost

    [grid]                          # every combination is a cell
    disks = [1, 4]
    depth = [1, 16]                 # I/Os in flight on each disk
    block = ["4KiB", "512KiB"]
    pattern = ["random", "sequential"]
    read = [1.0]                    # share of reads

    [workload]
    size = "1GiB"                   # of each disk
    ios = 20_000                    # of each disk in a round, at most,
    bytes = "256MiB"                # and at most as many bytes

    [target]
    backend = "uring"
    direct = true

The policies of a cell take turns on the same disks, in an order drawn anew for each round: they are
not driven side by side, where each would be the other's load and the ratio would hide a part of
what a filter costs.

In place of disks, block, pattern and read, `[workload] trace = "t.parquet"` replays a trace.

`vaio-bench sweep EXPERIMENT.toml --target FOLDER -o RUN` runs it; of one that is shipped
the name is enough.
"""

from __future__ import annotations

import itertools
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from vaio_bench.errors import InputError
from vaio_bench.synthetic.spec import SECTOR_BYTES, Share, Size
from vaio_bench.synthetic.spec_errors import one_line_each

CELLS_MAX = 10_000


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Head(_Table):
    """What is compared in each cell, and how often."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}$")] = "experiment"
    description: str = ""
    policies: list[str] = []
    baseline: str = "direct"
    rounds: Annotated[int, Field(ge=2, le=10_000)] = 6
    warmup: Annotated[str, BeforeValidator(lambda w: str(w) if type(w) is int else w)] = "0"
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 1
    floor: bool = True


def _whole_sectors(block: int) -> int:
    if block <= 0 or block % SECTOR_BYTES:
        raise ValueError(f"expected a multiple of {SECTOR_BYTES} bytes, got {block}")
    return block


Block = Annotated[Size, AfterValidator(_whole_sectors)]
Depth = Annotated[int, Field(ge=1, le=65_536)]
Disks = Annotated[int, Field(ge=1, le=64)]


class Grid(_Table):
    """The axes; every combination of their values is a cell."""

    disks: Annotated[list[Disks], Field(min_length=1)] = [1]
    depth: Annotated[list[Depth], Field(min_length=1)] = [1]
    block: Annotated[list[Block], Field(min_length=1)] = [4096]
    pattern: Annotated[list[Literal["random", "sequential"]], Field(min_length=1)] = ["random"]
    read: Annotated[list[Share], Field(min_length=1)] = [1.0]

    @model_validator(mode="after")
    def _distinct(self) -> Grid:
        for name in type(self).model_fields:
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: expected distinct values, got {values}")
        return self


class Workload(_Table):
    """What each disk does in a round, or a trace that does."""

    size: Size = 1 << 30
    ios: Annotated[int, Field(ge=1, le=10**9)] = 20_000
    bytes: Size = 256 << 20
    trace: str | None = None


class TargetTable(_Table):
    """Where it runs."""

    backend: Literal["uring", "psync", "mem", "null"] = "uring"
    direct: bool | None = None


class Experiment(_Table):
    """A whole experiment."""

    experiment: Head = Head()
    grid: Grid = Grid()
    workload: Workload = Workload()
    target: TargetTable = TargetTable()

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        if self.workload.trace is not None:
            given = self.grid.model_fields_set - {"depth"}
            if given:
                raise ValueError(
                    f"grid.{sorted(given)[0]}: expected no such key beside workload.trace: the "
                    "trace says it"
                )
        elif self.workload.size < max(self.grid.block):
            raise ValueError("workload.size: expected at least the largest block of the grid")
        if len(self.cells()) > CELLS_MAX:
            raise ValueError(f"grid: expected {CELLS_MAX} cells at most")
        if not self.experiment.policies and not self.experiment.floor:
            raise ValueError("experiment.policies: expected at least one where floor is false")
        return self

    def cells(self) -> list[Cell]:
        """Every combination of the grid's values, the last axis varying fastest."""
        axes = self.grid.model_dump()
        if self.workload.trace is not None:
            axes = {"depth": axes["depth"]}
        return [
            Cell(dict(zip(axes, values, strict=True)))
            for values in itertools.product(*axes.values())
        ]

    def to_dict(self) -> dict[str, Any]:
        """The experiment with every default filled in, as JSON: itself a valid experiment."""
        document = self.model_dump(mode="json")
        if self.workload.trace is not None:
            document["grid"] = {"depth": self.grid.depth}
        return document


@dataclass(frozen=True)
class Cell:
    """One combination: axis to value."""

    at: dict[str, Any]

    @property
    def id(self) -> str:
        """What its folder is called: `disks=1,depth=4,block=4KiB,pattern=random,read=1.0`."""
        return ",".join(f"{axis}={shown(axis, value)}" for axis, value in self.at.items())

    @property
    def workload_id(self) -> str:
        """What its trace is called: the depth is no part of it."""
        rest = {axis: value for axis, value in self.at.items() if axis != "depth"}
        return Cell(rest).id


def shown(axis: str, value: Any) -> str:
    """A value of an axis as it is read: `4KiB`, exactly."""
    if axis != "block":
        return str(value)
    units = (("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1))
    name, unit = next((name, unit) for name, unit in units if value % unit == 0)
    return f"{value // unit}{name}"


def shipped() -> dict[str, Path]:
    """The experiments that come with the package, by name."""
    folder = Path(str(resources.files("vaio_bench") / "experiments"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_experiment(experiment: str | Path) -> tuple[Experiment, Path]:
    """Reads an experiment, a file or the name of one that is shipped, and where it was found.

    Raises:
        InputError: one line for each mistake: `x.toml: grid.depth[0]: expected ..., got ...`.
    """
    path = Path(experiment)
    if not path.is_file():
        known = shipped()
        if str(experiment) not in known:
            names = ", ".join(known)
            raise InputError(
                f"{experiment}: no such file, nor the name of an experiment that is shipped "
                f"({names})"
            )
        path = known[str(experiment)]
    try:
        data = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: expected TOML: {error}") from None
    return parse_experiment(data, str(path)), path


def parse_experiment(data: dict[str, Any], where: str) -> Experiment:
    """An experiment from parsed TOML.

    Raises:
        InputError: as `load_experiment`.
    """
    try:
        return Experiment.model_validate(data)
    except ValidationError as error:
        raise InputError("\n".join(one_line_each(error, where, one_stream=False))) from None
