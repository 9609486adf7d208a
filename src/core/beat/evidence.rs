//! What a server can show about Celery at one moment, as plain values.
//!
//! A gatherer fills this in from bindings, settings, RedBeat's keys, bounded
//! samples of queues and `unacked`, named results and the client list. Nothing
//! here is a judgement: a fact that could not be had is `None`, never a zero,
//! because `judge` treats "none there" and "not known" as different things.
//!
//! All times are Unix milliseconds, all durations milliseconds. Names of keys
//! and queues are raw bytes; names out of JSON envelopes are text.

use std::collections::BTreeMap;

use super::traffic::Heard;

/// Everything `judge` may use.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Any `_kombu.*` key, queue or `unacked` was seen: Celery uses this server.
    pub celery_seen: bool,
    /// `hygiene.expected-tasks`.
    pub expected: Vec<Expected>,
    /// One per RedBeat key prefix that has a lock or a schedule.
    pub redbeat: Vec<RedBeat>,
    /// Messages read from queues and `unacked`, grouped.
    pub sightings: Vec<Sighting>,
    /// Newest known results that carry a task name (`result_extended`); bounded,
    /// so the absence of one says nothing.
    pub results: Vec<Finish>,
    /// What was learnt by watching queues; the default where nobody watches.
    pub heard: Heard,
    /// Work queues only: no reply, event or rpc lists.
    pub queues: Vec<Queue>,
    /// The worker side.
    pub workers: Workers,
    /// One per broker key prefix that has an `unacked` or its mutex.
    pub unacked: Vec<Unacked>,
    /// Why the server refuses writes at this moment, if it does.
    pub refusal: Option<Refusal>,
    /// `hygiene.visibility-timeout`.
    pub visibility_timeout_ms: i64,
    /// What was not looked at, a sentence each: a bound was met.
    pub left_out: Vec<String>,
}

impl Evidence {
    /// Since when somebody watches a server that Celery uses: something of it lies
    /// there, or its messages passed and none is left.
    pub(super) fn watched_since_ms(&self) -> Option<i64> {
        let passed = !self.heard.lines.is_empty() || !self.heard.flows.is_empty();
        self.heard.since_ms.filter(|_| self.celery_seen || passed)
    }

    /// Whether there is so much that [`super::judge`] may take longer than a slice: each
    /// of these takes about a µs.
    #[must_use]
    pub fn is_much(&self) -> bool {
        const MUCH: usize = 400;
        let entries = self.redbeat.iter().map(|r| r.entries.len());
        let voices = self.heard.lines.iter().map(|line| line.voices.len());
        let lists = [
            self.queues.len(),
            self.sightings.len(),
            self.results.len(),
            self.expected.len(),
            self.heard.flows.len(),
        ];
        lists
            .into_iter()
            .chain(entries)
            .chain(voices)
            .sum::<usize>()
            > MUCH
    }
}

/// Why a server refuses its clients' writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `CLIENT PAUSE`, or a failover under way: clients wait.
    Paused,
    /// Memory is at `maxmemory`, and nothing may be evicted (OOM).
    Memory,
    /// Its disk takes nothing (MISCONF): how that shows.
    Disk(&'static str),
    /// Fewer replicas are in step than `min-replicas-to-write` (NOREPLICAS).
    Replicas,
}

/// A task that the operator says beat must publish.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Task name as Celery registers it.
    pub task: String,
    /// How often it must come.
    pub interval_ms: i64,
}

/// How long a lock-like key will live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    /// No such key.
    #[default]
    Absent,
    /// The key is there and never expires.
    NoTtl,
    /// The key is there for this many more milliseconds.
    Ttl(i64),
}

/// What lies under one RedBeat key prefix.
///
/// `redbeat_lock_timeout` is stored nowhere; `judge` assumes RedBeat's default.
#[derive(Clone, Debug, Default)]
pub struct RedBeat {
    /// Logical database.
    pub db: u32,
    /// Name of the lock key, for sentences (`redbeat::lock`).
    pub lock_key: Vec<u8>,
    /// Name of the schedule key (`redbeat::schedule`).
    pub schedule_key: Vec<u8>,
    /// State of the lock key.
    pub lock: Hold,
    /// Members of the schedule with what their hashes say. May be cut to a
    /// bound: those due around now, before and after, tell whether beat ticks,
    /// and disabled ones of long ago must not crowd them out. A member whose
    /// hash was not looked at is left out, not told as one without definition.
    pub entries: Vec<Entry>,
    /// Members of the schedule in all (ZCARD), also those not in `entries`.
    pub total: u64,
}

/// One member of RedBeat's schedule.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// The member, which is the key of its hash.
    pub key: Vec<u8>,
    /// `definition.name`, or what follows the prefix when there is none.
    pub name: String,
    /// `definition.task`; empty without definition.
    pub task: String,
    /// `definition.enabled`.
    pub enabled: bool,
    /// `schedule.every` of an interval; `None` for crontab, rrule and others.
    pub interval_ms: Option<i64>,
    /// The member's score, in milliseconds; negative = finished, no next run.
    pub due_ms: Option<i64>,
    /// `meta.last_run_at`.
    pub last_run_at_ms: Option<i64>,
    /// Whether the hash with a readable `definition` exists.
    pub has_definition: bool,
    /// `definition.options.queue`.
    pub queue: Option<Vec<u8>>,
}

/// Where a message was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// In the queue's lists.
    #[default]
    Queue,
    /// Taken by a worker, not yet acknowledged.
    Unacked,
}

/// Messages alike in task, periodic name, origin, place and queue.
///
/// Any task belongs here, periodic or not: what repeats is a sign too.
#[derive(Clone, Debug, Default)]
pub struct Sighting {
    /// `headers.task`.
    pub task: String,
    /// `periodic_task_name` (django-celery-beat 2.3.0 and later).
    pub periodic_name: Option<String>,
    /// `headers.origin`, such as `gen7@host`; empty if absent.
    pub origin: String,
    /// Logical database of the queue.
    pub db: u32,
    /// Name of the queue's first list, as [`Queue::name`] (for `unacked` the
    /// routing key, its third element, behind the broker's key prefix).
    pub queue: Vec<u8>,
    /// In the queue, or taken.
    pub place: Place,
    /// `headers.celery_beat_task` (Celery 5.7.0 and later) or a periodic name.
    pub beat_marked: bool,
    /// Newest publish time among them: `headers.expires` minus
    /// `properties.expiration`. Most messages carry none.
    pub published_at_ms: Option<i64>,
    /// How many were read; of a long queue only a sample is.
    pub count: u64,
}

/// The end of a task, out of a stored result.
#[derive(Clone, Debug, Default)]
pub struct Finish {
    /// Field `name` of the result.
    pub task: String,
    /// `date_done`.
    pub finished_at_ms: i64,
    /// `status`, such as `SUCCESS` or `FAILURE`.
    pub status: String,
    /// `result.exc_type` of a failure. Never a message or an argument.
    pub exc_type: Option<String>,
}

/// One work queue, its priority lists taken together.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    /// Name of its first list: the broker's key prefix and the queue's name,
    /// without priority suffix.
    pub name: Vec<u8>,
    /// How many bytes of `name` are the broker's key prefix.
    pub prefix: usize,
    /// Logical database.
    pub db: u32,
    /// kombu's separator between its name and a priority.
    pub sep: Vec<u8>,
    /// The step behind which messages of priority 0 were found, if it is another
    /// than 0.
    pub lowest: Option<u8>,
    /// Messages, all priorities summed.
    pub length: u64,
    /// Priority and length of each list that exists.
    pub per_priority: Vec<(u8, u64)>,
    /// Named in `hygiene.maintenance-queues`.
    pub maintenance: bool,
    /// A `_kombu.binding.*` set names it.
    pub bound: bool,
    /// Publish time of its oldest message, where that is known.
    pub oldest_message_ms: Option<i64>,
}

impl Queue {
    /// The broker's key prefix.
    #[must_use]
    pub fn key_prefix(&self) -> &[u8] {
        self.name.get(..self.prefix).unwrap_or_default()
    }

    /// Its name to Celery, as in `-Q` and in routes.
    #[must_use]
    pub fn celery_name(&self) -> &[u8] {
        self.name.get(self.prefix..).unwrap_or(&self.name)
    }
}

/// Who could do the work.
#[derive(Clone, Debug, Default)]
pub struct Workers {
    /// Connections per database that holds a broker; one that is missing has
    /// none. `None` where the server cannot be asked, or is not the one that
    /// workers connect to.
    pub crowds: Option<BTreeMap<u32, Crowd>>,
    /// Host parts of `<host>.celery.pidbox` bindings. Has been, not is: they
    /// outlive a killed worker.
    pub bound: Vec<Vec<u8>>,
}

/// Connections to one database that may be workers'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crowd {
    /// Those subscribed to a pattern: `/<db>.celery.pidbox`, which a worker with
    /// `worker_enable_remote_control=False` is not, and gossip's.
    pub subscribers: u64,
    /// Those that take messages: their last command is BRPOP.
    pub consumers: u64,
    /// Those of the consumers that wait for a message.
    pub blocked: u64,
    /// Those of the consumers that wait, or did until a moment ago: kombu waits
    /// for a second at a time.
    pub asking: u64,
    /// Those that went on to send events: their last command is PUBLISH. A worker does so
    /// every 2 s by default (celery/worker/heartbeat.py), however busy its
    /// processes are; one of a single process (`-P solo`) not while it works.
    pub hearts: u64,
    /// Those that sent one lately, also as their first.
    pub beating: u64,
}

impl Crowd {
    /// These too.
    pub const fn add(&mut self, more: Self) {
        self.subscribers += more.subscribers;
        self.consumers += more.consumers;
        self.blocked += more.blocked;
        self.asking += more.asking;
        self.hearts += more.hearts;
        self.beating += more.beating;
    }

    /// Whether workers' hearts stopped: some sent events, and nobody does.
    #[must_use]
    pub const fn is_still(&self) -> bool {
        self.hearts > 0 && self.beating == 0 && self.asking == 0
    }

    /// Workers with remote control. Each has one consumer and one or two
    /// subscribers; a monitor has subscribers only.
    #[must_use]
    pub fn live(&self) -> u64 {
        self.subscribers.min(self.consumers)
    }
}

impl Workers {
    /// Whoever is connected to this database; `None` if that is not known.
    #[must_use]
    pub fn on(&self, db: u32) -> Option<Crowd> {
        let crowds = self.crowds.as_ref()?;
        Some(crowds.get(&db).copied().unwrap_or_default())
    }

    /// Workers with remote control on all databases.
    #[must_use]
    pub fn live(&self) -> Option<u64> {
        self.sum(|crowd| crowd.live())
    }

    /// Consumers on all databases.
    #[must_use]
    pub fn consumers(&self) -> Option<u64> {
        self.sum(|crowd| crowd.consumers)
    }

    /// Consumers that wait for a message, on all databases.
    #[must_use]
    pub fn blocked(&self) -> Option<u64> {
        self.sum(|crowd| crowd.blocked)
    }

    fn sum(&self, each: impl Fn(&Crowd) -> u64) -> Option<u64> {
        let crowds = self.crowds.as_ref()?;
        Some(crowds.values().map(each).fold(0, u64::saturating_add))
    }
}

/// What workers took and did not acknowledge, under one broker prefix.
#[derive(Clone, Debug, Default)]
pub struct Unacked {
    /// Logical database.
    pub db: u32,
    /// Name of the hash (`unacked`).
    pub key: Vec<u8>,
    /// Name of the mutex (`unacked_mutex`).
    pub mutex_key: Vec<u8>,
    /// State of the mutex.
    pub mutex: Hold,
    /// Entries of the hash.
    pub count: u64,
    /// Whether the sorted set `unacked_index` exists.
    pub index_present: bool,
    /// Oldest delivery among entries whose `eta` is not ahead.
    pub oldest_delivered_at_ms: Option<i64>,
    /// Newest delivery among all entries.
    pub newest_delivered_at_ms: Option<i64>,
    /// Entries delivered longer ago than the visibility timeout, `eta` not ahead.
    pub past_timeout: u64,
    /// Entries whose `eta` lies ahead: they wait, they are not stuck.
    pub eta_ahead: u64,
    /// Entries with `redelivered: true`.
    pub redelivered: u64,
    /// Entries beyond the first with the same task id.
    pub duplicates: u64,
}
