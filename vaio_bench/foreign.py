"""Filters of other makes in a policy: which they are, and what they say of themselves.

A shared library (`so:PATH`, the contract is `vaio_filter.h`), a Python class (`py:MODULE:CLASS`),
or a Python class that an installed package offers by name (entry points of the group
`vaio_bench.filters`). Foreign code never runs in the process of the command: what a filter says of
itself is asked in a process of its own, so that one that crashes is a fault of the policy.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from vaio_bench import black_box
from vaio_bench.errors import InputError
from vaio_bench.warnings import RunWarning, WarningKind

ENTRY_POINTS = "vaio_bench.filters"
INCLUDE_DIR = Path(__file__).resolve().parent / "include"
"""The folder of `vaio_filter.h`."""

LIBRARY_PAGE = """# so

A filter in a shared library, in C or what speaks its ABI: `use = "so:PATH"`.

`vaio_filter.h` is the contract, with what each callback may do; `vaio-bench abi` tells where it is.
A relative PATH is looked for beside the policy's file, then in the folder of the command; on the
command line it is the latter alone.

The library exports `vaio_filter_entry`, which gives a table of callbacks. Such a filter runs on
both clocks and wherever `placement` puts it, as the filters of this tool do.

## Parameters
The library's own: it gets its table of the policy as JSON in `attach`, and tells of mistakes there.
`vaio-bench explain so:PATH` shows the page that the library brings along.

## Example
```sh
cc -shared -fPIC -O2 -I "$(vaio-bench abi --include-dir)" filter.c -o filter.so
```
```toml
[[filter]]
use = "so:filter.so"
```

## Class and properties
What the table says (`filter_class`, `properties`), which `attach` may change to what follows from
the parameters. `vaio-bench certify so:PATH`, or of a policy where it needs parameters, tests the
filter against the laws of all filters and against what it declares.

A call that the contract does not allow is refused and becomes a `misuse` in the run's events. A
crash ends the round, told with the callback and the I/O; so does a filter that ends its process, or
that stands still for the policy's `hang`.

## Unsuitable for
Libraries that are not trusted: a filter runs with the rights of whoever runs it.

## Source
`vaio_filter.h`.
"""

_ASK_S = 60.0


@dataclass(frozen=True)
class About:
    """What a foreign filter says of itself with the parameters it was given."""

    make: str
    """`library` or `python`."""
    filter_class: str | None
    engine_use: str
    """What the engine calls it."""
    properties: dict[str, Any]


@functools.cache
def installed() -> dict[str, str]:
    """Filters that packages offer: name to `MODULE:CLASS`."""
    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}


@dataclass(frozen=True)
class Described:
    """What the source of an installed filter says of it."""

    filter_class: str | None
    page: str
    reads: tuple[str, ...] = ()
    """Parameters that name files."""


@functools.cache
def described() -> dict[str, Described]:
    """The installed filters by name, read from their sources: nothing of them is run."""
    return {name: _described(name, place) for name, place in installed().items()}


def _described(name: str, place: str) -> Described:
    try:
        return _read(name, place)
    except (ImportError, OSError, SyntaxError, ValueError) as error:
        page = f"# {name}\n\nA filter in Python whose source cannot be read: {error}.\n"
        return Described(None, page)


def _read(name: str, place: str) -> Described:
    module, _, wanted = place.partition(":")
    tree = ast.parse(_source_of(module).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == wanted:
            page = ast.get_docstring(node) or "A filter in Python without a page."
            page = page if page.startswith("# ") else f"# {name}\n\n{page}"
            own, reads = _constant(node, "filter_class"), _constant(node, "reads") or ()
            return Described(None if own is None else str(own), page + "\n", tuple(reads))
    raise ValueError(f"{module} has no class {wanted}")


def _constant(node: ast.ClassDef, name: str) -> Any:
    """What a class assigns to a name, where that is a literal; else None."""
    for each in node.body:
        if isinstance(each, ast.Assign):
            target, value = each.targets[0], each.value
            if isinstance(target, ast.Name) and target.id == name:
                with suppress(ValueError):
                    return ast.literal_eval(value)
    return None


def reads(use: str) -> tuple[str, ...]:
    """The parameters of a filter in Python that name files it reads."""
    place = installed().get(use, use.removeprefix("py:") if use.startswith("py:") else "")
    return _described(use, place).reads if place else ()


def _source_of(module: str) -> Path:
    """Where a module's source is; as for a run, the folder of the command counts as well."""
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    path: Sequence[str] | None = [str(Path.cwd())]
    names = module.split(".")
    for count in range(1, len(names) + 1) if found is None else ():
        name = ".".join(names[:count])
        found = PathFinder.find_spec(name, path)
        path = found.submodule_search_locations if found else []
    if found is None or not found.origin:
        raise ModuleNotFoundError(f"there is no module {module}")
    return Path(found.origin)


def make_of(use: str) -> str | None:
    """`library` or `python`; None for what is no foreign filter."""
    if use.startswith("so:"):
        return "library"
    return "python" if use.startswith("py:") or use in installed() else None


def describe(use: str, params: dict[str, Any]) -> tuple[About | None, list[tuple[str, str]]]:
    """What a foreign filter says of itself, or what is wrong with it and its parameters.

    Args:
        use: as in a policy, of a foreign filter.
        params: its keys; values that JSON can hold.

    Returns:
        What it is, and no faults; or None and `(key path, message)` for each fault.
    """
    make = make_of(use)
    assert make is not None
    engine_use = f"py:{installed()[use]}" if use in installed() else use
    fault = _wrong_form(engine_use)
    if fault:
        return None, [("use", fault)]
    told, faults = _ask(engine_use, params)
    if told is None:
        return None, faults
    return About(make, told["class"], engine_use, told["properties"]), []


def _wrong_form(engine_use: str) -> str | None:
    kind, _, rest = engine_use.partition(":")
    if kind == "so" and not rest:
        return 'expected the library\'s path, such as "so:filter.so"'
    module, _, name = rest.partition(":")
    if kind == "py" and not (module and name):
        return f'expected "py:MODULE:CLASS", got "{engine_use}"'
    return None


@dataclass(frozen=True)
class OwnPage:
    """What a foreign filter says of itself, whatever its parameters."""

    filter_class: str | None
    page: str
    """Markdown; where it has none, what is known of it."""
    properties: dict[str, Any]
    """Empty where they are not known before it runs."""


def own_page(use: str) -> OwnPage:
    """The page that a foreign filter brings along: a library's `page`, a class's docstring.

    A library is asked in a process of its own, and no instance is made; a class is read from its
    source, and nothing of it is run.

    Args:
        use: `so:PATH` or `py:MODULE:CLASS`.

    Raises:
        InputError: it cannot be loaded.
    """
    fault = _wrong_form(use)
    if fault:
        raise InputError(f"{use}: {fault}")
    if use.startswith("py:"):
        place = use.removeprefix("py:")
        try:
            read = _read(place.rpartition(":")[2], place)
        except (ImportError, OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{use}: its source cannot be read: {error}") from error
        return OwnPage(read.filter_class, read.page, {})
    told, faults = _ask(use, None)
    if told is None:
        raise InputError("; ".join(message for _, message in faults))
    page = str(told["page"]).strip() or f"# {told['name']}\n\nA filter without a page."
    return OwnPage(told["class"], page, told["properties"])


def _ask(
    use: str, params: dict[str, Any] | None
) -> tuple[dict[str, Any] | None, list[tuple[str, str]]]:
    """Without `params`: what a library says whatever they are."""
    with tempfile.TemporaryDirectory(prefix="vaio-bench-") as folder:
        box = Path(folder) / "black-box"
        job = {"use": use, "params": params, "black_box": str(box)}
        try:
            done = subprocess.run(
                [sys.executable, "-m", "vaio_bench.filter_child"],
                input=json.dumps(job),
                capture_output=True,
                text=True,
                timeout=_ASK_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            where = _where(box) or "when it was loaded"
            return None, [("use", f"{use} hung {where}: it did not return in {_ASK_S:.0f} s")]
        if done.returncode < 0:
            name = black_box.signal_name(-done.returncode)
            where = _where(box) or "when it was loaded"
            return None, [("use", f"{use} crashed {where} ({name})")]
    last = done.stdout.strip().splitlines()[-1:] or [""]
    try:
        told = json.loads(last[0])
    except ValueError:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        return None, [("use", f"{use} ended its process ({lines[-1]})")]
    return told.get("about"), [(path, message) for path, message in told.get("faults", [])]


def faults(events: Iterable[dict[str, Any]]) -> list[RunWarning]:
    """A warning for each filter that broke its contract or raised.

    Args:
        events: of a run (keys of `schemas.EVENTS`).
    """
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for event in events:
        if event["kind"] in ("misuse", "error"):
            found.setdefault((event["policy"], event["layer"]), []).append(event)
    return [
        WarningKind.FILTER_FAULTS.of(
            policy=policy, layer=layer, times=len(own), first=_fault_in(own[0]["detail"])
        )
        for (policy, layer), own in found.items()
    ]


def _fault_in(detail: str) -> str:
    told = json.loads(detail)
    texts = (told[key] for key in ("what", "error", "text") if told.get(key))
    first = (str(next(texts, detail)).splitlines() or [""])[0]
    return f"{first} (in {told['callback']})" if "callback" in told else first


def _where(box: Path) -> str | None:
    doing = black_box.read(box)
    return f"in {doing[0].callback}" if doing else None
