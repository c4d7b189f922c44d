"""Wrong options, traces, policies and folders: one line that names it, status 2, nothing done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Ended
from replay_kit import Io, mixed, write_trace

from vaio_bench import trace as traces

MODEL = ("--backend", "mem", "--clock", "virtual")


def _line(ended: Ended, status: int = 2) -> str:
    assert ended.exit_status == status, ended.stderr
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    return lines[0]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return write_trace(tmp_path / "t.parquet", mixed(61, 40, align=512))


# (options, what the line must name)
BAD = {
    "pace": (["--pace", "fast"], "--pace"),
    "speed 0": (["--speed", "0"], "--speed"),
    "speed nan": (["--speed", "nan"], "--speed"),
    "speed inf": (["--speed", "inf"], "--speed"),
    "depth": (["--depth", "0"], "--depth"),
    "inflight": (["--inflight", "70000"], "--inflight"),
    "backend": (["--backend", "disk"], "--backend"),
    "clock": (["--clock", "wrist"], "--clock"),
    "virtual file": (["--clock", "virtual", "--backend", "uring"], "--clock"),
    "conflicts": (["--conflicts", "ignore"], "--conflicts"),
    "rounds": (["--rounds", "0"], "--rounds"),
    "skip": (["--skip", "-1"], "--skip"),
    "limit": (["--limit", "0"], "--limit"),
    "fit-to": (["--fit-to", "big"], "--fit-to"),
    "fit-to small": (["--fit-to", "4KiB"], "--fit-to"),
    "spin": (["--spin", "soon"], "--spin"),
    "compressible": (["--compressible", "1.5"], "compressible"),
    "compressible nan": (["--compressible", "nan"], "compressible"),
    "dedupe": (["--dedupe", "-0.1"], "dedupe"),
    "seed": (["--seed", "-1"], "--seed"),
    "seed large": (["--seed", str(1 << 64)], "--seed"),
    "no number": (["--depth", "many"], "--depth"),
    "unknown": (["--turbo"], "--turbo"),
    "disk": (["--disk", "sda"], "--disk"),
    "nothing left": (["--skip", "40"], "--skip"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_option_is_named(here: Callable, tmp_path: Path, trace: Path, case: str) -> None:
    options, named = BAD[case]
    base = [] if "--backend" in options else list(MODEL)
    if "--clock" in options:
        base = [] if "--backend" in options else ["--backend", "mem"]
    assert named in _line(here("replay", trace, "-o", "run", *base, *options))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"time,op\n1,2\n", None], ids=repr)
def test_what_is_no_trace_is_told(here: Callable, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.parquet"
    if content is not None:
        path.write_bytes(content)
    line = _line(here("replay", path, "-o", "run", *MODEL))
    assert str(path) in line


def _table(tmp_path: Path, **columns: list[object]) -> Path:
    """A trace that the writer would refuse, by pyarrow alone."""
    rows: dict[str, list[object]] = {
        "time_ns": [0, 1], "disk": ["d", "d"], "op": ["read", "write"],
        "offset_bytes": [0, 512], "length_bytes": [512, 512], "latency_ns": [None, 5],
        "flags": [0, 0], "stream": [None, None], **columns,
    }  # fmt: skip
    table = pa.Table.from_pydict(rows, schema=traces.SCHEMA)
    pq.write_table(table, tmp_path / "odd.parquet")
    return tmp_path / "odd.parquet"


ODD = {
    "time goes back": ({"time_ns": [5, 4]}, ["time_ns", "row 1"]),
    "negative offset": ({"offset_bytes": [0, -512]}, ["offset_bytes", "row 1"]),
    "negative length": ({"length_bytes": [-1, 512]}, ["length_bytes", "row 0"]),
    "unknown op": ({"op": ["read", "erase"]}, ["row 1: op", "erase"]),
    "past the end of numbers": (
        {"offset_bytes": [0, (1 << 63) - 512], "length_bytes": [512, (1 << 63) - 512]},
        ["row 1"],
    ),
    "a write of an exbibyte": ({"length_bytes": [512, 1 << 60]}, ["row 1"]),
}


@pytest.mark.parametrize("case", ODD)
def test_a_damaged_row_is_named(here: Callable, tmp_path: Path, case: str) -> None:
    columns, named = ODD[case]
    path = _table(tmp_path, **columns)
    line = _line(here("replay", path, "-o", "run", *MODEL))
    for word in (*named, str(path)):
        assert word in line, line
    assert not (tmp_path / "run").exists()


def test_a_damaged_page_of_a_trace(here: Callable, tmp_path: Path) -> None:
    path = write_trace(tmp_path / "t.parquet", mixed(62, 3000))
    data = bytearray(path.read_bytes())
    data[200:1400] = bytes(1200)
    path.write_bytes(data)
    assert str(path) in _line(here("replay", path, "-o", "run", *MODEL))


def test_every_mistake_of_a_policy_is_told(here: Callable, tmp_path: Path, trace: Path) -> None:
    policy = tmp_path / "three.toml"
    policy.write_text(
        '[[filter]]\nuse = "cach"\n[[filter]]\nuse = "crypt"\nkey = "random"\nsector = 100\n'
        '[[filter]]\nuse = "delay"\nread = "slowly"\n'
    )
    ended = here("replay", trace, "-o", "run", "--policy", policy, *MODEL)
    assert ended.exit_status == 2
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    for place in ("filter[0].use", "filter[1].", "filter[2].read"):
        assert sum(f"three.toml: {place}" in line for line in lines) == 1, ended.stderr
    assert not (tmp_path / "run").exists()


def test_a_policy_that_is_not_there(here: Callable, trace: Path) -> None:
    assert "none.toml" in _line(here("replay", trace, "-o", "run", "--policy", "none.toml", *MODEL))


def test_an_earlier_run_is_kept_unless_forced(cli: Callable, tmp_path: Path, trace: Path) -> None:
    first = cli("replay", trace, "-o", "run", *MODEL, "--seed", "1")
    assert first.exit_status == 0, first.stderr
    manifest = tmp_path / "run" / "manifest.json"
    before = manifest.read_bytes()
    assert "--force" in _line(cli("replay", trace, "-o", "run", *MODEL, "--seed", "2"))
    assert manifest.read_bytes() == before
    assert cli("replay", trace, "-o", "run", *MODEL, "--seed", "2", "--force").exit_status == 0
    assert json.loads(manifest.read_bytes())["seed"] == 2


def test_force_takes_no_folder_of_the_users(here: Callable, tmp_path: Path, trace: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_bytes(b"cat")
    for more in ([], ["--force"]):
        assert "photos" in _line(here("replay", trace, "-o", folder, *MODEL, *more))
    assert (folder / "cat.jpg").read_bytes() == b"cat"
    (tmp_path / "file").write_bytes(b"x")
    assert "file" in _line(here("replay", trace, "-o", "file", *MODEL, "--force"))
    assert (tmp_path / "file").read_bytes() == b"x"


def test_a_run_folder_that_cannot_be_made(here: Callable, trace: Path) -> None:
    assert "/proc/run" in _line(here("replay", trace, "-o", "/proc/run", *MODEL))


def test_nothing_wrong_prints_one_document(cli: Callable, trace: Path) -> None:
    ended = cli("replay", trace, "-o", "run", *MODEL, "--verify", "--json")
    assert ended.exit_status == 0
    assert ended.stderr == ""
    document = ended.document
    assert document["ios"] == 40
    assert document["verified"] is True
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_an_empty_trace_is_told(here: Callable, tmp_path: Path) -> None:
    path = write_trace(tmp_path / "none.parquet", [Io(0, "flush")])
    table = pq.read_table(path).slice(0, 0)
    pq.write_table(table, path)
    assert "no I/O" in _line(here("replay", path, "-o", "run", *MODEL))
