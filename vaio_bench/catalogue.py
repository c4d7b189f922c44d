"""The engine's one list of kinds, as Python reads it. Nothing is listed here by hand."""

from __future__ import annotations

import functools
import itertools
import json
import re
from dataclasses import dataclass
from typing import Any

from vaio_bench import _core, foreign


@dataclass(frozen=True)
class Kind:
    """A filter, format, eviction policy or backend of the engine."""

    kind: str
    """The group: `filter`, `format`, `eviction` or `backend`."""
    name: str
    """The word that names its file, its page, its test and its value in a policy or option."""
    filter_class: str | None
    """The framework's class (`replication`, `cache`, ...), of a filter that has one."""
    page: str
    """The doc page, Markdown."""
    schema: dict[str, Any]
    """JSON Schema of its parameters; empty when it has none."""
    properties: dict[str, Any]
    """What it declares of itself, which the laws test."""

    @property
    def summary(self) -> str:
        """The first sentence of the page."""
        return summary_of(self.page)


def summary_of(page: str) -> str:
    """The first sentence of a Markdown page, its headings left out."""
    lines = ["" if line.startswith("#") else line.strip() for line in page.splitlines()]
    paragraph = itertools.takewhile(bool, itertools.dropwhile(lambda line: not line, lines))
    sentence = re.split(r"(?<=[.!?])\s", " ".join(paragraph), maxsplit=1)[0]
    return sentence.removesuffix(".")


@functools.cache
def kinds() -> tuple[Kind, ...]:
    """Every kind of the engine, in its own order; filters in Python after its filters."""
    engine = [
        Kind(
            kind=entry["kind"],
            name=entry["name"],
            filter_class=entry.get("class"),
            page=entry["page"],
            schema=entry.get("schema") or {},
            properties=entry.get("properties") or {},
        )
        for entry in json.loads(_core.catalogue())
    ]
    python = [
        Kind("filter", name, described.filter_class, described.page, {}, {})
        for name, described in foreign.described().items()
    ]
    of_filters = sum(kind.kind == "filter" for kind in engine)
    return (*engine[:of_filters], *python, *engine[of_filters:])


def filters() -> dict[str, Kind]:
    """The filters by name."""
    return {kind.name: kind for kind in kinds() if kind.kind == "filter"}


def check_filter(use: str, params: dict[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with a filter's parameters, as the engine sees it.

    Args:
        use: the name of a filter of the catalogue.
        params: its keys as in a policy file; values that JSON can hold.

    Returns:
        One `(key path, message)` for each fault; empty when there is none.
    """
    return [(str(path), str(message)) for path, message in _core.check_filter(use, _json(params))]


def declared(use: str, params: dict[str, Any]) -> dict[str, Any]:
    """What a filter of any make with these (right) parameters says of itself.

    Returns:
        Its properties, as the engine has them; empty where it cannot be asked any more.
    """
    if foreign.make_of(use) is not None:
        about, _ = foreign.describe(use, params)
        return about.properties if about else {}
    told = json.loads(_core.describe_filter(use, _json(params)))
    properties: dict[str, Any] = told.get("about", {}).get("properties", {})
    return properties


def is_server(use: object) -> bool:
    """Whether a policy's `use` means an NBD server: its scheme, whatever follows."""
    return isinstance(use, str) and _core.is_server(use)


def check_server(uri: str, params: dict[str, Any]) -> list[tuple[str, str]]:
    """As `check_filter`, for a filter that is an NBD server; its URI's faults are of key `use`."""
    return [(str(path), str(message)) for path, message in _core.check_server(uri, _json(params))]


def _json(params: dict[str, Any]) -> str:
    return json.dumps(params, allow_nan=False)
