"""The presets: spec files in the folder `presets`, one a workload."""

from __future__ import annotations

from pathlib import Path

from vaio_bench.errors import InputError
from vaio_bench.synthetic.spec import Spec, load_spec

_FOLDER = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """The names, in order of the alphabet."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def find_spec(preset_or_path: str) -> Spec:
    """The preset of that name, or else the spec file at that path.

    Raises:
        InputError: Neither exists, or the file has mistakes (one line each).
    """
    if preset_or_path in preset_names():
        return load_spec(_FOLDER / f"{preset_or_path}.toml")
    if not preset_or_path.endswith(".toml") and not Path(preset_or_path).exists():
        names = ", ".join(preset_names())
        raise InputError(f"{preset_or_path}: expected a spec file or one of {names}")
    return load_spec(preset_or_path)


def preset_text(name: str) -> str:
    """The TOML of a preset, to start one's own from.

    Raises:
        InputError: No such preset.
    """
    if name not in preset_names():
        raise InputError(f"{name}: expected one of {', '.join(preset_names())}")
    return (_FOLDER / f"{name}.toml").read_text(encoding="utf-8")
