"""Mistakes in a spec, one line each: `spec.toml: address.alpha: expected ..., got ...`."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

# What pydantic calls a mistake, and what was expected; {x} is taken from the error's context.
_EXPECTED = {
    "missing": "a value",
    "literal_error": "{expected}",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "finite_number": "a finite number",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text in quotes",
    "string_pattern_mismatch": "a text like {pattern}",
    "list_type": "a list",
    "model_type": "a table",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
}


def one_line_each(error: ValidationError, where: str, *, one_stream: bool) -> list[str]:
    """A line for each mistake, in the order of the spec.

    Args:
        error: What pydantic found.
        where: The file.
        one_stream: The spec has its tables at the top: paths must not speak of stream[0].
    """
    return [_line(found, where, one_stream) for found in error.errors(include_url=False)]


def _line(found: Any, where: str, one_stream: bool) -> str:
    location = list(found["loc"])
    if one_stream and location[:2] == ["stream", 0]:
        location = location[2:]
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    prefix = f"{where}: {path}: " if path else f"{where}: "
    if found["type"] == "value_error":
        return prefix + str(found["ctx"]["error"])
    if found["type"] == "extra_forbidden":
        return f"{prefix}expected no such key"
    # Pydantic's own words may hold braces, of a pattern say.
    text = _EXPECTED.get(found["type"])
    expected = found["msg"] if text is None else text.format(**found.get("ctx", {}))
    if found["type"] == "missing":
        return f"{prefix}expected {expected}, got none"
    return f"{prefix}expected {expected}, got {_shown(found['input'])}"


def _shown(value: object) -> str:
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
