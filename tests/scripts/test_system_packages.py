"""The installer of test programs: says what it does, and never fails a run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "system_packages.sh"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder of programs with what the script itself uses, and none of those it looks for."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("bash", "env", "sort", "mktemp", "rm", "tail"):
        found = shutil.which(tool)
        assert found
        (folder / tool).symlink_to(found)
    return folder


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!{folder}/bash\n{text}\n")
    path.chmod(0o755)


def run(folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(folder / "bash"), str(SCRIPT)],
        env={"PATH": str(folder), "TMPDIR": str(folder), **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_declined(bare: Path) -> None:
    program(bare, "id", "echo 0")
    program(bare, "apt-get", f"echo called >> {bare}/calls")
    said = run(bare, SYSTEM_PACKAGES="no").stdout
    assert "as asked" in said
    assert "fio" in said
    assert not (bare / "calls").exists()


def test_not_root(bare: Path) -> None:
    program(bare, "id", "echo 1000")
    program(bare, "apt-get", f"echo called >> {bare}/calls")
    assert "not root; missing: " in run(bare).stdout
    assert not (bare / "calls").exists()


def test_not_debian(bare: Path) -> None:
    assert "no apt-get on this system" in run(bare).stdout


def test_updates_once_and_takes_what_it_can_get(bare: Path) -> None:
    program(bare, "id", "echo 0")
    program(bare, "nbdkit", "")
    # Has no chromium, whatever is tried; the others come one by one.
    program(
        bare,
        "apt-get",
        f"""echo "$*" >> {bare}/calls
case "$*" in
    *chromium*) echo "E: Unable to locate package chromium"; exit 100 ;;
    *openssl) echo > {bare}/openssl; chmod +x {bare}/openssl ;;
esac""",
    )
    chmod = shutil.which("chmod")
    assert chmod
    os.symlink(chmod, bare / "chmod")
    said = run(bare).stdout
    calls = (bare / "calls").read_text().splitlines()
    assert calls.count("update --quiet") == 1
    first, update, second, *each = calls
    assert first == second
    assert update == "update --quiet"
    assert "nbdkit" not in first
    assert [call.split()[-1] for call in each] == sorted(first.split()[-len(each) :])
    assert "E: Unable to locate package chromium" in said
    still = said.splitlines()[-1]
    assert still.startswith("system packages: still missing: ")
    assert "openssl" not in still
    assert "chromium" in still


def test_silent_when_nothing_is_missing(bare: Path) -> None:
    for tool in ("fio", "blktrace", "blkparse", "nbdkit", "qemu-img", "qemu-nbd", "openssl"):
        program(bare, tool, "")
    program(bare, "chromium", "")
    done = run(bare)
    assert done.stdout == done.stderr == ""
