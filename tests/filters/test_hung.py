"""Filters that never answer: named after the time that the policy gives them, on both clocks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from filters.conftest import Io, make_importable
from filters.vendor import build
from replay_kit import Io as DiskIo
from replay_kit import rows_of
from replay_kit import write_trace as write_disks

import vaio_bench as vb
from vaio_bench.errors import WorkError
from vaio_bench.runner import Settings
from vaio_bench.spec import Policy, PolicyError, load_policy, parse_policy
from vaio_bench.store import open_run

LOSE, FORK = 9, 14  # Of broken.c.
AT = 20
WALL = Settings(pace="asap", depth=4, backend="mem")
VIRTUAL = Settings(pace="asap", depth=4, backend="sim", clock="virtual")

SOURCE = '''
    from collections import deque
    from vaio_bench.filters import DEFER, PASS, Filter, Properties

    class Loses(Filter):
        """Never answers I/O 19."""

        properties = Properties(transparent=True, may_defer=True)

        def io_start(self, cx, io):
            return DEFER if io.seq == 19 else PASS

    class Beats(Loses):
        """The same, and is always about to do something."""

        def io_start(self, cx, io):
            if io.seq == 0:
                cx.timer(cx.now() + 1_000_000, 0)
            return super().io_start(cx, io)

        def timer(self, cx, token):
            cx.timer(cx.now() + 1_000_000, 0)

    class Storms(Loses):
        """Sets timers for one moment without end."""

        def io_start(self, cx, io):
            cx.timer(cx.now(), 0)
            return PASS

        def timer(self, cx, token):
            cx.timer(cx.now(), 0)

    class LosesUp(Filter):
        """Never gives back what came up."""

        properties = Properties(transparent=True, may_defer=True)

        def io_complete(self, cx, io):
            return DEFER if io.seq == 19 else PASS

    class Queues(Filter):
        """Lets one I/O go every 100 ms: the last of a queue waits long."""

        properties = Properties(transparent=True, may_defer=True)

        def open(self, slots):
            self.queue = deque()

        def io_start(self, cx, io):
            if not self.queue:
                cx.timer(cx.now() + 100_000_000, 0)
            self.queue.append(io.id)
            return DEFER

        def timer(self, cx, token):
            cx.resume(self.queue.popleft())
            if self.queue:
                cx.timer(cx.now() + 100_000_000, 0)
'''


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_importable(tmp_path, monkeypatch, "standing", SOURCE)


@pytest.fixture
def policy(tmp_path: Path) -> Callable[..., Path]:
    """A policy of one filter that may stand still for 400 ms."""

    def write(use: str, placement: str = "inline", hang: str = "400ms") -> Path:
        file = tmp_path / "still.toml"
        head = f'[policy]\nhang = "{hang}"\n'
        file.write_text(f'{head}[[filter]]\nuse = "{use}"\nplacement = "{placement}"\n')
        return file

    return write


@pytest.fixture
def writes() -> list[Io]:
    return [(i * 1000, "write", 4096 * i, 4096) for i in range(60)]


def lost(
    trace: Path, out: Path, file: Path, settings: Settings = WALL
) -> tuple[str, pl.DataFrame, pl.DataFrame]:
    """A replay that a filter ends: the message, the rows that are kept, and the events."""
    began = time.monotonic()
    [told] = vb.replay(trace, out=out, policy=file, settings=settings)["lost_rounds"]
    assert time.monotonic() - began < 30
    run = open_run(out)
    assert run.exit.startswith("failed: 1 rounds lost: ")
    return told, rows_of(run, "still"), run.events()


@pytest.mark.parametrize("placement", ["inline", pytest.param("thread", marks=pytest.mark.slow)])
def test_a_library_that_never_answers_costs_its_round(
    tmp_path: Path,
    write_trace: Callable[[Sequence[Io]], Path],
    writes: list[Io],
    policy: Callable[..., Path],
    placement: str,
) -> None:
    use = f"so:{build('broken', tmp_path, f'-DBREAKS={LOSE}', f'-DAT={AT}')}"
    message, rows, events = lost(write_trace(writes), tmp_path / "run", policy(use, placement))
    assert (
        f'filter[0] "{use}" hung (let go of no I/O in 0.4 s) after io_start of I/O 19 '
        f"(write of 4096 bytes at offset {19 * 4096} of disk)"
    ) in message
    # All the others came back, and their rows are kept.
    assert sorted(rows["seq"]) == [seq for seq in range(60) if seq != 19]
    [event] = events.filter(kind="filter_hang").to_dicts()
    assert json.loads(event["detail"])["io"] == 19
    assert event["layer"] == use


def test_one_of_the_prefill_has_no_number(
    tmp_path: Path, write_trace: Callable[[Sequence[Io]], Path], policy: Callable[..., Path]
) -> None:
    use = f"so:{build('broken', tmp_path, f'-DBREAKS={LOSE}', '-DAT=1')}"
    told = r"after io_start of an I/O of the prefill \(write of 4096 bytes at offset 8192 of disk\)"
    trace = write_trace([(0, "read", 8192, 4096)])
    with pytest.raises(WorkError, match=told):
        vb.replay(trace, out=tmp_path / "run", policy=policy(use), settings=WALL)
    [event] = open_run(tmp_path / "run").events().to_dicts()
    assert json.loads(event["detail"])["io"] is None


def test_in_a_process_it_costs_its_disk_alone(tmp_path: Path, policy: Callable[..., Path]) -> None:
    use = f"so:{build('broken', tmp_path, f'-DBREAKS={LOSE}', f'-DAT={AT}')}"
    # Only the first disk has twenty I/Os.
    ios = [DiskIo(i * 1000, "write", i * 4096, 4096, "a") for i in range(60)]
    ios += [DiskIo(i * 1000, "write", i * 4096, 4096, "b") for i in range(15)]
    trace = write_disks(tmp_path / "t.parquet", sorted(ios, key=lambda io: io.time_ns))
    found = vb.replay(trace, out=tmp_path / "run", policy=policy(use, "process"), settings=WALL)
    [told] = found["lost_disks"]
    what = f'disk a: filter "{use}" hung (let go of no I/O in 0.4 s) after io_start of I/O '
    assert told.startswith(f"round 1: {what}")
    rows = rows_of(open_run(tmp_path / "run"), "still")
    assert rows.filter(pl.col("disk") == "b")["status"].to_list() == [0] * 15
    of_a = rows.filter(pl.col("disk") == "a")
    assert len(of_a) == 60
    assert of_a.filter(pl.col("status") != 0)["status"].to_list() == [5]


UNDEFERRED = (
    "hung (an I/O with children under way was not answered DEFER) after io_start of I/O 19 (write "
    f"of 4096 bytes at offset {19 * 4096})"
)


@pytest.mark.parametrize(
    ("placement", "settings"),
    [("inline", WALL), ("inline", VIRTUAL), pytest.param("thread", WALL, marks=pytest.mark.slow)],
)
def test_one_that_passes_an_io_with_children_under_way_is_known_at_once(
    tmp_path: Path,
    write_trace: Callable[[Sequence[Io]], Path],
    writes: list[Io],
    policy: Callable[..., Path],
    placement: str,
    settings: Settings,
) -> None:
    use = f"so:{build('broken', tmp_path, f'-DBREAKS={FORK}', f'-DAT={AT}')}"
    # Were the policy's time waited for, the run would end after a minute.
    file = policy(use, placement, "60s")
    message, rows, events = lost(write_trace(writes), tmp_path / "run", file, settings)
    assert message == f'round 1: filter[0] "{use}" {UNDEFERRED} of disk disk'
    assert 19 not in rows["seq"].to_list()
    assert events["kind"].to_list() == ["misuse", "filter_hang"]
    assert json.loads(events["detail"][0])["io"] == 19


def test_in_a_process_that_costs_the_disk_alone(
    tmp_path: Path, policy: Callable[..., Path]
) -> None:
    use = f"so:{build('broken', tmp_path, f'-DBREAKS={FORK}', f'-DAT={AT}')}"
    ios = [DiskIo(i * 1000, "write", i * 4096, 4096, "a") for i in range(60)]
    ios += [DiskIo(i * 1000, "write", i * 4096, 4096, "b") for i in range(15)]
    trace = write_disks(tmp_path / "t.parquet", sorted(ios, key=lambda io: io.time_ns))
    file = policy(use, "process", "60s")
    found = vb.replay(trace, out=tmp_path / "run", policy=file, settings=WALL)
    # Numbers are the trace's, of both disks.
    told = UNDEFERRED.replace("I/O 19", "I/O 34")
    assert found["lost_disks"] == [f'round 1: disk a: filter "{use}" {told}']
    rows = rows_of(open_run(tmp_path / "run"), "still")
    assert rows.filter(pl.col("disk") == "b")["status"].to_list() == [0] * 15


LONG = "hung (let go of no I/O in 0.4 s) after io_start of I/O 19 ("


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("Loses", WALL, LONG),
        ("Beats", VIRTUAL, LONG),
        ("LosesUp", VIRTUAL, "hung (it waits for nothing) after io_complete of I/O 19 ("),
        pytest.param("Loses", VIRTUAL, "hung (it waits for nothing) after", marks=pytest.mark.slow),
        pytest.param("Beats", WALL, LONG, marks=pytest.mark.slow),
        pytest.param("LosesUp", WALL, "after io_complete of I/O 19 (", marks=pytest.mark.slow),
    ],
)
def test_python_that_never_answers(
    tmp_path: Path,
    write_trace: Callable[[Sequence[Io]], Path],
    writes: list[Io],
    policy: Callable[..., Path],
    settings: Settings,
    name: str,
    told: str,
) -> None:
    file = policy(f"py:standing:{name}")
    message, rows, _ = lost(write_trace(writes), tmp_path / "run", file, settings)
    assert f'filter[0] "py:standing:{name}" hung (' in message
    assert told in message
    assert len(rows) == 59


def test_timers_without_end_are_ended(
    tmp_path: Path,
    write_trace: Callable[[Sequence[Io]], Path],
    writes: list[Io],
    policy: Callable[..., Path],
) -> None:
    file = policy("py:standing:Storms")
    told = r"hung \(it sets timers for one moment without end\) in timer \(disk disk\)"
    with pytest.raises(WorkError, match=told):
        vb.replay(write_trace(writes), out=tmp_path / "run", policy=file, settings=VIRTUAL)


@pytest.mark.parametrize("settings", [pytest.param(WALL, marks=pytest.mark.slow), VIRTUAL])
def test_a_long_queue_that_moves_has_not_hung(
    tmp_path: Path,
    write_trace: Callable[[Sequence[Io]], Path],
    writes: list[Io],
    policy: Callable[..., Path],
    settings: Settings,
) -> None:
    found: dict[str, Any] = vb.replay(
        write_trace(writes[:12]),
        out=tmp_path / "run",
        policy=policy("py:standing:Queues"),
        settings=Settings(**{**settings.__dict__, "depth": 12}),
    )
    assert found["errors"] == 0
    # Three times as long as a filter may stand still.
    assert rows_of(open_run(tmp_path / "run"), "still")["complete_ns"].max() > 1_100_000_000


def test_the_time_is_the_policy_s(tmp_path: Path, policy: Callable[..., Path]) -> None:
    assert load_policy("pass").hang_s is None
    loaded = load_policy(policy("py:standing:Loses", hang="2min"))
    assert loaded.hang_s == 120.0
    assert Policy.from_dict(loaded.to_dict()).hang_s == 120.0
    for wrong in ('"soon"', "0", "true", '"2d"', "[]"):
        with pytest.raises(PolicyError) as raised:
            parse_policy(f"[policy]\nhang = {wrong}\n[[filter]]\nuse = 'pass'\n", "p.toml")
        [fault] = raised.value.faults
        assert fault.startswith('p.toml: policy.hang: expected a time from "100ms" to "1d"')
