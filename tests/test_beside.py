"""What a policy reads by a relative path: beside its file first, then in the command's folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from filters.vendor import build

from vaio_bench.spec import PolicyError, load_policy

RULE = 'rule found { strings: $a = "needle" condition: $a }'


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a policy, seen as `policies` from the folder of the command."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "policies"
    folder.mkdir()
    return folder


def policy(folder: Path, text: str) -> Path:
    (folder / "p.toml").write_text(f"[[filter]]\n{text}\n")
    return Path("policies/p.toml")


def test_a_library(elsewhere: Path) -> None:
    build("scramble", elsewhere)
    [used] = load_policy(policy(elsewhere, 'use = "so:scramble.so"\nkey = 1')).filters
    # By the name that its writer knows, wherever it was found.
    assert (used.use, used.engine_use) == ("so:scramble.so", "so:policies/scramble.so")
    (elsewhere / "scramble.so").rename("scramble.so")
    [used] = load_policy("policies/p.toml").filters
    assert used.engine_use == "so:scramble.so"


def test_rules(elsewhere: Path) -> None:
    pytest.importorskip("yara_x", reason="requires yara-x (pip install vaio-bench[yara])")
    text = 'use = "yara"\nrules = "own.yar"'
    with pytest.raises(PolicyError, match=r"filter\[0\].rules: .*own.yar"):
        load_policy(policy(elsewhere, text))
    (elsewhere / "own.yar").write_text(RULE)
    [used] = load_policy("policies/p.toml").filters
    assert used.params["rules"] == "policies/own.yar"


@pytest.mark.parametrize(
    "text",
    [
        'use = "crypt"\nkey = "file:k"',
        'use = "cdp"\nrpo = "5s"\nlink = { bandwidth = "1Mbit/s", site = "h:1", key = "file:k" }',
    ],
)
def test_a_key(elsewhere: Path, text: str) -> None:
    (elsewhere / "k").write_bytes(bytes(range(64)))
    [used] = load_policy(policy(elsewhere, text)).filters
    assert "file:policies/k" in (used.params.get("key"), used.params.get("link", {}).get("key"))
