//! Record batches to and from Python by the Arrow PyCapsule interface, without a copy.
//! Layout and capsule names: the Arrow C data interface and its PyCapsule specification.

use std::ffi::CStr;

use arrow_array::ffi::{FFI_ArrowArray, FFI_ArrowSchema};
use arrow_array::ffi_stream::{ArrowArrayStreamReader, FFI_ArrowArrayStream};
use arrow_array::{Array, RecordBatch, StructArray};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};

const SCHEMA: &CStr = c"arrow_schema";
const ARRAY: &CStr = c"arrow_array";
const STREAM: &CStr = c"arrow_array_stream";

/// A record batch on its way to Python: `pyarrow.record_batch(batch)` or `polars.DataFrame(batch)`.
#[pyclass(frozen)]
pub struct Batch(pub RecordBatch);

#[pymethods]
impl Batch {
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        // The interface lets a producer ignore a requested schema that it cannot cast to.
        drop(requested_schema);
        let data = StructArray::from(self.0.clone()).to_data();
        let mut schema = FFI_ArrowSchema::try_from(self.0.schema_ref().as_ref())
            .map_err(|e| PyTypeError::new_err(e.to_string()))?;
        schema = schema
            .with_metadata(self.0.schema_ref().metadata())
            .map_err(|e| PyTypeError::new_err(e.to_string()))?;
        let array = FFI_ArrowArray::new(&data);
        let schema = PyCapsule::new_with_value(py, schema, SCHEMA)?;
        let array = PyCapsule::new_with_value(py, array, ARRAY)?;
        PyTuple::new(py, [schema, array])
    }

    fn __len__(&self) -> usize {
        self.0.num_rows()
    }
}

/// Takes over the stream of a Python object with `__arrow_c_stream__` (a pyarrow
/// `RecordBatchReader`, a Polars frame). May be read from any thread.
pub fn stream_from_py(object: &Bound<'_, PyAny>) -> PyResult<ArrowArrayStreamReader> {
    let capsule = object.call_method0("__arrow_c_stream__")?.cast_into::<PyCapsule>()?;
    let pointer = capsule.pointer_checked(Some(STREAM))?.cast::<FFI_ArrowArrayStream>();
    // SAFETY: the capsule of this name holds a valid stream, which `from_raw` moves out, leaving
    // a released one behind, as the interface asks of a consumer.
    let stream = unsafe { FFI_ArrowArrayStream::from_raw(pointer.as_ptr()) };
    ArrowArrayStreamReader::try_new(stream).map_err(|e| PyTypeError::new_err(e.to_string()))
}
