"""`replay` on the command line: what it says and refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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


def test_two_policies_are_another_verbs(here: Here, tmp_path: Path) -> None:
    write_trace(tmp_path / "t.parquet", [Io(0, "read", 0, 4096)])
    policies = ["--policy", "pass", "--policy", "crypt"]
    ended = here("replay", "t.parquet", *policies, "--backend", "mem", "-o", "run")
    assert ended.exit_status == 2
    [line] = ended.stderr.splitlines()
    assert "--policy: expected one, got 2: `vaio-bench compare`" in line
    assert not (tmp_path / "run").exists()
