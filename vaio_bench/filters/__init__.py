"""Filters in Python: `use = "py:MODULE:CLASS"`, or by a name that a package offers.

A package offers one by an entry point of the group `vaio_bench.filters`; the class's docstring is
its page (`vaio-bench explain py:MODULE:CLASS`). The engine shows a filter its I/Os in batches, all
that have gathered since the last one, and enters the interpreter once for each: what a filter costs
is still mostly Python, and a run with one is labelled so.

    import errno

    from vaio_bench.filters import PASS, Filter, Properties, fail

    class Odd(Filter):
        '''Fails every second write.'''

        properties = Properties(transparent=True)

        def io_start(self, cx, io):
            return fail(errno.EIO) if io.op == "write" and io.seq % 2 else PASS

In a file `odd.py` of the folder that the command runs in, it is `use = "py:odd:Odd"`.

An answer is `PASS` (on to the next layer), `COMPLETE` (answered here: the layers below never see
it), `DEFER` (held: `cx.resume` or `cx.finish` it later) or `fail(errno)`. Methods that a filter may
have beside `io_start`, each a pass where it lacks: `io_complete(cx, io)`, `flush(cx, io)`,
`child_complete(cx, child)`, `timer(cx, token)`, `io_abort(cx, io)`, `open(slots)`, `close(cx)`,
`gauges()`, `start_batch(cx, ios)`, `complete_batch(cx, ios)`, and what a manager of filters does to
a disk (`snapshot`, `resize` and the like). `help(vaio_bench.filters.Filter)` tells of each.

## Parameters
The keys of its table in a policy are the fields of its `Parameters`, a pydantic model; `reads`
names those that are files. What is wrong with them (`ValueError` in `__init__`) is a fault of the
policy.

## An I/O (`io`)
- `op` (`read`, `write`, `flush`, `discard`, `write_zeroes`), `offset_bytes`, `length_bytes`, `disk`
  (its number), `flags` (FUA 1, sync 2, meta 4, read-ahead 8, preflush 16).
- `seq`: its place in the trace; 2**64 - 1 of one that is not in it, as in a prefill. `id`: its
  number in the engine, which `cx` takes; it is another I/O's as soon as this one has ended.
- `data`: a memoryview, or None where the run carries no bytes (declare `needs_data`). A write's is
  read-only; what is assigned to a read's in `io_complete` (`io.data[:] = ...`) is what the guest
  gets. Valid during the callback, but for slices, which show what there was.
- `status`: on the way up, 0 or the errno of the layers below. Of a child, `parent` and `tag`.

## What a callback may do (`cx`)
- `resume(id)` lets an I/O go on that was deferred, `finish(id, status=0)` ends one.
- `child(parent, op, offset_bytes, length_bytes, data=None, flags=0, tag=0)`: an I/O of the filter's
  own to the layers below, for the I/O `parent` (an `id`), which is to be deferred, or for none
  (None). It ends in `child_complete`. As many at a time as `properties` declare; None comes back
  beyond that.
- `now()`: nanoseconds since the run's start. `timer(at_ns, token)` calls the filter's `timer`.
- `event(kind, detail_json="{}")`: a row of the run's events. `count_blocks(id, blocks, hits)`: what
  a cache looked up and found, in the I/O's row.

The context belongs to its callback: it is of no use afterwards.

## Class and properties
`filter_class` and `properties` of the class, which `vaio-bench certify py:MODULE:CLASS` holds it
to, beside the laws of all filters. What a callback raises fails its I/O (in a `start_batch` of the
filter's own, all of the batch), and the traceback is in the run's events. A filter that crashes or
hangs costs its round, told by its method and I/O.

## Unsuitable for
Telling what an idea costs: what is measured is mostly Python. Classes that are not trusted: they
run with the rights of whoever runs them.

## Source
`vaio_bench/filters/yara.py` is an example; `vaio_filter.h` is the same contract in C.
"""

from __future__ import annotations

import errno
import importlib
import inspect
import json
import traceback
from collections.abc import Sequence
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


_ERRNO_MAX = 4095
_NO_SEQ = (1 << 64) - 1
"""The number of an I/O that is not of the trace."""


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

        The run waits until no I/O of the filter's own is in flight. Called at the prefill's end,
        too: `open` then comes again.
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
        answers = [self._one(cx, "flush" if io.op == "flush" else "io_start", io) for io in ios]
        self._back_to(cx, "start_batch", ios)
        return answers

    def complete_batch(self, cx: Context, ios: Sequence[Io]) -> Sequence[Answer]:
        """I/Os that come back up."""
        answers = [self._one(cx, "io_complete", io) for io in ios]
        self._back_to(cx, "complete_batch", ios)
        return answers

    def batch(
        self, cx: Context, down: Sequence[Io], up: Sequence[Io]
    ) -> tuple[list[Answer], list[Answer]]:
        """What the engine calls: one entry into the interpreter for all of them."""
        return self._many(cx, "start_batch", down), self._many(cx, "complete_batch", up)

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

    def _one(self, cx: Context, name: str, io: Io) -> Answer:
        """One I/O's answer: what is raised fails this I/O and none beside it."""
        cx.turn_to(name, io)
        try:
            return _checked(getattr(self, name)(cx, io))
        except (Exception, SystemExit) as error:
            _tell(cx, name, error, [io])
            return fail(errno.EIO)

    def _many(self, cx: Context, name: str, ios: Sequence[Io]) -> list[Answer]:
        """A batch's answers: what a filter's own `start_batch` raises fails all of its I/Os."""
        if not ios:
            return []
        if not self._has_own(name):
            return list(getattr(self, name)(cx, ios))
        cx.turn_to(name, ios[0], ios[1:])
        try:
            answers = list(getattr(self, name)(cx, ios))
            if len(answers) != len(ios):
                raise ValueError(f"expected {len(ios)} answers, got {len(answers)}")
        except (Exception, SystemExit) as error:
            _tell(cx, name, error, ios)
            return [fail(errno.EIO)] * len(ios)
        for at, io in enumerate(ios):
            try:
                _checked(answers[at])
            except TypeError as error:
                _tell(cx, name, error, [io])
                answers[at] = fail(errno.EIO)
        return answers

    def _back_to(self, cx: Context, name: str, ios: Sequence[Io]) -> None:
        """A filter's own `start_batch` that had these I/Os shown one by one goes on."""
        if ios and self._has_own(name):
            cx.turn_to(name, ios[0], ios[1:])

    def _has_own(self, name: str) -> bool:
        return getattr(type(self), name) is not getattr(Filter, name)


def _checked(answer: Any) -> Answer:
    if type(answer) is not int or not DEFER <= answer <= _ERRNO_MAX:
        raise TypeError(f"expected PASS, COMPLETE, DEFER or fail(errno), got {answer!r}")
    return answer


def _tell(cx: Context, callback: str, error: BaseException, ios: Sequence[Io]) -> None:
    """An `error` event: the callback, the I/O or the range of a batch, and the traceback."""
    numbers = [io.seq for io in ios if io.seq != _NO_SEQ]
    told = {
        "callback": callback,
        "io": min(numbers, default=None),
        **({"last_io": max(numbers, default=None), "ios": len(ios)} if len(ios) > 1 else {}),
        "error": f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)),
    }
    cx.event("error", json.dumps(told))


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
