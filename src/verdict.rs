//! The verdict on periodic work, looked for now and then: told in STATS, and
//! published when it changes.
//!
//! A look takes its steps in the server's periodic round, no more in one than
//! `slice-us` allows, so that no timer of ours stands; much that was found is judged
//! beside the main thread. Only a primary looks: workers
//! connect to it, and what is published must be published once.

use std::time::{Duration, Instant};

use crate::core::beat::{self, Assessment, Evidence, QueuePart, State, Verdict};
use crate::core::events::{Change, label};
use crate::core::figures::{Figure, Gauge};
use crate::evidence::Paused;
use crate::evidence::judging::Judging;
use crate::server::context::{node_id, now_ms};
use crate::server::events::publish;
use crate::server::{Ctx, MainCell};
use crate::{settings, stats};

/// The channel that changes are published on.
const CHANNEL: &[u8] = b"hygiene:events";

/// How soon a changed verdict is looked at again, in ms: workers that are just
/// starting, or a connection that is just being made anew, are no change.
const AGAIN_MS: i64 = 2_000;

/// Queues told one by one.
const MOST_QUEUES: usize = 50;

/// The longest name of a queue that is told, in bytes.
const LONGEST_NAME: usize = 200;

/// How far a look has come.
enum Looking {
    Gathers(Box<Paused>),
    Found(Box<Evidence>),
    Judges(Judging),
}

struct Watch {
    looking: Option<Looking>,
    /// Main-thread time of this look so far, in µs.
    spent_us: u64,
    /// When the last look began or ended, Unix ms.
    rested_ms: Option<i64>,
    /// The least to rest from then, in ms.
    rest_ms: i64,
    /// Another verdict than the one that holds, seen once.
    doubt: Option<Verdict>,
    judged: Option<Judged>,
}

/// What the last look found.
struct Judged {
    verdict: Verdict,
    since_ms: i64,
    looked_ms: i64,
    found: Found,
}

struct Found {
    beat: State,
    beat_last_seen_ms: Option<i64>,
    tasks_overdue: usize,
    workers_live: Option<u64>,
    consumers_blocked: Option<u64>,
    unacked: u64,
    unacked_stuck: u64,
    unacked_oldest_ms: Option<i64>,
    queues: usize,
    queues_unread: usize,
    messages: u64,
    oldest_message_ms: Option<i64>,
    told: Vec<QueuePart>,
}

static WATCH: MainCell<Watch> = MainCell::new(Watch {
    looking: None,
    spent_us: 0,
    rested_ms: None,
    rest_ms: 0,
    doubt: None,
    judged: None,
});

/// The server's periodic round: begins a look that is due, or goes on with one.
pub fn round(ctx: Ctx<'_>) {
    let Some((interval_ms, slice_us)) = settings::with(|current| {
        let settings = &current.settings;
        (settings.verdict_interval_ms, settings.slice_us)
    }) else {
        return;
    };
    if interval_ms == 0 || !ctx.flags().may_write() {
        forget();
        return;
    }
    let started = Instant::now();
    let Some(looking) = next(ctx, interval_ms) else {
        return;
    };
    let slice = Duration::from_micros(slice_us);
    let (looking, assessment) = match looking {
        Looking::Gathers(look) => match look.go_on(ctx, || started.elapsed() >= slice) {
            Err(rest) => (Some(Looking::Gathers(rest)), None),
            Ok(found) => (Some(Looking::Found(Box::new(found.evidence))), None),
        },
        Looking::Found(evidence) => judged(Judging::begin(*evidence, now_ms())),
        Looking::Judges(judging) => judged(judging.go_on()),
    };
    let spent_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    stats::look(spent_us, assessment.is_some());
    let whole_us = {
        let mut watch = WATCH.get_mut();
        watch.looking = looking;
        watch.spent_us = watch.spent_us.saturating_add(spent_us);
        watch.spent_us
    };
    if let Some(assessment) = assessment {
        conclude(ctx, assessment, whole_us);
    }
}

fn judged(judging: Judging) -> (Option<Looking>, Option<Assessment>) {
    match judging {
        Judging::Beside(_) => (Some(Looking::Judges(judging)), None),
        Judging::Done(assessment) => (None, Some(*assessment)),
        Judging::Failed => (None, None),
    }
}

/// The look to go on with, or a new one if it is time.
fn next(ctx: Ctx<'_>, interval_ms: i64) -> Option<Looking> {
    let now = now_ms();
    {
        let mut watch = WATCH.get_mut();
        if let Some(looking) = watch.looking.take() {
            return Some(looking);
        }
        // After a start or a failover workers get an interval to come back.
        let Some(rested_ms) = watch.rested_ms else {
            watch.rested_ms = Some(now);
            watch.rest_ms = 0;
            return None;
        };
        let wanted_ms = match watch.doubt {
            Some(_) => AGAIN_MS.min(interval_ms),
            None => interval_ms,
        };
        // A clock that was set back must not silence the watch.
        let waits = 0..wanted_ms.max(watch.rest_ms);
        if waits.contains(&now.saturating_sub(rested_ms)) {
            return None;
        }
        watch.rested_ms = Some(now);
        watch.spent_us = 0;
    }
    Some(Looking::Gathers(Box::new(Paused::begin(ctx, None, now))))
}

/// Notes what was found. Another verdict holds once two looks in a row agree on it.
fn conclude(ctx: Ctx<'_>, assessment: Assessment, spent_us: u64) {
    let now = now_ms();
    let seen = assessment.verdict;
    let change = {
        let mut watch = WATCH.get_mut();
        let (held, since_ms) = watch
            .judged
            .as_ref()
            .map_or((Verdict::Unknown, now), |last| {
                (last.verdict, last.since_ms)
            });
        let changed = seen != held && watch.doubt == Some(seen);
        watch.doubt = (seen != held && !changed).then_some(seen);
        watch.rested_ms = Some(now);
        // So looks take a thousandth of the main thread at most.
        watch.rest_ms = i64::try_from(spent_us).unwrap_or(i64::MAX);
        let change = changed.then(|| Change {
            verdict: seen,
            before: held,
            reason: assessment.reason.clone(),
            at_ms: now,
        });
        watch.judged = Some(Judged {
            verdict: if changed { seen } else { held },
            since_ms: if changed { now } else { since_ms },
            looked_ms: now,
            found: found(assessment),
        });
        change
    };
    if let Some(change) = change {
        stats::VERDICT_CHANGES.add(1);
        let message = change.message(&node_id().unwrap_or_default());
        stats::EVENTS.add(u64::from(publish(ctx, CHANNEL, message.as_bytes())));
    }
}

fn found(assessment: Assessment) -> Found {
    let queues = &assessment.queues;
    let overdue = |task: &&beat::Task| task.overdue == Some(true);
    Found {
        beat: assessment.publisher.state,
        beat_last_seen_ms: assessment.publisher.last_seen_ms,
        tasks_overdue: assessment.tasks.iter().filter(overdue).count(),
        workers_live: assessment.workers.live,
        consumers_blocked: assessment.workers.blocked_consumers,
        unacked: assessment.unacked.count,
        unacked_stuck: assessment.unacked.stuck,
        unacked_oldest_ms: assessment.unacked.oldest_ms,
        queues: queues.len(),
        queues_unread: queues.iter().filter(|q| q.consumed == Some(false)).count(),
        messages: queues.iter().map(|q| q.length).sum(),
        oldest_message_ms: queues.iter().filter_map(|q| q.oldest_message_ms).max(),
        told: assessment
            .queues
            .into_iter()
            .filter(|queue| queue.name.len() <= LONGEST_NAME)
            .take(MOST_QUEUES)
            .collect(),
    }
}

/// A number of the server's, or -1 where it is not known.
fn number(n: Option<u64>) -> Figure {
    Figure::Number(n.map_or(Gauge::UNKNOWN, |n| i64::try_from(n).unwrap_or(i64::MAX)))
}

fn size(n: usize) -> Figure {
    number(Some(n as u64))
}

fn time(ms: Option<i64>) -> Figure {
    Figure::Number(ms.unwrap_or(Gauge::UNKNOWN))
}

fn seconds(ms: Option<i64>) -> Figure {
    time(ms.map(|ms| ms / 1_000))
}

/// What the last look found, as flat figures. May be called from the server's crash
/// report.
pub fn figures() -> Vec<(&'static str, Figure)> {
    let watch = WATCH.try_get();
    let judged = watch.as_ref().and_then(|watch| watch.judged.as_ref());
    let found = judged.map(|judged| &judged.found);
    let of = |look: fn(&Found) -> Figure| found.map_or(Figure::Number(Gauge::UNKNOWN), look);
    vec![
        (
            "verdict",
            Figure::Word(judged.map_or("", |judged| judged.verdict.word())),
        ),
        ("verdict_code", time(judged.map(|j| j.verdict.code()))),
        ("verdict_since_ms", time(judged.map(|j| j.since_ms))),
        ("verdict_looked_ms", time(judged.map(|j| j.looked_ms))),
        (
            "beat_state",
            Figure::Word(found.map_or("", |found| found.beat.word())),
        ),
        ("beat_state_code", of(|f| time(Some(f.beat.code())))),
        ("beat_last_seen_ms", of(|f| time(f.beat_last_seen_ms))),
        ("tasks_overdue", of(|f| size(f.tasks_overdue))),
        ("workers_live", of(|f| number(f.workers_live))),
        ("consumers_blocked", of(|f| number(f.consumers_blocked))),
        ("unacked_messages", of(|f| number(Some(f.unacked)))),
        (
            "unacked_stuck_messages",
            of(|f| number(Some(f.unacked_stuck))),
        ),
        ("unacked_oldest_s", of(|f| seconds(f.unacked_oldest_ms))),
        ("queues", of(|f| size(f.queues))),
        ("queues_unread", of(|f| size(f.queues_unread))),
        ("queues_messages", of(|f| number(Some(f.messages)))),
        (
            "queues_oldest_message_s",
            of(|f| seconds(f.oldest_message_ms)),
        ),
    ]
}

/// Figures of each queue that `may` be shown, under names that end in database and
/// name of the queue.
pub fn queue_figures(may: impl Fn(&[u8]) -> bool) -> Vec<(String, Figure)> {
    let watch = WATCH.get();
    let Some(judged) = &watch.judged else {
        return Vec::new();
    };
    let shown = judged.found.told.iter().filter(|queue| may(&queue.name));
    shown
        .flat_map(|queue| {
            let whose = format!(":{}:{}", queue.db, label(&queue.name));
            [
                ("queue_length", number(Some(queue.length))),
                ("queue_oldest_message_s", seconds(queue.oldest_message_ms)),
                ("queue_in_per_min", number(queue.in_per_min)),
                ("queue_out_per_min", number(queue.out_per_min)),
                ("queue_consumed", number(queue.consumed.map(u64::from))),
                (
                    "queue_maintenance",
                    number(Some(u64::from(queue.maintenance))),
                ),
            ]
            .map(|(name, figure)| (format!("{name}{whose}"), figure))
        })
        .collect()
}

/// Forgets what was found; the next look comes after an interval.
pub fn forget() {
    let mut watch = WATCH.get_mut();
    watch.looking = None;
    watch.rested_ms = None;
    watch.doubt = None;
    watch.judged = None;
}
