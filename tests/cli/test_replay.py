"""`replay` on the command line: what it says and refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended
from filters.vendor import build
from replay_kit import Io, write_trace

Here = Callable[..., Ended]
SEGFAULT = 1  # Of broken.c.


def test_errors_and_a_lost_disk_stand_beside_the_rates(here: Here, tmp_path: Path) -> None:
    library = build("broken", tmp_path, f"-DBREAKS={SEGFAULT}", "-DAT=20")
    text = f'[[filter]]\nuse = "so:{library}"\nplacement = "process"\n'
    (tmp_path / "broken.toml").write_text(text)
    ios = [Io(i * 1000, "write", i * 4096, 4096, "a") for i in range(60)]
    ios += [Io(60_000 + i, "write", i * 4096, 4096, "b") for i in range(15)]
    write_trace(tmp_path / "t.parquet", ios)
    options = ["--policy", "broken.toml", "--backend", "mem", "--pace", "asap", "--depth", "4"]
    ended = here("replay", "t.parquet", *options, "-o", "run", "--quiet")
    assert ended.exit_status == 1
    rates, errors, lost, *_ = ended.stdout.splitlines()
    assert rates.startswith("broken: 75 I/Os")
    assert errors.startswith("errors: ")
    assert " of 75 I/Os failed (first: " in errors
    assert lost.startswith(f'lost: round 1: disk a: filter "so:{library}" crashed (SIGSEGV)')
    report = here("report", "run", "-o", "r.html")
    told = ended.stderr.replace("vaio-bench: ", "vaio-bench: warning: ")
    assert (report.exit_status, report.stderr) == (0, told)


def test_what_an_inspection_found_is_told(here: Here, tmp_path: Path) -> None:
    pytest.importorskip("yara_x", reason="requires yara-x (pip install vaio-bench[yara])")
    (tmp_path / "all.yar").write_text("rule every { condition: filesize > 0 }")
    text = '[[filter]]\nuse = "yara"\nrules = "all.yar"\naction = "block"\n'
    (tmp_path / "scan.toml").write_text(text)
    ios = [Io(i * 1000, "write", i * 4096, 4096) for i in range(10)]
    write_trace(tmp_path / "t.parquet", ios)
    options = ["--backend", "mem", "--pace", "asap", "--quiet", "--policy", "scan.toml"]
    line = "yara of policy scan: 10 writes matched (every), 10 were blocked, in 40 KiB written over"
    ended = here("replay", "t.parquet", *options, "-o", "run")
    assert f"{line} 1 round\n" in ended.stdout
    assert ended.exit_status == 1
    (tmp_path / "scan.toml").write_text(text.replace("block", "allow"))
    line = "yara of policy scan: 20 writes matched, 0 were blocked, in 80 KiB written over 2 rounds"
    ended = here("compare", "t.parquet", *options, "--rounds", "2", "-o", "compared")
    assert f"\n{line}\n" in ended.stdout
    assert ended.exit_status == 0
    here("report", "compared", "-o", "r.html")
    assert "20 writes matched, 0 were blocked" in (tmp_path / "r.html").read_text()


def test_two_policies_are_another_verbs(here: Here, tmp_path: Path) -> None:
    write_trace(tmp_path / "t.parquet", [Io(0, "read", 0, 4096)])
    policies = ["--policy", "pass", "--policy", "crypt"]
    ended = here("replay", "t.parquet", *policies, "--backend", "mem", "-o", "run")
    assert ended.exit_status == 2
    [line] = ended.stderr.splitlines()
    assert "--policy: expected one, got 2: `vaio-bench compare`" in line
    assert not (tmp_path / "run").exists()
