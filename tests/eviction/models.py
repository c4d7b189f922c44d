"""Eviction policies as plain as can be: a list or two, searched. Each gives its misses."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence


def fifo(blocks: Iterable[int], size: int) -> int:
    line: list[int] = []
    misses = 0
    for block in blocks:
        if block not in line:
            misses += 1
            line = [*line[-(size - 1) :], block] if size > 1 else [block]
    return misses


def lru(blocks: Iterable[int], size: int) -> int:
    kept: OrderedDict[int, None] = OrderedDict()
    misses = 0
    for block in blocks:
        if block in kept:
            kept.move_to_end(block)
            continue
        misses += 1
        if len(kept) == size:
            kept.popitem(last=False)
        kept[block] = None
    return misses


def clock(blocks: Iterable[int], size: int) -> int:
    line: list[int] = []
    asked: set[int] = set()
    misses = 0
    for block in blocks:
        if block in line:
            asked.add(block)
            continue
        misses += 1
        while len(line) == size:
            first = line.pop(0)
            if first in asked:
                asked.discard(first)
                line.append(first)
        line.append(block)
    return misses


def lfu(blocks: Iterable[int], size: int) -> int:
    known: dict[int, tuple[int, int]] = {}
    misses = 0
    for now, block in enumerate(blocks):
        if block not in known:
            misses += 1
            if len(known) == size:
                del known[min(known, key=lambda b: known[b])]
        known[block] = (known.get(block, (0, 0))[0] + 1, now)
    return misses


def sieve(blocks: Iterable[int], size: int) -> int:
    line: list[int] = []
    asked: set[int] = set()
    hand = 0
    misses = 0
    for block in blocks:
        if block in line:
            asked.add(block)
            continue
        misses += 1
        if len(line) == size:
            while line[hand] in asked:
                asked.discard(line[hand])
                hand = (hand + 1) % size
            del line[hand]
            hand = 0 if hand == size - 1 else hand
        line.append(block)
    return misses


def twoq(blocks: Iterable[int], size: int) -> int:
    came: list[int] = []
    back: list[int] = []
    gone: list[int] = []
    misses = 0
    for block in blocks:
        if block in came:
            continue
        if block in back:
            back.remove(block)
            back.append(block)
            continue
        misses += 1
        to = came
        if block in gone:
            gone.remove(block)
            to = back
        if len(came) + len(back) == size:
            if len(came) > size // 4 or not back:
                gone = [*gone, came.pop(0)][-(size // 2) :]
                gone = gone if size > 1 else []
            else:
                back.pop(0)
        to.append(block)
    return misses


def arc(blocks: Iterable[int], size: int) -> int:
    t1: list[int] = []
    t2: list[int] = []
    b1: list[int] = []
    b2: list[int] = []
    p, misses = 0.0, 0

    def replace(in_b2: bool) -> None:
        if t1 and (len(t1) > p or (in_b2 and len(t1) == p)):
            b1.append(t1.pop(0))
        else:
            b2.append(t2.pop(0))

    for block in blocks:
        if block in t1 or block in t2:
            (t1 if block in t1 else t2).remove(block)
            t2.append(block)
            continue
        misses += 1
        if block in b1 or block in b2:
            in_b2 = block in b2
            mine, other = (b2, b1) if in_b2 else (b1, b2)
            step = max(len(other) / len(mine), 1.0)
            p = max(p - step, 0.0) if in_b2 else min(p + step, float(size))
            replace(in_b2)
            mine.remove(block)
            t2.append(block)
            continue
        if len(t1) + len(b1) == size:
            if len(t1) < size:
                b1.pop(0)
                replace(False)
            else:
                t1.pop(0)
        elif len(t1) + len(t2) + len(b1) + len(b2) >= size:
            if len(t1) + len(t2) + len(b1) + len(b2) == 2 * size:
                b2.pop(0)
            if len(t1) + len(t2) == size:
                replace(False)
        t1.append(block)
    return misses


def s3_fifo(blocks: Iterable[int], size: int) -> int:
    small: list[int] = []
    main: list[int] = []
    gone: list[int] = []
    count: dict[int, int] = {}
    limit, remembered = size // 10, size * 9 // 10
    misses, evicted_any = 0, False
    for block in blocks:
        if block in count:
            count[block] = min(count[block] + 1, 3)
            continue
        misses += 1
        was_gone = block in gone
        if was_gone:
            gone.remove(block)
        while len(small) + len(main) == size:
            evicted_any = True
            if len(main) > size - limit or not small:
                first = main.pop(0)
                if count[first]:
                    count[first] -= 1
                    main.append(first)
                else:
                    del count[first]
                continue
            while small:
                first = small.pop(0)
                if count[first] < 2:
                    del count[first]
                    gone = [*gone, first][-remembered:] if remembered else []
                    break
                count[first] = 0
                main.append(first)
        full = not evicted_any and len(small) >= limit
        (main if was_gone or full else small).append(block)
        count[block] = 0
    return misses


def lirs(blocks: Iterable[int], size: int, *, demotes: bool = False) -> int:
    """`demotes`: as libCacheSim, where a hit on a block out of the stack costs a LIR its place."""
    hir_max = max(1, size // 100)
    stack: OrderedDict[int, str] = OrderedDict()
    queue: OrderedDict[int, None] = OrderedDict()
    gone: OrderedDict[int, None] = OrderedDict()
    lirs = misses = 0

    def prune() -> None:
        while stack and stack[next(iter(stack))] != "lir":
            gone.pop(stack.popitem(last=False)[0], None)

    def evict() -> None:
        while len(queue) >= hir_max:
            left, _ = queue.popitem(last=False)
            if left in stack:
                stack[left] = "gone"
                gone[left] = None

    def make_room() -> None:
        nonlocal lirs
        if lirs >= size - hir_max:
            bottom, _ = stack.popitem(last=False)
            lirs -= 1
            evict()
            queue[bottom] = None
            prune()

    for block in blocks:
        state = stack.get(block, "new")
        if state != "new":
            stack.move_to_end(block)
        if block in queue and state == "new":
            queue.move_to_end(block)
            if demotes:
                make_room()
            stack[block] = "hir"
        elif state in ("hir", "gone"):
            misses += state == "gone"
            queue.pop(block, None)
            gone.pop(block, None)
            make_room()
            stack[block] = "lir"
            lirs += 1
        elif state == "new":
            misses += 1
            if lirs < size - hir_max:
                stack[block] = "lir"
                lirs += 1
            else:
                evict()
                stack[block] = "hir"
                queue[block] = None
        prune()
        while len(stack) > 2 * size and gone:
            del stack[gone.popitem(last=False)[0]]
    return misses


def belady(blocks: Sequence[int], size: int) -> int:
    kept: set[int] = set()
    misses = 0
    for now, block in enumerate(blocks):
        if block in kept:
            continue
        misses += 1
        if len(kept) == size:
            later = blocks[now + 1 :]
            kept.remove(max(kept, key=lambda b: later.index(b) if b in later else len(blocks)))
        kept.add(block)
    return misses


MODELS: dict[str, Callable[[Sequence[int], int], int]] = {
    "fifo": fifo,
    "lru": lru,
    "clock": clock,
    "lfu": lfu,
    "sieve": sieve,
    "2q": twoq,
    "arc": arc,
    "s3-fifo": s3_fifo,
    "lirs": lirs,
    "belady": belady,
}
