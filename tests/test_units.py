"""Sizes, rates and times as users write them."""

import pytest

from vaio_bench import InputError
from vaio_bench.units import (
    format_given_bps,
    format_needed_bps,
    format_size,
    format_time,
    parse_rate_bps,
    parse_size,
    parse_time_ns,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("512MiB", 512 << 20),
        ("4k", 4096),
        ("4KB", 4000),
        ("1.5 GiB", 3 << 29),
        ("1TB", 10**12),
        ("0", 0),
        ("123", 123),
        ("100 B", 100),
        (4096, 4096),
        (".5K", 512),
    ],
)
def test_sizes(text: object, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100Mbit/s", 10**8),
        ("1Gbps", 10**9),
        ("12.5MB/s", 10**8),
        ("1 MiB/s", 8 << 20),
        ("8kb/s", 8000),
        ("64Kibit/s", 65_536),
        ("0Mbit/s", 0),
    ],
)
def test_rates(text: object, expected: int) -> None:
    assert parse_rate_bps(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5s", 5 * 10**9), ("250us", 250_000), ("1.5h", 5400 * 10**9), ("15min", 900 * 10**9),
     ("2 d", 172_800 * 10**9), ("7ns", 7), ("0", 0), (0, 0)],
)  # fmt: skip
def test_times(text: object, expected: int) -> None:
    assert parse_time_ns(text) == expected


@pytest.mark.parametrize(
    "bad", ["lots", "", "-1MiB", "1iB", "4XB", "1e3", "9999999PiB", None, True]
)
def test_what_is_no_size(bad: object) -> None:
    with pytest.raises(InputError, match=r'^cache\.capacity: expected a size such as "512MiB"'):
        parse_size(bad, "cache.capacity")


@pytest.mark.parametrize("bad", ["100", "100Mbit", "10MB", "fast", "5s", 10**8])
def test_what_is_no_rate(bad: object) -> None:
    with pytest.raises(InputError, match=r'^expected a rate such as "100Mbit/s", got'):
        parse_rate_bps(bad)


@pytest.mark.parametrize("bad", ["5", 5, "5 parsecs", "s", "-5s"])
def test_what_is_no_time(bad: object) -> None:
    with pytest.raises(InputError, match=r'^--every: expected a time such as "5s", got'):
        parse_time_ns(bad, "--every")


def test_figures_for_people() -> None:
    sizes = [0, 1023, 1024, 4096, 1536 << 20, (1 << 20) - 1, 5 << 50]
    assert [format_size(size) for size in sizes] == [
        "0 B", "1023 B", "1 KiB", "4 KiB", "1.5 GiB", "1 MiB", "5 PiB",
    ]  # fmt: skip
    times = [0, 999, 999.9, 81_000, 2_500_000, 59e9, 90e9, 5400e9, 3 * 86_400e9]
    assert [format_time(time) for time in times] == [
        "0 ns", "999 ns", "1 us", "81 us", "2.5 ms", "59 s", "1.5 min", "1.5 h", "3 d",
    ]  # fmt: skip


def test_a_needed_rate_is_rounded_up_and_a_given_one_not() -> None:
    assert format_needed_bps(267_392_520) == "268 Mbit/s"
    assert format_needed_bps(267_000_000) == "267 Mbit/s"
    assert format_needed_bps(999_100_000) == "1 Gbit/s"
    assert format_needed_bps(0.2) == "1 bit/s"
    assert format_given_bps(267_400_000) == "267.4 Mbit/s"
    assert format_given_bps(100_000_000) == "100 Mbit/s"
    assert format_given_bps(1) == "1 bit/s"
