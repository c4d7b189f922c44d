"""`vaio-bench explain`: the page of any filter, format, policy, analysis or warning."""

from __future__ import annotations

import itertools
import json
import shutil
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vaio_bench.explaining import Page


def register(app: typer.Typer) -> None:
    """Adds the verb."""

    @app.command()
    def explain(
        name: Annotated[
            str | None,
            typer.Argument(help="A kind, as `crypt`, `format:csv` or `so:PATH`; none lists all."),
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    ) -> None:
        """The page of a filter, format, eviction policy, backend, analysis or warning."""
        from vaio_bench.explaining import explain as look_up
        from vaio_bench.explaining import pages

        found = pages() if name is None else look_up(name)
        if as_json:
            print(json.dumps([page.to_dict() for page in found]))
        elif name is None:
            print(_listing(found))
        else:
            print("\n\n".join(page.text.strip() for page in found))


def _listing(pages: list[Page]) -> str:
    """A line for each page, below the name of its group."""
    width = max(len(page.name) for page in pages)
    # Whole sentences in a file or pipe; on a terminal what fits.
    room = max(shutil.get_terminal_size(fallback=(1000, 24)).columns - width - 4, 40)
    lines: list[str] = []
    for group, members in itertools.groupby(pages, key=lambda page: page.group):
        lines += ["", group] if lines else [group]
        lines += [
            f"  {page.name:<{width}}  {textwrap.shorten(page.summary, room, placeholder=' ...')}"
            for page in members
        ]
    return "\n".join(lines)
