//! What every fuzz target is held to besides not to panic: the memory that one
//! input takes, in proportion to its length. The time of one input is libFuzzer's
//! `-timeout`, the memory of the whole its `-rss_limit_mb` (`fuzz/run.sh`).

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes that any input may take, whatever its length: names compiled from
/// settings, a reply's fixed part.
const BASE: usize = 256 * 1024;

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn took(bytes: usize) {
    let now = NOW.fetch_add(bytes, Relaxed).wrapping_add(bytes);
    MOST.fetch_max(now, Relaxed);
}

fn gave(bytes: usize) {
    NOW.fetch_sub(bytes, Relaxed);
}

// SAFETY: hands everything to the system's allocator and only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's own promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        gave(layout.size());
        // SAFETY: the caller's own promise, passed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // While it moves, both are there.
        took(size);
        gave(layout.size());
        // SAFETY: the caller's own promise, passed on.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `read` on the input and demands that it never holds more than `times` the
/// input's length, and a constant.
pub fn within<R>(input: &[u8], times: usize, read: impl FnOnce() -> R) -> R {
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    let result = read();
    let most = MOST.load(Relaxed).saturating_sub(before);
    let allowed = BASE + times * input.len();
    assert!(
        most <= allowed,
        "{} bytes of input took {most} bytes of memory, expected at most {allowed}",
        input.len()
    );
    result
}

/// An input of several words, one a line.
#[must_use]
pub fn lines(input: &[u8]) -> Vec<&[u8]> {
    input.split(|byte| *byte == b'\n').collect()
}
