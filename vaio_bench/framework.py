"""The rules of the I/O filter framework for the order of a chain, each with its evidence.

Hard rules are documented by the framework's vendor and are errors in a policy; the others are
customary and are warnings. `framework = "free"` in a policy lifts them all and marks the run.

Evidence grades: V = the vendor's documentation, D = derived here, not published.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from vaio_bench.warnings import RunWarning, WarningKind

# The customary order. Documented are replication before cache, and encryption before all others
# unless a policy allows filters before it; the complete order of the eight classes is not
# published (the API lists them by alphabet), so breaking the rest of it is only warned about. [D]
CLASS_ORDER: tuple[str, ...] = (
    "inspection",
    "dataCapture",
    "replication",
    "cache",
    "compression",
    "encryption",
    "dataProvider",
    "datastoreIoControl",
)

ONE_PER_CLASS = (
    "the framework runs one filter of a class on a virtual disk "
    "(VAIO program page; vSphere Storage, About I/O Filters)"
)
REPLICATION_BEFORE_CACHE = (
    "the framework runs replication before cache (VAIO program page; vSphere Storage 6.0 to 8.0)"
)
ENCRYPTION_FIRST = (
    "nothing stands before encryption unless [policy] says "
    "allow_filters_before_encryption = true (vSphere Security, encryption storage policies)"
)

# Classes whose work or whose worth depends on reading what the guest wrote. [D]
READS_CONTENT = frozenset({"inspection", "dataCapture", "replication", "cache", "compression"})


@dataclass(frozen=True)
class Link:
    """A filter's place in a chain, as far as the rules look at it."""

    index: int
    use: str
    filter_class: str | None


def broken_rules(chain: list[Link], *, before_encryption: bool) -> list[tuple[int, str]]:
    """The hard rules that a chain breaks.

    Args:
        chain: the filters in the order in which they see an I/O.
        before_encryption: the policy allows filters before encryption.

    Returns:
        `(index of the filter at fault, what was expected)`, by index.
    """
    faults: list[tuple[int, str]] = []
    for first, second in combinations(chain, 2):
        pair = (first.filter_class, second.filter_class)
        if first.filter_class is not None and pair[0] == pair[1]:
            faults.append(
                (
                    second.index,
                    f"expected no second filter of class {first.filter_class}, got "
                    f'"{second.use}" behind filter[{first.index}] "{first.use}": {ONE_PER_CLASS}',
                )
            )
        if pair == ("cache", "replication"):
            faults.append(
                (
                    second.index,
                    f'expected replication before cache, got "{second.use}" behind '
                    f'filter[{first.index}] "{first.use}": {REPLICATION_BEFORE_CACHE}',
                )
            )
        if second.filter_class == "encryption" and not before_encryption:
            faults.append(
                (
                    first.index,
                    f'expected encryption first, got "{first.use}" before '
                    f'filter[{second.index}] "{second.use}": {ENCRYPTION_FIRST}',
                )
            )
    return sorted(dict.fromkeys(faults), key=lambda fault: fault[0])


def customs(policy: str, chain: list[Link]) -> list[RunWarning]:
    """Warnings about a chain that breaks no rule but departs from what is customary."""
    raised: list[RunWarning] = []
    for first, second in combinations(chain, 2):
        if first.filter_class == "encryption":
            if second.filter_class in READS_CONTENT:
                raised.append(
                    WarningKind.SEES_CIPHER_TEXT.of(
                        policy=policy, use=second.use, filter_class=second.filter_class
                    )
                )
        elif second.filter_class != "encryption" and _place(first) > _place(second):
            raised.append(
                WarningKind.CLASS_ORDER.of(
                    policy=policy,
                    first_use=first.use,
                    first_class=first.filter_class,
                    second_use=second.use,
                    second_class=second.filter_class,
                )
            )
    return list(dict.fromkeys(raised))


def _place(link: Link) -> float:
    """The class's place in the customary order.

    A filter without a class may stand anywhere: NaN is neither before nor behind any place.
    """
    if link.filter_class in CLASS_ORDER:
        return CLASS_ORDER.index(link.filter_class)
    return float("nan")
