//! An I/O's bytes as Python sees them: a copy, made when it is first looked at.
//!
//! Python cannot be stopped from keeping a slice of a memoryview: what it keeps has to stay valid
//! for as long as the interpreter lives, and must not show or change what became of the slot.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};

/// The bytes that a slot lends for one callback.
#[derive(Clone, Copy)]
struct Slot {
    at: *mut u8,
    length: usize,
    is_writable: bool,
}

// SAFETY: a slot's memory belongs to no thread; the interpreter's lock is held where it is used.
unsafe impl Send for Slot {}

/// What was shown: the view, and of bytes that may be changed their copy.
struct Shown {
    view: Py<PyAny>,
    copy: Option<Py<PyByteArray>>,
}

#[derive(Default)]
struct State {
    /// Until the callback has returned.
    slot: Option<Slot>,
    shown: Option<Shown>,
}

pub struct Lent(Mutex<State>);

impl Lent {
    pub fn nothing() -> Self {
        Self(Mutex::default())
    }

    /// The bytes must stay where they are, and nobody else's, until `take_back`.
    pub fn new(at: *mut u8, length: usize, is_writable: bool) -> Self {
        let slot = Some(Slot { at, length, is_writable });
        Self(Mutex::new(State { slot, shown: None }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The view, the same one at each call; None where there are no bytes.
    pub fn view(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let slot = {
            let state = self.state();
            if let Some(shown) = &state.shown {
                return Ok(Some(shown.view.clone_ref(py)));
            }
            state.slot
        };
        let Some(slot) = slot else { return Ok(None) };
        // Not under the lock: making an object may run any code of Python's.
        let made = show(py, slot)?;
        let mut state = self.state();
        Ok(Some(state.shown.get_or_insert(made).view.clone_ref(py)))
    }

    /// The callback has returned: what it changed goes to the slot, and its view ends.
    pub fn take_back(&self, py: Python<'_>) {
        let (slot, shown) = {
            let mut state = self.state();
            let shown = state.shown.as_ref().map(|shown| {
                (shown.view.clone_ref(py), shown.copy.as_ref().map(|copy| copy.clone_ref(py)))
            });
            (state.slot.take(), shown)
        };
        let (Some(slot), Some((view, copy))) = (slot, shown) else { return };
        if let Some(copy) = copy {
            let copy = copy.bind(py);
            // Python may have shortened it: a view names what it is of.
            let length = slot.length.min(copy.len());
            // SAFETY: as `new` was promised; the copy is another allocation, of that length.
            unsafe { std::ptr::copy_nonoverlapping(copy.data(), slot.at, length) };
        }
        // One that has slices says so, and they keep the copy alive: neither matters any more.
        let _ = view.call_method0(py, "release");
    }
}

fn show(py: Python<'_>, slot: Slot) -> PyResult<Shown> {
    // SAFETY: as `Lent::new` was promised, and `take_back` was not called yet.
    let bytes = unsafe { std::slice::from_raw_parts(slot.at, slot.length) };
    let (copy, source) = if slot.is_writable {
        let copy = PyByteArray::new(py, bytes);
        (Some(copy.clone().unbind()), copy.into_any())
    } else {
        (None, PyBytes::new(py, bytes).into_any())
    };
    let view = PyMemoryView::from(&source)?.into_any();
    Ok(Shown { view: view.unbind(), copy })
}
