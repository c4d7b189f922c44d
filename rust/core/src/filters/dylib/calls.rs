//! The functions of a context: what a library's filter may do inside a callback.
//!
//! None of them lets a panic cross into C: wrong arguments are found before they can cause one.

use std::ffi::{CStr, c_char, c_void};
use std::mem::size_of;

use vaio_bench_abi as abi;

use super::{Held, has_open_children};
use crate::backends::waker::Waker;
use crate::filters::foreign::{detail, misuse, word};
use crate::filters::{Child, ChildData, Cx, DataMode};
use crate::io::{OK, Op};
use crate::slab::{Io, IoId, NONE};

/// What a context's `host` points to during one callback.
pub(super) struct Host {
    cx: *mut Cx<'static>,
    held: *mut Vec<Held>,
}

impl Host {
    /// Both borrows must outlive the callback that the host is made for.
    pub fn new(cx: &mut Cx<'_>, held: &mut Vec<Held>) -> Self {
        Self { cx: std::ptr::from_mut(cx).cast(), held }
    }
}

pub(super) static FUNCTIONS: abi::vaio_functions = abi::vaio_functions {
    abi_version: abi::ABI_VERSION,
    struct_size: size_of::<abi::vaio_functions>() as u32,
    now,
    timer,
    io,
    data,
    data_mut,
    child,
    child_on,
    background,
    background_on,
    background_of,
    resume,
    finish,
    count_blocks,
    event,
    log,
};

/// The I/O as the library sees it.
pub(super) fn shown(io: &Io, id: IoId) -> abi::vaio_io {
    abi::vaio_io {
        offset_bytes: io.offset_bytes,
        length_bytes: io.length_bytes,
        seq: io.seq,
        tag: io.tag,
        id,
        parent: io.parent,
        flags: io.flags,
        status: io.status,
        disk: io.disk,
        op: io.op as u8,
        reserved: [0; 5],
    }
}

/// # Safety
/// `context` is the one of the callback that is under way.
unsafe fn host<'a>(context: abi::Cx) -> (&'a mut Cx<'a>, &'a mut Vec<Held>) {
    // SAFETY: `Dylib::call` made both, and they live until the callback has returned; the calls of
    // one instance come one at a time, so nothing else borrows them.
    unsafe {
        let host = &mut *(*context).host.cast::<Host>();
        (&mut *host.cx.cast::<Cx<'a>>(), &mut *host.held)
    }
}

unsafe extern "C" fn now(context: abi::Cx) -> u64 {
    // SAFETY: as `host`.
    unsafe { host(context) }.0.now()
}

unsafe extern "C" fn timer(context: abi::Cx, at_ns: u64, token: u64) {
    // SAFETY: as `host`.
    unsafe { host(context) }.0.timer(at_ns, token);
}

unsafe extern "C" fn io(context: abi::Cx, id: u32, out: *mut abi::vaio_io) -> i32 {
    // SAFETY: as `host`.
    let (cx, _) = unsafe { host(context) };
    if !cx.has(id) || out.is_null() {
        misuse(cx, "io: no such I/O", id);
        return libc::EINVAL;
    }
    // SAFETY: not NULL, and the library vouches for the place.
    unsafe { *out = shown(cx.io(id), id) };
    OK
}

unsafe extern "C" fn data(context: abi::Cx, id: u32, size: *mut usize) -> *const c_void {
    // SAFETY: as `host`.
    let (cx, _) = unsafe { host(context) };
    let bytes = if cx.has(id) && cx.data_mode() == DataMode::Bytes { cx.data(id) } else { &[] };
    if !size.is_null() {
        // SAFETY: not NULL, and the library vouches for the place.
        unsafe { *size = bytes.len() };
    }
    if bytes.is_empty() { std::ptr::null() } else { bytes.as_ptr().cast() }
}

unsafe extern "C" fn data_mut(context: abi::Cx, id: u32, size: *mut usize) -> *mut c_void {
    // SAFETY: as `host`.
    let (cx, _) = unsafe { host(context) };
    let foreign_write = cx.has(id) && cx.io(id).op == Op::Write && !cx.is_own_buffer(id);
    if foreign_write {
        misuse(cx, "data_mut: the bytes of a write from above must not be changed", id);
    }
    let allowed = cx.has(id) && !foreign_write && cx.data_mode() == DataMode::Bytes;
    let bytes = if allowed { cx.data_mut(id) } else { &mut [] };
    if !size.is_null() {
        // SAFETY: not NULL, and the library vouches for the place.
        unsafe { *size = bytes.len() };
    }
    if bytes.is_empty() { std::ptr::null_mut() } else { bytes.as_mut_ptr().cast() }
}

/// The child as the engine has it; `None` when it is none.
fn wanted(cx: &mut Cx<'_>, parent: IoId, child: *const abi::vaio_child) -> Option<Child> {
    if child.is_null() {
        misuse(cx, "child: NULL", parent);
        return None;
    }
    // SAFETY: not NULL, and the library vouches for the place.
    let child = unsafe { *child };
    if child.op > Op::WriteZeroes as u8 {
        misuse(cx, "child: no such op", parent);
        return None;
    }
    let op = Op::from_code(child.op);
    let share = child.share != 0;
    let shares_beyond = share && op.has_data() && {
        let above = if parent == NONE { 0 } else { cx.data(parent).len() };
        let end = child.share_from_bytes.saturating_add(child.length_bytes);
        end > u64::MAX / 2 || cx.data_mode().size(end) > above
    };
    if shares_beyond || (op.has_data() && !cx.fits(child.length_bytes)) {
        misuse(cx, "child: longer than what the filter declared, or than what it shares", parent);
        return None;
    }
    Some(Child {
        op,
        offset_bytes: child.offset_bytes,
        length_bytes: child.length_bytes,
        flags: child.flags,
        data: if share {
            ChildData::Share { from_bytes: child.share_from_bytes }
        } else {
            ChildData::Own
        },
        tag: child.tag,
    })
}

/// A parent must be held: its child would be left behind otherwise.
fn is_held(cx: &mut Cx<'_>, held: &[Held], parent: IoId, what: &str) -> bool {
    let held = held.get(parent as usize).is_some_and(|held| *held != Held::No);
    if !held {
        misuse(cx, what, parent);
    }
    held
}

unsafe extern "C" fn child(context: abi::Cx, parent: u32, child: *const abi::vaio_child) -> u32 {
    // SAFETY: as `host`.
    let (cx, held) = unsafe { host(context) };
    if !is_held(cx, held, parent, "child: the filter does not hold this parent") {
        return NONE;
    }
    wanted(cx, parent, child).and_then(|child| cx.child(parent, child)).unwrap_or(NONE)
}

unsafe extern "C" fn child_on(
    context: abi::Cx,
    device: u32,
    parent: u32,
    child: *const abi::vaio_child,
) -> u32 {
    // SAFETY: as `host`.
    let (cx, held) = unsafe { host(context) };
    if !is_held(cx, held, parent, "child_on: the filter does not hold this parent") {
        return NONE;
    }
    let child = wanted(cx, parent, child);
    child.and_then(|child| cx.child_on(device as u8, parent, child)).unwrap_or(NONE)
}

unsafe extern "C" fn background(context: abi::Cx, child: *const abi::vaio_child) -> u32 {
    // SAFETY: as `host`.
    let (cx, _) = unsafe { host(context) };
    wanted(cx, NONE, child).and_then(|child| cx.background(child)).unwrap_or(NONE)
}

unsafe extern "C" fn background_on(
    context: abi::Cx,
    device: u32,
    child: *const abi::vaio_child,
) -> u32 {
    // SAFETY: as `host`.
    let (cx, _) = unsafe { host(context) };
    let child = wanted(cx, NONE, child);
    child.and_then(|child| cx.background_on(device as u8, child)).unwrap_or(NONE)
}

unsafe extern "C" fn background_of(
    context: abi::Cx,
    disk: u32,
    child: *const abi::vaio_child,
) -> u32 {
    // SAFETY: as `host`.
    let (cx, _) = unsafe { host(context) };
    let child = wanted(cx, NONE, child);
    child.and_then(|child| cx.background_of(disk as u16, child)).unwrap_or(NONE)
}

/// Takes the I/O out of the filter's hands, if it is in them.
fn let_go(cx: &mut Cx<'_>, held: &mut [Held], id: IoId, ways: &[Held], what: &str) -> bool {
    match held.get_mut(id as usize) {
        Some(way) if ways.contains(way) && !has_open_children(cx.io(id)) => {
            *way = Held::No;
            true
        }
        _ => {
            misuse(cx, what, id);
            false
        }
    }
}

unsafe extern "C" fn resume(context: abi::Cx, id: u32) -> i32 {
    // SAFETY: as `host`.
    let (cx, held) = unsafe { host(context) };
    let what = "resume: not held on its way down, or with children under way";
    if !let_go(cx, held, id, &[Held::Down], what) {
        return libc::EINVAL;
    }
    cx.resume(id);
    OK
}

unsafe extern "C" fn finish(context: abi::Cx, id: u32, status: i32) -> i32 {
    // SAFETY: as `host`.
    let (cx, held) = unsafe { host(context) };
    let what = "finish: not held, or with children under way";
    if !let_go(cx, held, id, &[Held::Down, Held::Up], what) {
        return libc::EINVAL;
    }
    cx.finish(id, status.max(OK));
    OK
}

unsafe extern "C" fn count_blocks(context: abi::Cx, id: u32, blocks: u32, hits: u32) {
    // SAFETY: as `host`.
    let (cx, _) = unsafe { host(context) };
    if cx.has(id) {
        cx.count_blocks(id, blocks, hits.min(blocks));
    }
}

/// The text, what is no UTF-8 in it replaced; empty for NULL.
fn text(at: *const c_char) -> String {
    if at.is_null() {
        return String::new();
    }
    // SAFETY: not NULL, and the library vouches for the zero at its end.
    unsafe { CStr::from_ptr(at) }.to_string_lossy().into_owned()
}

unsafe extern "C" fn event(context: abi::Cx, kind: *const c_char, json: *const c_char) {
    // SAFETY: as `host`.
    let (cx, _) = unsafe { host(context) };
    let json = text(json);
    let json = if json.is_empty() { "{}".to_owned() } else { detail(&json) };
    cx.event(word(&text(kind)), json);
}

unsafe extern "C" fn log(context: abi::Cx, told: *const c_char) {
    // SAFETY: as `host`.
    let (cx, _) = unsafe { host(context) };
    cx.event("log", serde_json::json!({ "text": text(told) }).to_string());
}

pub(super) unsafe extern "C" fn wake(host: *mut c_void) {
    // SAFETY: the waker that `Dylib::wake_by` keeps for as long as the instance lives.
    unsafe { (*host.cast::<Waker>()).wake() };
}
