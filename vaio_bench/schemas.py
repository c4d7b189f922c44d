"""Arrow schemas of a run folder, shared by the side that writes them and the side that reads.

Names carry units. Times are nanoseconds since the round's start, offsets and lengths are bytes.
`self_ns` and `cpu_ns` hold one value a layer, in the order of the manifest's `layers` of the
row's policy, the backend last.
"""

from __future__ import annotations

from enum import IntFlag

import pyarrow as pa

RUN_SCHEMA_VERSION = 1

_NAME = pa.dictionary(pa.int32(), pa.string())
_TIMES = pa.list_(pa.field("element", pa.int64(), nullable=False))


class IoFlag(IntFlag):
    """Bits of the `flags` column of a row."""

    HIT = 1
    PARTIAL_HIT = 2
    DEFERRED = 4
    FORKED = 8
    SPLIT = 16
    CONFLICT_WAITED = 32
    SLOT_WAITED = 64
    DROPPED = 128


# RUN/ios/<policy>/<round>/part-N.parquet: one row an I/O.
IOS = pa.schema(
    [
        pa.field("policy", _NAME, nullable=False),
        pa.field("round", pa.int32(), nullable=False),
        pa.field("disk", _NAME, nullable=False),
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("op", _NAME, nullable=False),
        pa.field("trace_offset_bytes", pa.int64(), nullable=False),
        pa.field("offset_bytes", pa.int64(), nullable=False),
        pa.field("length_bytes", pa.int64(), nullable=False),
        pa.field("due_ns", pa.int64(), nullable=False),
        pa.field("submit_ns", pa.int64(), nullable=False),
        pa.field("complete_ns", pa.int64(), nullable=False),
        pa.field("status", pa.int32(), nullable=False),
        pa.field("flags", pa.uint32(), nullable=False),
        pa.field("blocks", pa.int64(), nullable=False),
        pa.field("hit_blocks", pa.int64(), nullable=False),
        pa.field("self_ns", _TIMES, nullable=False),
        pa.field("cpu_ns", _TIMES, nullable=False),
        pa.field("harness_ns", pa.int64(), nullable=False),
    ]
)

# RUN/histograms/<policy>/<round>/part-0.parquet: how often each latency occurred, of a round of
# another tool (fio) that has no rows. `latency_ns` is the middle of the tool's bucket.
HISTOGRAM = pa.schema(
    [
        pa.field("op", pa.string(), nullable=False),
        pa.field("latency_ns", pa.int64(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
    ]
)

# RUN/timeline.parquet: one row an interval, policy, round and disk. An I/O belongs to the
# interval in which it completed. Quantiles are nearest-rank, null where nothing completed.
# dirty_bytes, dirty_oldest_ns, backlog_bytes and lag_ns are the gauges of these names that stood
# when the interval ended (as read last: up to 100 ms before), over the layers their sum, of the two
# times the largest; dirty_oldest_ns is the RPO of a write-back cache that is lost at that moment;
# mode is that of the last event of kind `mode`, and `normal` before the first where a filter has a
# gauge of that name. All are null where no filter tells them.
TIMELINE = pa.schema(
    [
        pa.field("policy", pa.string(), nullable=False),
        pa.field("round", pa.int32(), nullable=False),
        pa.field("disk", pa.string(), nullable=False),
        pa.field("start_ns", pa.int64(), nullable=False),
        pa.field("interval_ns", pa.int64(), nullable=False),
        pa.field("ios", pa.int64(), nullable=False),
        pa.field("reads", pa.int64(), nullable=False),
        pa.field("writes", pa.int64(), nullable=False),
        pa.field("errors", pa.int64(), nullable=False),
        pa.field("read_bytes", pa.int64(), nullable=False),
        pa.field("write_bytes", pa.int64(), nullable=False),
        pa.field("iops", pa.float64(), nullable=False),
        pa.field("bytes_per_s", pa.float64(), nullable=False),
        pa.field("latency_p50_ns", pa.int64()),
        pa.field("latency_p99_ns", pa.int64()),
        pa.field("latency_max_ns", pa.int64()),
        pa.field("response_p50_ns", pa.int64()),
        pa.field("response_p99_ns", pa.int64()),
        pa.field("response_max_ns", pa.int64()),
        pa.field("issue_error_max_ns", pa.int64()),
        pa.field("cpu_ns", pa.int64(), nullable=False),
        pa.field("blocks", pa.int64(), nullable=False),
        pa.field("hit_blocks", pa.int64(), nullable=False),
        pa.field("dirty_bytes", pa.int64()),
        pa.field("dirty_oldest_ns", pa.int64()),
        pa.field("backlog_bytes", pa.int64()),
        pa.field("lag_ns", pa.int64()),
        pa.field("mode", pa.string()),
    ]
)

# RUN/gauges/<policy>/<round>/part-N.parquet: what filters tell of the moment, read every 100 ms, at
# the trace's end and when the filters were closed. A row is a value that changed: it stands until
# the next row of the same disk, layer and gauge. `layer_index` tells apart two layers of one name.
# Gauges have any name, with its unit; four have columns in the timeline.
GAUGES = pa.schema(
    [
        pa.field("policy", _NAME, nullable=False),
        pa.field("round", pa.int32(), nullable=False),
        pa.field("disk", _NAME, nullable=False),
        pa.field("time_ns", pa.int64(), nullable=False),
        pa.field("layer", _NAME, nullable=False),
        pa.field("layer_index", pa.int32(), nullable=False),
        pa.field("gauge", _NAME, nullable=False),
        pa.field("value", pa.int64(), nullable=False),
    ]
)

# RUN/events.parquet: restore points, link state, mode changes, faults, crashes, stuns.
# `kind` names the event, `detail` is a JSON object with what belongs to it: of kind `mode`, the key
# `mode` is the way in which the layer works from then on.
EVENTS = pa.schema(
    [
        pa.field("policy", pa.string(), nullable=False),
        pa.field("round", pa.int32(), nullable=False),
        pa.field("disk", pa.string()),
        pa.field("time_ns", pa.int64(), nullable=False),
        pa.field("layer", pa.string()),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
    ]
)
