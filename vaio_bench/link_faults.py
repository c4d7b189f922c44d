"""What happens to a link, as `rpo --fault` has it: the words of a policy, in one argument."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vaio_bench.errors import InputError
from vaio_bench.units import parse_rate_bps, parse_time_ns


def parsed(given: str | Mapping[str, Any]) -> dict[str, Any]:
    """As policies have it; what its keys hold is checked by the engine.

    Args:
        given: "outage,at=10min,for=30s", or what a policy has.

    Raises:
        InputError: It is not of that form.
    """
    if not isinstance(given, str):
        return dict(given)
    kind, *pairs = given.split(",")
    keys = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    if not kind or "=" in kind or len(keys) < len(pairs) or "kind" in keys:
        raise InputError(
            f'--fault: expected KIND,KEY=VALUE such as "outage,at=10min,for=30s", got "{given}"'
        )
    return {"kind": kind, **keys}


def echo(fault: Mapping[str, Any]) -> dict[str, Any]:
    """A fault that the engine has taken, with units in its keys."""
    times = {name: fault[name] for name in ("at", "for", "rtt") if name in fault}
    rate = fault.get("bandwidth")
    return {
        "kind": fault["kind"],
        **{f"{name}_s": parse_time_ns(time, "--fault") / 1e9 for name, time in times.items()},
        **({} if rate is None else {"bandwidth_bps": parse_rate_bps(rate, "--fault")}),
    }
