//! What the module has done since it was loaded or its counters were reset, as flat
//! numbers for HYGIENE.STATS and `INFO hygiene`.
//!
//! Nothing is looked up to tell them: whoever does something counts it here. Names
//! are part of the contract; `_total` counts, what else there is comes and goes.

use std::time::Instant;

use crate::core::figures::{Calls, Counter, Figure, Gauge, Histogram, Sampled};
use crate::core::keys::Class;
use crate::core::reply::Reply;
use crate::server::context::now_ms;
use crate::server::info::Tells;
use crate::server::{command, guard};
use crate::sweep::{Run, engine};
use crate::{settings, verdict};

/// Keyspace events that the hook heard.
pub static HOOK: Sampled<997> = Sampled::new();
/// Looks at results that were written, at the end of the unit that wrote them.
pub static STAMP_RUNS: Sampled<31> = Sampled::new();
/// Results that were written and had a TTL then.
pub static WRITTEN_WITH_TTL: Counter = Counter::new();
/// Results that were written and had none.
pub static WRITTEN_WITHOUT_TTL: Counter = Counter::new();
/// Results that the hook gave a TTL.
static STAMPED_BY_HOOK: Counter = Counter::new();
/// Results whose TTL the hook cut to `max-ttl`.
static CUT_BY_HOOK: Counter = Counter::new();
/// Results that the hook left to the next sweep: its queue was full.
pub static LEFT_TO_SWEEP: Counter = Counter::new();
/// Keys that sweeps and FIXTTL gave a TTL.
static STAMPED_BY_SWEEPS: Counter = Counter::new();
/// Keys whose TTL sweeps and FIXTTL cut.
static CUT_BY_SWEEPS: Counter = Counter::new();
/// Results that sweeps and FIXTTL deleted.
static DELETED: Counter = Counter::new();
/// Bytes that went with them.
pub static FREED_BYTES: Counter = Counter::new();
/// Orphans that ORPHANS deleted: lists, bindings, chords.
static PURGED: Counter = Counter::new();
/// Messages that ORPHANS put back into their queues.
pub static REQUEUED: Counter = Counter::new();
/// Results whose date a sweep wanted and could not read.
pub static UNREADABLE_RESULTS: Counter = Counter::new();
/// Elements pushed to a known queue that could not be read as messages.
pub static UNREADABLE_MESSAGES: Counter = Counter::new();
/// TTLs that were to be given and that the server refused.
pub static REFUSED_TTLS: Counter = Counter::new();

/// What happened to keys of one class, whoever did it.
struct OfClass {
    stamped: Counter,
    cut: Counter,
    deleted: Counter,
}

static BY_CLASS: [OfClass; Class::ALL.len()] = [const {
    OfClass {
        stamped: Counter::new(),
        cut: Counter::new(),
        deleted: Counter::new(),
    }
}; Class::ALL.len()];

fn of(class: Class) -> &'static OfClass {
    // The classes are numbered as they stand, so there is one for each.
    let [first, ..] = &BY_CLASS;
    BY_CLASS.get(class as usize).unwrap_or(first)
}

/// The hook gave a result a TTL.
pub fn stamped_by_hook() {
    STAMPED_BY_HOOK.add(1);
    of(Class::TaskResult).stamped.add(1);
}

/// The hook cut the TTL of a result.
pub fn cut_by_hook() {
    CUT_BY_HOOK.add(1);
    of(Class::TaskResult).cut.add(1);
}

/// A sweep or FIXTTL gave a key a TTL.
pub fn stamped_by_sweep(class: Class) {
    STAMPED_BY_SWEEPS.add(1);
    of(class).stamped.add(1);
}

/// A sweep or FIXTTL cut the TTL of a key.
pub fn cut_by_sweep(class: Class) {
    CUT_BY_SWEEPS.add(1);
    of(class).cut.add(1);
}

/// A sweep or FIXTTL deleted a key.
pub fn deleted(class: Class) {
    DELETED.add(1);
    of(class).deleted.add(1);
}

/// ORPHANS deleted one of a class.
pub fn purged(class: Class) {
    PURGED.add(1);
    of(class).deleted.add(1);
}

static SLICES: Counter = Counter::new();
static SLICE_TIME_US: Counter = Counter::new();
static SLICE_US: Histogram = Histogram::new();
static SLICE_CPU_US: Histogram = Histogram::new();

/// A slice of a scan or a sweep took that long, and so much of the processor.
pub fn slice(us: u64, cpu_us: u64) {
    SLICES.add(1);
    SLICE_TIME_US.add(us);
    SLICE_US.add(us);
    SLICE_CPU_US.add(cpu_us);
}

static JOBS_FINISHED: Counter = Counter::new();
static JOBS_FAILED: Counter = Counter::new();
static JOBS_CANCELLED: Counter = Counter::new();
static KEYS_SKIPPED: Counter = Counter::new();
static SWEEPS: Counter = Counter::new();
static SWEEPS_FAILED: Counter = Counter::new();

/// The background sweep that ended last.
struct LastSweep {
    ok: Gauge,
    end_ms: Gauge,
    duration_ms: Gauge,
    server_us: Gauge,
    // What it answered, under the names of FIXTTL's reply.
    scanned: Gauge,
    stamped: Gauge,
    cut: Gauge,
    deleted: Gauge,
    unreadable: Gauge,
    bytes_freed: Gauge,
}

static LAST_SWEEP: LastSweep = LastSweep {
    ok: Gauge::new(),
    end_ms: Gauge::new(),
    duration_ms: Gauge::new(),
    server_us: Gauge::new(),
    scanned: Gauge::new(),
    stamped: Gauge::new(),
    cut: Gauge::new(),
    deleted: Gauge::new(),
    unreadable: Gauge::new(),
    bytes_freed: Gauge::new(),
};

/// What a background sweep is called among the jobs.
pub const SWEEP: &str = "SWEEP";

/// A scan or a sweep has ended; without a reply it was cancelled or failed.
pub fn job_ended(what: &str, cancelled: bool, run: &Run, reply: Option<&Reply>) {
    match reply {
        Some(_) => JOBS_FINISHED.add(1),
        None if cancelled => JOBS_CANCELLED.add(1),
        None => JOBS_FAILED.add(1),
    }
    let answered = |field| reply.and_then(|reply| reply.int(field));
    let skipped = answered("skipped_noperm").unwrap_or(0);
    KEYS_SKIPPED.add(u64::try_from(skipped).unwrap_or(0));
    if what != SWEEP {
        return;
    }
    SWEEPS.add(1);
    SWEEPS_FAILED.add(u64::from(reply.is_none()));
    LAST_SWEEP.ok.set(i64::from(reply.is_some()));
    LAST_SWEEP.end_ms.set(now_ms());
    LAST_SWEEP.duration_ms.set(run.duration_ms);
    LAST_SWEEP.server_us.set(run.server_us.cast_signed());
    for (field, gauge) in [
        ("scanned", &LAST_SWEEP.scanned),
        ("stamped", &LAST_SWEEP.stamped),
        ("cut", &LAST_SWEEP.cut),
        ("deleted", &LAST_SWEEP.deleted),
        ("unreadable", &LAST_SWEEP.unreadable),
        ("bytes_freed", &LAST_SWEEP.bytes_freed),
    ] {
        gauge.set(answered(field).unwrap_or(Gauge::UNKNOWN));
    }
}

static RESULTS: Gauge = Gauge::new();
static RESULTS_WITHOUT_TTL: Gauge = Gauge::new();
static RESULTS_COUNTED_MS: Gauge = Gauge::new();

/// A pass over all keys has counted the results, and those of them without TTL.
pub fn results(all: u64, without_ttl: u64) {
    RESULTS.set(all.cast_signed());
    RESULTS_WITHOUT_TTL.set(without_ttl.cast_signed());
    RESULTS_COUNTED_MS.set(now_ms());
}

static LOOKS: Counter = Counter::new();
static LOOK_TIME_US: Counter = Counter::new();
static LONGEST_LOOK_US: Histogram = Histogram::new();
/// Changes of the verdict.
pub static VERDICT_CHANGES: Counter = Counter::new();
/// Messages published on `hygiene:events`.
pub static EVENTS: Counter = Counter::new();

/// A slice of a look for the verdict took that long; `whole` says that it was the last.
pub fn look(us: u64, whole: bool) {
    LOOKS.add(u64::from(whole));
    LOOK_TIME_US.add(us);
    LONGEST_LOOK_US.add(us);
}

static SINCE_MS: Gauge = Gauge::new();

/// From now on is counted: the module was loaded.
pub fn begin() {
    SINCE_MS.set(now_ms());
}

/// Runs a call that is counted, and timed if it is its turn.
#[inline]
pub fn timed<const EVERY: u64, R>(calls: &Sampled<EVERY>, call: impl FnOnce() -> R) -> R {
    if !calls.counted() {
        return call();
    }
    let started = Instant::now();
    let result = call();
    calls.took(started.elapsed());
    result
}

/// Where the value of a figure comes from; what of it counts is set back by [`reset`].
enum Source {
    Count(&'static Counter),
    /// Comes and goes, so a reset leaves it.
    Level(&'static Gauge),
    Calls(&'static (dyn Calls + Sync)),
    TimeOfCalls(&'static (dyn Calls + Sync)),
    Highest(&'static Histogram),
    /// What so many in a thousand do not exceed.
    OfThousand(&'static Histogram, u64),
    /// What happened to keys of a class.
    Of(Class, fn(&OfClass) -> &Counter),
    /// Lies elsewhere, and is no count.
    Elsewhere(fn() -> i64),
}

impl Source {
    fn value(&self) -> i64 {
        match self {
            Self::Count(counter) => counter.value().cast_signed(),
            Self::Level(gauge) => gauge.value(),
            Self::Calls(calls) => calls.calls().cast_signed(),
            Self::TimeOfCalls(calls) => calls.time_us().cast_signed(),
            Self::Highest(values) => values.highest().cast_signed(),
            Self::OfThousand(values, thousandths) => values
                .of_thousand(*thousandths)
                .map_or(Gauge::UNKNOWN, u64::cast_signed),
            Self::Of(class, which) => which(of(*class)).value().cast_signed(),
            Self::Elsewhere(value) => value(),
        }
    }

    fn reset(&self) {
        match self {
            Self::Count(counter) => counter.reset(),
            Self::Calls(calls) | Self::TimeOfCalls(calls) => calls.reset(),
            Self::Highest(values) | Self::OfThousand(values, _) => values.reset(),
            Self::Of(class, which) => which(of(*class)).reset(),
            Self::Level(_) | Self::Elsewhere(_) => {}
        }
    }
}

const fn stamped(class: Class) -> Source {
    Source::Of(class, |of| &of.stamped)
}

const fn gone(class: Class) -> Source {
    Source::Of(class, |of| &of.deleted)
}

/// Every figure but those of the verdict, as they are told.
static SOURCES: &[(&str, Source)] = &{
    use Source::{Calls, Count, Elsewhere, Highest, Level, Of, OfThousand, TimeOfCalls};
    [
        ("counters_since_ms", Level(&SINCE_MS)),
        ("enforce", Elsewhere(enforce)),
        ("hook_calls_total", Calls(&HOOK)),
        ("hook_time_us_total", TimeOfCalls(&HOOK)),
        ("stamp_runs_total", Calls(&STAMP_RUNS)),
        ("stamp_time_us_total", TimeOfCalls(&STAMP_RUNS)),
        ("results_written_with_ttl_total", Count(&WRITTEN_WITH_TTL)),
        (
            "results_written_without_ttl_total",
            Count(&WRITTEN_WITHOUT_TTL),
        ),
        ("stamped_by_hook_total", Count(&STAMPED_BY_HOOK)),
        ("cut_by_hook_total", Count(&CUT_BY_HOOK)),
        ("left_to_sweep_total", Count(&LEFT_TO_SWEEP)),
        ("stamped_by_sweeps_total", Count(&STAMPED_BY_SWEEPS)),
        ("cut_by_sweeps_total", Count(&CUT_BY_SWEEPS)),
        ("deleted_total", Count(&DELETED)),
        ("freed_bytes_total", Count(&FREED_BYTES)),
        ("purged_total", Count(&PURGED)),
        ("requeued_total", Count(&REQUEUED)),
        ("task_result_stamped_total", stamped(Class::TaskResult)),
        ("group_result_stamped_total", stamped(Class::GroupResult)),
        ("chord_stamped_total", stamped(Class::Chord)),
        ("reply_queue_stamped_total", stamped(Class::ReplyQueue)),
        ("event_queue_stamped_total", stamped(Class::EventQueue)),
        ("rpc_reply_stamped_total", stamped(Class::RpcReply)),
        ("lock_stamped_total", stamped(Class::Lock)),
        ("task_result_cut_total", Of(Class::TaskResult, |of| &of.cut)),
        ("task_result_deleted_total", gone(Class::TaskResult)),
        ("chord_deleted_total", gone(Class::Chord)),
        ("reply_queue_deleted_total", gone(Class::ReplyQueue)),
        ("event_queue_deleted_total", gone(Class::EventQueue)),
        ("binding_deleted_total", gone(Class::Binding)),
        ("slices_total", Count(&SLICES)),
        ("slice_time_us_total", Count(&SLICE_TIME_US)),
        ("longest_slice_us", Highest(&SLICE_US)),
        ("longest_slice_cpu_us", Highest(&SLICE_CPU_US)),
        ("slice_p99_us", OfThousand(&SLICE_US, 990)),
        ("slice_p999_us", OfThousand(&SLICE_US, 999)),
        ("slice_cpu_p999_us", OfThousand(&SLICE_CPU_US, 999)),
        ("jobs_running", Elsewhere(jobs_running)),
        ("jobs_finished_total", Count(&JOBS_FINISHED)),
        ("jobs_failed_total", Count(&JOBS_FAILED)),
        ("jobs_cancelled_total", Count(&JOBS_CANCELLED)),
        ("sweeps_total", Count(&SWEEPS)),
        ("sweeps_failed_total", Count(&SWEEPS_FAILED)),
        ("last_sweep_ok", Level(&LAST_SWEEP.ok)),
        ("last_sweep_end_ms", Level(&LAST_SWEEP.end_ms)),
        ("last_sweep_duration_ms", Level(&LAST_SWEEP.duration_ms)),
        ("last_sweep_server_us", Level(&LAST_SWEEP.server_us)),
        ("last_sweep_scanned_keys", Level(&LAST_SWEEP.scanned)),
        ("last_sweep_stamped_keys", Level(&LAST_SWEEP.stamped)),
        ("last_sweep_cut_keys", Level(&LAST_SWEEP.cut)),
        ("last_sweep_deleted_keys", Level(&LAST_SWEEP.deleted)),
        ("last_sweep_unreadable_keys", Level(&LAST_SWEEP.unreadable)),
        ("last_sweep_freed_bytes", Level(&LAST_SWEEP.bytes_freed)),
        ("results", Level(&RESULTS)),
        ("results_without_ttl", Level(&RESULTS_WITHOUT_TTL)),
        ("results_counted_ms", Level(&RESULTS_COUNTED_MS)),
        ("unreadable_results_total", Count(&UNREADABLE_RESULTS)),
        ("unreadable_messages_total", Count(&UNREADABLE_MESSAGES)),
        ("errors_refused_total", Count(&command::REFUSED)),
        ("errors_arity_total", Count(&command::WRONG_ARITY)),
        ("errors_ttl_total", Count(&REFUSED_TTLS)),
        ("errors_noperm_total", Count(&KEYS_SKIPPED)),
        ("faults_total", Count(&guard::FAULTS)),
        ("hook_off", Elsewhere(|| i64::from(guard::events_off()))),
        ("looks_total", Count(&LOOKS)),
        ("look_time_us_total", Count(&LOOK_TIME_US)),
        ("longest_look_us", Highest(&LONGEST_LOOK_US)),
        ("verdict_changes_total", Count(&VERDICT_CHANGES)),
        ("events_published_total", Count(&EVENTS)),
    ]
};

fn enforce() -> i64 {
    settings::try_with(|current| current.settings.enforce).map_or(Gauge::UNKNOWN, i64::from)
}

fn jobs_running() -> i64 {
    engine::try_running().map_or(Gauge::UNKNOWN, |n| i64::try_from(n).unwrap_or(0))
}

/// Sets what is counted back to nothing, as CONFIG RESETSTAT does.
pub fn reset() {
    for (_, source) in SOURCES {
        source.reset();
    }
    begin();
}

/// All of it. May be called from the server's crash report.
#[must_use]
pub fn figures() -> Vec<(&'static str, Figure)> {
    let mut figures: Vec<_> = SOURCES
        .iter()
        .map(|(name, source)| (*name, Figure::Number(source.value())))
        .collect();
    figures.extend(verdict::figures());
    figures
}

/// `INFO hygiene`.
pub struct Info;

impl Tells for Info {
    fn fields() -> Vec<(&'static str, Figure)> {
        figures()
    }
}
