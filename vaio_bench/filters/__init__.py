"""Filters in Python: `use = "py:MODULE:CLASS"`, or by a name that a package offers.

A package offers one by an entry point of the group `vaio_bench.filters`; the class's docstring is
its page (`vaio-bench explain py:MODULE:CLASS`). The engine shows a filter its I/Os in batches, all
that have gathered since the last one, and enters the interpreter once for each: what a filter costs
is still mostly Python, and a run with one is labelled so.

    class Odd(Filter):
        '''Fails every second write.'''

        properties = Properties(transparent=True)

        def io_start(self, cx, io):
            return fail(errno.EIO) if io.op == "write" and io.seq % 2 else PASS

An answer is `PASS`, `COMPLETE`, `DEFER` or `fail(errno)`. `io.data` is a memoryview that is valid
during the callback. What a callback raises fails its I/O, and the traceback is in the run's events.
The keys of its table in a policy are the fields of its `Parameters`, a pydantic model.
`vaio-bench certify py:MODULE:CLASS` tests it against the laws of all filters and against what its
`properties` declare.
"""

from __future__ import annotations

import errno
import importlib
import inspect
import json
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from vaio_bench._core import FilterContext, FilterIo

Context = FilterContext
Io = FilterIo
Answer = int
"""`PASS`, `COMPLETE`, `DEFER`, or a positive errno: `fail(errno.EIO)`."""
PASS: Answer = 0
"""On to the next layer."""
COMPLETE: Answer = -1
"""Answered here: the layers below never see it."""
DEFER: Answer = -2
"""Held: `cx.resume` or `cx.finish` it later; other I/Os keep flowing. A filter that lets go of none
for the policy's `hang` has hung."""


def fail(status: int) -> Answer:
    """Failed here with this errno: only the layers above are told."""
    return status if status > 0 else errno.EIO


@dataclass(frozen=True)
class Properties:
    """What a filter is; the law suite tests what follows from it. Fields as in `vaio_filter.h`."""

    transparent: bool = False
    changes_length: bool = False
    may_answer: bool = False
    may_defer: bool = False
    reorders: bool = False
    persists: bool = False
    needs_data: bool = False
    unit_bytes: int = 1
    children_per_io: int = 0
    background_ios: int = 0
    child_bytes: int = 0
    scope: Literal["disk", "group"] = "disk"


@dataclass(frozen=True)
class Setting:
    """What an instance is made with: the disk's name, the run's disks, the run's seed."""

    disk: str
    disk_index: int
    disks: list[str]
    seed: int


class Parameters(BaseModel):
    """The keys of a filter's table in a policy; a filter derives its own from it."""

    model_config = ConfigDict(extra="forbid")


class Filter:
    """What a filter may override; one instance a disk. What it lacks is a pass.

    An instance is made on one thread; `open` and all later callbacks come on another.
    Callbacks of one instance come one at a time. None of them blocks, reads a clock or draws random
    numbers but from the setting's seed: the same filter runs in virtual time.
    """

    filter_class: ClassVar[str | None] = None
    """The framework's class, such as "inspection"."""
    properties: ClassVar[Properties] = Properties()
    Parameters: ClassVar[type[Parameters]] = Parameters
    reads: ClassVar[Sequence[str]] = ()
    """Parameters that name files to be read: these are looked for beside the policy's file, then in
    the folder of the command. A tuple of literals, as it is read without running the class."""

    def __init__(self, parameters: Any, setting: Setting) -> None:
        """Raise ValueError where the parameters cannot be used."""
        self.parameters = parameters
        self.setting = setting

    def open(self, slots: int) -> None:
        """The disk is opened; `slots` bounds every I/O's number. Again after the prefill."""

    def close(self, cx: Context) -> None:
        """The run ends: start what must reach the device, and the rest as that is done.

        Called once; the run waits until no I/O of the filter's own is in flight.
        """

    def io_start(self, cx: Context, io: Io) -> Answer:
        """An I/O comes down. The bytes of a write must not be changed."""
        return PASS

    def io_complete(self, cx: Context, io: Io) -> Answer:
        """An I/O that passed comes back up; `io.status` is that of the layers below."""
        return PASS

    def flush(self, cx: Context, io: Io) -> Answer:
        """A flush comes down; by default as any other I/O."""
        return self.io_start(cx, io)

    def start_batch(self, cx: Context, ios: Sequence[Io]) -> Sequence[Answer]:
        """I/Os that come down, in their order; override it to look at many at a time."""
        return [self._one(cx, self.flush if io.op == "flush" else self.io_start, io) for io in ios]

    def complete_batch(self, cx: Context, ios: Sequence[Io]) -> Sequence[Answer]:
        """I/Os that come back up."""
        return [self._one(cx, self.io_complete, io) for io in ios]

    def batch(
        self, cx: Context, down: Sequence[Io], up: Sequence[Io]
    ) -> tuple[list[Answer], list[Answer]]:
        """What the engine calls: one entry into the interpreter for all of them."""
        started = list(self.start_batch(cx, down)) if down else []
        return started, list(self.complete_batch(cx, up)) if up else []

    def io_abort(self, cx: Context, io: Io) -> None:
        """The driver gives up an I/O that this filter holds: finish it soon."""

    def child_complete(self, cx: Context, child: Io) -> None:
        """An I/O of the filter's own is done; its number is free when this returns."""
        if child.parent is not None:
            cx.finish(child.parent, child.status)

    def timer(self, cx: Context, token: int) -> None:
        """A timer that the filter set is due."""

    def gauges(self) -> dict[str, int]:
        """Figures of the moment, by name."""
        return {}

    def message(self, cx: Context, data: bytes) -> int:
        """Bytes from whoever manages the filter; gives 0 or an errno, as those below."""
        return 0

    def stun(self, cx: Context) -> int:
        """The virtual machine is held."""
        return 0

    def unstun(self, cx: Context) -> int:
        """It goes on."""
        return 0

    def snapshot(self, cx: Context, name: str) -> int:
        """A snapshot of the disk is taken."""
        return 0

    def consolidate(self, cx: Context) -> int:
        """Snapshots are merged."""
        return 0

    def clone(self, cx: Context, name: str) -> int:
        """The disk is cloned."""
        return 0

    def resize(self, cx: Context, size_bytes: int) -> int:
        """The disk has another size."""
        return 0

    def migrate(self, cx: Context, destination: str) -> int:
        """The machine moves."""
        return 0

    def configure(self, cx: Context, parameters_json: str) -> int:
        """The policy's parameters have changed."""
        return 0

    def _one(self, cx: Context, ask: Callable[[Context, Io], Answer], io: Io) -> Answer:
        """One I/O's answer: what is raised fails this I/O and none beside it."""
        try:
            return ask(cx, io)
        except Exception as error:
            told = {
                "callback": ask.__name__,
                "io": io.seq,
                "error": f"{type(error).__name__}: {error}",
                "traceback": traceback.format_exc(),
            }
            cx.event("error", json.dumps(told))
            return fail(errno.EIO)


def make(
    place: str, params_json: str, setting_json: str
) -> tuple[Filter | None, str, list[tuple[str, str]]]:
    """What the engine calls to make an instance.

    Args:
        place: `MODULE:CLASS`.
        params_json: the filter's table of the policy.
        setting_json: the fields of `Setting`.

    Returns:
        The instance, what it says of itself (JSON), and no faults; or None and every fault as
        `(key path, message)`.
    """
    try:
        kind = load(place)
    except Exception as error:
        return None, "", [("use", f"py:{place}: {type(error).__name__}: {error}")]
    try:
        parameters = kind.Parameters.model_validate(json.loads(params_json) or {})
        instance = kind(parameters, Setting(**json.loads(setting_json)))
    except ValidationError as error:
        return None, "", [_fault(each) for each in error.errors()]
    except ValueError as error:
        key, parted, message = str(error).partition(": ")
        if parted and key in kind.Parameters.model_fields:
            return None, "", [(key, message)]
        return None, "", [("use", f"py:{place}: {error}")]
    except Exception as error:
        return None, "", [("use", f"py:{place}: {type(error).__name__}: {error}")]
    about = {
        "name": kind.__name__,
        "class": kind.filter_class,
        "page": inspect.getdoc(kind) or "",
        "properties": asdict(instance.properties),
    }
    return instance, json.dumps(about), []


def load(place: str) -> type[Filter]:
    """The class at `MODULE:CLASS`.

    Raises:
        Exception: whatever the module raises; TypeError where the class is no filter.
    """
    module, _, name = place.partition(":")
    found = getattr(importlib.import_module(module), name)
    if not (isinstance(found, type) and issubclass(found, Filter)):
        raise TypeError(f"expected a class derived from vaio_bench.filters.Filter, got {found!r}")
    return found


def _fault(error: Any) -> tuple[str, str]:
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return path, "unknown key"
    if error["type"] == "missing":
        return path, "missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    shown = json.dumps(error.get("input"), default=str)
    return path, f"{message[:1].lower()}{message[1:]}, got {shown}"
