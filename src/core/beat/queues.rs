//! Queues and workers: does work wait, and does somebody take it?

use std::collections::BTreeSet;

use super::assessment::QueuePart;
use super::evidence::{Crowd, Evidence, Queue, Unacked};
use super::finding::{Code, Finding};
use super::known::{Known, PILE};
use super::words::{counted, listed, name, span};

/// A message taken this lately was taken by a worker that runs, or did so a
/// moment ago.
const TAKEN_LATELY_MS: i64 = 300_000;

/// A pop this lately was made by somebody who is there, whatever shows of him.
const POPPED_NOW_MS: i64 = 10_000;

/// Who popped within this time reads the queue, though it may be too much for him.
const POPPED_LATELY_MS: i64 = 60_000;

/// A message that waits for longer than this was not taken by a waiting consumer.
const TAKEN_AT_ONCE_MS: i64 = 5_000;

/// Work stands still where nothing is popped for so long, and for so many of the
/// intervals of what piles up. A worker can be busy for long, but then its queue
/// does not keep up either.
const STANDSTILL_MS: i64 = 60_000;
const STANDSTILL_INTERVALS: i64 = 5;

/// The same where no worker's heart beats, which the busy ones' do, and so many
/// messages of a periodic task that are a pile then.
const HEARTLESS_MS: i64 = 20_000;
const HEARTLESS_INTERVALS: i64 = 2;
const HEARTLESS_PILE: u64 = 3;

/// Who asked for messages a moment ago got none, if nothing was popped for so long.
const NOTHING_GOT_MS: i64 = 2_000;

/// A watch younger than this says nothing of a queue in which nothing moved.
const YOUNG_WATCH_MS: i64 = 60_000;

/// Whether nobody is there to work: no consumer of any kind, and no message
/// taken lately by one that does not show.
pub fn no_worker(evidence: &Evidence, known: &Known) -> bool {
    evidence.workers.consumers() == Some(0)
        && !invisible(evidence, known, None)
        && known
            .popped(None)
            .is_none_or(|at| known.age(at) > POPPED_NOW_MS)
}

/// Whether somebody was seen to take a message from this queue.
fn was_read(known: &Known, queue: &Queue) -> bool {
    let flow = known.movement(queue);
    flow.is_some_and(|flow| flow.last_out_ms.is_some())
}

/// How long nothing was popped from this queue though messages came; `None` if
/// something was, or nobody watched.
fn standstill(known: &Known, queue: &Queue) -> Option<i64> {
    let flow = known.movement(queue)?;
    flow.waiting_since_ms.map(|at| known.age(at))
}

/// Whether messages are seen to be taken from this queue.
fn is_read(known: &Known, queue: &Queue, all_idle: bool) -> bool {
    let Some(flow) = known.movement(queue) else {
        return false;
    };
    let Some(popped) = flow.last_out_ms.map(|at| known.age(at)) else {
        return false;
    };
    let waits = flow.waiting_since_ms.map_or(0, |at| known.age(at));
    let at_once = waits <= TAKEN_AT_ONCE_MS;
    // While all wait, what is not taken at once is not read.
    (popped <= POPPED_LATELY_MS && (at_once || !all_idle)) || (popped <= TAKEN_LATELY_MS && at_once)
}

/// Work that nobody does.
struct Standstill<'a> {
    /// The periodic task whose messages pile up, and how many were read.
    task: &'a str,
    count: u64,
    /// For how long nobody took one.
    ms: i64,
}

/// How long work stands still in this queue, if for too long: its messages pile
/// up, and nobody took one.
fn stands_still<'a>(
    evidence: &Evidence,
    known: &Known<'a>,
    queue: &Queue,
) -> Option<Standstill<'a>> {
    let ms = standstill(known, queue)?;
    let (least_ms, intervals, pile) = if heartless(evidence, queue.db) {
        let most = known.most(queue, HEARTLESS_PILE);
        (HEARTLESS_MS, HEARTLESS_INTERVALS, most)
    } else {
        let pile = known.pile(queue);
        (STANDSTILL_MS, STANDSTILL_INTERVALS, pile)
    };
    let (task, count) = pile?;
    let every = known.interval(task).unwrap_or(0);
    let least_ms = least_ms.max(every.saturating_mul(intervals));
    (ms > least_ms).then_some(Standstill { task, count, ms })
}

/// Whether all workers of a database are seen to have stopped.
fn heartless(evidence: &Evidence, db: u32) -> bool {
    evidence
        .workers
        .on(db)
        .is_some_and(|crowd| crowd.is_still())
}

/// Whether workers took messages of a broker's queues and then stood still: when,
/// as far as it is known.
pub fn frozen(evidence: &Evidence, known: &Known, db: u32, taken_ms: i64) -> Option<i64> {
    let newest = known.ended(db).max(known.popped(Some(db)));
    let piles = known.stands_still(db, || {
        let queues = evidence.queues.iter().filter(|q| q.length > 0);
        queues
            .filter(|queue| stands_still(evidence, known, queue).is_some())
            .map(|queue| queue.db)
            .collect()
    });
    // What was taken last must itself be old, and nothing may have ended since.
    let still = newest.unwrap_or(0).max(taken_ms);
    let least_ms = if heartless(evidence, db) {
        HEARTLESS_MS
    } else {
        STANDSTILL_MS
    };
    (piles && known.age(still) > least_ms).then_some(still)
}

/// Whether workers that no connection shows took messages lately, in one
/// database or in any.
fn invisible(evidence: &Evidence, known: &Known, db: Option<u32>) -> bool {
    evidence.workers.bound.is_empty()
        && evidence
            .unacked
            .iter()
            .filter(|u| db.is_none_or(|db| db == u.db))
            .filter_map(|u| u.newest_delivered_at_ms)
            .any(|t| known.age(t) <= TAKEN_LATELY_MS)
}

/// What is wrong with the workers.
pub fn workers(evidence: &Evidence, known: &Known, queues: &[QueuePart]) -> Option<Finding> {
    if !no_worker(evidence, known) {
        return None;
    }
    let taken = evidence.unacked.iter().fold(0_u64, |sum, u| {
        sum.saturating_add(u.count.saturating_sub(u.eta_ahead))
    });
    let waiting = queues
        .iter()
        .fold(taken, |sum, q| sum.saturating_add(q.length));
    let bound = match evidence.workers.bound.len() {
        0 => String::new(),
        n => format!(
            " ({} in bindings, which outlive a killed worker)",
            counted(n as u64, "name")
        ),
    };
    let seen =
        format!("no worker listens on the control channel and none waits for messages{bound}");
    let advice = "start the workers, or look why they cannot reach this server".to_owned();
    if waiting == 0 && !evidence.celery_seen {
        // No broker here: its workers are somewhere else, if there are any.
        return None;
    }
    if waiting == 0 {
        return Some(Finding {
            code: Code::NoWorkerSeen,
            detail: format!("{seen}; no work waits at the moment"),
            advice,
        });
    }
    let place = match queues.iter().find(|q| q.length > 0) {
        None => " (taken and not finished)".to_owned(),
        Some(q) if q.length == waiting => format!(" in queue {}", name(&q.name)),
        Some(q) => format!(" ({} of them in queue {})", q.length, name(&q.name)),
    };
    Some(Finding {
        code: Code::WorkersAbsent,
        detail: format!(
            "{} {}{place} and nobody works: {seen}",
            counted(waiting, "message"),
            if waiting == 1 { "waits" } else { "wait" }
        ),
        advice,
    })
}

/// Each queue's part and what is wrong with it; maintenance first, then unread
/// ones, then the longest.
pub fn queues(evidence: &Evidence, known: &Known) -> (Vec<QueuePart>, Vec<Finding>) {
    let mut judged: Vec<(QueuePart, Option<Finding>)> = evidence
        .queues
        .iter()
        .map(|queue| {
            let (consumed, finding) = queue_read(evidence, known, queue);
            let rates = known.movement(queue).and_then(|flow| flow.per_minute);
            // A queue that nothing came to while watched moves at zero.
            let quiet = || {
                evidence
                    .heard
                    .since_ms
                    .filter(|at| known.age(*at) >= YOUNG_WATCH_MS)
            };
            let rates = rates.or_else(|| {
                quiet()
                    .filter(|_| known.movement(queue).is_none())
                    .map(|_| (0, 0))
            });
            let part = QueuePart {
                name: queue.name.clone(),
                prefix: queue.prefix,
                db: queue.db,
                length: queue.length,
                per_priority: queue.per_priority.clone(),
                oldest_message_ms: oldest(queue, known),
                in_per_min: rates.map(|rates| rates.0),
                out_per_min: rates.map(|rates| rates.1),
                consumed,
                maintenance: queue.maintenance,
            };
            (part, finding)
        })
        .collect();
    judged.sort_by(|(a, _), (b, _)| {
        let rank = |q: &QueuePart| (!q.maintenance, q.consumed != Some(false));
        rank(a)
            .cmp(&rank(b))
            .then(b.length.cmp(&a.length))
            .then_with(|| a.name.cmp(&b.name))
    });
    let (parts, findings): (Vec<_>, Vec<_>) = judged.into_iter().unzip();
    (parts, findings.into_iter().flatten().collect())
}

/// Whether somebody reads this queue, and the finding if not.
///
/// Redis hands a message to a consumer blocked in BRPOP the moment it arrives,
/// so a consumer that stays blocked while a queue is not empty does not read
/// that queue. If that holds for all of the queue's database, nobody does.
/// Where pops were seen, they say more than connections do.
fn queue_read(
    evidence: &Evidence,
    known: &Known,
    queue: &Queue,
) -> (Option<bool>, Option<Finding>) {
    let crowd = evidence.workers.on(queue.db);
    let all_idle = crowd.is_some_and(|c| all_idle(known, queue, c));
    let gone = no_worker(evidence, known);
    let still = stands_still(evidence, known, queue);
    if !gone && still.is_none() && is_read(known, queue, all_idle) {
        return (Some(true), None);
    }
    if queue.length == 0 {
        return (None, None);
    }
    if gone {
        return (Some(false), None);
    }
    let idle = crowd.map_or(0, |crowd| crowd.asking);
    let elsewhere = crowd.is_some_and(|c| c.consumers == 0)
        && evidence.workers.consumers().is_some_and(|n| n > 0)
        && !invisible(evidence, known, Some(queue.db));
    let workers_unknown = crowd.is_none_or(|c| c.live() == 0 && c.blocked > 0);
    let pile = known.pile(queue);
    let mut hangs = false;
    let why = match (still, pile) {
        _ if elsewhere => format!(
            "nobody reads it: the workers are connected to other databases than {}",
            queue.db
        ),
        _ if all_idle => format!(
            "nobody reads it: {} for messages while it is not empty",
            if idle == 1 {
                "1 consumer waits".to_owned()
            } else {
                format!("{idle} consumers wait")
            }
        ),
        (_, Some((task, n))) if workers_unknown => {
            format!(
                "it seems that nobody reads it: at least {n} are of the periodic task {}",
                name(task.as_bytes())
            )
        }
        (Some(Standstill { task, count, ms }), _) => {
            if evidence
                .unacked
                .iter()
                .any(|u| stuck_there(evidence, known, queue, u))
            {
                // Told of what they took.
                return (Some(false), None);
            }
            hangs = true;
            let hint = if heartless(evidence, queue.db) {
                " and send no heartbeats: they are frozen, or each is one process that works on something long"
            } else {
                ": they do not read it, are frozen, or work on something long"
            };
            format!(
                "nobody took one for {}, though workers are connected{hint}; at least {count} are of the periodic task {}",
                span(ms),
                name(task.as_bytes())
            )
        }
        // It was read, and work stands still for less than that means something.
        (None, Some(_)) if was_read(known, queue) => return (None, None),
        (None, Some((task, n))) => {
            return (
                None,
                Some(Finding {
                    code: Code::QueueBacklog,
                    detail: format!(
                        "{}, at least {n} of the periodic task {}, and workers are busy: whether they read this queue is not known",
                        holds(queue),
                        name(task.as_bytes())
                    ),
                    advice: "compare its length in a minute; `celery inspect active_queues` names its readers".to_owned(),
                }),
            );
        }
        (None, None) => return (None, None),
    };
    let code = if holds_periodic(known, queue) {
        Code::QueueNotConsumed
    } else {
        Code::QueueUnread
    };
    let finding = Finding {
        code,
        detail: format!("{} and {why}{}", holds(queue), contents(known, queue)),
        advice: if hangs {
            format!(
                "restart the worker that does not answer `celery inspect ping`; if all do, start one with -Q {}",
                name(queue.celery_name())
            )
        } else {
            format!(
                "start a worker with -Q {}, or send its tasks to a queue that is read",
                name(queue.celery_name())
            )
        },
    };
    (Some(false), Some(finding))
}

/// Whether all consumers of its database wait while this queue is not empty.
///
/// Between two polls a consumer does not block, so at one moment that is seen of
/// it and at the next not. Where it is known for how long the messages wait, those
/// who were at rest a moment ago and got nothing since count as well; and what
/// waits for less than such a pause says nothing.
fn all_idle(known: &Known, queue: &Queue, crowd: Crowd) -> bool {
    // Where nothing moved at all it waits since that would have shown.
    let waits = known.movement(queue).and_then(|flow| {
        let nothing_moved = flow.last_in_ms.max(flow.last_out_ms).is_none();
        flow.waiting_since_ms
            .or(Some(flow.since_ms).filter(|_| nothing_moved))
    });
    let popped = known.popped(Some(queue.db));
    let idle = match waits {
        None => crowd.blocked,
        Some(at) if known.age(at) < TAKEN_AT_ONCE_MS => return false,
        Some(_) if popped.is_some_and(|at| known.age(at) <= NOTHING_GOT_MS) => crowd.blocked,
        Some(_) => crowd.asking,
    };
    crowd.live() > 0 && idle >= crowd.consumers
}

/// Whether what is in `unacked` tells why this queue is not read.
fn stuck_there(evidence: &Evidence, known: &Known, queue: &Queue, unacked: &Unacked) -> bool {
    let taken = unacked.oldest_delivered_at_ms;
    unacked.db == queue.db
        && unacked.count > 0
        && taken.is_some_and(|at| frozen(evidence, known, queue.db, at).is_some())
}

fn holds(queue: &Queue) -> String {
    let kind = if queue.maintenance {
        "maintenance queue"
    } else {
        "queue"
    };
    format!(
        "{kind} {} holds {}",
        name(&queue.name),
        counted(queue.length, "message")
    )
}

/// What a sentence adds about the messages in it.
fn contents(known: &Known, queue: &Queue) -> String {
    let mut text = String::new();
    let sampled = known.sampled(queue);
    let tasks: BTreeSet<&str> = sampled.iter().map(|s| s.task.as_str()).collect();
    let origins: BTreeSet<&str> = sampled
        .iter()
        .map(|s| s.origin.as_str())
        .filter(|origin| !origin.is_empty())
        .collect();
    if !tasks.is_empty() {
        text += &format!(
            "; those looked at are of {} ({}) from {}",
            counted(tasks.len() as u64, "task"),
            listed(tasks),
            counted(origins.len() as u64, "origin")
        );
        if sampled.iter().any(|s| s.beat_marked) {
            text += ", marked by beat";
        }
    }
    if let Some(age) = oldest(queue, known) {
        text += &format!("; oldest message {}", span(age));
    }
    if !queue.bound {
        text += "; no binding names it";
    }
    text
}

/// Whether this queue may hold periodic work. Lists left behind by an old
/// configuration are no broken link; where nothing could be read, it may.
fn holds_periodic(known: &Known, queue: &Queue) -> bool {
    let sampled = known.sampled(queue);
    queue.maintenance
        || sampled.is_empty()
        || sampled
            .iter()
            .any(|s| s.count >= PILE || known.is_periodic(&s.task))
        || known.is_scheduled_into(queue.celery_name())
}

fn oldest(queue: &Queue, known: &Known) -> Option<i64> {
    queue
        .oldest_message_ms
        .and_then(|t| known.past(t))
        .map(|t| known.age(t))
}
