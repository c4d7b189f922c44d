//! A library's way into the process, and the table of its callbacks, checked.

use std::mem::{offset_of, size_of};
use std::path::Path;

use vaio_bench_abi as abi;

/// Loads the library and gives its table; it stays loaded for as long as the process lives.
///
/// # Errors
/// What is wrong with it, with its path.
pub(super) fn load(path: &str) -> Result<abi::vaio_filter, String> {
    let file = std::path::absolute(Path::new(path)).map_err(|e| format!("so:{path}: {e}"))?;
    if !file.is_file() {
        return Err(format!("so:{path}: no such file"));
    }
    // SAFETY: the user names this library to be run; its initialisers are its own.
    let library = unsafe { libloading::Library::new(&file) }
        .map_err(|e| format!("so:{path}: cannot be loaded: {}", innermost(&e)))?;
    // SAFETY: the type is that of the header's entry.
    let entry = unsafe { library.get::<abi::vaio_entry>(abi::ENTRY_SYMBOL) }
        .map(|symbol| *symbol)
        .map_err(|_| {
            format!("so:{path}: expected the symbol {}, which it lacks", abi::ENTRY_SYMBOL)
        })?;
    // Instances and threads of the library's own may outlive any place to unload it at.
    std::mem::forget(library);
    // SAFETY: the entry takes the version and gives NULL or its table.
    let table = unsafe { entry(abi::ABI_VERSION) };
    if table.is_null() {
        return Err(format!("so:{path}: it does not serve ABI version {}", abi::ABI_VERSION));
    }
    // SAFETY: every table begins with these two numbers.
    let (version, size) = unsafe { ((*table).abi_version, (*table).struct_size as usize) };
    if version != abi::ABI_VERSION {
        return Err(format!("so:{path}: expected ABI version {}, got {version}", abi::ABI_VERSION));
    }
    let least = offset_of!(abi::vaio_filter, io_complete);
    if size < least {
        return Err(format!("so:{path}: expected a struct_size of {least} or more, got {size}"));
    }
    // SAFETY: all zeroes are a table without callbacks.
    let mut kept: abi::vaio_filter = unsafe { std::mem::zeroed() };
    // SAFETY: the library vouches for `size` bytes; an older one has fewer than we know of.
    unsafe {
        std::ptr::copy_nonoverlapping(
            table.cast::<u8>(),
            (&raw mut kept).cast::<u8>(),
            size.min(size_of::<abi::vaio_filter>()),
        );
    }
    let required = [
        ("attach", kept.attach.is_none()),
        ("detach", kept.detach.is_none()),
        ("io_start", kept.io_start.is_none()),
        ("child_complete", kept.child_complete.is_none() && has_children(&kept.properties)),
    ];
    match required.iter().find(|(_, missing)| *missing) {
        Some((name, _)) => Err(format!("so:{path}: the callback {name} is missing")),
        None => Ok(kept),
    }
}

fn has_children(properties: &abi::vaio_properties) -> bool {
    properties.children_per_io > 0 || properties.background_ios > 0
}

fn innermost(error: &libloading::Error) -> String {
    let text =
        std::error::Error::source(error).map_or_else(|| error.to_string(), |e| e.to_string());
    text.lines().next().unwrap_or_default().to_owned()
}
