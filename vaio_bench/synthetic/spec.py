"""The spec of a synthetic trace: TOML, typed, all its errors at once."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from vaio_bench.errors import InputError
from vaio_bench.synthetic.spec_errors import one_line_each
from vaio_bench.units import parse_size, parse_time_ns

CONTENT_BLOCK_BYTES = 4096
SECTOR_BYTES = 512
# Content keeps 4 bytes a block of every disk: this is 4 GiB of versions at most.
_MAX_CONTENT_BLOCKS = 1 << 30
# The profile and the replay refuse what reaches further: no disk is larger.
_MAX_REACH_BYTES = 1 << 50
_MAX_LENGTH_BYTES = 1 << 30

T = TypeVar("T")


def _parsed(parse: Callable[[object], T]) -> Callable[[object], T]:
    """`parse` for pydantic, which collects ValueError."""

    def validate(value: object) -> T:
        try:
            return parse(value)
        except InputError as error:
            raise ValueError(str(error)) from None

    return validate


def _size_mix(value: object) -> object:
    """A single size is a mix of one."""
    return value if isinstance(value, list) else [{"size": value}]


def _disk_names(value: object) -> object:
    """A number of disks stands for `disk0`, `disk1`, ..."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= 65_536:
            raise ValueError(f"expected 1 to 65536 disks or a list of names, got {value}")
        return [f"disk{i}" for i in range(value)]
    if not isinstance(value, list) or not value or len(set(map(str, value))) < len(value):
        raise ValueError(f"expected a number of disks or a list of distinct names, got {value!r}")
    return value


Size = Annotated[int, BeforeValidator(_parsed(parse_size))]
# Written back with its unit, so that a stored spec can be read again.
Time = Annotated[int, BeforeValidator(_parsed(parse_time_ns)), PlainSerializer(lambda t: f"{t}ns")]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Arrival(_Table):
    """When: a process and its rate over all disks, in I/Os per second."""

    process: Literal["poisson", "constant"] = "poisson"
    rate: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)] = 1000.0


class Address(_Table):
    """Where on each disk; sizes in bytes."""

    pattern: Literal["uniform", "zipf", "sequential", "hotset"] = "uniform"
    footprint: Size = 1 << 30
    start: Size = 0
    block: Size = 4096
    alpha: Annotated[float, Field(ge=0, le=20, allow_inf_nan=False)] = 1.0
    scatter: bool = True
    hot_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    hot_access: Share = 0.9

    @field_validator("block")
    @classmethod
    def _sectors(cls, block: int) -> int:
        if block <= 0 or block % SECTOR_BYTES:
            raise ValueError(f"expected a multiple of {SECTOR_BYTES} bytes, got {block}")
        return block

    @model_validator(mode="after")
    def _whole_blocks(self) -> Address:
        for name in ("footprint", "start"):
            value = getattr(self, name)
            if value % self.block:
                wanted = f"a multiple of block ({self.block})"
                raise ValueError(f"{name}: expected {wanted}, got {value}")
        if self.footprint == 0:
            raise ValueError("footprint: expected at least one block, got 0")
        if self.start + self.footprint > _MAX_REACH_BYTES:
            raise ValueError("footprint: expected an end within 1 PiB")
        return self


class Mix(_Table):
    """What: `read` is of reads and writes, `fua` of writes, the others of all I/Os."""

    read: Share = 0.7
    flush: Share = 0.0
    discard: Share = 0.0
    write_zeroes: Share = 0.0
    fua: Share = 0.0

    @model_validator(mode="after")
    def _at_most_all(self) -> Mix:
        if self.flush + self.discard + self.write_zeroes > 1:
            raise ValueError("expected flush + discard + write_zeroes of at most 1")
        return self


class WeightedSize(_Table):
    """One size of a mix, in bytes."""

    size: Size
    weight: Weight = 1.0

    @field_validator("size")
    @classmethod
    def _sectors(cls, size: int) -> int:
        if not 0 < size <= _MAX_LENGTH_BYTES or size % SECTOR_BYTES:
            raise ValueError(f"expected a multiple of {SECTOR_BYTES} up to 1 GiB, got {size}")
        return size


SizeMix = Annotated[list[WeightedSize], BeforeValidator(_size_mix), Field(min_length=1)]


class Sizes(_Table):
    """How long; discards and write_zeroes are as long as writes."""

    read: SizeMix = [WeightedSize(size=4096)]
    write: SizeMix = [WeightedSize(size=4096)]


class Content(_Table):
    """What the blocks hold; `pool` in bytes."""

    shared: Share = 0.5
    pool: Size = 256 << 20

    @field_validator("pool")
    @classmethod
    def _two_blocks(cls, pool: int) -> int:
        blocks = pool // CONTENT_BLOCK_BYTES
        if not 2 <= blocks < 1 << 31 or pool % CONTENT_BLOCK_BYTES:
            raise ValueError(f"expected 8KiB to 8TiB, a multiple of 4KiB, got {pool}")
        return pool


class Stream(_Table):
    """One of several kinds of I/O in a trace; `share` is its weight."""

    share: Weight = 1.0
    address: Address = Address()
    mix: Mix = Mix()
    size: Sizes = Sizes()

    @model_validator(mode="after")
    def _sizes_fit(self) -> Stream:
        largest = max(s.size for s in (*self.size.read, *self.size.write))
        if largest > self.address.footprint:
            footprint = self.address.footprint
            raise ValueError(f"size: expected at most the footprint ({footprint}), got {largest}")
        if self.address.pattern == "sequential" and -(-largest // self.address.block) > (
            self.address.footprint // self.address.block
        ):
            raise ValueError("size: expected at most the footprint, in whole blocks")
        return self


class Spec(_Table):
    """A whole trace; times in nanoseconds."""

    name: str = "synthetic"
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 1
    ios: Annotated[int, Field(ge=0, le=10**12)] | None = None
    duration: Time | None = None
    disks: Annotated[list[str], BeforeValidator(_disk_names)] = ["disk0"]
    disk_weights: list[Weight] | None = None
    arrival: Arrival = Arrival()
    stream: Annotated[list[Stream], Field(min_length=1, max_length=1000)]
    content: Content | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_stream(cls, data: Any) -> Any:
        """Tables address, mix and size at the top are the only stream."""
        if not isinstance(data, dict):
            return data
        top = {key: data[key] for key in ("address", "mix", "size") if key in data}
        if "stream" in data:
            return data
        rest = {key: value for key, value in data.items() if key not in top}
        return {**rest, "stream": [top]}

    @field_validator("disk_weights")
    @classmethod
    def _one_each(cls, weights: list[float] | None, info: ValidationInfo) -> list[float] | None:
        disks = info.data.get("disks")
        if weights is not None and disks is not None and len(weights) != len(disks):
            raise ValueError(f"expected {len(disks)} weights, one a disk, got {len(weights)}")
        return weights

    @model_validator(mode="after")
    def _bounded(self) -> Spec:
        if self.ios is None and self.duration is None:
            raise ValueError("expected ios or duration, got neither")
        return self

    @model_validator(mode="after")
    def _content_fits(self) -> Spec:
        if self.content is None:
            return self
        for stream in self.stream:
            lengths = [s.size for s in (*stream.size.read, *stream.size.write)]
            grains = [stream.address.block, stream.address.start, *lengths]
            if any(grain % CONTENT_BLOCK_BYTES for grain in grains):
                raise ValueError("content: expected blocks and sizes that are multiples of 4KiB")
            if stream.mix.discard or stream.mix.write_zeroes:
                raise ValueError("content: expected no discard and no write_zeroes in a mix")
        if self.reach_bytes // CONTENT_BLOCK_BYTES * len(self.disks) > _MAX_CONTENT_BLOCKS:
            raise ValueError("content: expected at most 4TiB over all disks")
        return self

    @property
    def reach_bytes(self) -> int:
        """Where the furthest footprint ends."""
        return max(s.address.start + s.address.footprint for s in self.stream)

    def stored(self) -> dict[str, Any]:
        """The spec as metadata: itself a valid spec, every default filled in."""
        return self.model_dump(mode="json", exclude_none=True)


def load_spec(path: str | Path) -> Spec:
    """Reads a spec file.

    Raises:
        InputError: One line for each mistake: `spec.toml: address.alpha: expected ..., got ...`.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected UTF-8 text") from None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: expected TOML: {error}") from None
    return check_spec(data, str(path))


def check_spec(data: dict[str, Any], where: str, *, one_stream: bool | None = None) -> Spec:
    """A spec from parsed TOML.

    Args:
        data: The parsed TOML.
        where: The file that errors name.
        one_stream: Paths in errors leave `stream[0]` out; by default where data has no `stream`.

    Raises:
        InputError: As `load_spec`.
    """
    try:
        return Spec.model_validate(data)
    except ValidationError as error:
        leave_out = "stream" not in data if one_stream is None else one_stream
        lines = one_line_each(error, where, one_stream=leave_out)
        raise InputError("\n".join(lines)) from None


def override(
    spec: Spec,
    where: str,
    *,
    seed: int | None = None,
    ios: int | None = None,
    duration: str | None = None,
    footprint: str | int | None = None,
    rate: float | None = None,
) -> Spec:
    """`spec` with values of the command line in place of its own.

    `ios` and `duration` replace both of the spec's. `footprint` is where the furthest stream
    ends: with several streams all starts and footprints shrink or grow in proportion, in whole
    blocks.

    Raises:
        InputError: `where: arrival.rate: expected ..., got ...`, all at once.
    """
    data = spec.stored()
    if seed is not None:
        data["seed"] = seed
    if ios is not None or duration is not None:
        data.pop("ios", None)
        data.pop("duration", None)
        data |= {k: v for k, v in (("ios", ios), ("duration", duration)) if v is not None}
    if rate is not None:
        data["arrival"]["rate"] = rate
    if footprint is not None:
        size = parse_size(footprint, "--footprint")
        for stream in data["stream"]:
            _scale(stream["address"], size, spec.reach_bytes)
    return check_spec(data, where, one_stream=len(data["stream"]) == 1)


def _scale(address: dict[str, Any], new_reach: int, old_reach: int) -> None:
    block = address["block"]
    start = address["start"] * new_reach // old_reach // block * block
    end = (address["start"] + address["footprint"]) * new_reach // old_reach // block * block
    address["start"], address["footprint"] = start, end - start
