import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from run_folder import make_run


def test_the_verb_writes_a_page_and_prints_the_answers(
    cli: Callable[..., Any], tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", rounds=3, ios=300)
    done = cli("report", run, "-o", tmp_path / "r.html")
    assert done.exit_status == 0, done.stderr
    assert "crypt adds" in done.stdout
    assert str(tmp_path / "r.html") in done.stdout
    again = cli("report", run, "-o", tmp_path / "r.html")
    assert again.exit_status == 2
    assert (
        again.stderr
        == f"vaio-bench: {tmp_path}/r.html: is there already (--force writes over it)\n"
    )
    forced = cli("report", run, "-o", tmp_path / "r.html", "--force", "--json")
    document = forced.document
    assert document["report"] == str(tmp_path / "r.html")
    assert document["runs"][0]["overhead"]["policies"][0]["name"] == "crypt"


def test_what_is_no_run_ends_with_status_2(cli: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({}))
    done = cli("report", tmp_path / "x.json", "-o", tmp_path / "r.html")
    assert done.exit_status == 2
    assert done.stderr == f"vaio-bench: {tmp_path}/x.json: expected a run folder, found a file\n"
    assert not (tmp_path / "r.html").exists()
