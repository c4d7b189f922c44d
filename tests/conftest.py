"""What every test may use: skips that name what is missing, traces, the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Program to the Debian package that has it.
PACKAGES = {
    "fio": "fio",
    "blktrace": "blktrace",
    "blkparse": "blktrace",
    "nbdkit": "nbdkit",
    "qemu-img": "qemu-utils",
    "qemu-nbd": "qemu-utils",
    "qemu-storage-daemon": "qemu-utils",
    "mkfs.ext4": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "losetup": "mount",
    "openssl": "openssl",
    "chromium": "chromium",
}
# A user's PATH need not hold the system folders that blktrace is installed in.
SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def find_tool(tool: str) -> str | None:
    """The path of a program, or None."""
    return shutil.which(tool, path=SYSTEM_PATH)


def requires(tool: str) -> pytest.MarkDecorator:
    """Mark: skip unless the program is installed, naming the Debian package that has it."""
    package = PACKAGES.get(tool, tool)
    return pytest.mark.skipif(
        find_tool(tool) is None, reason=f"requires {tool} (Debian package {package})"
    )


@pytest.fixture(scope="session")
def traces_dir() -> Path:
    """The folder of real traces, with own/ and public/ below it; skips when there is none."""
    folder = os.environ.get("VAIO_BENCH_TRACES")
    if not folder:
        pytest.skip("requires real traces: VAIO_BENCH_TRACES is not set")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"VAIO_BENCH_TRACES: {path}: no such folder")
    return path


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    exit_status: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output (anything beside it is an error)."""
        return json.loads(self.stdout)


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., Ended]:
    """Runs `vaio-bench ARGS...` in a process of its own, in an empty folder."""

    def run(
        *args: str | Path,
        cwd: Path = tmp_path,
        timeout: float = 120,
        env: dict[str, str] | None = None,
    ) -> Ended:
        command = [sys.executable, "-c", "from vaio_bench.cli import main; main()"]
        root = str(Path(__file__).resolve().parent.parent)
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(
            [*command, *map(str, args)],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """As `cli`, in this process: most of a small command's time is the start of Python."""
    from vaio_bench.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*args: str | Path, **_: object) -> Ended:
        monkeypatch.setattr("sys.argv", ["vaio-bench", *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        stdout, stderr = capfd.readouterr()
        return Ended(int(ended.value.code or 0), stdout, stderr)

    return run
