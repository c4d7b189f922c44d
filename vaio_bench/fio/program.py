"""fio itself: found, asked for its version, run in a session of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

from vaio_bench.errors import InputError, WorkError
from vaio_bench.fio.results import Result, read_result

JOB, OUTPUT = "job.fio", "output.json"


def find() -> tuple[str, str]:
    """The path of fio and its version.

    Raises:
        InputError: it is not installed, or does not start.
    """
    path = shutil.which("fio")
    if path is None:
        raise InputError(
            "fio is not installed: Debian, Ubuntu and Fedora have it as the package fio "
            "(apt-get install fio)"
        )
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(f"{path}: does not tell its version: {error}") from None
    return path, said.stdout.strip()


def run(fio: str, job: str, folder: Path, *, inside: str | Path) -> Result:
    """Runs a job file and reads what came of it; job and JSON+ are kept in `folder`.

    Args:
        fio: the program.
        job: the job file's text.
        folder: made when it is not there.
        inside: the folder that relative names in the job file start from.

    Raises:
        WorkError: fio failed; the message has its last words.
        KeyboardInterrupt: after Ctrl-C, once fio has ended.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JOB).write_text(job, encoding="utf-8")
    output = folder / OUTPUT
    aside = folder / f"{OUTPUT}.partial"
    command = [fio, "--output-format=json+", f"--output={aside}", str(folder / JOB)]
    process = subprocess.Popen(
        command, cwd=inside, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        _, told = process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.communicate()
        aside.unlink(missing_ok=True)
        raise
    if process.returncode != 0:
        raise WorkError(f"fio ended with status {process.returncode}: {_last_words(told, aside)}")
    os.replace(aside, output)
    return read_result(output)


def _last_words(told: str, output: Path) -> str:
    """Errors: fio tells some of them in the output file, before the document."""
    text = told
    if output.is_file():
        text += output.read_text(errors="replace").split("{", maxsplit=1)[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else "it said nothing"
