//! Memory in large pages, where the system has them: what is looked up at random in a hundred
//! megabytes finds none of its small pages in the processor's table.

/// The pages that Linux on 64 bits gathers, and the least that is worth asking for.
const LARGE_BYTES: usize = 2 << 20;

/// Asks for large pages behind what `of` has room for; before it is filled.
pub fn in_large_pages<T>(of: &Vec<T>) {
    let from = (of.as_ptr() as usize).next_multiple_of(LARGE_BYTES);
    let end = of.as_ptr() as usize + of.capacity() * size_of::<T>();
    if end > from && end - from >= LARGE_BYTES {
        // SAFETY: the range lies within the vector's own memory, and the advice changes how it is
        // backed, not what it holds. That it may be refused makes no difference to the result.
        unsafe { libc::madvise(from as *mut libc::c_void, end - from, libc::MADV_HUGEPAGE) };
    }
}
