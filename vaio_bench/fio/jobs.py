"""Job files: the cells of a grid, and what a job file would write to.

Syntax as in fio(1): sections in brackets, `key=value` lines, `;` and `#` comments; a later line
of a section wins over an earlier one, and over `[global]`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vaio_bench import targets
from vaio_bench.errors import InputError

_SECTION = re.compile(r"\s*\[(.+)\]\s*")
_OPTION = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
READING = frozenset({"read", "randread"})
# Engines that do no I/O to a file or server.
_WITHOUT_DATA = frozenset({"null", "cpuio"})
CELLS_MAX = 1000
# A cell's name becomes the name of a folder.
_NAME_MAX = 120


@dataclass(frozen=True)
class Cell:
    """One cell of a grid: a job file that each round of it runs."""

    name: str
    job: str
    """The job file's text."""
    at: dict[str, str]
    """The options of the grid that tell it from the others."""
    source: str | None
    """The job file that it is made of."""

    def to_dict(self) -> dict[str, Any]:
        """As the manifest keeps it."""
        return asdict(self)


def grid(
    axes: Mapping[str, Sequence[str]], fixed: Mapping[str, str], files: Sequence[Path]
) -> list[Cell]:
    """The cells: each job file with each combination of the axes, or a job of our own with them.

    Args:
        axes: option to its values, in the order of the names.
        fixed: options of every cell.
        files: job files; their sections get the axes' and the fixed options.

    Raises:
        InputError: an option or value is none that a job file can hold, two cells have one name,
            there are too many, or a job file cannot be read.
    """
    for key, value in [*fixed.items(), *((key, value) for key, of in axes.items() for value in of)]:
        _check_option(key, value)
    combinations = [
        dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())
    ]
    if len(combinations) * max(len(files), 1) > CELLS_MAX:
        raise InputError(f"fio run: expected at most {CELLS_MAX} cells, got more")
    cells = []
    sources: list[Path | None] = [*files] or [None]
    for file in sources:
        text = None if file is None else _read(file)
        for at in combinations:
            name = "-".join([*([file.stem] if file else []), *_words(at)]) or "job"
            if len(name) > _NAME_MAX:
                raise InputError(f"fio run: {name}: expected a name of {_NAME_MAX} characters")
            job = _own(fixed, at) if text is None else overridden(text, {**fixed, **at})
            cells.append(Cell(name, job, at, None if file is None else str(file)))
    seen: set[str] = set()
    for cell in cells:
        if cell.name in seen:
            raise InputError(f"fio run: two cells are named {cell.name}: rename a job file")
        seen.add(cell.name)
    return cells


def _words(at: Mapping[str, str]) -> Iterator[str]:
    for key, value in at.items():
        yield re.sub(r"[^A-Za-z0-9._+]", "_", value if key == "rw" else f"{key}{value}")


def _check_option(key: str, value: str) -> None:
    if not _OPTION.fullmatch(key):
        raise InputError(f"--option: expected the name of an option of fio, got {key!r}")
    if not value.isprintable() or value != value.strip():
        raise InputError(f"--option {key}: expected one line, got {value!r}")


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a job file: {error}") from None
    if not any(name != "global" for name, _ in sections(text)):
        raise InputError(f"{path}: expected a job file of fio, a section [name] in it")
    return text


def _own(fixed: Mapping[str, str], at: Mapping[str, str]) -> str:
    lines = ["[global]", *(f"{key}={value}" for key, value in fixed.items())]
    lines += ["", "[job]", *(f"{key}={value}" for key, value in at.items())]
    return "\n".join(lines) + "\n"


def overridden(text: str, options: Mapping[str, str]) -> str:
    """A job file's text with options that win over those of every job in it."""
    added = [f"{key}={value}" for key, value in options.items()]
    lines: list[str] = []
    section = "global"
    for line in [*text.splitlines(), "[global]"]:
        header = _SECTION.fullmatch(line)
        if header:
            if section != "global":
                lines += added
            section = header[1]
        lines.append(line)
    return "\n".join(lines[:-1]) + "\n"


def sections(text: str) -> list[tuple[str, dict[str, str]]]:
    """Each section of a job file, in order, with its own options."""
    found: list[tuple[str, dict[str, str]]] = []
    for line in text.splitlines():
        header = _SECTION.fullmatch(line)
        if header:
            found.append((header[1], {}))
        elif found and not line.lstrip().startswith((";", "#")) and line.strip():
            key, _, value = line.partition("=")
            found[-1][1][key.strip()] = value.strip()
    return found


def jobs(text: str) -> list[tuple[str, dict[str, str]]]:
    """The jobs of a job file, with the options of the [global] sections before them."""
    shared: dict[str, str] = {}
    found = []
    for name, own in sections(text):
        if name == "global":
            shared = {**shared, **own}
        else:
            found.append((name, {**shared, **own}))
    return found


def escaped(path: str | Path) -> str:
    """A file's name as an option has it, where a colon divides names."""
    return str(path).replace("\\", "\\\\").replace(":", "\\:")


def files_of(options: Mapping[str, str]) -> list[Path]:
    """The files that a job names."""
    names = re.split(r"(?<!\\):", options.get("filename", ""))
    folder = Path(options.get("directory", ""))
    return [folder / re.sub(r"\\(.)", r"\1", name) for name in names if name]


def check_writes(cell: Cell, *, destroy_data: bool) -> list[Path]:
    """The files that a cell uses, once it is sure that it may.

    Raises:
        InputError: a job would write over what this tool did not make, or where that cannot be
            told, without `destroy_data`; or it names no file.
    """
    where = cell.source or "fio run"
    found = []
    for name, options in jobs(cell.job):
        if options.get("ioengine") in _WITHOUT_DATA:
            continue
        writes = options.get("rw", options.get("readwrite", "read")) not in READING
        named = files_of(options)
        found += named
        if not named and not {"directory", "uri", "include"} & set(options):
            raise InputError(f"{where}: [{name}]: names no file: add filename=, or --target")
        if not writes or destroy_data:
            continue
        if not named:
            raise InputError(
                f"{where}: [{name}]: writes where it cannot be told what it overwrites; add "
                "--destroy-data if that may go, or name a file"
            )
        for path in named:
            if path.exists() and not targets.is_ours(path):
                raise InputError(
                    f"{path}: [{name}] would overwrite what this tool did not make; name a new "
                    "file, or add --destroy-data if its contents may go"
                )
    return list(dict.fromkeys(found))
