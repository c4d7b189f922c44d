"""Names of a package that are imported when first used: Polars, pyarrow and plotly take a while."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def importer(package: dict[str, Any], places: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__` (PEP 562).

    Args:
        package: its `globals()`.
        places: by name, the module that has it.

    Returns:
        What gives a name's value, and raises AttributeError for one that is not in `places`.
    """

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package['__name__']!r} has no attribute {name!r}")
        # What was imported stays: a submodule of the same name must not take its place.
        found = package[name] = getattr(importlib.import_module(places[name]), name)
        return found

    return get
