"""Filters in Python, from the policy to the bytes on the target."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest
from filters.conftest import Io, Replayed, make_importable

import vaio_bench as vb
from vaio_bench.errors import VaioBenchError, WorkError
from vaio_bench.runner import Settings
from vaio_bench.spec import PolicyError, load_policy, parse_policy

SOURCE = '''
    import errno
    import os
    from vaio_bench.filters import COMPLETE, DEFER, PASS, Filter, Parameters, Properties, fail

    class Xor(Filter):
        """Keeps every byte XORed with a key."""

        filter_class = "encryption"
        properties = Properties(may_defer=True, needs_data=True, children_per_io=1)

        class Parameters(Parameters):
            key: int

        def io_start(self, cx, io):
            if io.op not in ("write", "write_zeroes"):
                return PASS
            data = bytes(io.data) if io.op == "write" else bytes(io.length_bytes)
            table = bytes(i ^ self.parameters.key for i in range(256))
            child = cx.child(io.id, "write", io.offset_bytes, io.length_bytes,
                             data=data.translate(table), flags=io.flags & 1)
            return DEFER if child is not None else fail(errno.ENOMEM)

        def io_complete(self, cx, io):
            if io.op == "read" and io.status == 0:
                table = bytes(i ^ self.parameters.key for i in range(256))
                io.data[:] = bytes(io.data).translate(table)
            return PASS

    class Raises(Filter):
        """Raises at one I/O."""

        def io_start(self, cx, io):
            if io.seq == 19:
                raise RuntimeError("no more")
            return PASS

    class AlwaysRaises(Filter):
        """Raises at every I/O."""

        def io_start(self, cx, io):
            raise RuntimeError("no more")

    class Exits(Filter):
        """Ends the process, it thinks."""

        def io_start(self, cx, io):
            raise SystemExit(3)

    class NoAnswer(Filter):
        """Forgets to answer."""

        def io_start(self, cx, io):
            return None

    class Batches(Filter):
        """Tells how many I/Os it was shown at a time."""

        most = 0

        def start_batch(self, cx, ios):
            self.most = max(self.most, len(ios))
            return [PASS] * len(ios)

        def gauges(self):
            return {"most": self.most}

    class Keeps(Filter):
        """Looks at the bytes of an I/O that is over."""

        properties = Properties(transparent=True, needs_data=True)
        kept = None

        def io_start(self, cx, io):
            kept, self.kept = self.kept, io.data
            if kept is not None:
                kept[0]
            return PASS

    class Slices(Filter):
        """Keeps slices of the bytes of I/Os that are over, looks at them and writes into them."""

        properties = Properties(transparent=True, needs_data=True)

        def __init__(self, parameters, setting):
            super().__init__(parameters, setting)
            self.kept = []

        def look(self, cx, data):
            for view, was in self.kept:
                if bytes(view) != was:
                    cx.event("changed")
            view = data[:16]
            self.kept.append((view, bytes(view)))

        def io_start(self, cx, io):
            if io.op == "write":
                self.look(cx, io.data)
            return PASS

        def io_complete(self, cx, io):
            if io.op == "read":
                self.look(cx, io.data)
                for at, (view, was) in enumerate(self.kept[:-1]):
                    if not view.readonly:
                        view[:] = bytes(16)
                        self.kept[at] = (view, bytes(16))
            return PASS

    class BreaksInOpen(Filter):
        """Cannot begin."""

        def open(self, slots):
            raise RuntimeError("no journal")

    class Forks(Filter):
        """Forks a child for each write, and then does something wrong."""

        properties = Properties(transparent=True, may_defer=True, needs_data=True,
                                children_per_io=2)
        children = 1

        def io_start(self, cx, io):
            if io.op != "write":
                return PASS
            for _ in range(self.children):
                cx.child(io.id, "write", io.offset_bytes, io.length_bytes, data=bytes(io.data))
            return self.answer(cx, io)

        def answer(self, cx, io):
            return DEFER

    class ForksAndPasses(Forks):
        def answer(self, cx, io):
            return PASS

    class FinishesAndPasses(Filter):
        properties = Properties(transparent=True, may_answer=True, may_defer=True)

        def io_start(self, cx, io):
            cx.finish(io.id)
            return PASS

    class BreaksOnChild(Forks):
        def child_complete(self, cx, child):
            raise RuntimeError("late")

    class BreaksOnFirstChild(Forks):
        children = 2
        seen = 0

        def child_complete(self, cx, child):
            self.seen += 1
            if self.seen % 2:
                raise RuntimeError("late")

    class Scribbles(Filter):
        """Changes the bytes of a write from above."""

        properties = Properties(transparent=True, needs_data=True)

        def io_start(self, cx, io):
            io.data[0] = 1
            return PASS

    class Aborts(Filter):
        """Takes the process with it."""

        def io_start(self, cx, io):
            if io.seq == 19:
                os.abort()
            return PASS

    class NoFilter:
        pass
'''


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_importable(tmp_path, monkeypatch, "mine", SOURCE)


def test_one_that_changes_data_is_right_on_both_clocks_and_repeats(
    tmp_path: Path,
    write_trace: Callable[[Sequence[Io]], Path],
    replay: Callable[..., Replayed],
    mixed_ios: list[Io],
) -> None:
    trace = write_trace(mixed_ios[:1000])
    policy = 'use = "py:mine:Xor"\nkey = 90'
    first, second = (replay(trace, policy, depth=16) for _ in range(2))
    assert first.summary["verified"] is True
    assert first.summary["errors"] == 0
    assert first.rows.drop("policy").equals(second.rows.drop("policy"))
    wall = {"clock": "wall", "backend": "psync", "depth": 16}
    keyed, plain = tmp_path / "keyed.img", tmp_path / "plain.img"
    assert replay(trace, policy, keyed, **wall).summary["verified"] is True
    replay(trace, None, plain, **wall)
    _, _, offset, length = next(io for io in reversed(mixed_ios[:1000]) if io[1] == "write")
    ours = keyed.read_bytes()[offset : offset + length]
    theirs = plain.read_bytes()[offset : offset + length]
    assert bytes(byte ^ 90 for byte in ours) == theirs


def test_a_run_with_one_is_labelled(
    tmp_path: Path,
    write_trace: Callable[[Sequence[Io]], Path],
    replay: Callable[..., Replayed],
    writes: list[Io],
) -> None:
    done = replay(write_trace(writes), 'use = "py:mine:Batches"', depth=8)
    manifest = vb.open_run(done.summary["run"]).manifest
    [policy] = manifest["policies"].values()
    assert policy["filters"][0]["make"] == "python"
    assert "python-filter" in [warning["code"] for warning in manifest["warnings"]]


def test_ios_come_in_batches(
    write_trace: Callable[[Sequence[Io]], Path],
    replay: Callable[..., Replayed],
    writes: list[Io],
) -> None:
    done = replay(write_trace(writes), 'use = "py:mine:Batches"', depth=8)
    run = vb.open_run(done.summary["run"])
    most = run.gauges(run.policies[0], 0).filter(pl.col("gauge") == "most").collect()
    assert most["value"].max() == 8


def test_what_is_raised_fails_that_io_and_is_told(
    write_trace: Callable[[Sequence[Io]], Path],
    replay: Callable[..., Replayed],
    writes: list[Io],
) -> None:
    done = replay(write_trace(writes), 'use = "py:mine:Raises"', depth=8, verify=False)
    failed = done.rows.filter(pl.col("status") != 0)
    assert failed["seq"].to_list() == [19]
    assert failed["status"].to_list() == [errno.EIO]
    [detail] = done.events.filter(kind="error")["detail"]
    told = json.loads(detail)
    assert told["io"] == 19
    assert told["error"] == "RuntimeError: no more"
    assert "mine.py" in told["traceback"]


@pytest.mark.parametrize(
    ("name", "why"), [("Keeps", "released memoryview"), ("Scribbles", "cannot modify read-only")]
)
def test_bytes_belong_to_their_callback_and_a_write_s_to_the_layers_above(
    write_trace: Callable[[Sequence[Io]], Path],
    replay: Callable[..., Replayed],
    writes: list[Io],
    name: str,
    why: str,
) -> None:
    done = replay(write_trace(writes), f'use = "py:mine:{name}"', verify=False)
    told = [json.loads(detail)["error"] for detail in done.events.filter(kind="error")["detail"]]
    assert told
    assert all(why in error for error in told)


@pytest.mark.parametrize(
    ("name", "why"),
    [("AlwaysRaises", "RuntimeError: no more"), ("Exits", "SystemExit: 3"), ("NoAnswer", "None")],
)
def test_what_is_raised_in_the_prefill_is_told(
    write_trace: Callable[[Sequence[Io]], Path],
    tmp_path: Path,
    name: str,
    why: str,
) -> None:
    (tmp_path / "p.toml").write_text(f'[[filter]]\nuse = "py:mine:{name}"\n')
    trace = write_trace([(0, "read", 0, 4096)])
    settings = Settings(pace="asap", backend="sim", clock="virtual")
    with pytest.raises(WorkError, match="prefill: write at offset 0") as raised:
        vb.replay(trace, out=tmp_path / "run", policy=tmp_path / "p.toml", settings=settings)
    assert why in str(raised.value)
    run = vb.open_run(tmp_path / "run")
    assert why in run.exit
    [detail] = run.events().filter(kind="error")["detail"].head(1)
    assert why in json.loads(detail)["error"]
    # It costs the round, and no other.
    [lost] = run.manifest["lost_rounds"]
    assert why in lost["reason"]


def test_a_slice_that_is_kept_shows_what_it_did(
    write_trace: Callable[[Sequence[Io]], Path],
    replay: Callable[..., Replayed],
    mixed_ios: list[Io],
) -> None:
    """It neither reads nor changes what became of the slot."""
    done = replay(write_trace(mixed_ios[:300]), 'use = "py:mine:Slices"', depth=8)
    assert done.summary["verified"] is True
    assert done.events.is_empty()


def test_one_that_breaks_in_open_ends_the_round(
    write_trace: Callable[[Sequence[Io]], Path],
    replay: Callable[..., Replayed],
    writes: list[Io],
) -> None:
    with pytest.raises(
        VaioBenchError, match=r"in open: RuntimeError: no journal \(.*mine.py, line"
    ):
        replay(write_trace(writes), 'use = "py:mine:BreaksInOpen"')


@pytest.mark.parametrize(
    ("name", "status", "told"),
    [
        ("ForksAndPasses", 0, "an I/O with children under way was not answered DEFER"),
        ("FinishesAndPasses", 0, "an I/O was resumed or finished, and then not answered DEFER"),
        ("BreaksOnChild", errno.EIO, "RuntimeError: late (in child_complete)"),
        ("BreaksOnFirstChild", errno.EIO, "RuntimeError: late (in child_complete)"),
    ],
)
def test_what_is_done_wrong_is_told_and_leaves_no_io_behind(
    write_trace: Callable[[Sequence[Io]], Path],
    replay: Callable[..., Replayed],
    writes: list[Io],
    name: str,
    status: int,
    told: str,
) -> None:
    done = replay(write_trace(writes), f'use = "py:mine:{name}"', depth=8, verify=False)
    assert done.rows["status"].to_list() == [status] * len(writes)
    kinds = done.events["kind"].to_list()
    assert kinds == ["error" if status else "misuse"] * len(writes)
    [warning] = [
        each
        for each in vb.open_run(done.summary["run"]).manifest["warnings"]
        if each["code"] == "filter-faults"
    ]
    assert f"{len(writes)} time(s), first: {told}" in warning["seen"]


def test_a_crash_is_named(
    write_trace: Callable[[Sequence[Io]], Path],
    replay: Callable[..., Replayed],
    writes: list[Io],
) -> None:
    with pytest.raises(
        WorkError, match=r'"py:mine:Aborts" crashed \(SIGABRT\) in io_start of I/O 19'
    ):
        replay(write_trace(writes), 'use = "py:mine:Aborts"')


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ('use = "py:nowhere:Filter"', "filter[0].use: py:nowhere:Filter: ModuleNotFoundError"),
        (
            'use = "py:mine:NoFilter"',
            "filter[0].use: py:mine:NoFilter: TypeError: expected a class",
        ),
        ('use = "py:mine"', 'filter[0].use: expected "py:MODULE:CLASS", got "py:mine"'),
        ('use = "py:mine:Xor"', "filter[0].key: missing"),
        ('use = "py:mine:Xor"\nkey = 1\nkez = 2', "filter[0].kez: unknown key"),
        ('use = "py:mine:Xor"\nkey = "x"', "filter[0].key: input should be a valid integer"),
    ],
)
def test_faults_are_those_of_the_policy(table: str, expected: str) -> None:
    with pytest.raises(PolicyError) as raised:
        parse_policy(f"[[filter]]\n{table}\n", "p.toml")
    [fault] = raised.value.faults
    assert fault.startswith(f"p.toml: {expected}")


def test_its_class_counts_in_the_framework_s_rules(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text('[[filter]]\nuse = "py:mine:Xor"\nkey = 1\n')
    assert load_policy(file).filters[0].filter_class == "encryption"
