//! RedBeat's lock and schedule under one key prefix.

use super::assessment::{Certainty, RedBeatPart, State};
use super::evidence::{Entry, Evidence, Hold, RedBeat};
use super::finding::{Code, Finding};
use super::known::{Known, MAX_SLEEP_MS, is_scheduled};
use super::unacked::worse;
use super::words::{counted, name, span};

/// RedBeat's `redbeat_lock_timeout` by default: five times the longest sleep
/// (redbeat/schedulers.py). It is stored nowhere.
const LOCK_TIMEOUT_MS: i64 = 1_500_000;

/// What one RedBeat prefix says.
pub struct Schedule<'a> {
    pub state: State,
    pub certainty: Certainty,
    pub seen_ms: Option<i64>,
    /// When a running beat would at the latest have moved the overdue entry.
    pub stood_still_ms: Option<i64>,
    /// An overdue entry that beat left while it ran others.
    left: Option<&'a Entry>,
    pub text: String,
}

impl<'a> Schedule<'a> {
    pub fn read(redbeat: &'a RedBeat, known: &'a Known) -> Self {
        let sleep = longest_sleep(redbeat);
        let last_run = redbeat
            .entries
            .iter()
            .filter_map(|e| e.last_run_at_ms.and_then(|t| known.past(t)))
            .max();
        let lock_seen = match redbeat.lock {
            Hold::Ttl(ttl) => Some(
                known
                    .now_ms
                    .saturating_sub(LOCK_TIMEOUT_MS.saturating_sub(ttl).max(0))
                    .min(known.now_ms),
            ),
            Hold::Absent | Hold::NoTtl => None,
        };
        let (left, overdue): (Vec<_>, Vec<_>) = overdue_entries(redbeat, known)
            // It ran something long after this one fell due: it ticked then.
            .partition(|late| last_run.is_some_and(|ran| ran > late.moved_by()));
        let overdue = overdue.into_iter().max_by_key(|late| late.times(known));
        let mut schedule = Self {
            state: State::Unknown,
            certainty: Certainty::None,
            seen_ms: last_run.max(lock_seen),
            stood_still_ms: overdue.map(|late| late.moved_by()),
            left: left.first().map(|late| late.entry),
            text: String::new(),
        };
        let lock = lock_words(redbeat);
        match overdue {
            Some(late) => {
                schedule.judge_overdue(known.age(late.due_ms), late.patience_ms, redbeat.lock);
                schedule.text = format!(
                    "RedBeat entry {} was due {} ago, a running beat moves it within {}, and {lock}",
                    name(late.entry.name.as_bytes()),
                    span(known.age(late.due_ms)),
                    span(late.patience_ms)
                );
            }
            None => {
                schedule.judge_ticking(redbeat, last_run, sleep, known);
                schedule.text = match last_run {
                    Some(ran) => {
                        format!(
                            "RedBeat last ran an entry {} ago, {lock}",
                            span(known.age(ran))
                        )
                    }
                    None => format!("RedBeat: {lock}"),
                };
            }
        }
        schedule
    }

    /// Silent after twice the patience. Only when even a lock of the default
    /// time-out would be gone, and is, no retuned beat explains it.
    fn judge_overdue(&mut self, by: i64, patience: i64, lock: Hold) {
        let locked = matches!(lock, Hold::Ttl(_));
        (self.state, self.certainty) = if by <= patience.saturating_mul(2) {
            (State::Late, Certainty::Inferred)
        } else if by > LOCK_TIMEOUT_MS && !locked {
            (State::Silent, Certainty::Proven)
        } else {
            (State::Silent, Certainty::Inferred)
        };
    }

    fn judge_ticking(
        &mut self,
        redbeat: &RedBeat,
        last_run: Option<i64>,
        sleep: i64,
        known: &Known,
    ) {
        let fresh = last_run.is_some_and(|ran| known.age(ran) <= sleep);
        // An entry with a long interval says little for a while; nothing else
        // is overdue, though.
        let in_rhythm = redbeat.entries.iter().any(|entry| {
            is_scheduled(entry)
                && entry
                    .last_run_at_ms
                    .and_then(|t| known.past(t))
                    .zip(entry.interval_ms.filter(|ms| *ms > 0))
                    .is_some_and(|(ran, interval)| known.within_two(ran, interval))
        });
        (self.state, self.certainty) = match redbeat.lock {
            Hold::Ttl(_) => (State::Alive, Certainty::Proven),
            Hold::NoTtl if fresh => (State::Alive, Certainty::Proven),
            Hold::NoTtl if in_rhythm => (State::Alive, Certainty::Inferred),
            // A clean stop deletes the lock, but a beat may also run without.
            Hold::Absent if fresh => (State::Alive, Certainty::Inferred),
            Hold::NoTtl | Hold::Absent => (State::Unknown, Certainty::None),
        };
    }

    pub fn finding(&self, redbeat: &RedBeat) -> Finding {
        let (code, head) = match (self.state, self.certainty) {
            (State::Silent, Certainty::Proven) => (Code::BeatSilent, "RedBeat is silent"),
            (State::Silent, _) => (Code::BeatSilent, "RedBeat seems silent"),
            _ => (Code::BeatLate, "RedBeat is late"),
        };
        Finding {
            code,
            detail: format!("{head}: {}", self.text),
            advice: format!(
                "look at the beat process and restart it; if RedBeat is no longer used, delete {}",
                name(&redbeat.schedule_key)
            ),
        }
    }

    pub fn left_entry(&self) -> Option<Finding> {
        self.left.map(|entry| Finding {
            code: Code::EntryOverdue,
            detail: format!(
                "RedBeat ran other entries but not {}, which is long overdue",
                name(entry.name.as_bytes())
            ),
            advice: "look for this entry in beat's log, then save it again".to_owned(),
        })
    }
}

/// A lock that lives longer than the default betrays a longer sleep.
fn longest_sleep(redbeat: &RedBeat) -> i64 {
    match redbeat.lock {
        Hold::Ttl(ttl) if ttl > LOCK_TIMEOUT_MS => ttl / 5,
        _ => MAX_SLEEP_MS,
    }
}

/// How late a beat that is busy may be with what it wakes up for, in ms.
const SLACK_MS: i64 = 5_000;

/// An entry that a running beat would have moved by now.
#[derive(Clone, Copy)]
pub struct Overdue<'a> {
    pub entry: &'a Entry,
    due_ms: i64,
    /// How long after it fell due a running beat moves it, in ms.
    patience_ms: i64,
}

impl Overdue<'_> {
    fn moved_by(&self) -> i64 {
        self.due_ms.saturating_add(self.patience_ms)
    }

    /// How many times the patience is used up.
    fn times(&self, known: &Known) -> i64 {
        known.age(self.due_ms) / self.patience_ms.max(1)
    }
}

/// How long after an entry falls due a running beat moves it. For one that it has
/// run before it wakes up (redbeat/schedulers.py, `tick` sleeps until the next
/// entry is due); half an interval and the slack, so that silence is told within
/// two intervals. Of a new one it may not know before its longest sleep ends; and
/// while a lock runs out, a beat that is only busy must not be taken for dead.
fn patience(entry: &Entry, lock: Hold, sleep: i64) -> i64 {
    match (entry.last_run_at_ms, entry.interval_ms) {
        (Some(_), Some(interval)) if interval > 0 && !matches!(lock, Hold::Ttl(_)) => {
            (interval.saturating_add(SLACK_MS) / 2).min(sleep)
        }
        _ => sleep,
    }
}

/// Entries of this prefix that a running beat would have moved by now.
pub fn overdue_entries<'a>(
    redbeat: &'a RedBeat,
    known: &'a Known,
) -> impl Iterator<Item = Overdue<'a>> + 'a {
    let sleep = longest_sleep(redbeat);
    redbeat
        .entries
        .iter()
        .filter(|entry| is_scheduled(entry))
        .filter_map(move |entry| {
            Some(Overdue {
                entry,
                due_ms: entry.due_ms?,
                patience_ms: patience(entry, redbeat.lock, sleep),
            })
        })
        .filter(|late| known.age(late.due_ms) > late.patience_ms)
}

fn lock_words(redbeat: &RedBeat) -> String {
    let key = name(&redbeat.lock_key);
    match redbeat.lock {
        Hold::Ttl(ttl) => format!(
            "its lock {key} was renewed within the lock's time-out (runs out in {}; it outlives a dead beat)",
            span(ttl)
        ),
        Hold::NoTtl => format!("its lock {key} has no TTL and proves nothing"),
        Hold::Absent => format!(
            "its lock {key} is not there (stopped, dead longer than the lock lives, or run without a lock)"
        ),
    }
}

/// What is odd about RedBeat's keys whoever runs.
pub fn remarks(redbeat: &RedBeat, findings: &mut Vec<Finding>) {
    if redbeat.lock == Hold::NoTtl {
        let key = name(&redbeat.lock_key);
        findings.push(Finding {
            code: Code::LockWithoutTtl,
            detail: format!(
                "RedBeat's lock {key} has no TTL: if its beat dies, no other can start"
            ),
            advice: format!("EXPIRE {key} 1500; a running beat renews it"),
        });
    }
    let bare: Vec<&Entry> = redbeat
        .entries
        .iter()
        .filter(|e| !e.has_definition)
        .collect();
    if let Some(first) = bare.first() {
        let schedule = name(&redbeat.schedule_key);
        findings.push(Finding {
            code: Code::EntryWithoutDefinition,
            detail: format!(
                "{} of {schedule} without a definition ({}): beat drops such an entry when it is due, and its task never runs",
                counted(bare.len() as u64, "member"),
                name(&first.key)
            ),
            advice: format!(
                "save the entry again, or ZREM {schedule} {}",
                name(&first.key)
            ),
        });
    }
}

/// The RedBeat part, all prefixes together.
pub fn part(evidence: &Evidence, known: &Known) -> Option<RedBeatPart> {
    let first = evidence.redbeat.first()?;
    let mut part = RedBeatPart {
        lock: first.lock,
        ..RedBeatPart::default()
    };
    for redbeat in &evidence.redbeat {
        // A missing lock is the worst to tell here: it may mean no beat.
        part.lock = match (part.lock, redbeat.lock) {
            (Hold::Absent, _) | (_, Hold::Absent) => Hold::Absent,
            (a, b) => worse(a, b),
        };
        let listed = redbeat.entries.len() as u64;
        part.entries = part.entries.saturating_add(redbeat.total.max(listed));
        let overdue = overdue_entries(redbeat, known).count() as u64;
        part.overdue = part.overdue.saturating_add(overdue);
        let bare = redbeat.entries.iter().filter(|e| !e.has_definition).count() as u64;
        part.without_definition = part.without_definition.saturating_add(bare);
    }
    Some(part)
}
