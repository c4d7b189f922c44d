"""`doctor`: what it says of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vaio_bench.warnings import WarningKind


def test_json(cli: Callable[..., Any], tmp_path: Path) -> None:
    ended = cli("doctor", "--json", "--target", tmp_path / "t.img")
    assert ended.exit_status == 0, ended.stderr
    found = ended.document
    assert found["fit"] == (not found["warnings"])
    assert found["environment"]["target"]["path"] == str(tmp_path / "t.img")
    assert {warning["code"] for warning in found["warnings"]} <= {kind.code for kind in WarningKind}
    floor = found["harness_floor"]
    assert 0 < floor["clock_ns"] < floor["null_ns_per_io"]
    # The difference of two measurements: on a noisy machine it may fall on either side of zero.
    assert abs(floor["pass_ns_per_io"]) < floor["null_ns_per_io"]


def test_for_people(cli: Callable[..., Any]) -> None:
    ended = cli("doctor")
    assert ended.exit_status == 0, ended.stderr
    assert "harness floor" in ended.stdout
    assert ended.stdout.rstrip().splitlines()[-1].startswith("fit to measure")
