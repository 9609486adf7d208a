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
//!
//! Whoever watches the queues hears beat speak (`beats`), and hears its silence.
//! Where beat was never heard, its silence says nothing: a task that the
//! operator expects and nobody sends is a finding and leaves the verdict
//! `unknown`, for beat may use another server.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::assessment::{Certainty, Publisher, Source, State};
use super::beats::{Beat, Kept};
use super::evidence::Evidence;
use super::finding::{Code, Finding};
use super::known::{Known, MAX_SLEEP_MS};
use super::redbeat::{Schedule, remarks};
use super::words::{counted, every, name, span};

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

/// A beat that does not do what it should.
struct Trouble {
    state: State,
    certainty: Certainty,
    source: Source,
    seen_ms: Option<i64>,
    text: String,
}

/// Whether beat publishes, from everything that lies there and was heard.
pub fn judge(evidence: &Evidence, beats: &[Beat<'_>], known: &Known) -> View {
    let mut view = View::default();
    let mut signs: Vec<Sign> = Vec::new();
    let mut troubles: Vec<Trouble> = Vec::new();
    let heard = heard(beats, &mut signs, &mut troubles, &mut view);
    let published = messages(evidence, known, &mut signs, &mut view).max(heard);
    finished(evidence, known, &mut signs);
    missing(evidence, known, &mut view.findings);

    for redbeat in &evidence.redbeat {
        let schedule = Schedule::read(redbeat, &evidence.heard, known);
        view.evidence.push(schedule.text.clone());
        view.findings.extend(schedule.left_entry());
        view.publisher.last_seen_ms = view.publisher.last_seen_ms.max(schedule.seen_ms);
        if Source::RedBeat.rank() > view.publisher.source.rank() {
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
                troubles.push(Trouble {
                    state: schedule.state,
                    certainty: schedule.certainty,
                    source: Source::RedBeat,
                    seen_ms: schedule.seen_ms,
                    text: schedule.text,
                });
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
    // Of two alike the first: what was heard is newer than what lies there.
    let worst = troubles
        .into_iter()
        .rev()
        .max_by_key(|t| (weight(t.state), t.certainty));
    if let Some(trouble) = worst {
        view.publisher.state = trouble.state;
        view.publisher.certainty = trouble.certainty;
        view.publisher.source = trouble.source;
        view.publisher.last_seen_ms = trouble.seen_ms;
        view.ground = trouble.text;
    } else if let Some(sign) = best {
        view.publisher.state = State::Alive;
        view.publisher.certainty = sign.certainty;
        view.publisher.source = sign.source;
        view.ground = sign.text;
    }
    view
}

const fn weight(state: State) -> u8 {
    match state {
        State::Silent => 4,
        State::Flapping => 3,
        State::Duplicate => 2,
        State::Late => 1,
        State::Alive | State::Unknown => 0,
    }
}

/// What was heard of each beat. Returns when one spoke last.
fn heard(
    beats: &[Beat<'_>],
    signs: &mut Vec<Sign>,
    troubles: &mut Vec<Trouble>,
    view: &mut View,
) -> Option<i64> {
    for beat in beats {
        view.evidence.push(beat.text.clone());
        view.findings.extend(finding(beat));
        if !matches!(beat.state, State::Silent | State::Late) {
            view.findings
                .extend(beat.lines.iter().filter(|k| k.left).map(left));
        }
        if beat.source.rank() > view.publisher.source.rank() {
            view.publisher.source = beat.source;
        }
        let (certainty, source) = (beat.certainty, beat.source);
        match beat.state {
            State::Unknown => {}
            State::Alive => signs.push(Sign {
                certainty,
                source,
                seen_ms: beat.last_ms,
                text: beat.text.clone(),
            }),
            state => troubles.push(Trouble {
                state,
                certainty,
                source,
                seen_ms: Some(beat.last_ms),
                text: beat.text.clone(),
            }),
        }
    }
    view.publisher.last_seen_ms = beats.iter().map(|beat| beat.last_ms).max();
    let mut told = HashSet::new();
    let origins = beats.iter().flat_map(|beat| &beat.origins);
    let origins = origins.filter(|origin| told.insert(**origin));
    view.publisher.origins = origins.map(|origin| (*origin).to_owned()).collect();
    view.publisher.last_seen_ms
}

fn finding(beat: &Beat<'_>) -> Option<Finding> {
    let proven = beat.certainty == Certainty::Proven;
    let (code, head, advice) = match beat.state {
        State::Silent if proven => (
            Code::BeatSilent,
            "beat is silent",
            "look at the beat process and restart it",
        ),
        State::Silent => (
            Code::BeatSilent,
            "beat is likely silent",
            "look at the beat process and restart it; if it is none, name beat's own tasks in hygiene.expected-tasks",
        ),
        State::Late if proven => (Code::BeatLate, "beat is late", "look again in a moment"),
        State::Late => (
            Code::BeatLate,
            "beat is likely late",
            "look again in a moment",
        ),
        State::Duplicate if proven => (
            Code::BeatDuplicate,
            "two beats run",
            "stop one of them: each task is sent twice",
        ),
        State::Duplicate => (
            Code::BeatDuplicate,
            "two beats likely run",
            "stop one of them: each task is sent twice",
        ),
        State::Flapping if proven => (
            Code::BeatFlapping,
            "beat keeps dying",
            "read the beat process's log for why it ends",
        ),
        State::Flapping => (
            Code::BeatFlapping,
            "beat likely keeps dying",
            "read the beat process's log for why it ends",
        ),
        State::Alive | State::Unknown => return None,
    };
    Some(Finding {
        code,
        detail: format!("{head}: {}", beat.text),
        advice: advice.to_owned(),
    })
}

/// A task that its beat does not send any more.
fn left(kept: &Kept<'_>) -> Finding {
    let expected = kept.source == Source::ExpectedTask;
    Finding {
        code: if expected {
            Code::ExpectedTaskMissing
        } else {
            Code::TaskOverdue
        },
        detail: format!(
            "beat goes on but does not send {} any more, which came every {} before",
            name(kept.line.task.as_bytes()),
            every(kept.interval_ms.unwrap_or(0))
        ),
        advice: "see whether the task was taken out of beat's schedule, or disabled".to_owned(),
    }
}

/// Tasks that are expected, were never heard, and should have been by now.
fn missing(evidence: &Evidence, known: &Known, findings: &mut Vec<Finding>) {
    let Some(since) = evidence.watched_since_ms() else {
        return;
    };
    if evidence.expected.is_empty() {
        return;
    }
    let lines = evidence.heard.lines.iter();
    let heard = lines.filter(|line| !line.voices.is_empty());
    let entries = evidence.redbeat.iter().flat_map(|r| &r.entries);
    let seen: HashSet<&str> = (heard.map(|line| line.task.as_str()))
        .chain(evidence.sightings.iter().map(|s| s.task.as_str()))
        .chain(entries.map(|entry| entry.task.as_str()))
        .collect();
    let mut ran: HashMap<&str, i64> = HashMap::new();
    for result in &evidence.results {
        if let Some(at_ms) = known.past(result.finished_at_ms) {
            let newest = ran.entry(&result.task).or_insert(at_ms);
            *newest = at_ms.max(*newest);
        }
    }
    for expected in &evidence.expected {
        let task = expected.task.as_str();
        let recent = |at: i64| known.within_two(at, expected.interval_ms);
        if expected.interval_ms <= 0
            || recent(since)
            || seen.contains(task)
            || ran.get(task).copied().is_some_and(recent)
        {
            continue;
        }
        findings.push(Finding {
            code: Code::ExpectedTaskMissing,
            detail: format!(
                "{} is expected every {} and nobody has sent it in {} of watching, nor is it known from before: beat was never started, or this task is not in its schedule",
                name(task.as_bytes()),
                span(expected.interval_ms),
                span(known.age(since))
            ),
            advice: "start beat, or add the task to its schedule".to_owned(),
        });
    }
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
        let expected = known.is_expected(&sighting.task);
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
        if source.rank() > view.publisher.source.rank() {
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
    view.publisher.last_seen_ms = view.publisher.last_seen_ms.max(newest);
    let told: HashSet<String> = view.publisher.origins.iter().cloned().collect();
    let new = origins.into_iter().filter(|origin| !told.contains(origin));
    view.publisher.origins.extend(new);
    newest
}

/// Ends of expected tasks within two of their intervals.
fn finished(evidence: &Evidence, known: &Known, signs: &mut Vec<Sign>) {
    for result in &evidence.results {
        let expected = known.is_expected(&result.task);
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
