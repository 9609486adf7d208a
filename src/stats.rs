//! What the module has done since it was loaded.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::server::guard;
use crate::server::info::Tells;

/// A number that only grows. Atomic so that the server's crash report can read
/// it at any moment.
#[derive(Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Its value.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Results that the hook gave a TTL.
pub static STAMPED_BY_HOOK: Counter = Counter::new();
/// Results whose TTL the hook cut to `max-ttl`.
pub static CUT_BY_HOOK: Counter = Counter::new();
/// Results that the hook left to the next sweep: its queue was full.
pub static LEFT_TO_SWEEP: Counter = Counter::new();
/// Keys that sweeps and FIXTTL gave a TTL.
pub static STAMPED_BY_SWEEPS: Counter = Counter::new();
/// Keys whose TTL sweeps and FIXTTL cut.
pub static CUT_BY_SWEEPS: Counter = Counter::new();
/// Results that sweeps and FIXTTL deleted.
pub static DELETED: Counter = Counter::new();
/// Bytes that went with them.
pub static FREED_BYTES: Counter = Counter::new();
/// Orphans that ORPHANS deleted: lists, bindings, chords.
pub static PURGED: Counter = Counter::new();
/// Messages that ORPHANS put back into their queues.
pub static REQUEUED: Counter = Counter::new();
/// Slices of sweeps and scans.
pub static SLICES: Counter = Counter::new();
/// Main-thread time of those slices, in µs.
pub static SLICE_TIME_US: Counter = Counter::new();

static LONGEST_SLICE_US: AtomicU64 = AtomicU64::new(0);

/// Notes one slice.
pub fn slice(us: u64) {
    SLICES.add(1);
    SLICE_TIME_US.add(us);
    LONGEST_SLICE_US.fetch_max(us, Relaxed);
}

/// `INFO hygiene`.
pub struct Info;

impl Tells for Info {
    fn fields() -> Vec<(&'static str, u64)> {
        vec![
            ("stamped_by_hook_total", STAMPED_BY_HOOK.value()),
            ("cut_by_hook_total", CUT_BY_HOOK.value()),
            ("left_to_sweep_total", LEFT_TO_SWEEP.value()),
            ("stamped_by_sweeps_total", STAMPED_BY_SWEEPS.value()),
            ("cut_by_sweeps_total", CUT_BY_SWEEPS.value()),
            ("deleted_total", DELETED.value()),
            ("freed_bytes_total", FREED_BYTES.value()),
            ("purged_total", PURGED.value()),
            ("requeued_total", REQUEUED.value()),
            ("slices_total", SLICES.value()),
            ("slice_time_us_total", SLICE_TIME_US.value()),
            ("longest_slice_us", LONGEST_SLICE_US.load(Relaxed)),
            ("faults_total", guard::faults()),
            ("hook_off", u64::from(guard::events_off())),
        ]
    }
}
