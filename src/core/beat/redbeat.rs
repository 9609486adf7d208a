//! RedBeat's lock and schedule under one key prefix.

use super::assessment::{Certainty, RedBeatPart, State};
use super::evidence::{Entry, Evidence, Hold, RedBeat};
use super::finding::{Code, Finding};
use super::known::{Known, MAX_SLEEP_MS, is_scheduled};
use super::traffic::Heard;
use super::unacked::worse;
use super::words::{counted, name, span};

/// RedBeat's `redbeat_lock_timeout` by default: five times the longest sleep
/// (redbeat/schedulers.py). It is stored nowhere; whoever watches learns it.
const LOCK_TIMEOUT_MS: i64 = 1_500_000;

/// What is known of a lock beyond its TTL now.
#[derive(Clone, Copy)]
struct Lock {
    hold: Hold,
    /// `redbeat_lock_timeout`, the default where it was not learnt.
    timeout_ms: i64,
    /// The newest renewal that was heard.
    renewed_ms: Option<i64>,
    /// Since when renewals are heard.
    since_ms: i64,
}

impl Lock {
    fn of(redbeat: &RedBeat, heard: &Heard, known: &Known) -> Self {
        let mut own = heard.ticks.iter();
        let own = own.find(|t| t.db == redbeat.db && t.lock_key == redbeat.lock_key);
        let learnt = own.map_or(LOCK_TIMEOUT_MS, |tick| tick.timeout_ms);
        Self {
            hold: redbeat.lock,
            timeout_ms: match redbeat.lock {
                // The default is exceeded by a lock that was never heard, too.
                Hold::Ttl(ttl) if own.is_some() => learnt.max(ttl),
                _ => learnt,
            },
            renewed_ms: own.and_then(|tick| known.past(tick.last_ms)),
            since_ms: heard.since_ms.unwrap_or(i64::MAX),
        }
    }

    /// How long its beat sleeps at most. One that lives longer than the default
    /// betrays a longer sleep; a shorter one must be renewed before it ends.
    fn longest_sleep(&self) -> i64 {
        match self.hold {
            Hold::Ttl(ttl) if ttl > LOCK_TIMEOUT_MS => ttl / 5,
            _ => MAX_SLEEP_MS.min(self.timeout_ms),
        }
    }

    /// When it was renewed at the latest, as its TTL shows.
    fn seen_ms(&self, known: &Known) -> Option<i64> {
        let Hold::Ttl(ttl) = self.hold else {
            return None;
        };
        let ago = self.timeout_ms.saturating_sub(ttl).max(0);
        Some(known.now_ms.saturating_sub(ago).min(known.now_ms))
    }

    /// Whether a renewal would have been heard since, and none was.
    fn is_quiet_since(&self, at_ms: i64) -> bool {
        let renewed = self
            .renewed_ms
            .is_some_and(|t| t <= at_ms.saturating_add(TICK_MS));
        self.since_ms <= at_ms && renewed
    }

    /// Whether nobody renewed it for so long that nobody runs who did.
    fn is_left(&self, known: &Known) -> bool {
        self.renewed_ms
            .max(self.seen_ms(known))
            .is_some_and(|renewed| {
                let quiet = known.age(renewed.max(self.since_ms.min(known.now_ms)));
                let patience = self
                    .longest_sleep()
                    .saturating_mul(2)
                    .saturating_add(SLACK_MS);
                self.renewed_ms.is_some() && quiet > patience
            })
    }
}

/// A beat that wakes for an entry renews its lock within this time.
const TICK_MS: i64 = 1_000;

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
    pub fn read(redbeat: &'a RedBeat, heard: &'a Heard, known: &'a Known) -> Self {
        let lock = Lock::of(redbeat, heard, known);
        let last_run = redbeat
            .entries
            .iter()
            .filter_map(|e| e.last_run_at_ms.and_then(|t| known.past(t)))
            .max();
        let lock_seen = lock.seen_ms(known).max(lock.renewed_ms);
        let (left, overdue): (Vec<_>, Vec<_>) = overdue_entries(redbeat, heard, known)
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
        let words = lock_words(redbeat, lock, known);
        match overdue {
            Some(late) => {
                schedule.judge_overdue(late, lock, known);
                schedule.text = format!(
                    "RedBeat entry {} was due {} ago, a running beat moves it within {}, and {words}",
                    name(late.entry.name.as_bytes()),
                    span(known.age(late.due_ms)),
                    span(late.patience_ms)
                );
            }
            None => {
                schedule.judge_ticking(redbeat, last_run, lock, known);
                schedule.text = match last_run {
                    Some(ran) => {
                        format!(
                            "RedBeat last ran an entry {} ago, {words}",
                            span(known.age(ran))
                        )
                    }
                    None => format!("RedBeat: {words}"),
                };
            }
        }
        schedule
    }

    /// Silent after twice the patience. No retuned beat explains it if its lock
    /// would be gone, and is; or if its ticks were heard, and none since a moment
    /// at which it had to wake up.
    fn judge_overdue(&mut self, late: Overdue<'_>, lock: Lock, known: &Known) {
        let locked = matches!(lock.hold, Hold::Ttl(_));
        let by = known.age(late.due_ms);
        (self.state, self.certainty) = if by <= late.patience_ms.saturating_mul(2) {
            (State::Late, Certainty::Inferred)
        } else if (by > lock.timeout_ms && !locked)
            || (late.entry.last_run_at_ms.is_some() && lock.is_quiet_since(late.due_ms))
        {
            (State::Silent, Certainty::Proven)
        } else {
            (State::Silent, Certainty::Inferred)
        };
    }

    fn judge_ticking(
        &mut self,
        redbeat: &RedBeat,
        last_run: Option<i64>,
        lock: Lock,
        known: &Known,
    ) {
        let sleep = lock.longest_sleep();
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
        // It may have been told to run without a lock; then it runs entries.
        let ran_since = last_run.is_some_and(|ran| !lock.is_quiet_since(ran));
        (self.state, self.certainty) = match lock.hold {
            Hold::Absent if lock.is_left(known) && !(fresh && ran_since) => {
                (State::Silent, Certainty::Proven)
            }
            Hold::Ttl(_) if lock.is_left(known) => (State::Silent, Certainty::Inferred),
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
/// while a lock runs out, a beat that is only busy must not be taken for dead,
/// unless it was heard not to wake up.
fn patience(entry: &Entry, due_ms: i64, lock: Lock) -> i64 {
    let awake = matches!(lock.hold, Hold::Ttl(_)) && !lock.is_quiet_since(due_ms);
    let sleep = lock.longest_sleep();
    match (entry.last_run_at_ms, entry.interval_ms) {
        (Some(_), Some(interval)) if interval > 0 && !awake => {
            (interval.saturating_add(SLACK_MS) / 2).min(sleep)
        }
        _ => sleep,
    }
}

/// Entries of this prefix that a running beat would have moved by now.
pub fn overdue_entries<'a>(
    redbeat: &'a RedBeat,
    heard: &'a Heard,
    known: &'a Known,
) -> impl Iterator<Item = Overdue<'a>> + 'a {
    let lock = Lock::of(redbeat, heard, known);
    redbeat
        .entries
        .iter()
        .filter(|entry| is_scheduled(entry))
        .filter_map(move |entry| {
            let due_ms = entry.due_ms?;
            Some(Overdue {
                entry,
                due_ms,
                patience_ms: patience(entry, due_ms, lock),
            })
        })
        .filter(|late| known.age(late.due_ms) > late.patience_ms)
}

fn lock_words(redbeat: &RedBeat, lock: Lock, known: &Known) -> String {
    let key = name(&redbeat.lock_key);
    let renewed = lock.renewed_ms.map(|at| span(known.age(at)));
    match (redbeat.lock, renewed) {
        (Hold::Ttl(ttl), Some(ago)) => format!(
            "its lock {key} was renewed {ago} ago (runs out in {}; it outlives a dead beat)",
            span(ttl)
        ),
        (Hold::Absent, Some(ago)) => {
            format!("its lock {key} is not there and was renewed last {ago} ago")
        }
        (Hold::Ttl(ttl), None) => format!(
            "its lock {key} was renewed within the lock's time-out (runs out in {}; it outlives a dead beat)",
            span(ttl)
        ),
        (Hold::NoTtl, _) => format!("its lock {key} has no TTL and proves nothing"),
        (Hold::Absent, None) => format!(
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
        let overdue = overdue_entries(redbeat, &evidence.heard, known).count() as u64;
        part.overdue = part.overdue.saturating_add(overdue);
        let bare = redbeat.entries.iter().filter(|e| !e.has_definition).count() as u64;
        part.without_definition = part.without_definition.saturating_add(bare);
    }
    Some(part)
}
