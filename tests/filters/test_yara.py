"""`yara`: the EICAR string, matches that span I/Os, and what each action does."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from filters.conftest import Io, Replayed

import vaio_bench as vb
from vaio_bench.filters import PASS, Setting, yara
from vaio_bench.filters.yara import Yara, YaraParameters
from vaio_bench.spec import PolicyError, load_policy, parse_policy

# In parts, so that this file is not found guilty of it.
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}" + b"$EICAR-STANDARD-" + b"ANTIVIRUS-TEST-FILE!$H+H*"


class Events(list[Any]):
    """A context that keeps events."""

    def event(self, kind: str, detail: str) -> None:
        self.append((kind, json.loads(detail)))


class Rig:
    """One disk, without an engine."""

    def __init__(self, **parameters: Any) -> None:
        self.filter = Yara(YaraParameters(**parameters), Setting("d", 0, ["d"], 0))
        self.filter.open(8)
        self.events = Events()
        self.seq = 0

    def write(self, offset: int, data: bytes) -> int:
        return self.io("write", offset, len(data), memoryview(data))

    def io(self, op: str, offset: int, length: int, data: memoryview | None = None) -> int:
        self.seq += 1
        io = SimpleNamespace(
            op=op, offset_bytes=offset, length_bytes=length, seq=self.seq, data=data
        )
        context: Any = self.events
        return self.filter.io_start(context, io)  # type: ignore[arg-type]


def padded(data: bytes, before: int = 100, length: int = 512) -> bytes:
    return (b"." * before + data).ljust(length, b".")


def test_the_test_string_is_68_bytes() -> None:
    assert len(EICAR) == 68


@pytest.mark.parametrize(
    ("action", "answer", "events"),
    [("block", errno.EIO, 1), ("alert", PASS, 1), ("allow", PASS, 0)],
)
def test_actions(action: str, answer: int, events: int) -> None:
    rig = Rig(action=action)
    assert rig.write(0, padded(b"")) == PASS
    assert rig.write(512, padded(EICAR)) == answer
    assert len(rig.events) == events
    assert rig.filter.gauges()["matched_writes"] == 1
    assert rig.filter.gauges()["blocked_writes"] == (action == "block")
    if events:
        kind, told = rig.events[0]
        assert kind == "match"
        assert told["rules"] == ["eicar_test_string"]
        assert (told["io"], told["offset_bytes"]) == (2, 512)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("cut", [1, 34, 67])
def test_a_match_that_spans_two_ios(order: tuple[int, int], cut: int) -> None:
    rig = Rig(action="block")
    halves = [b"." * (512 - cut) + EICAR[:cut], EICAR[cut:].ljust(512, b".")]
    first, second = order
    assert rig.write(512 * first, halves[first]) == PASS
    # Something between them, elsewhere.
    assert rig.write(1 << 20, padded(b"")) == PASS
    assert rig.write(512 * second, halves[second]) == errno.EIO


def test_beyond_the_window_or_overwritten_there_is_no_match() -> None:
    halves = [b"." * 472 + EICAR[:40], EICAR[40:].ljust(512, b".")]
    narrow = Rig(action="block", window=39)
    assert [narrow.write(0, halves[0]), narrow.write(512, halves[1])] == [PASS, PASS]
    for op in ("discard", "write_zeroes", "write"):
        rig = Rig(action="block")
        rig.write(0, halves[0])
        rig.io(op, 256, 256, memoryview(bytes(256)) if op == "write" else None)
        assert rig.write(512, halves[1]) == PASS, op
    # A write that was blocked is not on the disk.
    rig = Rig(action="block")
    assert rig.write(0, EICAR + halves[0]) == errno.EIO
    assert rig.write(68 + 512, halves[1]) == PASS


HALVES = [b"." * 472 + EICAR[:40], EICAR[40:].ljust(512, b".")]


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("op", ["write", "discard", "write_zeroes"])
def test_what_is_left_of_a_write_that_was_partly_overwritten_counts(side: int, op: str) -> None:
    rig = Rig(action="block")
    dots = b"." * 512
    assert rig.write(0, HALVES[0] + dots if side == 0 else dots + HALVES[1]) == PASS
    # Over the other half of it, with the bytes that make it whole, or after a hole was made.
    other = 512 * (1 - side)
    if op != "write":
        rig.io(op, other, 512)
    assert rig.write(other, HALVES[1 - side]) == errno.EIO
    # That one is not on the disk: the next is held to what was left.
    assert rig.write(other, HALVES[1 - side]) == errno.EIO
    assert rig.write(other, dots) == PASS


def test_a_match_may_span_three_writes_and_a_blocked_one_overwrites_nothing() -> None:
    rig = Rig(action="block")
    rig.write(0, b"." * 492 + EICAR[:20])
    rig.write(552, EICAR[60:])
    assert rig.write(512, EICAR[20:60]) == errno.EIO
    assert rig.write(400, EICAR + b"." * 44) == errno.EIO
    assert rig.write(512, EICAR[20:60]) == errno.EIO


def test_what_it_remembers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yara, "KEPT_BYTES", 4096)
    rig = Rig(action="block", window=512)
    rig.write(0, b"." * 8152 + EICAR[:40])
    assert sum(map(len, rig.filter._pieces.values())) == 1024
    assert rig.write(8192, EICAR[40:]) == errno.EIO
    for at in range(64):
        rig.write(1 << 20 | at * 1024, b"." * 1024)
    assert sum(map(len, rig.filter._pieces.values())) == 4096


def test_it_blocks_what_the_guest_writes(
    tmp_path: Path,
    write_trace: Callable[[Sequence[Io]], Path],
    replay: Callable[..., Replayed],
) -> None:
    ios: list[Io] = [(i * 1000, "write", i * 4096, 4096) for i in range(32)]
    trace, target = write_trace(ios), tmp_path / "t.img"
    wall = {"clock": "wall", "backend": "psync"}
    replay(trace, None, target, **wall)
    image = target.read_bytes()
    # The end of one write and the beginning of the next, and the middle of another.
    spanning, inside = image[8 * 4096 - 6 : 8 * 4096 + 6], image[20 * 4096 + 99 :][:12]
    rules = tmp_path / "rules.yar"
    rules.write_text(
        "".join(
            f"rule {name} {{ strings: $a = {{ {part.hex(' ')} }} condition: $a }}\n"
            for name, part in (("spanning", spanning), ("inside", inside))
        )
    )
    policy = f'use = "yara"\nrules = "{rules}"\naction = "block"'
    done = replay(trace, policy, tmp_path / "u.img", **wall)
    failed = done.rows.filter(pl.col("status") != 0)
    assert dict(zip(failed["seq"], failed["status"], strict=True)) == {8: errno.EIO, 20: errno.EIO}
    events = vb.open_run(done.summary["run"]).events().filter(kind="match")
    told = [json.loads(detail) for detail in events["detail"]]
    assert [(each["io"], each["rules"]) for each in told] == [(8, ["spanning"]), (20, ["inside"])]


def test_it_is_listed_and_its_faults_are_the_policy_s(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text('[[filter]]\nuse = "yara"\n')
    [use] = load_policy(file).filters
    assert (use.use, use.filter_class, use.make) == ("yara", "inspection", "python")
    [page] = vb.explain("yara")
    assert "action" in page.text
    rules = tmp_path / "wrong.yar"
    rules.write_text("rule r { condition: nonsense }")
    with pytest.raises(PolicyError, match=r"filter\[0\].rules: .*wrong.yar: .*nonsense"):
        parse_policy(f'[[filter]]\nuse = "yara"\nrules = "{rules}"', "p.toml")
    with pytest.raises(PolicyError, match=r"filter\[0\].action: input should be 'allow', 'block'"):
        parse_policy('[[filter]]\nuse = "yara"\naction = "explode"', "p.toml")
