"""CPU and context switches of a round are those of the threads that serve the I/Os alone."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filters.vendor import build
from replay_kit import Io

BURN_NS = 5_000_000
MIB = 1 << 20
# From the kernel's numbers of clocks: what the scheduler gave to one thread.
_OF_THREAD, _SCHEDULED = 4, 2


def used_ns(totals: dict[str, Any]) -> int:
    return int(totals["cpu_user_ns"] + totals["cpu_system_ns"])


@pytest.mark.parametrize("flags", [(), ("-DENDS",)])
@pytest.mark.parametrize("placement", ["inline", "thread", "process"])
def test_what_a_library_s_own_threads_use_is_counted(
    engine: Callable[..., Any], tmp_path: Path, flags: tuple[str, ...], placement: str
) -> None:
    library = build("burner", tmp_path, f"-DBURN_NS={BURN_NS}", *flags)
    policy = tmp_path / "burner.toml"
    policy.write_text(f'[[filter]]\nuse = "so:{library}"\nplacement = "{placement}"\n')
    ios = [Io(i * 1000, "write", i * 4096, 4096) for i in range(40)]
    totals = engine(ios, policy=policy, clock="wall", pace="asap", depth=1).totals
    burnt = len(ios) * BURN_NS
    # Threads that have ended are known by the process's sum alone, which may lag by a tick; beside
    # a filter in another place, two threads look for messages.
    assert burnt * 0.9 < used_ns(totals) < burnt * (1.5 if placement == "inline" else 4)
    assert totals["errors"] == 0
    # Each I/O waits for the thread that burns, or is made to wait when that takes the CPU from it.
    switches = totals["context_switches"] + totals["involuntary_context_switches"]
    assert switches >= len(ios)


class Watch:
    """The CPU of the threads of a name, as long as there are any, seen from a thread of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.used_ns: dict[int, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.002):
            for task in Path("/proc/self/task").iterdir():
                try:
                    if (task / "comm").read_text().strip() == self.name:
                        clock = (~int(task.name) << 3) | _OF_THREAD | _SCHEDULED
                        self.used_ns[int(task.name)] = time.clock_gettime_ns(clock)
                except OSError:
                    continue


def test_the_pool_of_psync_is_counted_and_what_takes_the_rows_is_not(
    engine: Callable[..., Any], tmp_path: Path
) -> None:
    ios = [Io(i * 1000, "write", i % 16 * MIB, MIB) for i in range(300)]
    before = resource.getrusage(resource.RUSAGE_SELF)
    with Watch("psync") as pool:
        totals = engine(
            ios, target=tmp_path / "t.img", backend="psync", clock="wall", pace="asap", depth=8,
            direct="never",
        ).totals  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_SELF)
    whole = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert len(pool.used_ns) > 1
    seen_ns = sum(pool.used_ns.values())
    assert seen_ns > 20_000_000
    assert seen_ns * 0.95 < used_ns(totals) < whole * 1e9
    assert totals["context_switches"] > 0


def test_rows_and_the_reading_of_the_trace_cost_the_path_nothing(
    engine: Callable[..., Any],
) -> None:
    """A burning thread of the process that takes the rows is the bench's own."""
    stop = threading.Event()

    def burn() -> None:
        while not stop.is_set():
            os.getpid()

    burner = threading.Thread(target=burn)
    burner.start()
    try:
        ios = [Io(i * 1_000_000, "write", i * 4096, 4096) for i in range(300)]
        totals = engine(ios, clock="wall", backend="null", pace="recorded", spin_ns=0).totals
    finally:
        stop.set()
        burner.join()
    assert used_ns(totals) < 150_000_000
