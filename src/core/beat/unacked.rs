//! Messages taken and not acknowledged: waiting, in work, or stuck?

use super::assessment::UnackedPart;
use super::evidence::{Evidence, Hold, Unacked};
use super::finding::{Code, Finding};
use super::known::Known;
use super::queues;
use super::words::{counted, name, span};

/// Celery's default `visibility_timeout`, used where the setting gives none.
const VISIBILITY_TIMEOUT_MS: i64 = 3_600_000;

/// Workers put messages back about every 100 s (kombu/transport/redis.py: a
/// 10 s timer, every tenth call); two such sweeps must have passed.
const RESTORE_GRACE_MS: i64 = 200_000;

/// The `unacked` part, all prefixes together, and what is wrong with it.
pub fn unacked(evidence: &Evidence, known: &Known) -> (UnackedPart, Vec<Finding>) {
    let timeout = match evidence.visibility_timeout_ms {
        ms if ms > 0 => ms,
        _ => VISIBILITY_TIMEOUT_MS,
    };
    let mut part = UnackedPart::default();
    let mut findings = Vec::new();
    for unacked in &evidence.unacked {
        let oldest = unacked.oldest_delivered_at_ms.map(|t| known.age(t));
        part.count = part.count.saturating_add(unacked.count);
        part.oldest_ms = part.oldest_ms.max(oldest);
        part.mutex = worse(part.mutex, unacked.mutex);
        part.duplicates = part.duplicates.saturating_add(unacked.duplicates);
        part.eta_ahead = part.eta_ahead.saturating_add(unacked.eta_ahead);
        part.redelivered = part.redelivered.saturating_add(unacked.redelivered);
        let stuck = oldest.filter(|_| unacked.count > 0).filter(|age| {
            let grace = if unacked.mutex == Hold::NoTtl {
                0
            } else {
                RESTORE_GRACE_MS
            };
            *age > timeout.saturating_add(grace)
        });
        let frozen = unacked
            .oldest_delivered_at_ms
            .filter(|_| unacked.count > unacked.eta_ahead && stuck.is_none())
            .and_then(|at| queues::frozen(evidence, known, unacked.db, at));
        if let Some(since) = frozen {
            findings.push(frozen_finding(
                unacked,
                known.age(since),
                oldest.unwrap_or(0),
            ));
        }
        if stuck.is_some() {
            part.stuck = part.stuck.saturating_add(unacked.past_timeout.max(1));
        }
        findings.extend(unacked_findings(unacked, stuck, timeout));
    }
    (part, findings)
}

/// Workers that took messages and stood still, long before the time-out.
fn frozen_finding(unacked: &Unacked, since: i64, oldest: i64) -> Finding {
    Finding {
        code: Code::UnackedStuck,
        detail: format!(
            "{} holds {}, the oldest taken {} ago, and for {} none was finished and no other taken, while periodic tasks pile up in their queue: the workers are frozen, or all at work on something long",
            name(&unacked.key),
            counted(unacked.count, "message"),
            span(oldest),
            span(since)
        ),
        advice: "ask them with `celery inspect ping`; one that does not answer must be restarted"
            .to_owned(),
    }
}

fn unacked_findings(unacked: &Unacked, stuck: Option<i64>, timeout: i64) -> Vec<Finding> {
    let (key, mutex) = (name(&unacked.key), name(&unacked.mutex_key));
    let mut findings = Vec::new();
    let held = format!("{key} holds {}", counted(unacked.count, "message"));
    let unblock = format!("EXPIRE {mutex} 300, and upgrade kombu to 4.6.9 or later");
    match (stuck, unacked.mutex) {
        (Some(age), Hold::NoTtl) => findings.push(Finding {
            code: Code::UnackedStuck,
            detail: format!(
                "{held}, the oldest taken {} ago, and {mutex} has no TTL, so no worker puts them back",
                span(age)
            ),
            advice: unblock,
        }),
        (Some(age), Hold::Absent | Hold::Ttl(_)) => findings.push(Finding {
            code: Code::UnackedStuck,
            detail: format!(
                "{held}, the oldest taken {} ago, past the visibility timeout of {}, and nobody put it back",
                span(age),
                span(timeout)
            ),
            advice: "see that a worker runs on this broker; if its visibility_timeout is longer, set hygiene.visibility-timeout to the same".to_owned(),
        }),
        (None, Hold::NoTtl) => findings.push(Finding {
            code: Code::MutexWithoutTtl,
            detail: format!(
                "{mutex} has no TTL: unless a worker is just setting it, no message of a dead worker is put back"
            ),
            advice: unblock,
        }),
        (None, Hold::Absent | Hold::Ttl(_)) => {}
    }
    if unacked.count > 0 && !unacked.index_present {
        findings.push(Finding {
            code: Code::UnackedWithoutIndex,
            detail: format!("{held} and no index of them was found, so they cannot be put back if their worker dies"),
            advice: "see whether the index was evicted or deleted, or has another name".to_owned(),
        });
    }
    if unacked.duplicates > 0 {
        findings.push(Finding {
            code: Code::DuplicateDeliveries,
            detail: format!(
                "{key} holds {} more than once",
                counted(unacked.duplicates, "task")
            ),
            advice: "tasks that wait or run longer than visibility_timeout are delivered again: raise it".to_owned(),
        });
    }
    findings
}

/// The state to tell when several keys of one kind exist: one that never
/// expires, then the shortest-lived, then none.
pub fn worse(a: Hold, b: Hold) -> Hold {
    match (a, b) {
        (Hold::NoTtl, _) | (_, Hold::NoTtl) => Hold::NoTtl,
        (Hold::Ttl(a), Hold::Ttl(b)) => Hold::Ttl(a.min(b)),
        (Hold::Absent, other) | (other, Hold::Absent) => other,
    }
}
