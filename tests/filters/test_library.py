"""Filters in shared libraries: one that works, and every way of breaking."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from filters.conftest import Io, Replayed
from filters.vendor import build

import vaio_bench as vb
from vaio_bench.errors import WorkError
from vaio_bench.runner import Settings
from vaio_bench.spec import PolicyError, load_policy, parse_policy

# Numbers of broken.c.
SEGFAULT, ABORT, HANG, VERSION, SYMBOL, CALLBACK, TWICE, SCRIBBLE, LOSE, ATTACH = range(1, 11)
EXIT, EXIT_AT_ONCE, EXIT_APART = range(11, 14)
AT = 20


def breaks(how: int) -> tuple[str, ...]:
    return (f"-DBREAKS={how}", f"-DAT={AT}")


def test_the_example_keeps_the_guest_s_bytes_and_scrambles_the_disk(
    tmp_path: Path,
    write_trace: Callable[[Sequence[Io]], Path],
    replay: Callable[..., Replayed],
    mixed_ios: list[Io],
) -> None:
    policy = f'use = "so:{build("scramble", tmp_path)}"\nkey = 42'
    trace = write_trace(mixed_ios)
    virtual = replay(trace, policy, depth=16)
    assert virtual.summary["errors"] == 0
    assert virtual.summary["verified"] is True
    target = tmp_path / "t.img"
    scrambled = replay(trace, policy, target, depth=16, clock="wall", backend="psync")
    assert scrambled.summary["verified"] is True
    plain = tmp_path / "plain.img"
    replay(trace, None, plain, depth=16, clock="wall", backend="psync")
    ours, theirs = target.read_bytes(), plain.read_bytes()
    written = [offset for _, op, offset, _ in mixed_ios if op == "write"]
    same = sum(ours[at : at + 512] == theirs[at : at + 512] for at in written)
    assert same < len(written) / 10


def test_it_repeats_in_virtual_time(
    tmp_path: Path,
    write_trace: Callable[[Sequence[Io]], Path],
    replay: Callable[..., Replayed],
    mixed_ios: list[Io],
) -> None:
    policy = f'use = "so:{build("scramble", tmp_path)}"\nkey = 42'
    trace = write_trace(mixed_ios)
    first, second = (replay(trace, policy, depth=16).rows.drop("policy") for _ in range(2))
    assert first.equals(second)


def test_gauges_class_and_make_are_told(
    tmp_path: Path, write_trace: Callable[[Sequence[Io]], Path], writes: list[Io]
) -> None:
    file = tmp_path / "p.toml"
    file.write_text(f'[[filter]]\nuse = "so:{build("scramble", tmp_path)}"\nkey = 1\n')
    [use] = load_policy(file).filters
    assert (use.filter_class, use.make) == ("encryption", "library")
    settings = Settings(backend="sim", clock="virtual", pace="asap")
    vb.replay(write_trace(writes), out=tmp_path / "run", policy=file, settings=settings)
    gauges = vb.open_run(tmp_path / "run").gauges("p", 0).collect()
    assert gauges.filter(pl.col("gauge") == "scrambled_bytes")["value"][-1] == 60 * 4096


def test_it_is_called_by_the_policy_s_word_everywhere(
    tmp_path: Path, write_trace: Callable[[Sequence[Io]], Path], writes: list[Io]
) -> None:
    """The engine has its whole path: what is told is what the policy says."""
    build("scramble", tmp_path)
    library = build("broken", tmp_path, *breaks(SEGFAULT))
    settings = Settings(pace="asap", depth=1, backend="mem")
    for name, keys in (("scramble.so", "key = 1"), (library.name, "")):
        (tmp_path / "p.toml").write_text(f'[[filter]]\nuse = "so:{name}"\n{keys}\n')
        out = tmp_path / f"run-{name}"
        given = {"out": out, "policy": tmp_path / "p.toml", "settings": settings}
        if keys:
            vb.replay(write_trace(writes), **given)
            told = vb.open_run(out).gauges("p", 0).collect()["layer"].cast(pl.String)
        else:
            with pytest.raises(WorkError, match=f'filter.0. "so:{name}" crashed .SIGSEGV. in'):
                vb.replay(write_trace(writes), **given)
            told = vb.open_run(out).events()["layer"]
        assert set(told) == {f"so:{name}"}
        assert vb.open_run(out).layers("p")[0] == f"so:{name}"


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (VERSION, "expected ABI version 1, got 77"),
        (SYMBOL, "expected the symbol vaio_filter_entry, which it lacks"),
        (CALLBACK, "the callback io_start is missing"),
        (ATTACH, "crashed in attach (SIGSEGV)"),
    ],
)
def test_a_library_that_breaks_the_contract_is_a_fault_of_the_policy(
    tmp_path: Path, how: int, expected: str
) -> None:
    library = build("broken", tmp_path, *breaks(how))
    with pytest.raises(PolicyError) as raised:
        parse_policy(f'[[filter]]\nuse = "so:{library}"', "p.toml")
    [fault] = raised.value.faults
    assert fault.startswith("p.toml: filter[0].use: ")
    assert expected in fault
    assert raised.value.exit_status == 2


def test_what_is_no_library_is_told(tmp_path: Path) -> None:
    junk = tmp_path / "junk.so"
    junk.write_text("not a library")
    text = f'[[filter]]\nuse = "so:{tmp_path}/none.so"\n[[filter]]\nuse = "so:{junk}"\n'
    text += f'[[filter]]\nuse = "so:{build("scramble", tmp_path)}"\nkey = "x"\n'
    with pytest.raises(PolicyError) as raised:
        parse_policy(text, "p.toml")
    missing, broken, key = raised.value.faults
    assert missing == f"p.toml: filter[0].use: so:{tmp_path}/none.so: no such file"
    assert "cannot be loaded" in broken
    assert key == "p.toml: filter[2].key: expected a number such as 42"


@pytest.mark.parametrize(
    ("how", "word", "kind"),
    [
        (SEGFAULT, "crashed (SIGSEGV)", "filter_crash"),
        (ABORT, "crashed (SIGABRT)", "filter_crash"),
        (HANG, "hung (no return in 1 s)", "filter_hang"),
        (EXIT, "ended its process (status 3)", "filter_crash"),
    ],
)
def test_a_crash_or_hang_costs_its_rounds_and_is_named(
    tmp_path: Path,
    write_trace: Callable[[Sequence[Io]], Path],
    writes: list[Io],
    how: int,
    word: str,
    kind: str,
) -> None:
    library = build("broken", tmp_path, *breaks(how))
    file = tmp_path / "broken.toml"
    file.write_text(f'[[filter]]\nuse = "so:{library}"\n')
    began = time.monotonic()
    found = vb.compare(
        write_trace(writes),
        out=tmp_path / "run",
        target=tmp_path / "t.img",
        policies=[file, "pass"],
        rounds=2,
        settings=Settings(pace="asap", depth=1, backend="psync", hang_s=1.0),
    )
    assert time.monotonic() - began < 60
    offset = writes[AT - 1][2]
    where = f"write of 4096 bytes at offset {offset} of disk"
    assert len(found["lost_rounds"]) == 2
    for lost in found["lost_rounds"]:
        assert f'filter[0] "so:{library}" {word} in io_start of I/O {AT - 1}' in lost["reason"]
        assert where in lost["reason"]
    # It is told that none of its rounds is left; the others have all of theirs.
    broken, passing = found["policies"]
    assert (broken["name"], broken["metrics"], broken["lost"]["of"]) == ("broken", {}, 2)
    assert (passing["name"], passing["lost"]) == ("pass", None)
    run = vb.open_run(tmp_path / "run")
    assert run.exit.startswith("failed: 2 rounds lost")
    events = run.events().filter(pl.col("kind") == kind)
    assert json.loads(events["detail"][0])["io"] == AT - 1
    assert "rounds-lost" in [warning["code"] for warning in run.manifest["warnings"]]
    with pytest.raises(WorkError, match="in io_start of I/O 19"):
        vb.replay(
            write_trace(writes),
            out=tmp_path / "alone",
            policy=file,
            settings=Settings(pace="asap", depth=1, backend="sim", clock="virtual", hang_s=1.0),
        )


@pytest.mark.parametrize("placement", ["inline", "process"])
def test_a_crash_in_the_prefill_costs_its_rounds_too(
    tmp_path: Path, write_trace: Callable[[Sequence[Io]], Path], placement: str
) -> None:
    library = build("broken", tmp_path, f"-DBREAKS={SEGFAULT}", "-DAT=1")
    file = tmp_path / "broken.toml"
    file.write_text(f'[[filter]]\nuse = "so:{library}"\nplacement = "{placement}"\n')
    settings = Settings(pace="asap", depth=1, backend="mem")
    trace = write_trace([(0, "read", 8192, 4096)])
    found = vb.compare(trace, out=tmp_path / "run", policies=[file], rounds=2, settings=settings)
    where = "io_start of an I/O that is not of the trace (write of 4096 bytes at offset 8192"
    assert [lost["round"] for lost in found["lost_rounds"]] == [0, 1]
    for lost in found["lost_rounds"]:
        assert f'filter[0] "so:{library}" crashed (SIGSEGV) in {where}' in lost["reason"]
    assert found["noise_floor"]


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (EXIT_AT_ONCE, "ended its process (status 0) in io_start of I/O 19 (write of 4096 bytes"),
        (EXIT_APART, "its process ended with status 4 (it said nothing), outside of any callback"),
    ],
)
def test_one_that_ends_its_process_in_whatever_way_costs_the_round(
    tmp_path: Path,
    write_trace: Callable[[Sequence[Io]], Path],
    replay: Callable[..., Replayed],
    writes: list[Io],
    how: int,
    told: str,
) -> None:
    library = build("broken", tmp_path, *breaks(how))
    with pytest.raises(WorkError) as raised:
        replay(write_trace(writes), f'use = "so:{library}"', clock="wall", backend="mem")
    assert told in str(raised.value)
    assert f'filter[0] "so:{library}"' in str(raised.value)
    run = vb.open_run(tmp_path / "run-0")
    assert run.exit.startswith("failed: 1 rounds lost: ")
    assert run.events()["kind"].to_list() == ["filter_crash"]


@pytest.mark.parametrize("how", [TWICE, SCRIBBLE])
def test_misuse_is_told_and_harms_nobody(
    tmp_path: Path,
    write_trace: Callable[[Sequence[Io]], Path],
    replay: Callable[..., Replayed],
    writes: list[Io],
    how: int,
) -> None:
    library = build("broken", tmp_path, *breaks(how))
    done = replay(write_trace(writes), f'use = "so:{library}"', depth=8)
    assert done.summary["errors"] == 0
    assert done.summary["verified"] is True
    events = vb.open_run(done.summary["run"]).events()
    misuse = [json.loads(detail) for detail in events.filter(kind="misuse")["detail"]]
    assert misuse[0]["io"] in (AT - 1, None)
    told = [each["what"] for each in misuse]
    if how == TWICE:
        assert any(what.startswith("resume: not held") for what in told)
    else:
        assert any(what.startswith("data_mut: ") for what in told)
        assert any(what.startswith("finish: not held") for what in told)
        assert events.filter(kind="log")["detail"].to_list() == ['{"text":"tried"}']


def test_abi_names_the_folder_of_the_header(cli: Callable[..., Any]) -> None:
    folder = cli("abi", "--include-dir")
    assert folder.exit_status == 0
    assert (Path(folder.stdout.strip()) / "vaio_filter.h").is_file()
    document = cli("abi", "--json").document
    assert Path(document["header"]).parent == Path(document["include_dir"])
