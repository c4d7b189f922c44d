"""`vaio-bench certify`: does a filter keep the laws that every filter must keep."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from vaio_bench.cli import options as o
from vaio_bench.errors import WorkError

if TYPE_CHECKING:
    from vaio_bench.certifying import Certificate


def register(app: typer.Typer) -> None:
    """Adds the verb."""

    @app.command()
    def certify(
        subject: Annotated[
            str,
            typer.Argument(
                metavar="FILTER",
                help="A filter's name, so:PATH, py:MODULE:CLASS, a policy file or an NBD URI.",
            ),
        ],
        seed: o.Seed = 0,
        destroy_data: o.DestroyData = False,
        as_json: o.AsJson = False,
    ) -> None:
        """Tests a filter against the laws of all filters, over a device that fails and crashes."""
        from vaio_bench.certifying import certify as run

        found = run(subject, seed=seed, destroy_data=destroy_data)
        if as_json:
            print(json.dumps(found.to_dict()))
        else:
            _print(found)
        if found.broken:
            laws = ", ".join(dict.fromkeys(finding.law for finding in found.broken))
            raise WorkError(f"{subject}: broken: {laws}")


def _print(found: Certificate) -> None:
    last = None
    for finding in found.findings:
        if finding.filter != last:
            print(f"{finding.filter}, seed {found.seed}")
            last = finding.filter
        word = {"held": "held", "broken": "BROKEN"}.get(finding.outcome, "not tested")
        print(f"  {word:<10}  {finding.law}: {finding.says}")
        if finding.detail:
            print(f"              {finding.detail}")
