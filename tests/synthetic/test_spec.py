"""Specs: what they mean, and what each mistake is told."""

from pathlib import Path

import pytest

from vaio_bench import InputError
from vaio_bench.synthetic.presets import find_spec, preset_names, preset_text
from vaio_bench.synthetic.spec import check_spec, load_spec, override


def test_all_mistakes_at_once_with_their_path(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(
        'ios = 10\ncolour = "red"\n'
        '[address]\nalpha = "high"\nfootprint = "lots"\npattern = "zip"\n'
        '[mix]\nread = 1.5\n[size]\nread = [{ size = "4KiB" }, { size = 5000 }]\n'
    )
    with pytest.raises(InputError) as caught:
        load_spec(path)
    lines = set(str(caught.value).splitlines())
    wanted = "'uniform', 'zipf', 'sequential' or 'hotset'"
    assert lines == {
        f"{path}: colour: expected no such key",
        f'{path}: address.alpha: expected a number, got "high"',
        f'{path}: address.footprint: expected a size such as "512MiB", got "lots"',
        f'{path}: address.pattern: expected {wanted}, got "zip"',
        f"{path}: mix.read: expected a number of at most 1.0, got 1.5",
        f"{path}: size.read[1].size: expected a multiple of 512 up to 1 GiB, got 5000",
    }


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "spec: expected ios or duration, got neither"),
        ({"ios": True}, "spec: ios: expected a whole number, got True"),
        ({"ios": 1, "disks": 0}, "spec: disks: expected 1 to 65536 disks or a list of names"),
        ({"ios": 1, "disks": ["a", "a"]}, "spec: disks: expected a number of disks or a list of"),
        (
            {"ios": 1, "disks": 2, "disk_weights": [1.0]},
            "spec: disk_weights: expected 2 weights, one a disk, got 1",
        ),
        (
            {"ios": 1, "address": {"footprint": 5000}},
            "spec: address: footprint: expected a multiple of block (4096), got 5000",
        ),
        (
            {"ios": 1, "stream": [{}, {"mix": {"flush": 0.7, "discard": 0.7}}]},
            "spec: stream[1].mix: expected flush + discard + write_zeroes of at most 1",
        ),
        (
            {"ios": 1, "address": {"footprint": "4KiB"}, "size": {"read": "8KiB"}},
            "spec: size: expected at most the footprint (4096), got 8192",
        ),
        (
            {"ios": 1, "content": {}, "mix": {"discard": 0.1}},
            "spec: content: expected no discard and no write_zeroes in a mix",
        ),
        ({"ios": 1, "stream": [{}], "mix": {}}, "spec: mix: expected no such key"),
        ({"duration": 5}, 'spec: duration: expected a time such as "5s", got 5'),
    ],
)
def test_each_mistake(spec: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_spec(spec, "spec")
    assert str(caught.value).startswith(message)


def test_files_that_are_no_spec(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml: No such file"):
        find_spec(str(tmp_path / "none.toml"))
    with pytest.raises(InputError, match="oltpp: expected a spec file or one of mixed, oltp"):
        find_spec("oltpp")
    broken = tmp_path / "broken.toml"
    broken.write_text("ios = \n")
    with pytest.raises(InputError, match=r"broken\.toml: expected TOML: .*line 1"):
        load_spec(broken)


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_valid_and_can_be_read_back(name: str) -> None:
    spec = find_spec(name)
    assert spec.name == name
    assert spec.description
    assert name in preset_text(name)
    assert check_spec(spec.stored(), name) == spec


def test_overrides() -> None:
    spec = find_spec("oltp")
    small = override(spec, "oltp", seed=9, ios=100, footprint="90MiB", rate=7.5)
    assert (small.seed, small.ios, small.duration, small.arrival.rate) == (9, 100, None, 7.5)
    # 8 GiB and 1 GiB behind it, in proportion.
    first, second = (s.address for s in small.stream)
    assert (first.start, first.footprint) == (0, 80 << 20)
    assert (second.start, second.footprint) == (80 << 20, 10 << 20)
    assert small.reach_bytes == 90 << 20
    assert override(spec, "oltp") == spec
    with pytest.raises(InputError, match=r"^web: arrival.rate: expected a number above 0"):
        override(find_spec("web"), "web", rate=-1.0)
