//! `vaio_bench/include/vaio_filter.h` in Rust. The header says what everything means; a test
//! compares every size and offset with what the C compiler makes of it.

#![allow(non_camel_case_types)]

use std::ffi::{c_char, c_void};

pub const ABI_VERSION: u32 = 1;
pub const ENTRY_SYMBOL: &str = "vaio_filter_entry";
pub const NO_IO: u32 = u32::MAX;

pub mod answer {
    pub const PASS: i32 = 0;
    pub const COMPLETE: i32 = 1;
    pub const FAIL: i32 = 2;
    pub const DEFER: i32 = 3;
}

pub mod property {
    pub const TRANSPARENT: u32 = 1;
    pub const CHANGES_LENGTH: u32 = 2;
    pub const MAY_ANSWER: u32 = 4;
    pub const MAY_DEFER: u32 = 8;
    pub const REORDERS: u32 = 16;
    pub const PERSISTS: u32 = 32;
    pub const NEEDS_DATA: u32 = 64;
    pub const GROUP: u32 = 128;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct vaio_answer {
    pub kind: i32,
    pub status: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct vaio_properties {
    pub flags: u32,
    pub children_per_io: u32,
    pub unit_bytes: u64,
    pub child_bytes: u64,
    pub background_ios: u32,
    pub reserved: u32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct vaio_io {
    pub offset_bytes: u64,
    pub length_bytes: u64,
    pub seq: u64,
    pub tag: u64,
    pub id: u32,
    pub parent: u32,
    pub flags: u32,
    pub status: i32,
    pub disk: u16,
    pub op: u8,
    pub reserved: [u8; 5],
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct vaio_child {
    pub offset_bytes: u64,
    pub length_bytes: u64,
    pub tag: u64,
    pub share_from_bytes: u64,
    pub flags: u32,
    pub op: u8,
    pub share: u8,
    pub reserved: [u8; 2],
}

pub type Cx = *mut vaio_context;

#[repr(C)]
pub struct vaio_functions {
    pub abi_version: u32,
    pub struct_size: u32,
    pub now: unsafe extern "C" fn(Cx) -> u64,
    pub timer: unsafe extern "C" fn(Cx, u64, u64),
    pub io: unsafe extern "C" fn(Cx, u32, *mut vaio_io) -> i32,
    pub data: unsafe extern "C" fn(Cx, u32, *mut usize) -> *const c_void,
    pub data_mut: unsafe extern "C" fn(Cx, u32, *mut usize) -> *mut c_void,
    pub child: unsafe extern "C" fn(Cx, u32, *const vaio_child) -> u32,
    pub child_on: unsafe extern "C" fn(Cx, u32, u32, *const vaio_child) -> u32,
    pub background: unsafe extern "C" fn(Cx, *const vaio_child) -> u32,
    pub background_on: unsafe extern "C" fn(Cx, u32, *const vaio_child) -> u32,
    pub background_of: unsafe extern "C" fn(Cx, u32, *const vaio_child) -> u32,
    pub resume: unsafe extern "C" fn(Cx, u32) -> i32,
    pub finish: unsafe extern "C" fn(Cx, u32, i32) -> i32,
    pub count_blocks: unsafe extern "C" fn(Cx, u32, u32, u32),
    pub event: unsafe extern "C" fn(Cx, *const c_char, *const c_char),
    pub log: unsafe extern "C" fn(Cx, *const c_char),
}

#[repr(C)]
pub struct vaio_context {
    pub call: *const vaio_functions,
    pub host: *mut c_void,
    pub disk: u32,
    pub reserved: u32,
}

#[repr(C)]
pub struct vaio_setting {
    pub abi_version: u32,
    pub struct_size: u32,
    pub disk: *const c_char,
    pub params_json: *const c_char,
    pub seed: u64,
    pub disk_index: u32,
    pub disks: u32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct vaio_waker {
    pub wake: unsafe extern "C" fn(*mut c_void),
    pub host: *mut c_void,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct vaio_auxiliary {
    pub name: *const c_char,
    pub path: *const c_char,
    pub size_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct vaio_gauge {
    pub name: *const c_char,
    pub value: i64,
}

pub type Instance = *mut c_void;
pub type Attach = unsafe extern "C" fn(
    *const vaio_setting,
    *mut vaio_properties,
    *mut Instance,
    *mut c_char,
    usize,
) -> i32;
pub type OnIo = unsafe extern "C" fn(Instance, Cx, *const vaio_io) -> vaio_answer;
pub type ToldOfIo = unsafe extern "C" fn(Instance, Cx, *const vaio_io);
pub type OnEvent = unsafe extern "C" fn(Instance, Cx) -> i32;
pub type OnText = unsafe extern "C" fn(Instance, Cx, *const c_char) -> i32;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct vaio_filter {
    pub abi_version: u32,
    pub struct_size: u32,
    pub name: *const c_char,
    pub filter_class: *const c_char,
    pub page: *const c_char,
    pub properties: vaio_properties,
    pub attach: Option<Attach>,
    pub detach: Option<unsafe extern "C" fn(Instance)>,
    pub open: Option<unsafe extern "C" fn(Instance, u32)>,
    pub close: Option<unsafe extern "C" fn(Instance, Cx)>,
    pub io_start: Option<OnIo>,
    pub io_complete: Option<OnIo>,
    pub io_abort: Option<ToldOfIo>,
    pub flush: Option<OnIo>,
    pub child_complete: Option<ToldOfIo>,
    pub timer: Option<unsafe extern "C" fn(Instance, Cx, u64)>,
    pub poll: Option<unsafe extern "C" fn(Instance, Cx)>,
    pub wake_by: Option<unsafe extern "C" fn(Instance, *const vaio_waker)>,
    pub auxiliary: Option<unsafe extern "C" fn(Instance, u32, *mut vaio_auxiliary) -> i32>,
    pub gauges: Option<unsafe extern "C" fn(Instance, *mut vaio_gauge, u32) -> u32>,
    pub message: Option<unsafe extern "C" fn(Instance, Cx, *const c_void, usize) -> i32>,
    pub stun: Option<OnEvent>,
    pub unstun: Option<OnEvent>,
    pub snapshot: Option<OnText>,
    pub consolidate: Option<OnEvent>,
    pub clone: Option<OnText>,
    pub resize: Option<unsafe extern "C" fn(Instance, Cx, u64) -> i32>,
    pub migrate: Option<OnText>,
    pub configure: Option<OnText>,
}

pub type vaio_entry = unsafe extern "C" fn(u32) -> *const vaio_filter;
