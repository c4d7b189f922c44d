"""Types of the compiled module."""

from collections.abc import Callable

from pyarrow import RecordBatchReader

DEBUG_BUILD: bool
VERSION: str

# --- info ---

def profile_trace(
    reader: RecordBatchReader,
    file: str,
    block_bytes: int,
    progress: Callable[[int], object] | None = None,
) -> str: ...
