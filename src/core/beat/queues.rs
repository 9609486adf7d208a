//! Queues and workers: does work wait, and does somebody take it?

use std::collections::BTreeSet;

use super::assessment::QueuePart;
use super::evidence::{Evidence, Queue};
use super::finding::{Code, Finding};
use super::known::{Known, PILE, sampled};
use super::words::{counted, listed, name, span};

/// A message taken this lately was taken by a worker that runs, or did so a
/// moment ago.
const TAKEN_LATELY_MS: i64 = 300_000;

/// Whether nobody is there to work: no consumer of any kind, and no message
/// taken lately by one that does not show.
pub fn no_worker(evidence: &Evidence, known: &Known) -> bool {
    evidence.workers.consumers() == Some(0) && !invisible(evidence, known, None)
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
    let first = queues.iter().find(|q| q.length > 0).map_or_else(
        || "taken and not finished".to_owned(),
        |q| format!("{} of them in queue {}", q.length, name(&q.name)),
    );
    Some(Finding {
        code: Code::WorkersAbsent,
        detail: format!(
            "{} {} ({first}) and nobody works: {seen}",
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
            let part = QueuePart {
                name: queue.name.clone(),
                prefix: queue.prefix,
                db: queue.db,
                length: queue.length,
                per_priority: queue.per_priority.clone(),
                oldest_message_ms: oldest(queue, known),
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
fn queue_read(
    evidence: &Evidence,
    known: &Known,
    queue: &Queue,
) -> (Option<bool>, Option<Finding>) {
    if queue.length == 0 {
        return (None, None);
    }
    if no_worker(evidence, known) {
        return (Some(false), None);
    }
    let crowd = evidence.workers.on(queue.db);
    let idle = crowd.map_or(0, |crowd| crowd.blocked);
    let all_idle = crowd.is_some_and(|c| c.live() > 0 && c.blocked >= c.consumers);
    let elsewhere = crowd.is_some_and(|c| c.consumers == 0)
        && evidence.workers.consumers().is_some_and(|n| n > 0)
        && !invisible(evidence, known, Some(queue.db));
    let workers_unknown = crowd.is_none_or(|c| c.live() == 0 && c.blocked > 0);
    let pile = known.pile(evidence, queue);
    let why = match pile {
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
        Some((task, n)) if workers_unknown => {
            format!(
                "it seems that nobody reads it: at least {n} are of the periodic task {}",
                name(task.as_bytes())
            )
        }
        Some((task, n)) => {
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
        None => return (None, None),
    };
    let code = if holds_periodic(evidence, known, queue) {
        Code::QueueNotConsumed
    } else {
        Code::QueueUnread
    };
    let finding = Finding {
        code,
        detail: format!(
            "{} and {why}{}",
            holds(queue),
            contents(evidence, known, queue)
        ),
        advice: format!(
            "start a worker with -Q {0}, or send its tasks to a queue that is read",
            name(queue.celery_name())
        ),
    };
    (Some(false), Some(finding))
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
fn contents(evidence: &Evidence, known: &Known, queue: &Queue) -> String {
    let mut text = String::new();
    let tasks: BTreeSet<&str> = sampled(evidence, queue).map(|s| s.task.as_str()).collect();
    let origins: BTreeSet<&str> = sampled(evidence, queue)
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
        if sampled(evidence, queue).any(|s| s.beat_marked) {
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
fn holds_periodic(evidence: &Evidence, known: &Known, queue: &Queue) -> bool {
    queue.maintenance
        || sampled(evidence, queue).next().is_none()
        || sampled(evidence, queue).any(|s| s.count >= PILE || known.is_periodic(&s.task))
        || evidence
            .redbeat
            .iter()
            .flat_map(|r| &r.entries)
            .any(|entry| entry.enabled && entry.queue.as_deref() == Some(queue.celery_name()))
}

fn oldest(queue: &Queue, known: &Known) -> Option<i64> {
    queue
        .oldest_message_ms
        .and_then(|t| known.past(t))
        .map(|t| known.age(t))
}
