"""`vaio-bench abi`: what a C compiler needs to build a filter."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from vaio_bench.errors import InputError


def register(app: typer.Typer) -> None:
    """Adds the verb."""

    @app.command()
    def abi(
        include_dir: Annotated[
            bool, typer.Option("--include-dir", help="Print the folder of vaio_filter.h alone.")
        ] = False,
        as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    ) -> None:
        """Where vaio_filter.h is, and how a filter in C is built and used."""
        from vaio_bench.foreign import INCLUDE_DIR

        header = INCLUDE_DIR / "vaio_filter.h"
        if not header.is_file():
            raise InputError(f"{header}: the header is missing: install the package anew")
        if as_json:
            print(json.dumps({"include_dir": str(INCLUDE_DIR), "header": str(header)}))
        elif include_dir:
            print(INCLUDE_DIR)
        else:
            print(
                f"{header}\n\n"
                "    cc -shared -fPIC -O2 -I $(vaio-bench abi --include-dir) filter.c "
                "-o filter.so\n\n"
                "and in a policy:\n\n"
                '    [[filter]]\n    use = "so:filter.so"'
            )
