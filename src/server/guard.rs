//! No panic crosses into the server: an unwind over the C border would abort it.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};

use super::log;
use crate::core::figures::Counter;

/// Panics that have been caught.
pub static FAULTS: Counter = Counter::new();

/// Runs an entry point. `None` says that it panicked; the place is in the log.
pub fn guard<R>(entry: impl FnOnce() -> R) -> Option<R> {
    let outcome = catch_unwind(AssertUnwindSafe(entry));
    if outcome.is_err() {
        FAULTS.add(1);
    }
    outcome.ok()
}

/// Sends the place and text of a panic to the server's log instead of stderr.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|fault: &PanicHookInfo<'_>| {
        log::warning(&format!("internal fault, caught: {fault}"));
    }));
}
