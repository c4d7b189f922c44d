"""What the README shows works as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import vaio_bench

README = Path(__file__).resolve().parent.parent / "README.md"
ROWS = [f"{i * 10_000},{'write' if i % 3 else 'read'},{i % 50 * 4096},4096\n" for i in range(200)]


def test_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trace.csv").write_text("time_ns,op,offset_bytes,length_bytes\n" + "".join(ROWS))
    monkeypatch.chdir(tmp_path)
    (script,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(script, "README.md", "exec"), {})
    first, *_ = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d+ True", first)


@pytest.mark.parametrize("name", vaio_bench.__all__)
def test_everything_that_is_offered_says_what_it_is(name: str) -> None:
    assert getattr(vaio_bench, name).__doc__
