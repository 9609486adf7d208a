//! No panic crosses into the server: an unwind over the C border would abort it.
//!
//! A panic is a fault of ours. It ends the one thing that was being done, is told in
//! the log with its place and counted. What runs inside clients' own writes is
//! switched off when it fails again and again ([`MOST_FAULTS`]): sweeps do its work.

use std::any::Any;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::log;
use crate::core::figures::Counter;

/// Where the server, or the engine for it, enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A command.
    Command,
    /// A write of somebody's.
    Event,
    /// A command of somebody's, before it runs.
    Filter,
    /// What follows such a write: a job, a timer, the hash of observations.
    After,
    /// A turn in the server's life.
    Turn,
    /// A timer.
    Timer,
    /// A slice of a pass.
    Slice,
    /// Work beside the main thread.
    Beside,
    /// A key or a member that a scan shows.
    Scan,
    /// The answer to a client that waited, or its leaving.
    Client,
    /// INFO.
    Info,
    /// The server's CONFIG.
    Config,
    /// Loading and unloading.
    Load,
}

/// So many faults of what hears of writes, and it is switched off until the module
/// is loaded anew.
pub const MOST_FAULTS: u64 = 10;

/// So many faults are logged one by one, then each time their number has doubled.
const LOGGED: u64 = 20;

/// Panics that have been caught.
pub static FAULTS: Counter = Counter::new();
static EVENT_FAULTS: AtomicU64 = AtomicU64::new(0);
static EVENTS_OFF: AtomicBool = AtomicBool::new(false);

/// Whether writes are listened to no longer, for its faults.
pub fn events_off() -> bool {
    EVENTS_OFF.load(Relaxed)
}

/// Runs an entry point. `None` says that it panicked; the place is in the log. Or
/// that it is switched off.
pub fn guard<R>(at: Entry, entry: impl FnOnce() -> R) -> Option<R> {
    let of_events = matches!(at, Entry::Event | Entry::Filter | Entry::After);
    if of_events && events_off() {
        return None;
    }
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        provoke(at);
        entry()
    }));
    if outcome.is_err() {
        FAULTS.add(1);
        if of_events && EVENT_FAULTS.fetch_add(1, Relaxed) + 1 == MOST_FAULTS {
            EVENTS_OFF.store(true, Relaxed);
            log::warning(&format!(
                "{MOST_FAULTS} internal faults while writes were looked at: this is switched off \
                 until the module is loaded anew; results get their TTL from sweeps alone, and \
                 queues are not watched"
            ));
        }
    }
    outcome.ok()
}

/// A closure that the server calls back while a call of ours is on the stack. A
/// panic in it waits until that call has returned, and goes on from there.
pub struct Carried<F> {
    call: F,
    fault: Option<Box<dyn Any + Send>>,
}

impl<F> Carried<F> {
    /// Around this closure.
    pub const fn new(call: F) -> Self {
        Self { call, fault: None }
    }

    /// Calls it, unless it has panicked before.
    pub fn run(&mut self, at: Entry, with: impl FnOnce(&mut F)) {
        if self.fault.is_some() {
            return;
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            provoke(at);
            with(&mut self.call);
        }));
        self.fault = outcome.err();
    }

    /// The call has returned: goes on with the panic, if there was one.
    pub fn end(self) {
        if let Some(fault) = self.fault {
            resume_unwind(fault);
        }
    }
}

/// Begins to count, and sends the place and text of a panic to the server's log
/// instead of stderr. A library that was unloaded may still be in memory with its
/// numbers.
pub fn begin() {
    FAULTS.reset();
    EVENT_FAULTS.store(0, Relaxed);
    EVENTS_OFF.store(false, Relaxed);
    std::panic::set_hook(Box::new(|fault: &PanicHookInfo<'_>| {
        let nth = FAULTS.value() + 1;
        if nth <= LOGGED || nth.is_power_of_two() {
            log::warning(&format!("internal fault {nth}, caught: {fault}"));
        }
    }));
}

/// Lets the next entries at a place panic, in builds for tests only: a release has
/// no way to do so.
#[cfg(debug_assertions)]
pub mod provoked {
    use super::{AtomicU64, Entry, Relaxed};

    /// Every place, by the name that tests give it.
    pub const PLACES: [(&str, Entry); 13] = [
        ("command", Entry::Command),
        ("event", Entry::Event),
        ("filter", Entry::Filter),
        ("after", Entry::After),
        ("turn", Entry::Turn),
        ("timer", Entry::Timer),
        ("slice", Entry::Slice),
        ("beside", Entry::Beside),
        ("scan", Entry::Scan),
        ("client", Entry::Client),
        ("info", Entry::Info),
        ("config", Entry::Config),
        ("load", Entry::Load),
    ];

    static LEFT: [AtomicU64; PLACES.len()] = [const { AtomicU64::new(0) }; PLACES.len()];

    fn left(at: Entry) -> Option<&'static AtomicU64> {
        let nth = PLACES.iter().position(|(_, place)| *place == at)?;
        LEFT.get(nth)
    }

    /// The next `count` entries there panic.
    pub fn arm(at: Entry, count: u64) {
        if let Some(left) = left(at) {
            left.store(count, Relaxed);
        }
    }

    pub(super) fn due(at: Entry) -> bool {
        let take = |count: u64| count.checked_sub(1);
        left(at).is_some_and(|left| left.fetch_update(Relaxed, Relaxed, take).is_ok())
    }
}

#[cfg(debug_assertions)]
#[allow(clippy::panic, reason = "that is what it is for")]
fn provoke(at: Entry) {
    if provoked::due(at) {
        panic!("provoked by a test");
    }
}

#[cfg(not(debug_assertions))]
const fn provoke(_at: Entry) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_what_was_done_and_is_counted() {
        let before = FAULTS.value();
        assert_eq!(guard(Entry::Config, || 1), Some(1));
        assert_eq!(FAULTS.value(), before);
        provoked::arm(Entry::Config, 1);
        assert_eq!(guard(Entry::Config, || 1), None);
        assert_eq!(guard(Entry::Config, || 1), Some(1), "only once");
        assert!(FAULTS.value() > before);
    }

    #[test]
    fn a_panic_in_a_callback_goes_on_behind_the_call() {
        let mut seen = Vec::new();
        let outcome = guard(Entry::Slice, || {
            let mut carried = Carried::new(|n: u32| {
                assert_ne!(n, 2, "the second panics");
                seen.push(n);
            });
            for n in 1..=3 {
                carried.run(Entry::Scan, |call| call(n));
            }
            carried.end();
        });
        assert_eq!(outcome, None);
        assert_eq!(seen, [1], "nothing is shown after a panic");
    }
}
