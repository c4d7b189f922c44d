"""The command as a whole: its start, and what its exit status says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version

import pytest
from conftest import Ended


@pytest.mark.parametrize("arguments", [["explain"], ["explain", "--json"], ["replay", "--help"]])
def test_a_reader_that_has_gone_is_no_error(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", "from vaio_bench.cli import main; main()", *arguments]
    try:
        ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_no_verb_waits_for_the_libraries_of_another() -> None:
    script = (
        "import sys\nfrom vaio_bench.cli import build_app\nbuild_app()\n"
        "print([name for name in ('numpy', 'polars', 'pyarrow', 'plotly') if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True)
    assert told.stdout.split() == [b"[]"]


def test_the_version_is_the_package_s(here: Callable[..., Ended]) -> None:
    ended = here("--version")
    assert (ended.exit_status, ended.stdout) == (0, f"vaio-bench {version('vaio-bench')}\n")
