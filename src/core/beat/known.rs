//! What the other judges share: the moment, and which tasks are periodic.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::beats::Beat;
use super::evidence::{Entry, Evidence, Place, Queue, Sighting};
use super::traffic::Movement;

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

/// What is known of queues, by database and the name of each one's first list.
type ByQueue<'a, T> = BTreeMap<u32, HashMap<&'a [u8], T>>;

/// The moment of judging and the periodic tasks the evidence names; and what is asked
/// of each queue, so that many queues are not each looked for among all.
pub struct Known<'a> {
    pub now_ms: i64,
    /// Task name to interval, where that is known.
    tasks: BTreeMap<&'a str, Option<i64>>,
    /// Those that the operator expects.
    expected: HashSet<&'a str>,
    /// Queues that RedBeat's entries name.
    scheduled_into: HashSet<&'a [u8]>,
    /// Messages read from each queue's lists.
    sampled: ByQueue<'a, Vec<&'a Sighting>>,
    /// What was seen to move in each queue.
    moved: ByQueue<'a, &'a Movement>,
    /// The newest pop in each database, Unix ms.
    popped: BTreeMap<u32, i64>,
    /// The newest end of a periodic task that came through each database, Unix ms.
    ended: BTreeMap<u32, i64>,
    /// Databases with a queue in which work stands still; see [`super::queues`].
    still: OnceCell<BTreeSet<u32>>,
}

impl<'a> Known<'a> {
    /// Periodic are: what the operator expects, what RedBeat will run, what
    /// carries beat's marks, and what was heard to come in a rhythm.
    pub fn new(evidence: &'a Evidence, beats: &[Beat<'a>], now_ms: i64) -> Self {
        let mut tasks: BTreeMap<&str, Option<i64>> = BTreeMap::new();
        for sighting in evidence.sightings.iter().filter(|s| s.beat_marked) {
            tasks.entry(&sighting.task).or_default();
        }
        for entry in entries_of(evidence) {
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
        let mut sampled: ByQueue<'_, Vec<&Sighting>> = BTreeMap::new();
        let in_queues = evidence.sightings.iter();
        for sighting in in_queues.filter(|s| s.place == Place::Queue) {
            let queues = sampled.entry(sighting.db).or_default();
            queues.entry(&sighting.queue).or_default().push(sighting);
        }
        let mut moved: ByQueue<'_, &Movement> = BTreeMap::new();
        let mut popped = BTreeMap::new();
        for flow in &evidence.heard.flows {
            let queues = moved.entry(flow.db).or_default();
            queues.entry(&flow.queue).or_insert(flow);
            newest(&mut popped, flow.db, flow.last_out_ms);
        }
        let mut ended = BTreeMap::new();
        for line in &evidence.heard.lines {
            newest(&mut ended, line.db, line.end.as_ref().map(|end| end.at_ms));
        }
        Self {
            now_ms,
            tasks,
            scheduled_into: entries_of(evidence)
                .filter(|entry| entry.enabled)
                .filter_map(|entry| entry.queue.as_deref())
                .collect(),
            expected: evidence.expected.iter().map(|e| e.task.as_str()).collect(),
            sampled,
            moved,
            popped,
            ended,
            still: OnceCell::new(),
        }
    }

    /// Messages read from this queue's lists.
    pub fn sampled<'b>(&'b self, queue: &Queue) -> &'b [&'a Sighting] {
        let queues = self.sampled.get(&queue.db);
        let sampled = queues.and_then(|queues| queues.get(queue.name.as_slice()));
        sampled.map_or(&[], Vec::as_slice)
    }

    /// What was seen to move in this queue.
    pub fn movement(&self, queue: &Queue) -> Option<&'a Movement> {
        let queues = self.moved.get(&queue.db)?;
        queues.get(queue.name.as_slice()).copied()
    }

    /// The newest pop from a queue of a database, or of any, Unix ms.
    pub fn popped(&self, db: Option<u32>) -> Option<i64> {
        match db {
            Some(db) => self.popped.get(&db).copied(),
            None => self.popped.values().max().copied(),
        }
    }

    /// The newest end of a task that came through a database's queues, Unix ms.
    pub fn ended(&self, db: u32) -> Option<i64> {
        self.ended.get(&db).copied()
    }

    /// Whether work stands still in a queue of this database, which `find` tells of all.
    pub fn stands_still(&self, db: u32, find: impl FnOnce() -> BTreeSet<u32>) -> bool {
        self.still.get_or_init(find).contains(&db)
    }

    pub fn is_periodic(&self, task: &str) -> bool {
        self.tasks.contains_key(task)
    }

    /// Whether the operator expects this task of a beat.
    pub fn is_expected(&self, task: &str) -> bool {
        self.expected.contains(task)
    }

    /// Whether an enabled entry of RedBeat's names this queue, by its name to Celery.
    pub fn is_scheduled_into(&self, queue: &[u8]) -> bool {
        self.scheduled_into.contains(queue)
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
    pub fn pile(&self, queue: &Queue) -> Option<(&'a str, u64)> {
        // Three of these are a quarter of an hour without a reader.
        const LONG_INTERVAL_MS: i64 = 300_000;
        self.counts(queue)
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
    pub fn most(&self, queue: &Queue, least: u64) -> Option<(&'a str, u64)> {
        let counts = self.counts(queue).into_iter();
        let most = counts.max_by_key(|(_, count)| *count);
        most.filter(|(_, count)| *count >= least)
    }

    /// Messages of each periodic task that were read in a queue.
    fn counts(&self, queue: &Queue) -> BTreeMap<&'a str, u64> {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        let sampled = self.sampled(queue).iter().copied();
        for sighting in sampled.filter(|s| self.is_periodic(&s.task)) {
            let count = counts.entry(&sighting.task).or_default();
            *count = count.saturating_add(sighting.count);
        }
        counts
    }
}

fn entries_of(evidence: &Evidence) -> impl Iterator<Item = &Entry> {
    evidence.redbeat.iter().flat_map(|r| &r.entries)
}

/// Keeps the newest time of each database.
fn newest(of: &mut BTreeMap<u32, i64>, db: u32, at_ms: Option<i64>) {
    if let Some(at_ms) = at_ms {
        let known = of.entry(db).or_insert(at_ms);
        *known = at_ms.max(*known);
    }
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
