//! Every size, offset and constant of the twin against what the C compiler makes of the header.

use std::fmt::Write as _;
use std::mem::{offset_of, size_of};
use std::path::Path;
use std::process::Command;

use vaio_bench_abi::*;

/// `(C expression, what Rust says)` of a struct's size and its fields' offsets.
macro_rules! layout {
    ($($name:ident { $($field:ident),* })*) => {
        vec![$(
            (concat!("sizeof(", stringify!($name), ")"), size_of::<$name>() as u64),
            $((
                concat!("offsetof(", stringify!($name), ", ", stringify!($field), ")"),
                offset_of!($name, $field) as u64,
            ),)*
        )*]
    };
}

fn expected() -> Vec<(&'static str, u64)> {
    let mut all = layout! {
        vaio_answer { kind, status }
        vaio_properties { flags, children_per_io, unit_bytes, child_bytes, background_ios }
        vaio_io { offset_bytes, length_bytes, seq, tag, id, parent, flags, status, disk, op }
        vaio_child { offset_bytes, length_bytes, tag, share_from_bytes, flags, op, share }
        vaio_functions {
            abi_version, struct_size, now, timer, io, data, data_mut, child, child_on, background,
            background_on, background_of, resume, finish, count_blocks, event, log
        }
        vaio_context { call, host, disk }
        vaio_setting { abi_version, struct_size, disk, params_json, seed, disk_index, disks }
        vaio_waker { wake, host }
        vaio_auxiliary { name, path, size_bytes }
        vaio_gauge { name, value }
        vaio_filter {
            abi_version, struct_size, name, filter_class, page, properties, attach, detach, open,
            close, io_start, io_complete, io_abort, flush, child_complete, timer, poll, wake_by,
            auxiliary, gauges, message, stun, unstun, snapshot, consolidate, clone, resize,
            migrate, configure
        }
    };
    all.extend([
        ("VAIO_ABI_VERSION", u64::from(ABI_VERSION)),
        ("VAIO_NO_IO", u64::from(NO_IO)),
        ("VAIO_PASS", answer::PASS as u64),
        ("VAIO_COMPLETE", answer::COMPLETE as u64),
        ("VAIO_FAIL", answer::FAIL as u64),
        ("VAIO_DEFER", answer::DEFER as u64),
        ("VAIO_TRANSPARENT", u64::from(property::TRANSPARENT)),
        ("VAIO_CHANGES_LENGTH", u64::from(property::CHANGES_LENGTH)),
        ("VAIO_MAY_ANSWER", u64::from(property::MAY_ANSWER)),
        ("VAIO_MAY_DEFER", u64::from(property::MAY_DEFER)),
        ("VAIO_REORDERS", u64::from(property::REORDERS)),
        ("VAIO_PERSISTS", u64::from(property::PERSISTS)),
        ("VAIO_NEEDS_DATA", u64::from(property::NEEDS_DATA)),
        ("VAIO_GROUP", u64::from(property::GROUP)),
    ]);
    all
}

#[test]
fn the_twin_is_laid_out_as_the_header() {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vaio_bench/include");
    let mut program = String::from("#include <stdio.h>\n#include \"vaio_filter.h\"\n");
    program.push_str("const vaio_filter *vaio_filter_entry(uint32_t v) { (void)v; return 0; }\n");
    program.push_str("int main(void) {\n");
    for (expression, _) in expected() {
        let _ = writeln!(program, "printf(\"%llu\\n\", (unsigned long long)({expression}));");
    }
    program.push_str("return 0; }\n");
    let folder = std::env::temp_dir().join(format!("vaio-abi-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (source, binary) = (folder.join("layout.c"), folder.join("layout"));
    std::fs::write(&source, program).unwrap();
    let compiled = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".into()))
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I"])
        .arg(include)
        .arg(&source)
        .arg("-o")
        .arg(&binary)
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let told = Command::new(&binary).output().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let told: Vec<u64> = told.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(told.len(), expected().len());
    for ((expression, ours), theirs) in expected().into_iter().zip(told) {
        assert_eq!(ours, theirs, "{expression}");
    }
}
