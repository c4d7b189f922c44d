"""Where a filter runs: called by the worker, on another thread, or in another process.

A filter framework may run a vendor's filter outside the path of the I/O itself: the I/O is handed
over, waited for, and taken back. `placement` makes this one extra step visible: the same filter,
called directly, or behind a hop whose cost is a layer of its own, `hop`, in every table and row.

## Parameters
`placement` is a key of any `[[filter]]`:
- `"inline"` (the default): the worker calls the filter.
- `"thread"`: it runs on a thread of its own, one for each disk.
- `"process"`: it runs in a process of its own, one for each disk, over the same memory: I/Os' bytes
  are not copied. A filter that crashes or hangs there costs its disk alone: the disk's I/Os fail
  with EIO from then on, an event (`filter_crash`, `filter_hang`) names callback and I/O, the run's
  other disks go on, and `replay` ends with exit status 1. The process ends with its worker,
  whatever ends that. A filter has hung when a callback does not return, or none of the I/Os that
  it holds is let go, within the policy's `[policy] hang` (30s). In the prefill, before the trace
  begins, either costs the round.

Or a table: `placement = { at = "thread", spin = "500us" }`. `spin` is how long a side looks for a
message before it sleeps, by default 200us; `"0s"` sleeps at once. A sleep costs the next I/O a
wake-up, tens of microseconds; looking costs a processor, on both sides, and both sides' CPU is in
the figures of CPU per I/O. On a machine with one processor nobody looks.

## Example
```toml
[[filter]]
use = "crypt"
key = "random"
placement = "process"
```

## How the time is booked
The layer `hop` stands before the filter's own. Its self time is what the I/O waited in the two
queues, there and back, and for whoever had to wake up: for the children of a filter too. The
filter's self time is what its callbacks took, and how long it held the I/O by its own choice (a
delay, a limit). Layers still add up to the latency. `hop`'s `cpu_ns` is what handing over cost the
worker; what the other side used, its spinning included, is in the round's `cpu_user_ns` and
`cpu_system_ns`, and `hop_cpu_ns` and `hop_sleeps` are gauges.

## What cannot be placed
- An instance for a group of disks (`cdp`, a cache with `scope = "group"`): rule `placement-scope`.
- An NBD server, which is a process already: rule `placement-server`.
- Anything under `--clock virtual`, which charges no CPU, so that a hop costs nothing there: rule
  `placement-clock`. `certify` does test placed filters in virtual time, message by message.

## Unsuitable for
Reproducing the latency of a given product: VMware's user-space filters meet other schedulers and
other queues. What is measured is the step itself, on this machine.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vaio_bench.black_box import HANG_S
from vaio_bench.errors import InputError
from vaio_bench.units import parse_time_ns
from vaio_bench.warnings import RunWarning, WarningKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaio_bench.spec import FilterUse, Policy

LAYER = "hop"
"""The layer before a placed filter's own, in every row and table."""

PLACES = ("inline", "thread", "process")
SPIN_NS = 200_000
_SPIN_NS_MAX = 1_000_000_000


@dataclass(frozen=True)
class Placement:
    """Where a filter runs, and how long each side looks before it sleeps."""

    at: str = "inline"
    spin_ns: int = SPIN_NS

    def to_dict(self) -> dict[str, Any]:
        """What a manifest's entry of a filter says of it."""
        spin = {"spin_ns": self.spin_ns} if self.is_hop else {}
        return {"placement": self.at, **spin}

    @property
    def is_hop(self) -> bool:
        """Whether an I/O is handed over to it."""
        return self.at != "inline"


def parse(value: object) -> tuple[Placement, list[tuple[str, str]]]:
    """A policy's `placement`, and `(key path, what was expected)` for each fault of it."""
    expected = 'expected "inline", "thread" or "process"'
    table = value if isinstance(value, dict) else {"at": value}
    faults: list[tuple[str, str]] = []
    at = table.get("at")
    if at not in PLACES:
        path = "placement.at" if isinstance(value, dict) else "placement"
        faults.append((path, f"{expected}, got {_shown(at)}"))
        at = PLACES[0]
    for key in table:
        if key not in ("at", "spin"):
            faults.append((f"placement.{key}", "unknown key: expected one of at, spin"))
    spin_ns = SPIN_NS
    if "spin" in table:
        try:
            spin_ns = parse_time_ns(table["spin"])
        except InputError:
            spin_ns = -1
        if not 0 <= spin_ns <= _SPIN_NS_MAX:
            message = f'expected a time up to "1s", such as "200us", got {_shown(table["spin"])}'
            faults.append(("placement.spin", message))
            spin_ns = SPIN_NS
    return Placement(str(at), spin_ns), faults


def unfit_properties(placement: Placement, properties: dict[str, Any]) -> str | None:
    """Why a filter that says this of itself cannot be placed there."""
    if placement.is_hop and properties.get("scope") == "group":
        return (
            'expected "inline": an instance for a group of disks runs on the worker that drives '
            "them (rule placement-scope)"
        )
    return None


def unfit_server(placement: Placement) -> str | None:
    """Why an NBD server cannot be placed there."""
    if placement.is_hop:
        return 'expected "inline": a server is a process already (rule placement-server)'
    return None


def engine_filters(filters: Sequence[FilterUse], hang_s: float = HANG_S) -> list[dict[str, Any]]:
    """A chain as the engine's options have it, a stand-in before each filter that is placed.

    Args:
        filters: first filter first, without a server.
        hang_s: a callback in another process that takes longer has hung.
    """
    chain: list[dict[str, Any]] = []
    for use in filters:
        if use.placement.is_hop:
            placed = {
                "placement": use.placement.at,
                "spin_ns": use.placement.spin_ns,
                "hang_ns": round(hang_s * 1e9),
            }
            chain.append({"name": LAYER, "params": placed})
        name = use.engine_use or use.use
        word = {} if name == use.use else {"word": use.use}
        chain.append({"name": name, **word, "params": use.params})
    return chain


def check(policies: Sequence[Policy], clock: str) -> None:
    """Raises InputError where a filter is placed that cannot be under this clock."""
    for policy in policies:
        for i, use in enumerate(policy.filters):
            if use.placement.is_hop and clock == "virtual":
                raise InputError(
                    f"policy {policy.name}: filter[{i}].placement: a placed filter runs on the "
                    "wall clock only: leave out --clock virtual, or say placement = "
                    '"inline" (rule placement-clock)'
                )


def warnings(policies: Sequence[Policy], disks: int) -> list[RunWarning]:
    """What is known before the first round: more sides that spin than processors."""
    cpus = len(os.sched_getaffinity(0))
    raised = []
    for policy in policies:
        spinning = [use for use in policy.filters if use.placement.is_hop and use.placement.spin_ns]
        sides = disks * (1 + len(spinning))
        if spinning and sides > cpus:
            raised.append(WarningKind.SPIN_CROWDED.of(policy=policy.name, sides=sides, cpus=cpus))
    return raised


def _shown(value: object) -> str:
    return json.dumps(value, default=str)[:80]
