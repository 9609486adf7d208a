//! No panic crosses into the server: an unwind over the C border would abort it.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::log;

static FAULTS: AtomicU64 = AtomicU64::new(0);

/// How many panics have been caught since the module was loaded.
pub fn faults() -> u64 {
    FAULTS.load(Relaxed)
}

/// Runs an entry point. `None` says that it panicked; the place is in the log.
pub fn guard<R>(entry: impl FnOnce() -> R) -> Option<R> {
    let outcome = catch_unwind(AssertUnwindSafe(entry));
    if outcome.is_err() {
        FAULTS.fetch_add(1, Relaxed);
    }
    outcome.ok()
}

/// Sends the place and text of a panic to the server's log instead of stderr.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|fault: &PanicHookInfo<'_>| {
        log::warning(&format!("internal fault, caught: {fault}"));
    }));
}
