//! From evidence to one verdict: the worst fault if there is one, `healthy`
//! only on positive evidence, else `unknown`.

use std::collections::BTreeMap;

use super::assessment::{Assessment, Certainty, Publisher, Source, State, Verdict, WorkersPart};
use super::evidence::{Evidence, Refusal};
use super::finding::{Code, Finding, Severity};
use super::known::Known;
use super::words::{counted, name, span};
use super::{beats, publisher, queues, redbeat, steps, tasks, unacked, watch};

/// What the evidence adds up to at `now_ms` (Unix ms, the server's clock).
#[must_use]
pub fn judge(evidence: &Evidence, now_ms: i64) -> Assessment {
    let beats = beats::beats(evidence, now_ms);
    let known = Known::new(evidence, &beats, now_ms);
    let beat = publisher::judge(evidence, &beats, &known);
    let (queue_parts, queue_findings) = queues::queues(evidence, &known);
    let (unacked_part, unacked_findings) = unacked::unacked(evidence, &known);
    let (task_parts, task_findings) = tasks::tasks(evidence, &beats, &known);

    let mut findings = beat.findings;
    findings.extend(evidence.refusal.map(refused));
    findings.extend(queues::workers(evidence, &known, &queue_parts));
    findings.extend(queue_findings);
    findings.extend(unacked_findings);
    findings.extend(task_findings);
    findings.extend(clock_skew(evidence, &known));
    // Stable: of two alike the queue that matters more stays first.
    findings.sort_by_key(|finding| finding.code);

    let mut seen = beat.evidence;
    seen.extend(two_origins(evidence, &known));
    seen.extend(workers_seen(evidence));

    let (verdict, reason) = conclude(evidence, &beat.publisher, &beat.ground, &findings, &seen);
    seen.extend(evidence.left_out.iter().cloned());
    let mut assessment = Assessment {
        verdict,
        reason,
        publisher: beat.publisher,
        tasks: task_parts,
        queues: queue_parts,
        workers: WorkersPart {
            live: evidence.workers.live(),
            bound: evidence.workers.bound.clone(),
            blocked_consumers: evidence.workers.blocked(),
        },
        unacked: unacked_part,
        redbeat: redbeat::part(evidence, &known),
        watch: watch::part(evidence, &beats),
        findings,
        evidence: seen,
        next: Vec::new(),
    };
    assessment.next = steps::steps(evidence, &beats, &assessment);
    assessment
}

fn conclude(
    evidence: &Evidence,
    beat: &Publisher,
    ground: &str,
    findings: &[Finding],
    seen: &[String],
) -> (Verdict, String) {
    let fault = findings
        .iter()
        .find_map(|f| f.code.verdict().map(|verdict| (verdict, f.detail.clone())));
    if let Some(fault) = fault {
        return fault;
    }
    if let Some(doubt) = findings.iter().find(|f| f.code.is_doubt()) {
        return (Verdict::Unknown, doubt.detail.clone());
    }
    let remark = findings
        .iter()
        .find(|f| f.code.severity() == Severity::Warning)
        .map(|f| format!("; mind that {}", f.detail));
    let healthy = match (beat.state, beat.certainty, remark.as_deref()) {
        (State::Alive, Certainty::Proven, _) => format!("beat is alive ({ground}) and "),
        (State::Alive, ..) => format!("beat is likely alive ({ground}) and "),
        // It spoke lately enough that nothing is missed yet.
        (State::Late, _, Some(_)) if beat.last_seen_ms.is_some() => String::new(),
        _ => return (Verdict::Unknown, unknown(evidence, beat, seen)),
    };
    let remark = remark.unwrap_or_default();
    let text = format!("{healthy}no link after it is seen broken{remark}");
    (Verdict::Healthy, text)
}

/// Why there is no answer.
fn unknown(evidence: &Evidence, beat: &Publisher, seen: &[String]) -> String {
    match (beat.source, seen.first()) {
        (Source::None, _) if !evidence.expected.is_empty() => {
"nothing that beat leaves was seen: no message and no recent result of the tasks in hygiene.expected-tasks lies here; where workers keep up messages are gone at once, and results name their task only with result_extended".to_owned()
        }
        (Source::None, _) if evidence.watched_since_ms().is_some() => {
            "Celery uses this server, and no message seen so far bears beat's mark or came often enough to show a rhythm: name beat's tasks in hygiene.expected-tasks".to_owned()
        }
        (Source::None, _) if evidence.celery_seen => {
            "Celery uses this server, but nothing that beat leaves was seen: stock beat stores no key, so name its tasks in hygiene.expected-tasks".to_owned()
        }
        (Source::None, _) => "nothing of Celery was seen on this server".to_owned(),
        (_, Some(sign)) => format!("{sign}: that does not tell whether beat runs now"),
        (_, None) => "what was seen does not tell whether beat runs now".to_owned(),
    }
}

/// By task and entry, when it was published and by whom.
type Series<'a> = BTreeMap<(&'a str, Option<&'a str>), Vec<(i64, &'a str)>>;

/// The same periodic task from two origins within one interval. Beat's restart
/// looks the same once, so of messages that lie there this is told and not
/// judged; that takes turns, which only watching shows.
fn two_origins(evidence: &Evidence, known: &Known) -> Option<String> {
    let mut series = Series::new();
    for sighting in &evidence.sightings {
        if sighting.origin.is_empty() || known.interval(&sighting.task).is_none() {
            continue;
        }
        if let Some(at) = sighting.published_at_ms.and_then(|at| known.past(at)) {
            let alike = (sighting.task.as_str(), sighting.periodic_name.as_deref());
            series
                .entry(alike)
                .or_default()
                .push((at, sighting.origin.as_str()));
        }
    }
    series.into_iter().find_map(|((task, _), mut sent)| {
        let interval = known.interval(task)?.unsigned_abs();
        // In order of time the two that lie closest stand side by side.
        sent.sort_unstable();
        let (apart, one, other) = sent.windows(2).find_map(|pair| match pair {
            [(at_a, a), (at_b, b)] if a != b && at_a.abs_diff(*at_b) < interval => {
                Some((at_a.abs_diff(*at_b), a.min(b), a.max(b)))
            }
            _ => None,
        })?;
        Some(format!(
            "{} was published by {} and {} within {}: two beats, or one restarted",
            name(task.as_bytes()),
            name(one.as_bytes()),
            name(other.as_bytes()),
            span(i64::try_from(apart).unwrap_or(i64::MAX))
        ))
    })
}

fn workers_seen(evidence: &Evidence) -> Option<String> {
    let workers = &evidence.workers;
    Some(format!(
        "{} connected, {} of which {} for messages",
        counted(workers.live()?, "worker"),
        counted(workers.consumers()?, "consumer"),
        match workers.blocked()? {
            1 => "1 waits".to_owned(),
            n => format!("{n} wait"),
        }
    ))
}

/// A server that takes no writes lets nobody publish, so silence says nothing.
fn refused(refusal: Refusal) -> Finding {
    let (why, advice) = match refusal {
        Refusal::Paused => (
            "CLIENT PAUSE or a failover holds them back".to_owned(),
            "wait for its end, or CLIENT UNPAUSE if nobody wants it",
        ),
        Refusal::Memory => (
            "memory is at maxmemory and nothing may be evicted (OOM)".to_owned(),
            "raise maxmemory, or make room: HYGIENE.SCAN tells what takes it, HYGIENE.FIXTTL clears results",
        ),
        Refusal::Disk(why) => (
            format!("{why} (MISCONF)"),
            "read the server's log, and make room on its disk",
        ),
        Refusal::Replicas => (
            "fewer replicas are in step than min-replicas-to-write (NOREPLICAS)".to_owned(),
            "bring the replicas back, or lower min-replicas-to-write",
        ),
    };
    Finding {
        code: Code::WritesRefused,
        detail: format!(
            "this server refuses writes: {why}; beat cannot publish nor workers store results, so silence says nothing meanwhile"
        ),
        advice: advice.to_owned(),
    }
}

fn clock_skew(evidence: &Evidence, known: &Known) -> Option<Finding> {
    let runs = evidence
        .redbeat
        .iter()
        .flat_map(|r| &r.entries)
        .filter_map(|e| e.last_run_at_ms);
    let messages = evidence.sightings.iter().filter_map(|s| s.published_at_ms);
    let ends = evidence.results.iter().map(|r| r.finished_at_ms);
    let ahead = runs
        .chain(messages)
        .chain(ends)
        .filter(|t| known.is_ahead(*t))
        .max()?;
    Some(Finding {
        code: Code::ClockSkew,
        detail: format!(
            "a stored time lies {} in the future; nothing was concluded from such times",
            span(ahead.saturating_sub(known.now_ms))
        ),
        advice: "compare the clocks of workers, beat and this server".to_owned(),
    })
}
