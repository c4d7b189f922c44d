# Types of the compiled module. One section a file of rust/py/src; stubtest checks them.

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, final, type_check_only

from pyarrow import RecordBatchReader

DEBUG_BUILD: bool
VERSION: str

# arrow.rs
@final
@type_check_only
class Batch:
    """Rows on their way: `pyarrow.record_batch(batch)`."""

    def __arrow_c_array__(self, requested_schema: Any = None) -> tuple[Any, Any]: ...
    def __len__(self) -> int: ...

# catalogue.rs
def catalogue() -> str: ...
def check_filter(use: str, params_json: str) -> list[tuple[str, str]]: ...
def check_server(uri: str, params_json: str) -> list[tuple[str, str]]: ...
def is_server(use: str) -> bool: ...

# foreign.rs
def describe_filter(use: str, params_json: str) -> str: ...
def describe_library(path: str) -> str: ...
def open_black_box(file: Path) -> None: ...
def black_box_words() -> tuple[list[str], list[str]]: ...

# import.rs
@final
class TraceReader:
    def __new__(
        cls,
        paths: Sequence[Path],
        aside: Path,
        *,
        format: str | None = None,
        event: str = "queue",
        columns: str | None = None,
        skip_bad: bool = False,
        sort: bool = False,
        batch_rows: int = ...,
    ) -> TraceReader: ...
    @property
    def format(self) -> str: ...
    @property
    def bytes_read(self) -> int: ...
    def next_batch(self) -> Batch | None: ...
    def report(self) -> str: ...

# laws.rs
def filter_laws() -> list[tuple[str, str]]: ...
def certify(
    use: str,
    params_json: str,
    seed: int,
    placement: str = "inline",
    law: str | None = None,
) -> str: ...

# planner.rs
def plan_rpo(
    reader: RecordBatchReader,
    file: str,
    granularity_bytes: int,
    options: str,
    rows: int = 0,
    progress: Callable[[int], object] | None = None,
) -> str: ...

# python_filter.rs
@final
class FilterIo:
    @property
    def id(self) -> int: ...
    @property
    def op(self) -> str: ...
    @property
    def offset_bytes(self) -> int: ...
    @property
    def length_bytes(self) -> int: ...
    @property
    def flags(self) -> int: ...
    @property
    def seq(self) -> int: ...
    @property
    def tag(self) -> int: ...
    @property
    def status(self) -> int: ...
    @property
    def disk(self) -> int: ...
    @property
    def parent(self) -> int | None: ...
    @property
    def data(self) -> memoryview | None: ...

@final
class FilterContext:
    def now(self) -> int: ...
    def timer(self, at_ns: int, token: int) -> None: ...
    def turn_to(
        self, callback: str, io: FilterIo, others: Sequence[FilterIo] | None = None
    ) -> None: ...
    def resume(self, io: int) -> None: ...
    def finish(self, io: int, status: int = 0) -> None: ...
    def child(
        self,
        parent: int | None,
        op: str,
        offset_bytes: int,
        length_bytes: int,
        *,
        data: bytes | None = None,
        flags: int = 0,
        tag: int = 0,
    ) -> int | None: ...
    def count_blocks(self, io: int, blocks: int, hits: int) -> None: ...
    def event(self, kind: str, detail_json: str = "{}") -> None: ...

# profile.rs
def profile_trace(
    reader: RecordBatchReader,
    file: str,
    block_bytes: int,
    progress: Callable[[int], object] | None = None,
) -> str: ...

# replay.rs
@final
class Scan:
    def __new__(
        cls, reader: RecordBatchReader, file: str, window: str, fit_to_bytes: int | None = None
    ) -> Scan: ...
    def to_json(self) -> str: ...

@final
class Round:
    def __new__(cls, options: str, scan: Scan, reader: RecordBatchReader, file: str) -> Round: ...
    @property
    def settled(self) -> str: ...
    def next(
        self, timeout_s: float
    ) -> tuple[Literal["rows", "gauges", "base", "events", "none", "end"], Any]: ...
    def progress(self) -> tuple[int, int, int]: ...
    def stop(self) -> None: ...
    def finish(self) -> str: ...

def uring_refused() -> str | None: ...
def harness_floor(ios: int = 500_000, rounds: int = 3) -> dict[str, float]: ...

# simulate.rs
@final
class CacheTrace:
    def __new__(
        cls,
        open: Callable[[], RecordBatchReader],
        file: str,
        setting: str,
        progress: Callable[[int], object] | None = None,
    ) -> CacheTrace: ...
    def summary(self) -> str: ...
    def simulate(
        self, jobs: str, seed: int, progress: Callable[[int], object] | None = None
    ) -> str: ...
    def simulate_sample(
        self,
        jobs: str,
        seed: int,
        rate: float,
        salt: int,
        progress: Callable[[int], object] | None = None,
    ) -> str: ...
    def simulate_contents(
        self, jobs: str, seed: int, progress: Callable[[int], object] | None = None
    ) -> str: ...
    def lru_curve(
        self,
        capacities: Sequence[int],
        plan: str,
        progress: Callable[[int], object] | None = None,
    ) -> str: ...

@final
class Site:
    def __new__(
        cls,
        address: str,
        store: str,
        key: str,
        capacity_bytes: int = 0,
        segment_bytes: int = 67_108_864,
    ) -> Site: ...
    @property
    def address(self) -> str: ...
    def next_line(self, timeout_s: float) -> str | None: ...
    def stop(self) -> str: ...

def store_offer(store: str) -> str: ...
def recover(store: str, out: str, point: int | None = None, at_ns: int | None = None) -> str: ...
def copy_content(log: str | Path, to: str | Path, skip_bad: bool = False) -> tuple[int, int]: ...
def compare_image(
    image: str,
    rows: Any,
    disk: str,
    seed: int,
    compressible: float,
    dedupe: float,
    base: Any | None = None,
    content: str | None = None,
) -> str: ...
def adopt_images(store: str, key: str, images: list[Path]) -> None: ...
