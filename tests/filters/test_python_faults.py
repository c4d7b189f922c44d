"""Filters in Python that go wrong: the I/O, or the batch's range, and the method are named."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest
from filters.conftest import Io, Replayed, make_importable

import vaio_bench as vb
from vaio_bench.errors import WorkError

SOURCE = '''
    import os
    import sys
    import time
    from vaio_bench.filters import PASS, Filter, Parameters

    class AtOne(Filter):
        """Does something wrong at one I/O: `wrong` of the policy."""

        at = 19

        class Parameters(Parameters):
            wrong: str

        def io_start(self, cx, io):
            if io.seq == self.at:
                return getattr(self, self.parameters.wrong)()
            return PASS

        def exit(self):
            sys.exit(3)

        def hang(self):
            time.sleep(60)

        def nothing(self):
            return None

        def truth(self):
            return True

        def negative(self):
            return -7

    class BatchAtOne(AtOne):
        """The same with many I/Os at a time, of which eight are due at first."""

        at = 3

        def start_batch(self, cx, ios):
            if any(io.seq == self.at for io in ios):
                wrong = getattr(self, self.parameters.wrong)()
                if wrong == "short":
                    return []
                return [wrong if io.seq == self.at else PASS for io in ios]
            return super().start_batch(cx, ios)

        def abort(self):
            os.abort()

        def raises(self):
            raise RuntimeError("not this one")

        def short(self):
            return "short"

    class RaisesBeside(Filter):
        """Raises where no I/O is."""

        class Parameters(Parameters):
            method: str

        def open(self, slots):
            self.is_set = False

        def wrong(self, method):
            if method == self.parameters.method:
                raise RuntimeError(f"no {method}")

        def io_start(self, cx, io):
            if not self.is_set:
                self.is_set = True
                cx.timer(cx.now() + 1000, 7)
            return PASS

        def timer(self, cx, token):
            self.wrong("timer")

        def gauges(self):
            self.wrong("gauges")
            return {"figure": 1}

        def close(self, cx):
            self.wrong("close")
'''


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_importable(tmp_path, monkeypatch, "mine", SOURCE)


@pytest.mark.parametrize(
    ("name", "callback", "at"), [("AtOne", "io_start", 19), ("BatchAtOne", "start_batch", 3)]
)
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("nothing", "TypeError: expected PASS, COMPLETE, DEFER or fail(errno), got None"),
        ("truth", "TypeError: expected PASS, COMPLETE, DEFER or fail(errno), got True"),
        ("negative", "TypeError: expected PASS, COMPLETE, DEFER or fail(errno), got -7"),
    ],
)
def test_a_wrong_answer_is_its_io_s(
    write_trace: Callable[[Sequence[Io]], Path],
    replay: Callable[..., Replayed],
    writes: list[Io],
    name: str,
    callback: str,
    at: int,
    wrong: str,
    told: str,
) -> None:
    policy = f'use = "py:mine:{name}"\nwrong = "{wrong}"'
    done = replay(write_trace(writes), policy, depth=8, verify=False)
    assert done.rows.filter(pl.col("status") != 0)["seq"].to_list() == [at]
    [detail] = done.events.filter(kind="error")["detail"]
    found = json.loads(detail)
    assert (found["callback"], found["io"], found["error"]) == (callback, at, told)


def test_one_that_exits_fails_its_io_and_is_named(
    write_trace: Callable[[Sequence[Io]], Path],
    replay: Callable[..., Replayed],
    writes: list[Io],
) -> None:
    policy = 'use = "py:mine:AtOne"\nwrong = "exit"'
    done = replay(write_trace(writes), policy, depth=8, verify=False)
    assert done.rows.filter(pl.col("status") != 0)["seq"].to_list() == [19]
    [detail] = done.events.filter(kind="error")["detail"]
    found = json.loads(detail)
    assert (found["callback"], found["io"]) == ("io_start", 19)
    assert found["error"] == "SystemExit: 3"
    assert "in exit\n    sys.exit(3)" in found["traceback"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [("raises", "RuntimeError: not this one"), ("short", "ValueError: expected 8 answers, got 0")],
)
def test_what_a_batch_does_wrong_is_told_with_its_range(
    write_trace: Callable[[Sequence[Io]], Path],
    replay: Callable[..., Replayed],
    writes: list[Io],
    wrong: str,
    told: str,
) -> None:
    policy = f'use = "py:mine:BatchAtOne"\nwrong = "{wrong}"'
    done = replay(write_trace(writes), policy, depth=8, verify=False)
    [detail] = done.events.filter(kind="error")["detail"]
    found = json.loads(detail)
    assert (found["callback"], found["error"]) == ("start_batch", told)
    assert (found["io"], found["last_io"], found["ios"]) == (0, 7, 8)
    assert done.rows.filter(pl.col("status") != 0)["seq"].to_list() == list(range(8))
    assert "mine.py" in found["traceback"] or wrong == "short"


@pytest.mark.parametrize(
    ("table", "where"),
    [
        (
            '"py:mine:AtOne"\nwrong = "hang"',
            r"hung \(no return in 0.5 s\) in io_start of I/O 19",
        ),
        (
            '"py:mine:BatchAtOne"\nwrong = "abort"',
            r"crashed \(SIGABRT\) in start_batch of 8 I/Os from 0 to 7 \(the first: write of",
        ),
    ],
)
def test_a_crash_or_hang_is_named_by_its_io_and_method(
    write_trace: Callable[[Sequence[Io]], Path],
    replay: Callable[..., Replayed],
    writes: list[Io],
    table: str,
    where: str,
) -> None:
    with pytest.raises(WorkError, match=where):
        replay(write_trace(writes), f"use = {table}", depth=8, hang_s=0.5)


@pytest.mark.parametrize("placement", ["thread", "process"])
def test_elsewhere_too(
    write_trace: Callable[[Sequence[Io]], Path],
    replay: Callable[..., Replayed],
    writes: list[Io],
    placement: str,
) -> None:
    policy = f'use = "py:mine:AtOne"\nwrong = "hang"\nplacement = "{placement}"'
    wall = {"clock": "wall", "backend": "mem"}
    try:
        done = replay(write_trace(writes), policy, depth=8, verify=False, hang_s=0.5, **wall)
        [told] = done.summary["lost_disks"]
    except WorkError as error:
        # A thread's costs the round.
        told = str(error)
    assert "hung (no return in 0.5 s) in io_start of I/O 19 (write of 4096 bytes" in told


@pytest.mark.parametrize("placement", ["inline", "thread"])
@pytest.mark.parametrize("method", ["timer", "gauges", "close"])
def test_what_is_raised_where_no_io_is_has_its_traceback(
    write_trace: Callable[[Sequence[Io]], Path],
    replay: Callable[..., Replayed],
    writes: list[Io],
    method: str,
    placement: str,
) -> None:
    policy = f'use = "py:mine:RaisesBeside"\nmethod = "{method}"\nplacement = "{placement}"'
    wall = {"clock": "wall", "backend": "mem"} if placement == "thread" else {}
    done = replay(write_trace(writes), policy, depth=8, verify=False, **wall)
    assert done.summary["errors"] == 0
    events = done.events.filter(kind="error").to_dicts()
    # It is closed twice: when the prefill is done, too.
    assert len(events) == (2 if method == "close" else 1)
    for event in events:
        assert event["layer"] == "py:mine:RaisesBeside"
        found = json.loads(event["detail"])
        assert (found["callback"], found["error"]) == (method, f"RuntimeError: no {method}")
        assert "mine.py" in found["traceback"]
    [warning] = [
        each
        for each in vb.open_run(done.summary["run"]).manifest["warnings"]
        if each["code"] == "filter-faults"
    ]
    assert f"RuntimeError: no {method} (in {method})" in warning["seen"]
