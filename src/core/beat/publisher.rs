//! The first link: is a beat publishing?
//!
//! Stock beat leaves no key, so most of what lies in Redis says that a beat
//! *was* there, not that it is. Each sign is taken for what it proves:
//!
//! - RedBeat's lock with a TTL: a beat ticked within the lock's time-out. It
//!   outlives a dead beat by up to that time-out. Without a TTL it proves
//!   nothing (sibson/redbeat#201).
//! - An enabled RedBeat entry due longer ago than beat ever sleeps: no beat
//!   ticks on that schedule.
//! - A message of beat's with a known publish time: a beat was there then.
//! - A result: somebody published it some time before. A backlog worked off
//!   after beat's death looks the same, so it is never proof.

use std::collections::BTreeSet;

use super::assessment::{Certainty, Publisher, Source, State};
use super::evidence::Evidence;
use super::finding::{Code, Finding};
use super::known::{Known, MAX_SLEEP_MS};
use super::redbeat::{Schedule, remarks};
use super::words::{counted, name, span};

/// What was concluded about beat.
#[derive(Default)]
pub struct View {
    pub publisher: Publisher,
    /// What the state rests on, as a clause; empty if it is unknown.
    pub ground: String,
    pub findings: Vec<Finding>,
    pub evidence: Vec<String>,
}

/// A sign that a beat was there lately enough.
struct Sign {
    certainty: Certainty,
    source: Source,
    seen_ms: i64,
    text: String,
}

/// Whether beat publishes, from everything that lies there.
pub fn judge(evidence: &Evidence, known: &Known) -> View {
    let mut view = View::default();
    let mut signs: Vec<Sign> = Vec::new();
    let published = messages(evidence, known, &mut signs, &mut view);
    finished(evidence, known, &mut signs);

    let mut broken: Option<Schedule> = None;
    for redbeat in &evidence.redbeat {
        let schedule = Schedule::read(redbeat, known);
        view.evidence.push(schedule.text.clone());
        view.findings.extend(schedule.left_entry());
        view.publisher.last_seen_ms = view.publisher.last_seen_ms.max(schedule.seen_ms);
        if view.publisher.source == Source::None {
            view.publisher.source = Source::RedBeat;
        }
        // Messages published after this schedule stood still come from a beat
        // that does not use it: a schedule left behind is no silence.
        let elsewhere = schedule
            .stood_still_ms
            .is_some_and(|t| published.is_some_and(|p| p > t));
        match schedule.state {
            State::Silent | State::Late if elsewhere => view.findings.push(Finding {
                code: Code::EntryOverdue,
                detail: format!(
                    "{}, yet beat's messages were published since: another beat runs and this schedule is stale",
                    schedule.text
                ),
                advice: format!(
                    "if RedBeat is no longer used, delete {}; else start its beat",
                    name(&redbeat.schedule_key)
                ),
            }),
            State::Silent | State::Late => {
                view.findings.push(schedule.finding(redbeat));
                let worse = broken.as_ref().is_none_or(|b| {
                    (b.state == State::Late && schedule.state == State::Silent)
                        || (b.state == schedule.state && b.certainty < schedule.certainty)
                });
                if worse {
                    broken = Some(schedule);
                }
            }
            State::Alive => {
                signs.push(Sign {
                    certainty: schedule.certainty,
                    source: Source::RedBeat,
                    seen_ms: schedule.seen_ms.unwrap_or(0),
                    text: schedule.text,
                });
            }
            _ => {}
        }
        remarks(redbeat, &mut view.findings);
    }

    let best = signs
        .into_iter()
        .max_by_key(|sign| (sign.certainty, sign.seen_ms));
    if let Some(schedule) = broken {
        view.publisher.state = schedule.state;
        view.publisher.certainty = schedule.certainty;
        view.publisher.source = Source::RedBeat;
        view.publisher.last_seen_ms = schedule.seen_ms;
        view.ground = schedule.text;
    } else if let Some(sign) = best {
        view.publisher.state = State::Alive;
        view.publisher.certainty = sign.certainty;
        view.publisher.source = sign.source;
        view.ground = sign.text;
    }
    view
}

/// Beat's messages in queues and `unacked`. Returns the newest known publish
/// time among them.
fn messages(
    evidence: &Evidence,
    known: &Known,
    signs: &mut Vec<Sign>,
    view: &mut View,
) -> Option<i64> {
    let mut newest = None;
    let mut origins = BTreeSet::new();
    for sighting in &evidence.sightings {
        let expected = evidence.expected.iter().any(|e| e.task == sighting.task);
        let (source, mark) = if sighting.beat_marked {
            (Source::BeatHeader, "marked by beat")
        } else if expected {
            (Source::ExpectedTask, "expected")
        } else {
            continue;
        };
        if !sighting.origin.is_empty() {
            origins.insert(sighting.origin.clone());
        }
        if view.publisher.source != Source::BeatHeader {
            view.publisher.source = source;
        }
        let found = format!(
            "{} of {} ({mark}) in {}",
            counted(sighting.count, "message"),
            name(sighting.task.as_bytes()),
            name(&sighting.queue)
        );
        let Some(at) = sighting.published_at_ms.and_then(|t| known.past(t)) else {
            view.evidence
                .push(format!("{found}, published at an unknown time"));
            continue;
        };
        let text = format!("{found}, the newest published {} ago", span(known.age(at)));
        view.evidence.push(text.clone());
        newest = newest.max(Some(at));
        let recent = known.interval(&sighting.task).map_or_else(
            || known.age(at) <= MAX_SLEEP_MS,
            |interval| known.within_two(at, interval),
        );
        if recent {
            signs.push(Sign {
                certainty: Certainty::Proven,
                source,
                seen_ms: at,
                text,
            });
        }
    }
    view.publisher.last_seen_ms = newest;
    view.publisher.origins = origins.into_iter().collect();
    newest
}

/// Ends of expected tasks within two of their intervals.
fn finished(evidence: &Evidence, known: &Known, signs: &mut Vec<Sign>) {
    for result in &evidence.results {
        let expected = evidence.expected.iter().any(|e| e.task == result.task);
        let interval = known.interval(&result.task).filter(|_| expected);
        let Some((interval, at)) = interval.zip(known.past(result.finished_at_ms)) else {
            continue;
        };
        if known.within_two(at, interval) {
            signs.push(Sign {
                certainty: Certainty::Inferred,
                source: Source::ExpectedTask,
                seen_ms: at,
                text: format!(
                    "{} is expected every {} and finished {} ago",
                    name(result.task.as_bytes()),
                    span(interval),
                    span(known.age(at))
                ),
            });
        }
    }
}
