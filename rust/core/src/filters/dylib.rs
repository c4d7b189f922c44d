//! A filter in a shared library: `use = "so:PATH"`. `vaio_filter.h` is the contract.
//!
//! What the library gets wrong is told, not trusted: numbers of I/Os are checked, an I/O that it
//! does not hold can be neither resumed nor finished, and each such misuse is an event of the run.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::mem::size_of;

use serde_json::Value;
use vaio_bench_abi as abi;

use self::calls::Host;
use self::loading::load;
use super::foreign::{self, About, Described};
use super::{Answer, Auxiliary, Cx, Filter, Lifecycle, ParamError, Properties, Scope, Setting, Up};
use crate::backends::waker::Waker;
use crate::black_box::{self, Callback, Record, Shown};
use crate::io::{OK, Op, Status};
use crate::slab::{Io, IoId, NONE};

mod calls;
mod loading;

/// What a filter has to do with an I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    No,
    Down,
    Up,
}

const GAUGES_MAX: usize = 32;
const AUXILIARIES_MAX: u32 = 16;
const MESSAGE_BYTES: usize = 512;
const UNDEFERRED: &str = "an I/O with children under way was not answered DEFER";

/// Loads the library and makes an instance for the disk.
///
/// # Errors
/// The fault of `use` when the library cannot be loaded or breaks the contract; else what it says
/// of its parameters, `key: message`.
pub fn build(path: &str, params: &Value, setting: &Setting) -> Described {
    let table = load(path).map_err(|message| vec![ParamError::new("use", message)])?;
    let record = black_box::record(setting.layer, setting.disk_index);
    let mut properties = table.properties;
    let instance = attach(path, &table, params, setting, record, &mut properties)?;
    let (held, broken) = Default::default();
    let filter = Dylib { table, instance, record, held, broken, failure: None, waker: None };
    Ok((Box::new(filter), said(path, &table, &properties)?))
}

/// What the library says of its filter, whatever its parameters: no instance is made.
///
/// # Errors
/// The fault of `use`, as [`build`].
pub fn about(path: &str) -> Result<About, Vec<ParamError>> {
    let table = load(path).map_err(|message| vec![ParamError::new("use", message)])?;
    said(path, &table, &table.properties)
}

fn said(
    path: &str,
    table: &abi::vaio_filter,
    properties: &abi::vaio_properties,
) -> Result<About, Vec<ParamError>> {
    let text = |at: *const c_char| {
        // SAFETY: NULL or a string of the library's, by its contract.
        (!at.is_null()).then(|| unsafe { CStr::from_ptr(at) }.to_string_lossy().into_owned())
    };
    let class = match text(table.filter_class) {
        Some(name) => Some(foreign::class_named(&name).ok_or_else(|| {
            let message = format!("so:{path}: unknown filter_class \"{name}\"");
            vec![ParamError::new("use", message)]
        })?),
        None => None,
    };
    let name = text(table.name).unwrap_or_else(|| path.to_owned());
    let page = text(table.page).unwrap_or_default();
    Ok(About { name, class, page, properties: declared(properties) })
}

fn attach(
    path: &str,
    table: &abi::vaio_filter,
    params: &Value,
    setting: &Setting,
    record: &Record,
    properties: &mut abi::vaio_properties,
) -> Result<abi::Instance, Vec<ParamError>> {
    let clean = |text: &str| CString::new(text.replace('\0', " ")).unwrap_or_default();
    let table_of_params = if params.is_null() { "{}".to_owned() } else { params.to_string() };
    let (disk, params) = (clean(&setting.disk), clean(&table_of_params));
    let given = abi::vaio_setting {
        abi_version: abi::ABI_VERSION,
        struct_size: size_of::<abi::vaio_setting>() as u32,
        disk: disk.as_ptr(),
        params_json: params.as_ptr(),
        seed: setting.seed,
        disk_index: u32::from(setting.disk_index),
        disks: setting.disks.len() as u32,
    };
    let mut instance: abi::Instance = std::ptr::null_mut();
    let mut message = [0 as c_char; MESSAGE_BYTES];
    let Some(attach) = table.attach else { return Ok(instance) };
    record.enter(Callback::Attach, None);
    // SAFETY: everything is valid during the call; the message is writable for its size.
    let status = unsafe {
        attach(&given, properties, &raw mut instance, message.as_mut_ptr(), MESSAGE_BYTES)
    };
    record.leave();
    if status == OK {
        return Ok(instance);
    }
    message[MESSAGE_BYTES - 1] = 0;
    // SAFETY: ended by the zero of the line above.
    let told = unsafe { CStr::from_ptr(message.as_ptr()) }.to_string_lossy().into_owned();
    let fault = match told.split_once(": ") {
        Some((key, rest)) if !key.contains(' ') => ParamError::new(key, rest),
        _ if told.is_empty() => {
            let reason = std::io::Error::from_raw_os_error(status);
            ParamError::new("use", format!("so:{path}: attach failed: {reason}"))
        }
        _ => ParamError::new("use", format!("so:{path}: {told}")),
    };
    Err(vec![fault])
}

/// The properties as the engine has them.
fn declared(properties: &abi::vaio_properties) -> Properties {
    let has = |bit| properties.flags & bit != 0;
    Properties {
        transparent: has(abi::property::TRANSPARENT),
        changes_length: has(abi::property::CHANGES_LENGTH),
        may_answer: has(abi::property::MAY_ANSWER),
        may_defer: has(abi::property::MAY_DEFER),
        reorders: has(abi::property::REORDERS),
        persists: has(abi::property::PERSISTS),
        needs_data: has(abi::property::NEEDS_DATA),
        unit_bytes: properties.unit_bytes.max(1),
        children_per_io: properties.children_per_io,
        background_ios: properties.background_ios,
        child_bytes: properties.child_bytes,
        scope: if has(abi::property::GROUP) { Scope::Group } else { Scope::Disk },
    }
}

/// An instance of a library's filter.
struct Dylib {
    table: abi::vaio_filter,
    instance: abi::Instance,
    record: &'static Record,
    /// By I/O: what the filter may do with it.
    held: Vec<Held>,
    /// I/Os that it answered with children under way: it may still end them.
    broken: HashMap<IoId, Callback>,
    /// Why one of them will never be ended.
    failure: Option<String>,
    /// Where it is from now on: the library was given its address.
    waker: Option<Box<Waker>>,
}

// SAFETY: the contract has all calls of an instance come one at a time; nothing in it is tied to
// the thread that made it.
unsafe impl Send for Dylib {}

impl Dylib {
    /// Calls into the library with a context of this callback.
    fn call<T>(
        &mut self,
        cx: &mut Cx<'_>,
        callback: Callback,
        io: Option<IoId>,
        call: impl FnOnce(abi::Instance, abi::Cx) -> T,
    ) -> T {
        self.record.enter(callback, io.map(|io| cx.io(io)));
        let disk = u32::from(cx.disk());
        let mut host = Host::new(cx, &mut self.held);
        let mut context = abi::vaio_context {
            call: &calls::FUNCTIONS,
            host: (&raw mut host).cast::<c_void>(),
            disk,
            reserved: 0,
        };
        let out = call(self.instance, &raw mut context);
        self.record.leave();
        out
    }

    /// Shows an I/O on its way and takes the answer.
    fn ask(
        &mut self,
        cx: &mut Cx<'_>,
        callback: Callback,
        io: IoId,
        way: Held,
        ask: abi::OnIo,
    ) -> abi::vaio_answer {
        if self.held.len() <= io as usize {
            self.held.resize(io as usize + 1, Held::No);
        }
        self.held[io as usize] = way;
        let shown = calls::shown(cx.io(io), io);
        // SAFETY: a callback of the library with what the contract gives it.
        let answer = self.call(cx, callback, Some(io), |instance, cx| unsafe {
            ask(instance, cx, &raw const shown)
        });
        if answer.kind == abi::answer::DEFER {
            return answer;
        }
        let still = std::mem::replace(&mut self.held[io as usize], Held::No);
        if still == Held::No {
            foreign::misuse(cx, "an I/O was resumed or finished, and then not answered DEFER", io);
            return abi::vaio_answer { kind: abi::answer::DEFER, status: OK };
        }
        if cx.io(io).open_children > 0 {
            foreign::misuse(cx, UNDEFERRED, io);
            self.held[io as usize] = still;
            self.broken.insert(io, callback);
            return abi::vaio_answer { kind: abi::answer::DEFER, status: OK };
        }
        if !(abi::answer::PASS..=abi::answer::FAIL).contains(&answer.kind) {
            foreign::misuse(cx, "an answer that the contract does not have", io);
            return abi::vaio_answer { kind: abi::answer::FAIL, status: libc::EIO };
        }
        answer
    }

    /// The last child of an I/O that it took for answered is done: if it has not ended the I/O by
    /// now, it never will.
    fn look_for_lost(&mut self, cx: &Cx<'_>, parent: IoId) {
        let io = cx.io(parent);
        if io.open_children > 0 {
            return;
        }
        if let Some(callback) = self.broken.remove(&parent)
            && self.held[parent as usize] != Held::No
        {
            let io = black_box::words(callback, &Shown::of(io));
            self.failure.get_or_insert_with(|| format!("hung ({UNDEFERRED}) after {io}"));
        }
    }

    fn simple(&mut self, cx: &mut Cx<'_>, callback: Callback, told: Option<abi::OnEvent>) -> i32 {
        told.map_or(OK, |told| {
            // SAFETY: a callback of the library with what the contract gives it.
            self.call(cx, callback, None, |instance, cx| unsafe { told(instance, cx) })
        })
    }

    fn text(
        &mut self,
        cx: &mut Cx<'_>,
        callback: Callback,
        told: Option<abi::OnText>,
        text: &str,
    ) -> i32 {
        let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
        told.map_or(OK, |told| {
            // SAFETY: as above; the text is ended by a zero and outlives the call.
            self.call(cx, callback, None, |instance, cx| unsafe {
                told(instance, cx, text.as_ptr())
            })
        })
    }
}

/// A failure without a reason is an I/O error.
fn errno(status: i32) -> Status {
    if status > 0 { status } else { libc::EIO }
}

impl Filter for Dylib {
    fn open(&mut self, slots: usize) {
        self.held.clear();
        self.held.resize(slots, Held::No);
        self.broken.clear();
        if let Some(open) = self.table.open {
            self.record.enter(Callback::Open, None);
            // SAFETY: a callback of the library with its instance.
            unsafe { open(self.instance, slots as u32) };
            self.record.leave();
        }
    }

    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        let (callback, ask) = match (cx.io(io).op, self.table.flush, self.table.io_start) {
            (Op::Flush, Some(flush), _) => (Callback::Flush, flush),
            (_, _, Some(start)) => (Callback::IoStart, start),
            _ => return Answer::Pass,
        };
        let answer = self.ask(cx, callback, io, Held::Down, ask);
        match answer.kind {
            abi::answer::PASS => Answer::Pass,
            abi::answer::COMPLETE => Answer::Complete,
            abi::answer::DEFER => Answer::Defer,
            _ => Answer::Fail(errno(answer.status)),
        }
    }

    fn io_complete(&mut self, cx: &mut Cx<'_>, io: IoId) -> Up {
        let Some(complete) = self.table.io_complete else { return Up::Pass };
        let answer = self.ask(cx, Callback::IoComplete, io, Held::Up, complete);
        match answer.kind {
            abi::answer::DEFER => Up::Defer,
            abi::answer::FAIL => Up::Fail(errno(answer.status)),
            _ => Up::Pass,
        }
    }

    fn wants_complete(&self) -> bool {
        self.table.io_complete.is_some()
    }

    fn failure(&self) -> Option<String> {
        self.failure.clone()
    }

    fn io_abort(&mut self, cx: &mut Cx<'_>, io: IoId) {
        if let Some(abort) = self.table.io_abort {
            let shown = calls::shown(cx.io(io), io);
            // SAFETY: a callback of the library with what the contract gives it.
            self.call(cx, Callback::IoAbort, Some(io), |instance, cx| unsafe {
                abort(instance, cx, &raw const shown);
            });
        }
    }

    fn child_complete(&mut self, cx: &mut Cx<'_>, parent: IoId, child: IoId) {
        match self.table.child_complete {
            Some(complete) => {
                let shown = calls::shown(cx.io(child), child);
                // SAFETY: a callback of the library with what the contract gives it.
                self.call(cx, Callback::ChildComplete, Some(child), |instance, cx| unsafe {
                    complete(instance, cx, &raw const shown);
                });
            }
            None if parent != NONE => return cx.finish(parent, cx.io(child).status),
            None => {}
        }
        if parent != NONE && !self.broken.is_empty() {
            self.look_for_lost(cx, parent);
        }
    }

    fn timer(&mut self, cx: &mut Cx<'_>, token: u64) {
        if let Some(timer) = self.table.timer {
            // SAFETY: a callback of the library with what the contract gives it.
            self.call(cx, Callback::Timer, None, |instance, cx| unsafe {
                timer(instance, cx, token);
            });
        }
    }

    fn close(&mut self, cx: &mut Cx<'_>) {
        if let Some(close) = self.table.close {
            // SAFETY: a callback of the library with what the contract gives it.
            self.call(cx, Callback::Close, None, |instance, cx| unsafe { close(instance, cx) });
        }
    }

    fn lifecycle(&mut self, cx: &mut Cx<'_>, event: Lifecycle<'_>) -> Result<(), Status> {
        let table = self.table;
        let status = match event {
            Lifecycle::Message(bytes) => table.message.map_or(OK, |message| {
                // SAFETY: a callback of the library; the bytes outlive the call.
                self.call(cx, Callback::Message, None, |instance, cx| unsafe {
                    message(instance, cx, bytes.as_ptr().cast(), bytes.len())
                })
            }),
            Lifecycle::Stun => self.simple(cx, Callback::Stun, table.stun),
            Lifecycle::Unstun => self.simple(cx, Callback::Unstun, table.unstun),
            Lifecycle::Consolidate => self.simple(cx, Callback::Consolidate, table.consolidate),
            Lifecycle::Snapshot(name) => self.text(cx, Callback::Snapshot, table.snapshot, name),
            Lifecycle::Clone(name) => self.text(cx, Callback::Clone, table.clone, name),
            Lifecycle::Migrate(to) => self.text(cx, Callback::Migrate, table.migrate, to),
            Lifecycle::Configure(params) => {
                self.text(cx, Callback::Configure, table.configure, &params.to_string())
            }
            Lifecycle::Resize(bytes) => table.resize.map_or(OK, |resize| {
                // SAFETY: a callback of the library with what the contract gives it.
                self.call(cx, Callback::Resize, None, |instance, cx| unsafe {
                    resize(instance, cx, bytes)
                })
            }),
        };
        if status == OK { Ok(()) } else { Err(errno(status)) }
    }

    fn auxiliaries(&self) -> Vec<Auxiliary> {
        let Some(auxiliary) = self.table.auxiliary else { return Vec::new() };
        let null = std::ptr::null();
        let mut all = Vec::new();
        for index in 0..AUXILIARIES_MAX {
            let mut out = abi::vaio_auxiliary { name: null, path: null, size_bytes: 0 };
            self.record.enter(Callback::Auxiliary, None);
            // SAFETY: a callback of the library; `out` is a valid place for one.
            let there = unsafe { auxiliary(self.instance, index, &raw mut out) };
            self.record.leave();
            if there == 0 || out.name.is_null() {
                break;
            }
            // SAFETY: strings of the library's, by its contract.
            let text = |at| unsafe { CStr::from_ptr(at) }.to_string_lossy().into_owned();
            all.push(Auxiliary {
                name: foreign::word(&text(out.name)),
                path: (!out.path.is_null()).then(|| text(out.path).into()),
                size_bytes: out.size_bytes,
            });
        }
        all
    }

    fn is_polled(&self) -> bool {
        self.table.poll.is_some()
    }

    fn wake_by(&mut self, waker: Waker) {
        let waker = self.waker.insert(Box::new(waker));
        if let Some(wake_by) = self.table.wake_by {
            let host = std::ptr::from_mut(waker.as_mut()).cast();
            let given = abi::vaio_waker { wake: calls::wake, host };
            self.record.enter(Callback::WakeBy, None);
            // SAFETY: the box stays where it is for as long as the instance lives.
            unsafe { wake_by(self.instance, &raw const given) };
            self.record.leave();
        }
    }

    fn poll(&mut self, cx: &mut Cx<'_>) {
        if let Some(poll) = self.table.poll {
            // SAFETY: a callback of the library with what the contract gives it.
            self.call(cx, Callback::Poll, None, |instance, cx| unsafe { poll(instance, cx) });
        }
    }

    fn gauges(&self, out: &mut Vec<(&'static str, i64)>) {
        let Some(gauges) = self.table.gauges else { return };
        let mut told = [abi::vaio_gauge { name: std::ptr::null(), value: 0 }; GAUGES_MAX];
        self.record.enter(Callback::Gauges, None);
        // SAFETY: a callback of the library; the array has room for as many as it is told.
        let count = unsafe { gauges(self.instance, told.as_mut_ptr(), GAUGES_MAX as u32) };
        self.record.leave();
        for gauge in told.iter().take(count as usize).filter(|gauge| !gauge.name.is_null()) {
            // SAFETY: a string of the library's, by its contract.
            let name = unsafe { CStr::from_ptr(gauge.name) }.to_string_lossy();
            out.push((foreign::word(&name), gauge.value));
        }
    }
}

impl Drop for Dylib {
    fn drop(&mut self) {
        if let Some(detach) = self.table.detach {
            self.record.enter(Callback::Detach, None);
            // SAFETY: the instance is the library's own, and this is its last call.
            unsafe { detach(self.instance) };
            self.record.leave();
        }
    }
}

/// The I/O's children under way: an I/O with some must not leave the filter.
fn has_open_children(io: &Io) -> bool {
    io.open_children > 0
}
