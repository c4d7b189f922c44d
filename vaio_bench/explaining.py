"""The page of any kind: filters, formats, eviction policies, backends, analyses, verbs, warnings.

Pages of the engine's kinds come with its catalogue, an analysis' page is its module's docstring,
a warning's is its own text: the same words as in help, reports and messages.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import tomllib
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from vaio_bench import catalogue, foreign, placement
from vaio_bench.errors import InputError
from vaio_bench.spec import shipped
from vaio_bench.warnings import WarningKind


@dataclass(frozen=True)
class Page:
    """A page that `explain` shows."""

    group: str
    """`filter`, `format`, `eviction`, `backend`, `analysis`, `policy`, `model`, `verb` or
    `warning`."""
    name: str
    summary: str
    text: str
    """Markdown."""

    def to_dict(self) -> dict[str, str]:
        """The `--json` shape."""
        return {
            "group": self.group,
            "name": self.name,
            "summary": self.summary,
            "text": self.text,
        }


def pages() -> list[Page]:
    """Every page, group by group."""
    engine = [Page(kind.kind, kind.name, kind.summary, kind.page) for kind in catalogue.kinds()]
    warnings = [Page("warning", kind.code, kind.value[1], kind.page) for kind in WarningKind]
    told = [_told_by("synth", "model", "synthetic"), _told_by("fio", "verb", "fio")]
    of_filters = sum(page.group == "filter" for page in engine)
    made = [_library(), _told_by("python", "filter", "filters")]
    engine[of_filters:of_filters] = made
    known = [*engine, *_analyses(), *_policies(), _placement(), _experiment(), *told]
    return [*known, *_verbs({page.name for page in known}), *warnings]


def explain(name: str) -> list[Page]:
    """The pages of a name: as a rule one, several when groups share the name.

    Args:
        name: a kind's name, or `group:name` (`format:csv`); or a filter of another make
            (`so:PATH`, `py:MODULE:CLASS`), which brings its own page.

    Raises:
        InputError: nothing has that name, and the message has the nearest; or the filter cannot be
            loaded.
    """
    if name.startswith(("so:", "py:")):
        return [_own(name)]
    group, _, bare = name.rpartition(":")
    known = pages()
    # Analyses are files of Python, and verbs and pages speak of them by those names, too.
    names = (bare, bare.replace("_", "-"))
    found = [page for page in known if page.name in names and group in ("", page.group)]
    if not found:
        all_names = list(dict.fromkeys(page.name for page in known))
        close = difflib.get_close_matches(bare, all_names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "`explain` alone lists them"
        raise InputError(f"explain: expected the name of a kind, got {name!r}: {hint}")
    return found


def _library() -> Page:
    """The page of filters in shared libraries."""
    text = foreign.LIBRARY_PAGE
    return Page("filter", "so", catalogue.summary_of(text), text)


def _own(use: str) -> Page:
    """The page that a filter of another make brings along, and what it declares."""
    found = foreign.own_page(use)
    text = found.page.rstrip() + "\n"
    if found.properties:
        declared = [
            key if value is True else f"{key} {value}"
            for key, value in found.properties.items()
            if value not in (False, 0)
        ]
        text += f"\n## Declared\nClass {found.filter_class or 'none'}; {', '.join(declared)}.\n"
    return Page("filter", use, catalogue.summary_of(text), text)


def _analyses() -> list[Page]:
    """The analyses' docstrings, read without importing what they need."""
    folder = resources.files("vaio_bench") / "analyses"
    found = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".py") and not entry.name.startswith("_"):
            text = _doc(entry)
            if text:
                name = entry.name.removesuffix(".py").replace("_", "-")
                page = f"# {name}\n\nAn analysis.\n\n{text}\n"
                found.append(Page("analysis", name, catalogue.summary_of(text), page))
    return found


def _policies() -> list[Page]:
    """The shipped models of products: each is its own page, sources of its parameters included.

    A policy named like its one filter has that filter's page.
    """
    kinds, found = catalogue.filters(), []
    for name, path in shipped().items():
        if name in kinds:
            continue
        source = path.read_text(encoding="utf-8")
        summary = str(tomllib.loads(source)["policy"]["description"])
        text = f"# {name}\n\nA policy (`--policy {name}`). {summary}.\n\n```toml\n{source}```\n"
        found.append(Page("policy", name, summary, text))
    return found


def _verbs(known: set[str]) -> list[Page]:
    """The docstrings of the verbs' modules, where nothing else of that name has a page."""
    from vaio_bench.cli import VERBS

    folder, found = resources.files("vaio_bench") / "cli", []
    for module in VERBS:
        name = module.rstrip("_")
        if name not in known:
            text = _doc(folder / f"{module}.py").removeprefix(f"`vaio-bench {name}`: ")
            page = f"# {name}\n\nA verb. Its options: `vaio-bench {name} --help`.\n\n{text}\n"
            found.append(Page("verb", name, catalogue.summary_of(text), page))
    return found


def _experiment() -> Page:
    """The page of what `sweep` reads, and of the experiments that are shipped."""
    folder = resources.files("vaio_bench")
    page = f"# experiment\n\n{_doc(folder / 'experiment.py')}\n"
    for entry in sorted((folder / "experiments").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            name, shipped_text = entry.name.removesuffix(".toml"), entry.read_text()
            page += f"\n## Shipped: `sweep {name}`\n```toml\n{shipped_text}```\n"
    return Page("policy", "experiment", catalogue.summary_of(page), page)


def _placement() -> Page:
    """The page of a key that every filter of a policy may have."""
    text = inspect.cleandoc(placement.__doc__ or "")
    summary = catalogue.summary_of(text)
    return Page("policy", "placement", summary, f"# placement\n\n{text}\n")


def _told_by(name: str, group: str, package: str) -> Page:
    """The page that a package's docstring is: of synthetic traces, fio, and filters in Python."""
    text = _doc(resources.files("vaio_bench") / package / "__init__.py")
    return Page(group, name, catalogue.summary_of(text), f"# {name}\n\n{text}\n")


def _doc(module: Traversable) -> str:
    """A module's docstring, read without importing what the module needs; empty without one."""
    return inspect.cleandoc(ast.get_docstring(ast.parse(module.read_text())) or "")
