"""Sizes, rates and times as users write them: "512MiB", "100Mbit/s", "5s".

A number and a unit, with or without a space. Decimal prefixes are powers of 1000 (`MB`, `Mbit`),
binary ones powers of 1024 (`MiB`); a size with the bare letter (`4k`, `1G`) is binary, as in fio,
qemu-img and dd. Case matters only where it tells bit from byte in a rate (`b`, `B`).
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from vaio_bench.errors import InputError

_NUMBER_AND_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([A-Za-zµμ/]*)\s*")

_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}

_TIMES_NS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "sec": 10**9,
    "m": 60 * 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86_400 * 10**9,
}

_INT64_MAX = 2**63 - 1


def parse_reach(value: object, where: str = "") -> float:
    """A share to each side, above 0 and below 1: "2%", "±2%" and 0.02 are one.

    Raises:
        InputError: `where: expected a share such as "2%", got ...`.
    """
    plain = str(value).strip().removeprefix("±").removeprefix("+-").strip()
    try:
        share = float(plain.removesuffix("%")) / (100 if plain.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise _wrong(value, 'a share such as "2%"', where)
    return share


def parse_size(value: object, where: str = "") -> int:
    """Bytes of a size: "512MiB", "4k", "1.5 GB", or a whole number of bytes.

    Raises:
        InputError: `where: expected a size such as "512MiB", got ...`.
    """
    wanted = 'a size such as "512MiB"'
    number, unit = _split(value, wanted, where)
    factor = _size_factor(unit)
    if factor is None:
        raise _wrong(value, wanted, where)
    return _whole(number * factor, value, wanted, where)


def parse_rate_bps(value: object, where: str = "") -> int:
    """Bits per second of a rate: "100Mbit/s", "1Gbps", "12.5MB/s" (times 8), "10MiB/s".

    A rate needs its unit: a bare number is neither bits nor bytes.

    Raises:
        InputError: `where: expected a rate such as "100Mbit/s", got ...`.
    """
    wanted = 'a rate such as "100Mbit/s"'
    number, unit = _split(value, wanted, where)
    per_second = re.fullmatch(r"(.+)/s", unit) or re.fullmatch(r"(.+b(?:it)?)ps", unit)
    factor = per_second and _bits_factor(per_second.group(1))
    if not factor:
        raise _wrong(value, wanted, where)
    return _whole(number * factor, value, wanted, where)


def parse_time_ns(value: object, where: str = "") -> int:
    """Nanoseconds of a time: "5s", "250us", "15min", "1.5h", "2d". "0" needs no unit.

    Raises:
        InputError: `where: expected a time such as "5s", got ...`.
    """
    wanted = 'a time such as "5s"'
    number, unit = _split(value, wanted, where)
    factor = 1 if number == 0 and not unit else _TIMES_NS.get(unit)
    if factor is None:
        raise _wrong(value, wanted, where)
    return _whole(number * factor, value, wanted, where)


def parse_share(value: object, where: str = "") -> float:
    """A share as a fraction: "40%", "40 %", or 0.4.

    Raises:
        InputError: `where: expected a share such as "40%" or 0.4, got ...`.
    """
    wanted = 'a share such as "40%" or 0.4'
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and text.endswith("%"):
        number, unit = _split(text[:-1], wanted, where)
        number /= 100
    else:
        number, unit = _split(value, wanted, where)
    if unit:
        raise _wrong(value, wanted, where)
    return float(number)


def format_size(size_bytes: float) -> str:
    """A size for people: "1.5 GiB", three digits at most and binary prefixes."""
    amount, prefixes = float(size_bytes), iter(("B", "KiB", "MiB", "GiB", "TiB", "PiB"))
    prefix = next(prefixes)
    while abs(amount) >= 0.9995 * 1024 and prefix != "PiB":
        amount, prefix = amount / 1024, next(prefixes)
    return f"{_three_digits(amount)} {prefix}"


def format_time(time_ns: float) -> str:
    """A time for people: "81 us", "2.5 ms", "1.5 h"."""
    steps = (("ns", 1e3), ("us", 1e3), ("ms", 1e3), ("s", 60.0), ("min", 60.0), ("h", 24.0))
    amount = float(time_ns)
    for unit, limit in steps:
        if abs(amount) < 0.9995 * limit:  # not "1000 us"
            return f"{_three_digits(amount)} {unit}"
        amount /= limit
    return f"{_three_digits(amount)} d"


def format_rate_bps(rate_bps: float) -> str:
    """Bits per second for people: "138 Mbit/s", decimal prefixes."""
    amount, prefixes = float(rate_bps), iter(("", "k", "M", "G", "T", "P"))
    prefix = next(prefixes)
    while abs(amount) >= 0.9995 * 1000 and prefix != "P":
        amount, prefix = amount / 1000, next(prefixes)
    return f"{_three_digits(amount)} {prefix}bit/s"


def format_needed_bps(rate_bps: float) -> str:
    """As `format_rate_bps`, rounded up: the bandwidth that is told is enough."""
    return format_rate_bps(round_up(rate_bps))


def format_given_bps(rate_bps: int) -> str:
    """Bits per second as they were given, all digits: "267.4 Mbit/s"."""
    step = min(max(len(str(rate_bps)) - 1, 0) // 3, 4)
    return f"{rate_bps / 1000**step:.15g} {('', 'k', 'M', 'G', 'T')[step]}bit/s"


def round_up(amount: float) -> int:
    """To three digits, upwards."""
    whole = math.ceil(amount)
    unit: int = 10 ** max(0, len(str(whole)) - 3)
    return -(-whole // unit) * unit


def _three_digits(amount: float) -> str:
    decimals = 0 if abs(amount) >= 100 else 1 if abs(amount) >= 10 else 2
    text = f"{amount:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _split(value: object, wanted: str, where: str) -> tuple[Fraction, str]:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _wrong(value, wanted, where)
    match = _NUMBER_AND_UNIT.fullmatch(value if isinstance(value, str) else repr(value))
    if match is None:
        raise _wrong(value, wanted, where)
    return Fraction(match.group(1)), match.group(2)


def _size_factor(unit: str) -> int | None:
    match = re.fullmatch(r"([kmgtp]?)(i?)(b?)", unit.lower())
    if match is None or (match.group(2) and not match.group(1)):
        return None
    prefix, binary, byte = match.groups()
    base = 1000 if byte and not binary else 1024
    return int(base ** _POWERS[prefix])


def _bits_factor(unit: str) -> int | None:
    match = re.fullmatch(r"([kKmMgGtTpP]?)(i?)(b|bit|B|[bB]yte)", unit)
    if match is None or (match.group(2) and not match.group(1)):
        return None
    prefix, binary, kind = match.groups()
    bits = 1 if kind in ("b", "bit") else 8
    return int(bits * (1024 if binary else 1000) ** _POWERS[prefix.lower()])


def _whole(amount: Fraction, value: object, wanted: str, where: str) -> int:
    whole = round(amount)
    if whole > _INT64_MAX:
        raise _wrong(value, f"{wanted} below 2^63", where)
    return whole


def _wrong(value: object, wanted: str, where: str) -> InputError:
    got = f'"{value}"' if isinstance(value, str) else repr(value)
    return InputError(f"{where + ': ' if where else ''}expected {wanted}, got {got}")
