//! What the module has done since it was loaded or its counters were reset, as flat
//! numbers for HYGIENE.STATS and `INFO hygiene`.
//!
//! Nothing is looked up to tell them: whoever does something counts it here. Names
//! are part of the contract; `_total` counts, what else there is comes and goes.

use std::time::Instant;

use crate::core::figures::{Counter, Figure, Gauge, Histogram, Sampled};
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
    /// What it answered, under the names of FIXTTL's reply.
    answered: [(&'static str, Gauge); 6],
}

static LAST_SWEEP: LastSweep = LastSweep {
    ok: Gauge::new(),
    end_ms: Gauge::new(),
    duration_ms: Gauge::new(),
    server_us: Gauge::new(),
    answered: [
        ("scanned", Gauge::new()),
        ("stamped", Gauge::new()),
        ("cut", Gauge::new()),
        ("deleted", Gauge::new()),
        ("unreadable", Gauge::new()),
        ("bytes_freed", Gauge::new()),
    ],
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
    for (field, gauge) in &LAST_SWEEP.answered {
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

/// Sets what is counted back to nothing, as CONFIG RESETSTAT does.
pub fn reset() {
    for counter in [
        &WRITTEN_WITH_TTL,
        &WRITTEN_WITHOUT_TTL,
        &STAMPED_BY_HOOK,
        &CUT_BY_HOOK,
        &LEFT_TO_SWEEP,
        &STAMPED_BY_SWEEPS,
        &CUT_BY_SWEEPS,
        &DELETED,
        &FREED_BYTES,
        &PURGED,
        &REQUEUED,
        &UNREADABLE_RESULTS,
        &UNREADABLE_MESSAGES,
        &REFUSED_TTLS,
        &SLICES,
        &SLICE_TIME_US,
        &JOBS_FINISHED,
        &JOBS_FAILED,
        &JOBS_CANCELLED,
        &KEYS_SKIPPED,
        &SWEEPS,
        &SWEEPS_FAILED,
        &LOOKS,
        &LOOK_TIME_US,
        &VERDICT_CHANGES,
        &EVENTS,
        &command::REFUSED,
        &command::WRONG_ARITY,
        &guard::FAULTS,
    ] {
        counter.reset();
    }
    for class in &BY_CLASS {
        class.stamped.reset();
        class.cut.reset();
        class.deleted.reset();
    }
    HOOK.reset();
    STAMP_RUNS.reset();
    SLICE_US.reset();
    SLICE_CPU_US.reset();
    LONGEST_LOOK_US.reset();
    begin();
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

/// All of it. May be called from the server's crash report.
#[must_use]
pub fn figures() -> Vec<(&'static str, Figure)> {
    let number = |counter: &Counter| Figure::Number(counter.value().cast_signed());
    let count = |n: u64| Figure::Number(n.cast_signed());
    let gauge = |gauge: &Gauge| Figure::Number(gauge.value());
    let stamped = |class| number(&of(class).stamped);
    let deleted = |class| number(&of(class).deleted);
    let enforce = settings::try_with(|current| current.settings.enforce);
    let [scanned, swept, cut, gone, unreadable, freed] = &LAST_SWEEP.answered;
    let mut figures = vec![
        ("counters_since_ms", gauge(&SINCE_MS)),
        (
            "enforce",
            Figure::Number(enforce.map_or(Gauge::UNKNOWN, i64::from)),
        ),
        ("hook_calls_total", count(HOOK.calls())),
        ("hook_time_us_total", count(HOOK.time_us())),
        ("stamp_runs_total", count(STAMP_RUNS.calls())),
        ("stamp_time_us_total", count(STAMP_RUNS.time_us())),
        ("results_written_with_ttl_total", number(&WRITTEN_WITH_TTL)),
        (
            "results_written_without_ttl_total",
            number(&WRITTEN_WITHOUT_TTL),
        ),
        ("stamped_by_hook_total", number(&STAMPED_BY_HOOK)),
        ("cut_by_hook_total", number(&CUT_BY_HOOK)),
        ("left_to_sweep_total", number(&LEFT_TO_SWEEP)),
        ("stamped_by_sweeps_total", number(&STAMPED_BY_SWEEPS)),
        ("cut_by_sweeps_total", number(&CUT_BY_SWEEPS)),
        ("deleted_total", number(&DELETED)),
        ("freed_bytes_total", number(&FREED_BYTES)),
        ("purged_total", number(&PURGED)),
        ("requeued_total", number(&REQUEUED)),
        ("task_result_stamped_total", stamped(Class::TaskResult)),
        ("group_result_stamped_total", stamped(Class::GroupResult)),
        ("chord_stamped_total", stamped(Class::Chord)),
        ("reply_queue_stamped_total", stamped(Class::ReplyQueue)),
        ("event_queue_stamped_total", stamped(Class::EventQueue)),
        ("rpc_reply_stamped_total", stamped(Class::RpcReply)),
        ("lock_stamped_total", stamped(Class::Lock)),
        ("task_result_cut_total", number(&of(Class::TaskResult).cut)),
        ("task_result_deleted_total", deleted(Class::TaskResult)),
        ("chord_deleted_total", deleted(Class::Chord)),
        ("reply_queue_deleted_total", deleted(Class::ReplyQueue)),
        ("event_queue_deleted_total", deleted(Class::EventQueue)),
        ("binding_deleted_total", deleted(Class::Binding)),
        ("slices_total", number(&SLICES)),
        ("slice_time_us_total", number(&SLICE_TIME_US)),
        ("longest_slice_us", count(SLICE_US.highest())),
        ("longest_slice_cpu_us", count(SLICE_CPU_US.highest())),
        (
            "slice_p99_us",
            SLICE_US
                .percentile(99)
                .map_or(Figure::Number(Gauge::UNKNOWN), count),
        ),
        (
            "jobs_running",
            Figure::Number(
                engine::try_running().map_or(Gauge::UNKNOWN, |n| i64::try_from(n).unwrap_or(0)),
            ),
        ),
        ("jobs_finished_total", number(&JOBS_FINISHED)),
        ("jobs_failed_total", number(&JOBS_FAILED)),
        ("jobs_cancelled_total", number(&JOBS_CANCELLED)),
        ("sweeps_total", number(&SWEEPS)),
        ("sweeps_failed_total", number(&SWEEPS_FAILED)),
        ("last_sweep_ok", gauge(&LAST_SWEEP.ok)),
        ("last_sweep_end_ms", gauge(&LAST_SWEEP.end_ms)),
        ("last_sweep_duration_ms", gauge(&LAST_SWEEP.duration_ms)),
        ("last_sweep_server_us", gauge(&LAST_SWEEP.server_us)),
        ("last_sweep_scanned_keys", gauge(&scanned.1)),
        ("last_sweep_stamped_keys", gauge(&swept.1)),
        ("last_sweep_cut_keys", gauge(&cut.1)),
        ("last_sweep_deleted_keys", gauge(&gone.1)),
        ("last_sweep_unreadable_keys", gauge(&unreadable.1)),
        ("last_sweep_freed_bytes", gauge(&freed.1)),
        ("results", gauge(&RESULTS)),
        ("results_without_ttl", gauge(&RESULTS_WITHOUT_TTL)),
        ("results_counted_ms", gauge(&RESULTS_COUNTED_MS)),
        ("unreadable_results_total", number(&UNREADABLE_RESULTS)),
        ("unreadable_messages_total", number(&UNREADABLE_MESSAGES)),
        ("errors_refused_total", number(&command::REFUSED)),
        ("errors_arity_total", number(&command::WRONG_ARITY)),
        ("errors_ttl_total", number(&REFUSED_TTLS)),
        ("errors_noperm_total", number(&KEYS_SKIPPED)),
        ("faults_total", number(&guard::FAULTS)),
        ("hook_off", count(u64::from(guard::events_off()))),
        ("looks_total", number(&LOOKS)),
        ("look_time_us_total", number(&LOOK_TIME_US)),
        ("longest_look_us", count(LONGEST_LOOK_US.highest())),
        ("verdict_changes_total", number(&VERDICT_CHANGES)),
        ("events_published_total", number(&EVENTS)),
    ];
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
