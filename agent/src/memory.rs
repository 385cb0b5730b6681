//! The C library's allocator, told to give memory back.
//!
//! In: nothing. Out: one arena for all threads, and large blocks that leave with their last use. It
//! is for the agent alone, which runs for months and makes and forgets a whole picture four times a
//! second; the commands are over before it matters.

/// Blocks from this size on are mapped by themselves, in bytes.
const MAPPED_FROM: i32 = 64 * 1024;
/// Free memory at the end of the heap that is kept, in bytes.
const KEPT_MAX: i32 = 256 * 1024;

/// To be called before the first thread is started. Without effect on other C libraries.
#[expect(unsafe_code, reason = "the C library has no safe binding for this")]
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers and changes settings of the allocator, under its own lock.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_MAX);
    }
}

/// Gives back what is free now, wherever in the heap it lies: after a full list, of which most was
/// needed for a moment only. It walks the whole heap, which takes milliseconds.
#[expect(unsafe_code, reason = "the C library has no safe binding for this")]
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes a number and gives back free pages only, under the allocator's own
    // lock.
    unsafe {
        libc::malloc_trim(0);
    }
}
