//! What a request does to the bytes of a device.

use crate::backends::Request;
use crate::io::{OK, Op, Status};

/// Moves a request's data from or to its place.
pub fn move_data(request: &Request, place: &mut [u8]) -> Status {
    if request.op.has_data() {
        assert_eq!(request.data_bytes, place.len());
    }
    match request.op {
        // SAFETY: the slot lends its bytes until the completion is reaped.
        Op::Read => unsafe {
            std::slice::from_raw_parts_mut(request.data, request.data_bytes).copy_from_slice(place);
        },
        // SAFETY: as above.
        Op::Write => unsafe {
            place.copy_from_slice(std::slice::from_raw_parts(request.data, request.data_bytes));
        },
        Op::WriteZeroes => place.fill(0),
        // As a device may: what was there is gone.
        Op::Discard => place.fill(0xd1),
        Op::Flush => {}
    }
    OK
}
