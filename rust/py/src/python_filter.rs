//! Filters in Python: the bridge between a batch of the engine and a `vaio_bench.filters.Filter`.

use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::Relaxed;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use vaio_bench_core::black_box::{self, Callback, Shown};
use vaio_bench_core::filters::batch::{Answers, BatchCx, Batched, Target};
use vaio_bench_core::filters::foreign::{self, About, Described, detail, word};
use vaio_bench_core::filters::{
    Answer, Child, ChildData, DataMode, Lifecycle, ParamError, Setting, Up,
};
use vaio_bench_core::io::{Op, Status};
use vaio_bench_core::slab::{IoId, NONE};

use crate::lent::Lent;

const EIO: Status = 5;
/// What a filter's callback gives beside a positive errno (`vaio_bench/filters/__init__.py`).
const PASS: i64 = 0;
const COMPLETE: i64 = -1;
const DEFER: i64 = -2;

/// An I/O as a filter sees it; `data` is valid during the callback.
#[pyclass(frozen)]
pub struct FilterIo {
    #[pyo3(get)]
    id: u32,
    kind: Op,
    #[pyo3(get)]
    offset_bytes: u64,
    #[pyo3(get)]
    length_bytes: u64,
    #[pyo3(get)]
    flags: u32,
    #[pyo3(get)]
    seq: u64,
    #[pyo3(get)]
    tag: u64,
    #[pyo3(get)]
    status: i32,
    #[pyo3(get)]
    disk: u16,
    /// The I/O that a child was forked for.
    #[pyo3(get)]
    parent: Option<u32>,
    bytes: Lent,
}

impl FilterIo {
    const fn shown(&self) -> Shown {
        let Self { seq, kind: op, offset_bytes, length_bytes, .. } = *self;
        Shown { seq, op, offset_bytes, length_bytes }
    }
}

#[pymethods]
impl FilterIo {
    #[getter]
    const fn op(&self) -> &'static str {
        self.kind.name()
    }

    /// A memoryview; None where the run carries no bytes. Read-only for a write from above.
    #[getter]
    fn data(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.bytes.view(py)
    }
}

/// What a filter may do inside a callback.
#[pyclass(frozen)]
pub struct FilterContext(AtomicPtr<BatchCx<'static, 'static>>);

impl FilterContext {
    fn with<T>(&self, act: impl FnOnce(&mut BatchCx<'_, '_>) -> T) -> PyResult<T> {
        let at = self.0.load(Relaxed);
        if at.is_null() {
            let why = "the context belongs to the callback it was given to, which has returned";
            return Err(PyRuntimeError::new_err(why));
        }
        // SAFETY: set by `Bridge::call` to what its caller lends it, and taken back before that
        // ends; the interpreter's lock is held, so nobody else is here.
        Ok(act(unsafe { &mut *at }))
    }
}

#[pymethods]
impl FilterContext {
    /// Nanoseconds since the run's origin: of the wall, or virtual.
    fn now(&self) -> PyResult<u64> {
        self.with(|host| host.cx.now())
    }

    /// Calls the filter's `timer` with this token at that time.
    fn timer(&self, at_ns: u64, token: u64) -> PyResult<()> {
        self.with(|host| host.cx.timer(at_ns, token))
    }

    /// The filter's own loop turns to this I/O of its batch, or to the batch as a whole: who looks
    /// at a filter that crashed or hung is told of it.
    #[pyo3(signature = (callback, io, others=None))]
    fn turn_to(
        &self,
        callback: &str,
        io: &FilterIo,
        others: Option<Vec<Bound<'_, FilterIo>>>,
    ) -> PyResult<()> {
        let Some(callback) = Callback::of_batch(callback) else { return Ok(()) };
        let (mut first, mut last, mut ios) = (io.shown(), io.seq, 1);
        for other in others.iter().flatten().map(Bound::get) {
            if other.seq < first.seq {
                first = other.shown();
            }
            (last, ios) = (last.max(other.seq), ios + 1);
        }
        self.with(|host| host.turn_to(callback, &first, ios, last))
    }

    /// Lets an I/O that was answered DEFER go on to the next layer.
    fn resume(&self, io: u32) -> PyResult<()> {
        held(self.with(|host| host.resume(io))?, io)
    }

    /// Ends an I/O that was answered DEFER: 0, or the errno of its failure.
    #[pyo3(signature = (io, status=0))]
    fn finish(&self, io: u32, status: i32) -> PyResult<()> {
        held(self.with(|host| host.finish(io, status))?, io)
    }

    /// Forks an I/O of `parent`, or with None one that nobody waits for. `data` fills the buffer
    /// of a write. Gives its number, or None where more are open than the filter declared.
    #[pyo3(signature = (parent, op, offset_bytes, length_bytes, *, data=None, flags=0, tag=0))]
    fn child(
        &self,
        parent: Option<u32>,
        op: &str,
        offset_bytes: u64,
        length_bytes: u64,
        data: Option<&[u8]>,
        flags: u32,
        tag: u64,
    ) -> PyResult<Option<u32>> {
        let op = Op::from_name(op)
            .ok_or_else(|| PyValueError::new_err(format!("op: expected an operation, got {op}")))?;
        let wanted = Child { op, offset_bytes, length_bytes, flags, data: ChildData::Own, tag };
        self.with(|host| {
            let id = match parent {
                Some(parent) => host.child(parent, wanted),
                None => host.background(wanted),
            }?;
            if let Some(data) = data {
                let to = host.cx.data_mut(id);
                let bytes = data.len().min(to.len());
                to[..bytes].copy_from_slice(&data[..bytes]);
            }
            Some(id)
        })
    }

    /// Counts blocks looked up and found in a cache, in the I/O's row.
    fn count_blocks(&self, io: u32, blocks: u32, hits: u32) -> PyResult<()> {
        self.with(|host| {
            if host.cx.has(io) {
                host.cx.count_blocks(io, blocks, hits.min(blocks));
            }
        })
    }

    /// A row of the run's events: a word, and a JSON object.
    #[pyo3(signature = (kind, detail_json="{}"))]
    fn event(&self, kind: &str, detail_json: &str) -> PyResult<()> {
        self.with(|host| host.cx.event(word(kind), detail(detail_json)))
    }
}

fn held(held: bool, io: u32) -> PyResult<()> {
    let why = || PyValueError::new_err(format!("the filter does not hold I/O {io}"));
    if held { Ok(()) } else { Err(why()) }
}

/// A filter's instance in Python.
struct Bridge {
    object: Py<PyAny>,
    /// What `open` raised: there is no context to tell it to.
    failure: Option<String>,
}

impl Bridge {
    /// Calls a method with a context; what it raises becomes an event, and None.
    fn call<T>(
        &self,
        host: &mut BatchCx<'_, '_>,
        method: &str,
        call: impl for<'py> FnOnce(
            Python<'py>,
            &Bound<'py, PyAny>,
            &Bound<'py, FilterContext>,
        ) -> PyResult<T>,
    ) -> Option<T> {
        Python::attach(|py| {
            let lent = std::ptr::from_mut(host).cast::<BatchCx<'static, 'static>>();
            let context = Bound::new(py, FilterContext(AtomicPtr::new(lent)));
            let outcome = context.and_then(|context| {
                let out = self
                    .object
                    .bind(py)
                    .getattr(method)
                    .and_then(|bound| call(py, &bound, &context));
                context.get().0.store(std::ptr::null_mut(), Relaxed);
                out
            });
            outcome.map_err(|error| tell(py, host, method, &error)).ok()
        })
    }
}

/// The traceback of what was raised, as an event.
fn tell(py: Python<'_>, host: &mut BatchCx<'_, '_>, method: &str, error: &PyErr) {
    host.cx.event("error", raised(py, method, error));
}

/// The detail of an `error` event.
fn raised(py: Python<'_>, method: &str, error: &PyErr) -> String {
    let trace = error.traceback(py).and_then(|trace| trace.format().ok()).unwrap_or_default();
    let told = serde_json::json!({
        "callback": method, "error": error.to_string(), "traceback": trace,
    });
    told.to_string()
}

/// Where in the filter's source an error was raised: ` (FILE, line N)`.
fn raised_at(py: Python<'_>, error: &PyErr) -> String {
    let Some(mut last) = error.traceback(py).map(Bound::into_any) else { return String::new() };
    while let Ok(next) = last.getattr("tb_next")
        && !next.is_none()
    {
        last = next;
    }
    let place = || -> PyResult<String> {
        let file: String =
            last.getattr("tb_frame")?.getattr("f_code")?.getattr("co_filename")?.extract()?;
        let line: u32 = last.getattr("tb_lineno")?.extract()?;
        Ok(format!(" ({file}, line {line})"))
    };
    place().unwrap_or_default()
}

fn shown(host: &mut BatchCx<'_, '_>, id: IoId) -> FilterIo {
    let io = host.cx.io(id).clone();
    let bytes = if host.cx.data_mode() == DataMode::Bytes && io.op.has_data() {
        let is_writable = io.op != Op::Write || host.cx.is_own_buffer(id);
        let length = host.cx.data(id).len();
        let at = if is_writable {
            host.cx.data_mut(id).as_mut_ptr()
        } else {
            host.cx.data(id).as_ptr().cast_mut()
        };
        Lent::new(at, length, is_writable)
    } else {
        Lent::nothing()
    };
    FilterIo {
        id,
        kind: io.op,
        offset_bytes: io.offset_bytes,
        length_bytes: io.length_bytes,
        flags: io.flags,
        seq: io.seq,
        tag: io.tag,
        status: io.status,
        disk: io.disk,
        parent: (io.parent != NONE).then_some(io.parent),
        bytes,
    }
}

fn all<'py>(
    py: Python<'py>,
    context: &Bound<'_, FilterContext>,
    ios: &[IoId],
) -> PyResult<Vec<Bound<'py, FilterIo>>> {
    let one = |id: &IoId| Bound::new(py, context.get().with(|host| shown(host, *id))?);
    ios.iter().map(one).collect()
}

/// The callback has returned: its I/Os take back what it did to their bytes.
fn release(py: Python<'_>, ios: &[Bound<'_, FilterIo>]) {
    ios.iter().for_each(|io| io.get().bytes.take_back(py));
}

fn down(answer: i64) -> Answer {
    match answer {
        PASS => Answer::Pass,
        COMPLETE => Answer::Complete,
        DEFER => Answer::Defer,
        errno => Answer::Fail(i32::try_from(errno).ok().filter(|e| *e > 0).unwrap_or(EIO)),
    }
}

fn up(answer: i64) -> Up {
    match down(answer) {
        Answer::Pass | Answer::Complete => Up::Pass,
        Answer::Defer => Up::Defer,
        Answer::Fail(status) => Up::Fail(status),
    }
}

impl Target for Bridge {
    fn open(&mut self, slots: usize) {
        self.failure = Python::attach(|py| {
            let error = self.object.call_method1(py, "open", (slots,)).err()?;
            let (told, place) = (error.to_string(), raised_at(py, &error));
            let told = told.lines().next().unwrap_or_default();
            Some(format!("a filter in Python broke in open: {told}{place}"))
        });
    }

    fn batch(&mut self, host: &mut BatchCx<'_, '_>, going: &[IoId], back: &[IoId]) -> Answers {
        let answers = self.call(host, "batch", |py, method, context| {
            let (first, second) = (all(py, context, going)?, all(py, context, back)?);
            let (lists, views) = ((first.clone(), second.clone()), [&first, &second]);
            let out = method.call1((context, lists.0, lists.1));
            views.iter().for_each(|ios| release(py, ios));
            out?.extract::<(Vec<i64>, Vec<i64>)>()
        });
        let (first, second) = answers.unwrap_or_default();
        Answers {
            down: first.into_iter().map(down).collect(),
            up: second.into_iter().map(up).collect(),
        }
    }

    fn io_abort(&mut self, host: &mut BatchCx<'_, '_>, io: IoId) {
        self.call(host, "io_abort", |py, method, context| {
            let ios = all(py, context, &[io])?;
            let out = method.call1((context, &ios[0])).map(drop);
            release(py, &ios);
            out
        });
    }

    fn child_complete(&mut self, host: &mut BatchCx<'_, '_>, child: IoId) -> bool {
        let told = self.call(host, "child_complete", |py, method, context| {
            let ios = all(py, context, &[child])?;
            let out = method.call1((context, &ios[0])).map(drop);
            release(py, &ios);
            out
        });
        told.is_some()
    }

    fn timer(&mut self, host: &mut BatchCx<'_, '_>, token: u64) {
        self.call(host, "timer", |_, method, context| method.call1((context, token)).map(drop));
    }

    fn close(&mut self, host: &mut BatchCx<'_, '_>) {
        self.call(host, "close", |_, method, context| method.call1((context,)).map(drop));
    }

    fn lifecycle(
        &mut self,
        host: &mut BatchCx<'_, '_>,
        event: Lifecycle<'_>,
    ) -> Result<(), Status> {
        let status = match event {
            Lifecycle::Message(bytes) => self
                .call(host, "message", |_, method, cx| method.call1((cx, bytes))?.extract::<i32>()),
            Lifecycle::Resize(bytes) => self
                .call(host, "resize", |_, method, cx| method.call1((cx, bytes))?.extract::<i32>()),
            other => {
                let (method, text) = named(other);
                self.call(host, method, |_, method, cx| {
                    text.map_or_else(|| method.call1((cx,)), |text| method.call1((cx, text)))?
                        .extract::<i32>()
                })
            }
        };
        match status {
            Some(0) => Ok(()),
            Some(status) => Err(status),
            None => Err(EIO),
        }
    }

    fn gauges(&self, out: &mut Vec<(&'static str, i64)>) -> Result<(), String> {
        Python::attach(|py| {
            let told = self
                .object
                .call_method0(py, "gauges")
                .and_then(|told| told.extract::<std::collections::BTreeMap<String, i64>>(py));
            let told = told.map_err(|error| raised(py, "gauges", &error))?;
            out.extend(told.iter().map(|(name, value)| (word(name), *value)));
            Ok(())
        })
    }

    fn failure(&self) -> Option<String> {
        self.failure.clone()
    }
}

fn named(event: Lifecycle<'_>) -> (&'static str, Option<String>) {
    match event {
        Lifecycle::Stun => ("stun", None),
        Lifecycle::Unstun => ("unstun", None),
        Lifecycle::Consolidate => ("consolidate", None),
        Lifecycle::Snapshot(name) => ("snapshot", Some(name.to_owned())),
        Lifecycle::Clone(name) => ("clone", Some(name.to_owned())),
        Lifecycle::Migrate(to) => ("migrate", Some(to.to_owned())),
        Lifecycle::Configure(params) => ("configure", Some(params.to_string())),
        Lifecycle::Message(_) | Lifecycle::Resize(_) => ("message", None),
    }
}

/// The instance and what it says of itself, or every fault.
type Made = Result<(Py<PyAny>, String), Vec<ParamError>>;

/// `vaio_bench.filters.make`: `(instance, JSON of About)`, or faults.
fn build(place: &str, params: &serde_json::Value, setting: &Setting) -> Described {
    let told = serde_json::json!({
        "disk": setting.disk, "disk_index": setting.disk_index, "disks": setting.disks,
        "seed": setting.seed,
    });
    let wrong = |message: String| vec![ParamError::new("use", message)];
    let made = Python::attach(|py| -> PyResult<Made> {
        let make = py.import("vaio_bench.filters")?.getattr("make")?;
        let made = make.call1((place, params.to_string(), told.to_string()))?;
        let (object, about, faults): (Py<PyAny>, String, Vec<(String, String)>) = made.extract()?;
        if faults.is_empty() {
            return Ok(Ok((object, about)));
        }
        let faults = faults.into_iter().map(|(path, message)| ParamError::new(path, message));
        Ok(Err(faults.collect()))
    });
    let (object, about) = made.map_err(|e| wrong(format!("py:{place}: {e}")))??;
    let about: About = serde_json::from_str(&about)
        .map_err(|e| wrong(format!("py:{place}: what it says of itself: {e}")))?;
    let record = black_box::record(setting.layer, setting.disk_index);
    Ok((Box::new(Batched::new(Box::new(Bridge { object, failure: None }), record)), about))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    foreign::set_python(build);
    module.add_class::<FilterIo>()?;
    module.add_class::<FilterContext>()
}
