"""fio beside this tool: its jobs run in rounds, its results read, a replay checked, charts drawn.

    vaio-bench fio run --target t.img --size 1GiB --bs 4k,64k --iodepth 1,8 --rw randread -o RUN
    vaio-bench fio run job.fio --numjobs 1,4 -o RUN
    vaio-bench fio import bench-fio-folder -o RUN
    vaio-bench fio replay t.parquet --target t.img --depth 8 -o RUN
    vaio-bench fio plot RUN -o charts

`run` gives every cell of the grid (each job file with each combination of the lists) one run a
round, in an order drawn anew for each from the seed, and the first cell (or `--baseline`) twice:
what differs between the two is noise. The page cache forgets the target in between. Each run's job
file and JSON+ are kept in `RUN/fio/<cell>/<round>/`. After Ctrl-C, `fio run --resume RUN` goes on.

`import` reads fio's JSON and JSON+, files or folders (bench-fio's too). A file is a round of the
policy named after it; the same name in several folders is as many rounds of it.

`replay` lets fio replay the same I/Os as this tool does, as fast as possible, on the same file and
at the same depth, in turns with our own: counts and bytes have to be equal (exit status 1 if not),
latencies are compared above the noise floor. Left out of both, and counted: write_zeroes and the
flags FUA and preflush, for which fio's iolog has no word, and discards, which fio does not do in a
log of reads and writes. What is in flight when its log ends fio leaves out of its bytes and
latencies: so the log has as many flushes more at its end as that may be. `export` writes such a log
alone.

`plot` lays results of any run folder out as fio-plot reads them and draws its charts by fio-plot, a
program of its own (`pip install vaio-bench[fio]`).

From Python they are `run`, `resume`, `import_results`, `crosscheck`, `export` and `plot` of
`vaio_bench.fio`.

## What a fio run cannot have

The run folder is one that `compare` and `report` read, but fio keeps no rows of single I/Os. What
there is are latencies in buckets (`RUN/histograms`, from JSON+; a bucket is up to 1.6 % wide and
told by its middle), totals and CPU time. So there is no response time, no timeline, no time of
layers and no fidelity. `--per-io` makes fio log each I/O, and the log becomes rows: exact
latencies, but times in whole milliseconds, so that I/Os of one millisecond have no order, and of
those fio logs reads, writes and trims alone. Logging costs fio time of its own.

Latency is fio's `lat` (from before the submission to the completion, as here) where its buckets are
there, else `clat`, and the run says which. Plain JSON has percentiles, no buckets: they are taken
where all I/Os are of one direction; of a mix they cannot be put together.
"""

from __future__ import annotations

from vaio_bench import lazy

__all__ = ["crosscheck", "export", "import_results", "plot", "resume", "run"]

# The verbs as functions, imported when first used.
_LAZY = {
    "crosscheck": "vaio_bench.fio.crosscheck",
    "export": "vaio_bench.fio.iolog",
    "import_results": "vaio_bench.fio.importing",
    "plot": "vaio_bench.fio.plotting",
    "resume": "vaio_bench.fio.running",
    "run": "vaio_bench.fio.running",
}

__getattr__ = lazy.importer(globals(), _LAZY)
