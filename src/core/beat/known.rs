//! What the other judges share: the moment, and which tasks are periodic.

use std::collections::BTreeMap;

use super::beats::Beat;
use super::evidence::{Entry, Evidence, Place, Queue, Sighting};

/// A stored time this far ahead of the server's clock is taken for the
/// server's own moment; further ahead, nothing is concluded from it.
const CLOCK_TOLERANCE_MS: i64 = 60_000;

/// Slack on top of two intervals before something counts as missing.
pub const SLACK_MS: i64 = 5_000;

/// How long beat sleeps at most: `beat_max_loop_interval`, 300 s by default
/// (celery/beat.py `DEFAULT_MAX_INTERVAL`, also RedBeat's).
pub const MAX_SLEEP_MS: i64 = 300_000;

/// So many messages of one task in one queue are a pile, whatever its interval.
pub const PILE: u64 = 10;

/// The moment of judging and the periodic tasks the evidence names.
pub struct Known<'a> {
    pub now_ms: i64,
    /// Task name to interval, where that is known.
    tasks: BTreeMap<&'a str, Option<i64>>,
}

impl<'a> Known<'a> {
    /// Periodic are: what the operator expects, what RedBeat will run, what
    /// carries beat's marks, and what was heard to come in a rhythm.
    pub fn new(evidence: &'a Evidence, beats: &[Beat<'a>], now_ms: i64) -> Self {
        let mut tasks: BTreeMap<&str, Option<i64>> = BTreeMap::new();
        for sighting in evidence.sightings.iter().filter(|s| s.beat_marked) {
            tasks.entry(&sighting.task).or_default();
        }
        for entry in evidence.redbeat.iter().flat_map(|r| &r.entries) {
            if is_scheduled(entry) {
                let known = tasks.entry(&entry.task).or_default();
                *known = shorter(*known, positive(entry.interval_ms));
            }
        }
        let mut learnt: BTreeMap<&str, Option<i64>> = BTreeMap::new();
        for kept in beats.iter().flat_map(|beat| &beat.lines) {
            let known = learnt.entry(&kept.line.task).or_default();
            *known = shorter(*known, kept.interval_ms);
        }
        for (task, interval) in learnt {
            let known = tasks.entry(task).or_default();
            *known = known.or(interval);
        }
        // The operator's word comes last: it beats what was stored.
        for expected in &evidence.expected {
            tasks.insert(&expected.task, positive(Some(expected.interval_ms)));
        }
        Self { now_ms, tasks }
    }

    pub fn is_periodic(&self, task: &str) -> bool {
        self.tasks.contains_key(task)
    }

    pub fn interval(&self, task: &str) -> Option<i64> {
        self.tasks.get(task).copied().flatten()
    }

    pub fn tasks(&self) -> impl Iterator<Item = (&'a str, Option<i64>)> + '_ {
        self.tasks.iter().map(|(name, interval)| (*name, *interval))
    }

    /// A stored time, if something may be concluded from it.
    pub fn past(&self, t_ms: i64) -> Option<i64> {
        (t_ms > 0 && !self.is_ahead(t_ms)).then(|| t_ms.min(self.now_ms))
    }

    /// Whether a stored time lies so far ahead that some clock is wrong.
    pub fn is_ahead(&self, t_ms: i64) -> bool {
        t_ms > self.now_ms.saturating_add(CLOCK_TOLERANCE_MS)
    }

    pub fn age(&self, t_ms: i64) -> i64 {
        self.now_ms.saturating_sub(t_ms).max(0)
    }

    /// Whether nothing is missing yet if this was the last of a rhythm.
    pub fn within_two(&self, t_ms: i64, interval_ms: i64) -> bool {
        self.age(t_ms) <= interval_ms.saturating_mul(2).saturating_add(SLACK_MS)
    }

    /// The periodic task that fills a queue for many of its intervals, and how
    /// many of its messages were read there.
    pub fn pile(&self, evidence: &'a Evidence, queue: &Queue) -> Option<(&'a str, u64)> {
        // Three of these are a quarter of an hour without a reader.
        const LONG_INTERVAL_MS: i64 = 300_000;
        self.counts(evidence, queue)
            .into_iter()
            .filter(|(task, count)| {
                let long = self
                    .interval(task)
                    .is_some_and(|interval| interval >= LONG_INTERVAL_MS);
                *count >= PILE || (long && *count >= 3)
            })
            .max_by_key(|(_, count)| *count)
    }

    /// The periodic task with most messages in a queue, if at least so many were
    /// read there.
    pub fn most(
        &self,
        evidence: &'a Evidence,
        queue: &Queue,
        least: u64,
    ) -> Option<(&'a str, u64)> {
        let counts = self.counts(evidence, queue).into_iter();
        let most = counts.max_by_key(|(_, count)| *count);
        most.filter(|(_, count)| *count >= least)
    }

    /// Messages of each periodic task that were read in a queue.
    fn counts(&self, evidence: &'a Evidence, queue: &Queue) -> BTreeMap<&'a str, u64> {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for sighting in sampled(evidence, queue).filter(|s| self.is_periodic(&s.task)) {
            let count = counts.entry(&sighting.task).or_default();
            *count = count.saturating_add(sighting.count);
        }
        counts
    }
}

/// Messages read from this queue's lists.
pub fn sampled<'a>(evidence: &'a Evidence, queue: &Queue) -> impl Iterator<Item = &'a Sighting> {
    evidence
        .sightings
        .iter()
        .filter(move |s| s.place == Place::Queue && s.db == queue.db && s.queue == queue.name)
}

/// Whether RedBeat will run this entry again. Disabled entries keep a past
/// score for ever, and a negative score means there is no next run.
pub fn is_scheduled(entry: &Entry) -> bool {
    entry.enabled && entry.has_definition && entry.due_ms.is_none_or(|due| due >= 0)
}

fn positive(interval_ms: Option<i64>) -> Option<i64> {
    interval_ms.filter(|ms| *ms > 0)
}

fn shorter(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
