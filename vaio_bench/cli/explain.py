"""`vaio-bench explain`: the page of any filter, format, policy, analysis or warning."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the verb."""

    @app.command()
    def explain(
        name: Annotated[
            str | None,
            typer.Argument(help="A kind, as `crypt` or `format:csv`; none lists them all."),
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    ) -> None:
        """The page of a filter, format, eviction policy, backend, analysis or warning."""
        from vaio_bench.explain import explain as look_up
        from vaio_bench.explain import pages

        found = pages() if name is None else look_up(name)
        if as_json:
            print(json.dumps([page.to_dict() for page in found]))
        elif name is None:
            width = max(len(page.name) for page in found)
            group = None
            for page in found:
                if page.group != group:
                    print(f"{'' if group is None else chr(10)}{page.group}")
                    group = page.group
                print(f"  {page.name:<{width}}  {page.summary}")
        else:
            print("\n\n".join(page.text.strip() for page in found))
