"""--force replaces a run, never a folder that only looks like one."""

from __future__ import annotations

from pathlib import Path

import pytest

from vaio_bench.errors import InputError
from vaio_bench.run_writer import RunWriter


def test_a_folder_with_another_programs_manifest_stays(tmp_path: Path) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"manifest_version": 3}')
    (folder / "precious").write_text("mine")
    with pytest.raises(InputError, match="schema_version"):
        RunWriter.create(folder, {}, force=True)
    assert (folder / "precious").read_text() == "mine"


def test_an_earlier_run_goes(tmp_path: Path) -> None:
    RunWriter.create(tmp_path / "run", {"schema_version": 1}, force=False)
    (tmp_path / "run" / "ios" / "old").write_text("old")
    RunWriter.create(tmp_path / "run", {"schema_version": 1}, force=True)
    assert not (tmp_path / "run" / "ios" / "old").exists()
