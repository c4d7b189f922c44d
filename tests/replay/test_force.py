"""--force replaces a run, never a folder that only looks like one, nor what else lies in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from replay_kit import mixed, write_trace

from vaio_bench.errors import InputError
from vaio_bench.run_writer import RunWriter
from vaio_bench.store import open_run


def test_a_folder_with_another_programs_manifest_stays(tmp_path: Path) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"manifest_version": 3}')
    with pytest.raises(InputError, match="schema_version"):
        RunWriter.check(folder, force=True)


def test_an_earlier_run_goes(tmp_path: Path) -> None:
    RunWriter.create(tmp_path / "run", {"schema_version": 1})
    (tmp_path / "run" / "ios" / "old").write_text("old")
    with pytest.raises(InputError, match="--force"):
        RunWriter.check(tmp_path / "run", force=False)
    RunWriter.check(tmp_path / "run", force=True)
    RunWriter.create(tmp_path / "run", {"schema_version": 1})
    assert not (tmp_path / "run" / "ios" / "old").exists()


def test_a_run_that_is_being_written_stays(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path / "run", {"schema_version": 1})
    with writer.held(), pytest.raises(InputError, match="another process"):
        RunWriter.check(tmp_path / "run", force=True)


def test_trace_target_and_notes_in_the_folder_stay(cli: Callable, tmp_path: Path) -> None:
    """Twice into the folder that holds the trace: the second would have none, or no target."""
    run = tmp_path / "run"
    trace = write_trace(tmp_path / "t.parquet", mixed(5, 40, align=512))
    command = ["--target", run / "t.img", "--buffered", "-o", run, "--force"]
    run.mkdir()
    ended = cli("replay", trace, *command)
    assert ended.exit_status == 0, ended.stderr
    inside = trace.rename(run / "t.parquet")
    (run / "notes").write_text("mine")
    ended = cli("replay", inside, *command)
    assert ended.exit_status == 0, ended.stderr
    assert (run / "notes").read_text() == "mine"
    assert (run / "t.img").stat().st_size > 0
    assert open_run(run).exit == "ok"


def test_nothing_is_made_where_the_folder_is_refused(cli: Callable, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("mine")
    trace = write_trace(tmp_path / "t.parquet", mixed(5, 40, align=512))
    target = tmp_path / "t.img"
    for force in ([], ["--force"]):
        ended = cli("replay", trace, "--target", target, "-o", tmp_path / "mine", *force)
        assert ended.exit_status == 2
        assert "not a run" in ended.stderr
    assert not target.exists()
