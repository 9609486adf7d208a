//! What a scan adds up: per class, per queue, the biggest keys, and what it means.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Bound;

use super::celery::binding::split_priority;
use super::keys::{Class, KeyType, Unacked, shown, unknown_result_prefix};
use super::policy::Ttl;
use super::reply::Reply;
use super::settings::Settings;
use super::{beat, span, systems};

/// Queues counted one by one; more are counted together.
const MOST_TALLIED: usize = 100_000;

/// Queues told one by one in a reply; the rest is in the class's sums.
const MOST_QUEUES: usize = 100;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Buckets of remaining life: what each is called and where it ends, in ms.
const BUCKETS: [(&str, i64); 5] = [
    ("<1m", 60_000),
    ("<1h", HOUR_MS),
    ("<1d", DAY_MS),
    ("<7d", 7 * DAY_MS),
    ("more", i64::MAX),
];

/// One key as a scan saw it.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// The database's number.
    pub db: i32,
    /// Its name.
    pub name: &'a [u8],
    /// Its class.
    pub class: Class,
    /// Its type.
    pub kind: KeyType,
    /// Its remaining life in ms.
    pub ttl: Ttl,
    /// Bytes of a string, elements of anything else.
    pub elements: u64,
    /// Bytes in memory; 0 if nobody asked.
    pub bytes: u64,
    /// Since when it has been lying there, Unix ms, where that is known.
    pub since_ms: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ClassTally {
    keys: u64,
    no_ttl: u64,
    bytes: u64,
    bytes_no_ttl: u64,
    ttl: [u64; BUCKETS.len()],
    over_max: u64,
    bytes_over_max: u64,
    oldest_ms: Option<i64>,
}

/// The sums of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    keys: u64,
    no_ttl: u64,
    bytes: u64,
}

/// The sums of a scan.
pub type Sums = BTreeMap<Class, Sum>;

/// The classes that have changed since an earlier scan, and by how much: a class
/// that is gone too.
#[must_use]
pub fn changes(before: &Sums, now: &Sums) -> Reply {
    let classes: BTreeSet<Class> = before.keys().chain(now.keys()).copied().collect();
    let of = |sums: &Sums, class| sums.get(&class).copied().unwrap_or_default();
    let more = |before: u64, now: u64| Reply::Int(now.wrapping_sub(before).cast_signed());
    Reply::Map(
        classes
            .into_iter()
            .map(|class| (class, of(before, class), of(now, class)))
            .filter(|(_, before, now)| before != now)
            .map(|(class, before, now)| {
                (
                    Cow::Borrowed(class.name().as_bytes()),
                    Reply::map([
                        ("keys", more(before.keys, now.keys)),
                        ("no_ttl", more(before.no_ttl, now.no_ttl)),
                        ("bytes", more(before.bytes, now.bytes)),
                    ]),
                )
            })
            .collect(),
    )
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct QueueTally {
    length: u64,
    bytes: u64,
    oldest_ms: Option<i64>,
}

/// A queue: its database and its name.
type Place = (i32, Vec<u8>);

/// What all queues come to, as far as they have been gone through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct AllQueues {
    /// The last that was gone through.
    last: Option<Place>,
    length: u64,
    oldest_ms: Option<i64>,
    /// The longest [`MOST_QUEUES`], and of two of one length the first by name.
    longest: BTreeSet<(Reverse<u64>, Place)>,
}

impl AllQueues {
    fn add(&mut self, place: &Place, queue: &QueueTally) {
        self.length += queue.length;
        self.oldest_ms = older(self.oldest_ms, queue.oldest_ms);
        let full = self.longest.len() >= MOST_QUEUES;
        // They come in the order of their names.
        let too_short = |(Reverse(least), _): &(Reverse<u64>, Place)| *least >= queue.length;
        if full && self.longest.last().is_some_and(too_short) {
            return;
        }
        if full {
            self.longest.pop_last();
        }
        self.longest.insert((Reverse(queue.length), place.clone()));
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct SystemTally {
    keys: u64,
    bytes: u64,
    certain: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Big {
    bytes: u64,
    name: Vec<u8>,
    db: i32,
    class: &'static str,
    kind: &'static str,
    ttl: Ttl,
    elements: u64,
}

/// The sums of one scan.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    classes: BTreeMap<Class, ClassTally>,
    queues: BTreeMap<Place, QueueTally>,
    /// Those beyond [`MOST_TALLIED`], together.
    more_queues: QueueTally,
    all_queues: AllQueues,
    /// What of `other` is another system's.
    systems: BTreeMap<&'static str, SystemTally>,
    /// Streams among the event queues, which are trimmed and have no TTL.
    streams: u64,
    stream_bytes: u64,
    top: BinaryHeap<Reverse<Big>>,
    top_size: usize,
    max_ttl_ms: i64,
    mutex_without_ttl: Vec<Vec<u8>>,
    /// Prefixes of brokers that no setting names.
    prefixes: BTreeSet<Vec<u8>>,
    big_results: u64,
    big_result_bytes: u64,
    /// Lists with messages past their own `expires`, and of how many looked at there
    /// how many are.
    expired: Pile,
    looked_at: u64,
    expired_messages: u64,
    remains: Remains,
    /// Hashes of unacknowledged messages that no setting names, and their indexes,
    /// where found.
    elsewhere: BTreeMap<(i32, Vec<u8>), Option<Vec<u8>>>,
}

/// Keys, and what they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pile {
    keys: u64,
    bytes: u64,
}

impl Pile {
    /// Adds a key of so many bytes.
    pub const fn add(&mut self, bytes: u64) {
        self.keys += 1;
        self.bytes += bytes;
    }
}

/// What could be told only when all keys had been seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// Lists of answers that no binding leads to.
    pub replies: Pile,
    /// Lists of events that no binding leads to.
    pub events: Pile,
    /// Lists of messages that no binding leads to, and the names of some.
    pub unbound: Pile,
    /// See `unbound`.
    pub unbound_names: Vec<Vec<u8>>,
    /// Bindings of processes that lead to no list.
    pub bindings: u64,
    /// Chords that no part has come for for long, all keys of one as one.
    pub chords: Pile,
    /// Saved groups, not used for long, of which at least one task has no result.
    pub groups: Pile,
    /// Unacknowledged messages of a task that another one is of too.
    pub duplicates: u64,
    /// Mutexes without TTL behind prefixes that no setting names.
    pub mutexes: Vec<Vec<u8>>,
}

/// What findings need to know of the server, besides its keys.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// Unix ms.
    pub now_ms: i64,
    /// `maxmemory` in bytes; 0 is no limit.
    pub maxmemory: u64,
    /// `maxmemory-policy`.
    pub policy: &'a [u8],
    /// What the server says of its memory, if the scan has seen all keys and measured
    /// them.
    pub memory: Option<ServerMemory>,
    /// What BEATSTATUS finds wrong, if the scan was of all keys.
    pub beat: &'a [beat::Finding],
}

/// Memory as `INFO memory` tells it, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerMemory {
    /// `used_memory`.
    pub used: u64,
    /// `used_memory_startup`: before there was any data.
    pub startup: u64,
    /// `mem_clients_normal`: buffers of clients.
    pub clients: u64,
    /// `mem_clients_slaves`: buffers of replicas.
    pub replicas: u64,
    /// `mem_replication_backlog`.
    pub backlog: u64,
    /// `mem_aof_buffer`.
    pub aof: u64,
}

/// From so many bytes on memory that no key explains is told: indexes of the key
/// space, allocator and scripts take some on any server.
const LEAST_OUTSIDE: u64 = 64 * 1024 * 1024;

/// From so many bytes on a result is told as too big: Redis moves it as one piece
/// for each state of the task, and to each client that asks.
const BIG_RESULT: u64 = 1024 * 1024;

/// The most prefixes told.
const MOST_PREFIXES: usize = 10;

impl Tally {
    /// An empty one that keeps the `top_size` biggest keys and counts what lives
    /// longer than `max_ttl_ms`, if that is not 0.
    #[must_use]
    pub fn new(top_size: usize, max_ttl_ms: i64) -> Self {
        Self {
            top_size,
            max_ttl_ms,
            ..Self::default()
        }
    }

    /// Adds a key.
    pub fn add(&mut self, key: &Seen<'_>) {
        let class = self.classes.entry(key.class).or_default();
        class.keys += 1;
        class.bytes += key.bytes;
        match key.ttl {
            None => {
                class.no_ttl += 1;
                class.bytes_no_ttl += key.bytes;
            }
            Some(ms) => {
                let bucket = BUCKETS.iter().position(|(_, end)| ms < *end);
                if let Some(count) = class.ttl.get_mut(bucket.unwrap_or(BUCKETS.len() - 1)) {
                    *count += 1;
                }
                if self.max_ttl_ms > 0 && ms > self.max_ttl_ms {
                    class.over_max += 1;
                    class.bytes_over_max += key.bytes;
                }
            }
        }
        class.oldest_ms = older(class.oldest_ms, key.since_ms);
        if key.class == Class::Unacked && key.kind == KeyType::String && key.ttl.is_none() {
            self.mutex_without_ttl.push(shown(key.name).to_vec());
        }
        if key.class == Class::TaskResult
            && key.kind == KeyType::String
            && key.elements >= BIG_RESULT
        {
            self.big_results += 1;
            self.big_result_bytes += key.bytes;
        }
        if key.class == Class::Other
            && key.kind == KeyType::String
            && let Some(prefix) = unknown_result_prefix(key.name)
        {
            self.unknown_prefix(prefix);
        }
        if key.class == Class::Other
            && let Some(found) = systems::of(key.name, key.kind)
        {
            let system = self.systems.entry(found.name).or_default();
            system.keys += 1;
            system.bytes += key.bytes;
            system.certain |= found.certain;
        }
        if key.class == Class::EventQueue && key.kind == KeyType::Stream && key.ttl.is_none() {
            self.streams += 1;
            self.stream_bytes += key.bytes;
        }
        self.keep_if_big(key);
    }

    /// Notes the prefix of a broker that no setting names.
    pub fn unknown_prefix(&mut self, prefix: &[u8]) {
        if self.prefixes.len() < MOST_PREFIXES {
            self.prefixes.insert(shown(prefix).to_vec());
        }
    }

    /// Notes a list in which `expired` of the messages `looked_at` are past their own
    /// `expires`.
    pub const fn add_expired(&mut self, bytes: u64, looked_at: u64, expired: u64) {
        if expired > 0 {
            self.expired.add(bytes);
            self.looked_at += looked_at;
            self.expired_messages += expired;
        }
    }

    /// Sets what could be told only when all keys had been seen.
    pub fn set_remains(&mut self, mut remains: Remains) {
        self.mutex_without_ttl.append(&mut remains.mutexes);
        self.remains = remains;
    }

    /// Lets go of up to so many queues; `false` when none is left.
    pub fn shed(&mut self, most: usize) -> bool {
        (0..most).all(|_| self.queues.pop_first().is_some())
    }

    /// Takes the lists of a queue's priorities for one queue, where they are called
    /// with another separator than kombu's own. To be called before [`Tally::sum_up`].
    pub fn merge_priorities(&mut self, db: i32, queue: &[u8], sep: &[u8]) {
        let lists = |digit: &[u8]| (db, [queue, sep, digit].concat());
        let beside: Vec<Place> = self
            .queues
            // `:` comes behind `9`.
            .range(lists(b"0")..lists(b":"))
            .map(|(place, _)| place)
            .filter(|(_, name)| matches!(split_priority(name, sep), (of, Some(_)) if of == queue))
            .cloned()
            .collect();
        for place in beside {
            let Some(list) = self.queues.remove(&place) else {
                continue;
            };
            let whole = self.queues.entry((db, queue.to_vec())).or_default();
            whole.length += list.length;
            whole.bytes += list.bytes;
            whole.oldest_ms = older(whole.oldest_ms, list.oldest_ms);
        }
    }

    /// When all queues have been added: goes through up to `most` more of them, for
    /// [`Tally::classes`]. `false` when that was the last.
    pub fn sum_up(&mut self, most: usize) -> bool {
        let all = &mut self.all_queues;
        let from = all.last.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        let mut gone_through = 0;
        for (place, queue) in self.queues.range((from, Bound::Unbounded)).take(most) {
            all.add(place, queue);
            gone_through += 1;
            if gone_through == most {
                last = Some(place.clone());
            }
        }
        all.last = last;
        all.last.is_some()
    }

    /// Notes a hash of unacknowledged messages that only its content tells.
    pub fn unacked_elsewhere(&mut self, db: i32, hash: &[u8]) {
        if self.elsewhere.len() < MOST_PREFIXES {
            self.elsewhere.insert((db, shown(hash).to_vec()), None);
        }
    }

    /// Asks `found` for the index of each such hash.
    pub fn name_indexes(&mut self, found: impl Fn(i32, &[u8]) -> Option<Vec<u8>>) {
        for ((db, hash), index) in &mut self.elsewhere {
            *index = found(*db, hash);
        }
    }

    fn keep_if_big(&mut self, key: &Seen<'_>) {
        let full = self.top.len() >= self.top_size;
        let too_small = self
            .top
            .peek()
            .is_some_and(|Reverse(least)| least.bytes >= key.bytes);
        if self.top_size == 0 || (full && too_small) {
            return;
        }
        if full {
            self.top.pop();
        }
        self.top.push(Reverse(Big {
            bytes: key.bytes,
            name: shown(key.name).to_vec(),
            db: key.db,
            class: key.class.name(),
            kind: key.kind.name(),
            ttl: key.ttl,
            elements: key.elements,
        }));
    }

    /// Adds a list of a queue to the queue: its own name is that without the
    /// priority. `oldest_ms` is when its oldest message was sent, where the
    /// message tells.
    pub fn add_queue(
        &mut self,
        db: i32,
        queue: &[u8],
        length: u64,
        bytes: u64,
        oldest_ms: Option<i64>,
    ) {
        let place = (db, shown(queue).to_vec());
        let tally = if self.queues.len() < MOST_TALLIED || self.queues.contains_key(&place) {
            self.queues.entry(place).or_default()
        } else {
            &mut self.more_queues
        };
        tally.length += length;
        tally.bytes += bytes;
        tally.oldest_ms = older(tally.oldest_ms, oldest_ms);
    }

    /// The sums of each class, to be compared with the next scan's.
    #[must_use]
    pub fn sums(&self) -> Sums {
        self.classes
            .iter()
            .map(|(class, tally)| {
                let sum = Sum {
                    keys: tally.keys,
                    no_ttl: tally.no_ttl,
                    bytes: tally.bytes,
                };
                (*class, sum)
            })
            .collect()
    }

    /// Task results, and those of them without TTL.
    #[must_use]
    pub fn results(&self) -> (u64, u64) {
        self.classes
            .get(&Class::TaskResult)
            .map_or((0, 0), |tally| (tally.keys, tally.no_ttl))
    }

    /// The `classes` of the reply, the heaviest first. Queues are told as far as they
    /// have been summed up.
    #[must_use]
    pub fn classes(&self, now_ms: i64) -> Reply {
        let mut classes: Vec<_> = self.classes.iter().collect();
        classes.sort_by_key(|(class, tally)| (Reverse(tally.bytes), Reverse(tally.keys), **class));
        Reply::Map(
            classes
                .into_iter()
                .map(|(class, tally)| {
                    (
                        Cow::Borrowed(class.name().as_bytes()),
                        self.class(*class, tally, now_ms),
                    )
                })
                .collect(),
        )
    }

    fn class(&self, class: Class, tally: &ClassTally, now_ms: i64) -> Reply {
        let mut histogram = vec![(Cow::Borrowed("none".as_bytes()), Reply::count(tally.no_ttl))];
        for ((name, _), count) in BUCKETS.iter().zip(tally.ttl) {
            histogram.push((Cow::Borrowed(name.as_bytes()), Reply::count(count)));
        }
        let mut fields: Vec<(Cow<'static, [u8]>, Reply)> = [
            ("keys", Reply::count(tally.keys)),
            ("no_ttl", Reply::count(tally.no_ttl)),
            ("bytes", Reply::count(tally.bytes)),
            ("bytes_no_ttl", Reply::count(tally.bytes_no_ttl)),
            ("ttl_histogram", Reply::Map(histogram)),
            ("oldest_s", age_s(now_ms, tally.oldest_ms)),
        ]
        .into_iter()
        .map(|(name, value)| (Cow::Borrowed(name.as_bytes()), value))
        .collect();
        if class == Class::Queue {
            let (all, more) = (&self.all_queues, &self.more_queues);
            let oldest = older(all.oldest_ms, more.oldest_ms);
            let length = Reply::count(all.length + more.length);
            fields.push((Cow::Borrowed(b"length"), length));
            fields.push((Cow::Borrowed(b"oldest_message_s"), age_s(now_ms, oldest)));
            fields.push((Cow::Borrowed(b"queues"), self.longest_queues(now_ms)));
        }
        if class == Class::Other {
            fields.push((Cow::Borrowed(b"systems"), self.systems()));
        }
        Reply::Map(fields)
    }

    fn systems(&self) -> Reply {
        let mut found: Vec<_> = self
            .systems
            .iter()
            .filter(|(_, system)| system.certain)
            .collect();
        found.sort_by_key(|(name, system)| (Reverse(system.bytes), Reverse(system.keys), **name));
        Reply::Map(
            found
                .into_iter()
                .map(|(name, system)| {
                    let sums = [
                        ("keys", Reply::count(system.keys)),
                        ("bytes", Reply::count(system.bytes)),
                    ];
                    (Cow::Borrowed(name.as_bytes()), Reply::map(sums))
                })
                .collect(),
        )
    }

    fn longest_queues(&self, now_ms: i64) -> Reply {
        let longest = self.all_queues.longest.iter();
        let told = longest.filter_map(|(_, place)| self.queues.get_key_value(place));
        Reply::Array(
            told.map(|((db, name), queue)| {
                Reply::map([
                    ("name", Reply::bytes(name.as_slice())),
                    ("db", Reply::Int(i64::from(*db))),
                    ("length", Reply::count(queue.length)),
                    ("bytes", Reply::count(queue.bytes)),
                    ("oldest_message_s", age_s(now_ms, queue.oldest_ms)),
                ])
            })
            .collect(),
        )
    }

    /// The `top` of the reply: the biggest keys, the biggest first.
    #[must_use]
    pub fn top(&self) -> Reply {
        let mut top: Vec<&Big> = self.top.iter().map(|Reverse(big)| big).collect();
        top.sort_by_key(|big| Reverse((*big).clone()));
        Reply::Array(
            top.into_iter()
                .map(|big| {
                    Reply::map([
                        ("name", Reply::bytes(big.name.as_slice())),
                        ("db", Reply::Int(i64::from(big.db))),
                        ("class", Reply::word(big.class)),
                        ("type", Reply::word(big.kind)),
                        ("bytes", Reply::count(big.bytes)),
                        ("ttl_s", Reply::Int(big.ttl.map_or(-1, |ms| ms / 1_000))),
                        ("elements", Reply::count(big.elements)),
                    ])
                })
                .collect(),
        )
    }

    /// The `findings` of the reply: what is wrong and the command that helps, the
    /// worst first.
    #[must_use]
    pub fn findings(&self, settings: &Settings, moment: &Moment<'_>) -> Reply {
        let mut findings = self.broker_findings(settings, moment);
        findings.extend(self.message_findings());
        findings.extend(self.remains_findings());
        findings.extend(moment.beat.iter().filter_map(of_beat));
        findings.extend(moment.memory.and_then(|memory| self.outside_keys(memory)));
        let of = |class| self.classes.get(&class).cloned().unwrap_or_default();
        let results = of(Class::TaskResult);
        if results.no_ttl > 0 {
            let most = results.no_ttl * 2 > results.keys && results.no_ttl > 1_000;
            findings.push(Finding {
                code: "results_without_ttl",
                severity: if most {
                    Severity::Critical
                } else {
                    Severity::Warning
                },
                class: Class::TaskResult,
                keys: results.no_ttl,
                bytes: results.bytes_no_ttl,
                detail: format!(
                    "{} of {} task results have no TTL and stay until somebody deletes them",
                    results.no_ttl, results.keys
                ),
                advice: "HYGIENE.FIXTTL DRYRUN, then HYGIENE.FIXTTL; \
                         HYGIENE.CONFIG SET enforce yes keeps new ones from coming"
                    .into(),
            });
        }
        if results.over_max > 0 {
            findings.push(Finding {
                code: "results_over_max_ttl",
                severity: Severity::Info,
                class: Class::TaskResult,
                keys: results.over_max,
                bytes: results.bytes_over_max,
                detail: format!(
                    "{} task results live longer than max-ttl ({})",
                    results.over_max,
                    span::show(settings.max_ttl_ms)
                ),
                advice: "HYGIENE.FIXTTL cuts them".into(),
            });
        }
        for (class, code, detail, advice) in [
            (
                Class::ReplyQueue,
                "reply_queues_without_ttl",
                "answers to inspect and control whose asker may be gone",
                "HYGIENE.ORPHANS PURGE reply_queue DRYRUN, then HYGIENE.ORPHANS PURGE reply_queue",
            ),
            (
                Class::EventQueue,
                "event_queues_without_ttl",
                "events kept for monitors that may be gone",
                "HYGIENE.ORPHANS PURGE event_queue DRYRUN, then HYGIENE.ORPHANS PURGE event_queue",
            ),
            (
                Class::GroupResult,
                "group_results_without_ttl",
                "saved groups stay until somebody deletes them",
                "HYGIENE.FIXTTL CLASS group_result TTL 1d",
            ),
            (
                Class::Lock,
                "locks_without_ttl",
                "a lock whose holder was killed blocks its task for ever",
                "check that no worker holds it, then HYGIENE.FIXTTL CLASS lock MATCH <name> TTL 1h",
            ),
        ] {
            let mut tally = of(class);
            if class == Class::EventQueue {
                tally.no_ttl -= self.streams;
                tally.bytes_no_ttl -= self.stream_bytes;
            }
            if tally.no_ttl > 0 {
                findings.push(Finding {
                    code,
                    severity: if class == Class::Lock {
                        Severity::Info
                    } else {
                        Severity::Warning
                    },
                    class,
                    keys: tally.no_ttl,
                    bytes: tally.bytes_no_ttl,
                    detail: format!("{} without TTL: {detail}", tally.no_ttl),
                    advice: advice.into(),
                });
            }
        }
        if !self.mutex_without_ttl.is_empty() {
            findings.push(Finding {
                code: "unacked_mutex_without_ttl",
                severity: Severity::Critical,
                class: Class::Unacked,
                keys: self.mutex_without_ttl.len() as u64,
                bytes: 0,
                detail:
                    "the mutex of the restore has no TTL: no unacknowledged message comes back \
                         while it lies there"
                        .to_owned(),
                advice: format!(
                    "with no worker restoring, EXPIRE {} 300",
                    self.mutex_without_ttl
                        .first()
                        .map(|name| name.escape_ascii().to_string())
                        .unwrap_or_default()
                )
                .into(),
            });
        }
        if settings.default_ttl_ms <= settings.visibility_timeout_ms {
            findings.push(Finding {
                code: "default_ttl_not_above_visibility_timeout",
                severity: Severity::Info,
                class: Class::TaskResult,
                keys: 0,
                bytes: 0,
                detail: format!(
                    "default-ttl {} is not above visibility-timeout {}: a task redelivered late, or \
                     a longer chord, no longer finds its results; Celery's own default is 1d",
                    span::show(settings.default_ttl_ms),
                    span::show(settings.visibility_timeout_ms)
                ),
                advice: "HYGIENE.CONFIG SET default-ttl 1d, where memory allows".into(),
            });
        }
        findings.sort_by_key(|finding| (Reverse(finding.severity), Reverse(finding.bytes)));
        Reply::Array(findings.into_iter().map(Finding::reply).collect())
    }
}

impl Tally {
    /// What is wrong with messages by themselves.
    fn message_findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.expired.keys > 0 {
            findings.push(Finding {
                code: "expired_messages",
                severity: Severity::Warning,
                class: Class::Queue,
                keys: self.expired.keys,
                bytes: self.expired.bytes,
                detail: format!(
                    "in {} lists {} of {} messages looked at are past their own expires: nobody \
                     reads them in time",
                    self.expired.keys, self.expired_messages, self.looked_at
                ),
                advice: "start a worker for these queues: it drops expired messages without \
                         running them"
                    .into(),
            });
        }
        if self.remains.duplicates > 0 {
            findings.push(Finding {
                code: "duplicate_deliveries",
                severity: Severity::Info,
                class: Class::Unacked,
                keys: self.remains.duplicates,
                bytes: 0,
                detail: format!(
                    "{} unacknowledged messages are of a task that another one there is of too: \
                     it runs more than once",
                    self.remains.duplicates
                ),
                advice: "let Celery's visibility_timeout be longer than the longest task and the \
                         farthest eta"
                    .into(),
            });
        }
        findings
    }

    /// What belongs to nobody any more.
    fn remains_findings(&self) -> Vec<Finding> {
        let Remains {
            replies,
            events,
            unbound,
            unbound_names,
            bindings,
            chords,
            groups,
            ..
        } = &self.remains;
        let bindings = Pile {
            keys: *bindings,
            bytes: 0,
        };
        let names: Vec<String> = unbound_names
            .iter()
            .map(|name| format!("'{}'", name.escape_ascii()))
            .collect();
        let unbound_detail = format!(
            "lists of messages ({}) have no binding: no worker has declared these queues, or their \
             bindings are lost",
            names.join(", ")
        );
        [
            (
                "queues_without_binding",
                Severity::Info,
                Class::Queue,
                *unbound,
                unbound_detail.as_str(),
                "start a worker with -Q and the queue's name: it declares the queue and reads it",
            ),
            (
                "reply_queues_without_owner",
                Severity::Warning,
                Class::ReplyQueue,
                *replies,
                "lists of answers have no binding: their asker is gone, and nobody reads them",
                "HYGIENE.ORPHANS PURGE reply_queue DRYRUN, then HYGIENE.ORPHANS PURGE reply_queue",
            ),
            (
                "event_queues_without_owner",
                Severity::Warning,
                Class::EventQueue,
                *events,
                "lists of events have no binding: their monitor is gone, and nobody reads them",
                "HYGIENE.ORPHANS PURGE event_queue DRYRUN, then HYGIENE.ORPHANS PURGE event_queue",
            ),
            (
                "bindings_without_queue",
                Severity::Info,
                Class::Binding,
                bindings,
                "bindings of monitors and askers lead to no list and belong to no process that \
                 is connected",
                "HYGIENE.ORPHANS PURGE binding DRYRUN, then HYGIENE.ORPHANS PURGE binding",
            ),
            (
                "chord_remains",
                Severity::Warning,
                Class::Chord,
                *chords,
                "chords have had no part for a day or longer: their body will not run",
                "HYGIENE.ORPHANS PURGE chord DRYRUN, then HYGIENE.ORPHANS PURGE chord",
            ),
            (
                "groups_of_expired_results",
                Severity::Info,
                Class::GroupResult,
                *groups,
                "saved groups, not used for a day, are of tasks whose results are gone: they \
                 will never be ready",
                "HYGIENE.FIXTTL CLASS group_result TTL 1d; let default-ttl be longer than a group \
                 takes",
            ),
        ]
        .into_iter()
        .filter(|(_, _, _, pile, ..)| pile.keys > 0)
        .map(|(code, severity, class, pile, detail, advice)| Finding {
            code,
            severity,
            class,
            keys: pile.keys,
            bytes: pile.bytes,
            detail: format!("{} {detail}", pile.keys),
            advice: advice.into(),
        })
        .collect()
    }

    /// Memory that the keys do not explain, if it is more than theirs.
    fn outside_keys(&self, memory: ServerMemory) -> Option<Finding> {
        let keys: u64 = self.classes.values().map(|class| class.bytes).sum();
        let outside = memory.used.saturating_sub(memory.startup + keys);
        (outside >= LEAST_OUTSIDE && outside > keys).then(|| Finding {
            code: "memory_outside_keys",
            severity: Severity::Warning,
            class: Class::Other,
            keys: 0,
            bytes: outside,
            detail: format!(
                "keys explain {keys} of {} bytes used, {} were used at startup; buffers of \
                 clients take {}, of replicas {}, the replication backlog {}, the AOF buffer {}",
                memory.used,
                memory.startup,
                memory.clients,
                memory.replicas,
                memory.backlog,
                memory.aof
            ),
            advice: "CLIENT LIST tells whose buffers (tot-mem), MEMORY STATS the rest; \
                     client-output-buffer-limit and repl-backlog-size bound them"
                .into(),
        })
    }

    /// What is wrong around the broker and the memory it lives in.
    fn broker_findings(&self, settings: &Settings, moment: &Moment<'_>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let of = |class| self.classes.get(&class).cloned().unwrap_or_default();
        let unacked = of(Class::Unacked);
        if let Some(oldest_ms) = unacked.oldest_ms {
            let age_ms = moment.now_ms.saturating_sub(oldest_ms);
            if age_ms > settings.visibility_timeout_ms {
                findings.push(Finding {
                    code: "unacked_older_than_visibility_timeout",
                    severity: Severity::Warning,
                    class: Class::Unacked,
                    keys: unacked.keys,
                    bytes: unacked.bytes,
                    detail: format!(
                        "the oldest message was taken {} s ago, longer than visibility-timeout ({}): \
                         it waits for its eta, or no worker puts it back",
                        age_ms / 1_000,
                        span::show(settings.visibility_timeout_ms)
                    ),
                    advice: "HYGIENE.ORPHANS tells which; HYGIENE.ORPHANS REQUEUE puts them back".into(),
                });
            }
        }
        let work = [Class::Queue, Class::Unacked, Class::Binding, Class::Redbeat]
            .map(of)
            .into_iter()
            .fold((0, 0), |(keys, bytes), tally| {
                (keys + tally.keys, bytes + tally.bytes)
            });
        if moment.maxmemory > 0 && moment.policy.starts_with(b"allkeys-") && work.0 > 0 {
            findings.push(Finding {
                code: "eviction_can_drop_work",
                severity: Severity::Critical,
                class: Class::Queue,
                keys: work.0,
                bytes: work.1,
                detail: format!(
                    "maxmemory-policy is {}: with memory full, queues, messages being worked on, \
                     bindings and schedules are dropped like anything else",
                    String::from_utf8_lossy(moment.policy)
                ),
                advice:
                    "CONFIG SET maxmemory-policy volatile-lru, which leaves keys without TTL alone"
                        .into(),
            });
        }
        let (keys, no_ttl) = self.classes.values().fold((0, 0), |(keys, no_ttl), class| {
            (keys + class.keys, no_ttl + class.no_ttl)
        });
        if moment.maxmemory > 0
            && moment.policy.starts_with(b"volatile-")
            && keys > 0
            && keys == no_ttl
        {
            findings.push(Finding {
                code: "nothing_to_evict",
                severity: Severity::Warning,
                class: Class::Other,
                keys,
                bytes: 0,
                detail: format!(
                    "maxmemory-policy is {} and no key has a TTL: with memory full, writes are refused",
                    String::from_utf8_lossy(moment.policy)
                ),
                advice: "HYGIENE.FIXTTL gives results a TTL".into(),
            });
        }
        if self.big_results > 0 {
            findings.push(Finding {
                code: "big_results",
                severity: Severity::Info,
                class: Class::TaskResult,
                keys: self.big_results,
                bytes: self.big_result_bytes,
                detail: format!(
                    "{} results have a megabyte or more: each state of the task and each client \
                     that asks moves all of it",
                    self.big_results
                ),
                advice: "keep the data elsewhere and return where it lies, or ignore_result=True"
                    .into(),
            });
        }
        findings.extend(self.other_names());
        if !self.prefixes.is_empty() {
            let names: Vec<String> = self
                .prefixes
                .iter()
                .map(|prefix| format!("'{}'", prefix.escape_ascii()))
                .collect();
            findings.push(Finding {
                code: "prefix_not_in_settings",
                severity: Severity::Warning,
                class: Class::Binding,
                keys: names.len() as u64,
                bytes: 0,
                detail: format!(
                    "bindings or results show key prefixes that key-prefixes does not name: {}; \
                     results behind them get no TTL",
                    names.join(", ")
                ),
                advice: "HYGIENE.CONFIG SET key-prefixes with them".into(),
            });
        }
        findings
    }
}

impl Tally {
    /// Unacknowledged messages under names that no setting gives, unless only the
    /// prefix in front of them is missing.
    fn other_names(&self) -> Option<Finding> {
        let stock = Unacked::default();
        let of_prefix = |hash: &[u8]| {
            self.prefixes
                .iter()
                .any(|prefix| stock.behind(prefix).hash == hash)
        };
        let names: Vec<String> = self
            .elsewhere
            .iter()
            .filter(|((_, hash), _)| !of_prefix(hash))
            .map(|((_, hash), index)| {
                let index = index
                    .as_ref()
                    .map_or("of no index found".to_owned(), |index| {
                        format!("of index '{}'", index.escape_ascii())
                    });
                format!("'{}' {index}", hash.escape_ascii())
            })
            .collect();
        (!names.is_empty()).then(|| Finding {
            code: "unacked_under_other_names",
            severity: Severity::Warning,
            class: Class::Unacked,
            keys: names.len() as u64,
            bytes: 0,
            detail: format!(
                "messages that nobody acknowledged lie under names that no setting gives: {}; \
                 the mutex of their restore is not known",
                names.join(", ")
            ),
            advice: "HYGIENE.CONFIG SET unacked-key, unacked-index-key and unacked-mutex-key to \
                     kombu's unacked_key, unacked_index_key and unacked_mutex_key"
                .into(),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Info,
    Warning,
    Critical,
}

struct Finding {
    code: &'static str,
    severity: Severity,
    class: Class,
    keys: u64,
    bytes: u64,
    detail: String,
    advice: Cow<'static, str>,
}

/// Faults that BEATSTATUS sees, as far as they are about keys.
fn of_beat(fault: &beat::Finding) -> Option<Finding> {
    use beat::Code;
    let class = match fault.code {
        Code::WorkersAbsent | Code::QueueNotConsumed | Code::QueueUnread => Class::Queue,
        Code::EntryWithoutDefinition | Code::LockWithoutTtl => Class::Redbeat,
        Code::UnackedWithoutIndex => Class::Unacked,
        _ => return None,
    };
    Some(Finding {
        code: fault.code.word(),
        severity: match fault.code.severity() {
            beat::Severity::Info => Severity::Info,
            beat::Severity::Warning => Severity::Warning,
            beat::Severity::Critical => Severity::Critical,
        },
        class,
        keys: 1,
        bytes: 0,
        detail: fault.detail.clone(),
        advice: fault.advice.clone().into(),
    })
}

impl Finding {
    fn reply(self) -> Reply {
        Reply::map([
            ("code", Reply::word(self.code)),
            (
                "severity",
                Reply::word(match self.severity {
                    Severity::Info => "info",
                    Severity::Warning => "warning",
                    Severity::Critical => "critical",
                }),
            ),
            ("class", Reply::word(self.class.name())),
            ("keys", Reply::count(self.keys)),
            ("bytes", Reply::count(self.bytes)),
            ("detail", Reply::bytes(self.detail)),
            (
                "advice",
                Reply::Bulk(match self.advice {
                    Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                    Cow::Owned(text) => Cow::Owned(text.into_bytes()),
                }),
            ),
        ])
    }
}

fn older(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// Seconds since then; -1 if nothing tells.
fn age_s(now_ms: i64, since_ms: Option<i64>) -> Reply {
    Reply::Int(since_ms.map_or(-1, |ms| now_ms.saturating_sub(ms).max(0) / 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_000_000_000;

    fn key(name: &[u8], class: Class, ttl: Ttl, bytes: u64) -> Seen<'_> {
        Seen {
            db: 0,
            name,
            class,
            kind: KeyType::String,
            ttl,
            elements: 1,
            bytes,
            since_ms: None,
        }
    }

    fn field<'a>(reply: &'a Reply, path: &[&str]) -> &'a Reply {
        path.iter().fold(reply, |reply, name| match reply {
            Reply::Map(fields) => fields
                .iter()
                .find(|(field, _)| &**field == name.as_bytes())
                .map(|(_, value)| value)
                .unwrap(),
            Reply::Array(items) => &items[name.parse::<usize>().unwrap()],
            other => panic!("{name} in {other:?}"),
        })
    }

    #[test]
    fn classes_come_the_heaviest_first() {
        let mut tally = Tally::new(0, 0);
        tally.add(&key(b"a", Class::TaskResult, None, 10));
        tally.add(&key(b"b", Class::Queue, None, 1_000));
        tally.add(&key(b"c", Class::Other, None, 100));
        let Reply::Map(classes) = tally.classes(NOW) else {
            panic!("a map");
        };
        let names: Vec<_> = classes.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, [b"queue".as_slice(), b"other", b"task_result"]);
    }

    #[test]
    fn lives_are_counted_in_buckets_that_end_where_their_names_say() {
        let mut tally = Tally::new(0, 0);
        for ttl in [
            None,
            Some(0),
            Some(59_999),
            Some(60_000),
            Some(HOUR_MS),
            Some(DAY_MS),
            Some(7 * DAY_MS),
            Some(i64::MAX),
        ] {
            tally.add(&key(b"k", Class::TaskResult, ttl, 5));
        }
        let classes = tally.classes(NOW);
        for (bucket, expected) in [
            ("none", 1),
            ("<1m", 2),
            ("<1h", 1),
            ("<1d", 1),
            ("<7d", 1),
            ("more", 2),
        ] {
            assert_eq!(
                field(&classes, &["task_result", "ttl_histogram", bucket]),
                &Reply::Int(expected),
                "{bucket}"
            );
        }
        assert_eq!(field(&classes, &["task_result", "keys"]), &Reply::Int(8));
        assert_eq!(field(&classes, &["task_result", "no_ttl"]), &Reply::Int(1));
        assert_eq!(
            field(&classes, &["task_result", "bytes_no_ttl"]),
            &Reply::Int(5)
        );
    }

    #[test]
    fn changes_name_what_grew_shrank_came_and_went() {
        let tally = |keys: &[(Class, Ttl, u64)]| {
            let mut tally = Tally::new(0, 0);
            for (class, ttl, bytes) in keys {
                tally.add(&key(b"k", *class, *ttl, *bytes));
            }
            tally.sums()
        };
        let before = tally(&[
            (Class::TaskResult, None, 100),
            (Class::TaskResult, None, 100),
            (Class::ReplyQueue, None, 7_000),
            (Class::Lock, None, 5),
        ]);
        let now = tally(&[
            (Class::TaskResult, Some(1), 150),
            (Class::Chord, None, 9),
            (Class::Lock, None, 5),
        ]);
        let changed = changes(&before, &now);
        for (path, expected) in [
            (["task_result", "keys"], -1),
            (["task_result", "no_ttl"], -2),
            (["task_result", "bytes"], -50),
            (["reply_queue", "keys"], -1),
            (["reply_queue", "bytes"], -7_000),
            (["chord", "keys"], 1),
        ] {
            assert_eq!(field(&changed, &path), &Reply::Int(expected), "{path:?}");
        }
        // What did not change is not told.
        assert!(matches!(&changed, Reply::Map(fields) if fields.len() == 3));
    }

    #[test]
    fn the_lists_of_one_queue_are_one_queue() {
        let mut tally = Tally::new(0, 0);
        for (name, length, sent) in [
            (b"celery".as_slice(), 1, Some(NOW - 5_000)),
            (b"celery\x06\x163", 2, None),
            (b"celery\x06\x166", 3, Some(NOW - 9_000)),
            (b"celery\x06\x169", 4, None),
        ] {
            tally.add(&key(name, Class::Queue, None, 10));
            tally.add_queue(0, b"celery", length, 10, sent);
        }
        assert!(!tally.sum_up(2));
        let classes = tally.classes(NOW);
        assert_eq!(field(&classes, &["queue", "length"]), &Reply::Int(10));
        assert_eq!(
            field(&classes, &["queue", "oldest_message_s"]),
            &Reply::Int(9)
        );
        assert_eq!(
            field(&classes, &["queue", "queues", "0", "name"]),
            &Reply::bytes("celery")
        );
        assert_eq!(
            field(&classes, &["queue", "queues", "0", "length"]),
            &Reply::Int(10)
        );
    }

    #[test]
    fn the_longest_queues_are_told_however_many_are_gone_through_at_a_time() {
        // Each length comes three times, in an order that is none.
        let lengths: Vec<u64> = (0..900).map(|n| n * 7 % 300).collect();
        let mut expected: Vec<(Reverse<u64>, Vec<u8>)> = (0..)
            .zip(&lengths)
            .map(|(n, length)| (Reverse(*length), format!("q{n:03}").into_bytes()))
            .collect();
        expected.sort();
        expected.truncate(MOST_QUEUES);
        for most in [1, 7, 900, 901] {
            let mut tally = Tally::new(0, 0);
            for (n, length) in lengths.iter().enumerate() {
                let name = format!("q{n:03}");
                tally.add(&key(name.as_bytes(), Class::Queue, None, 10));
                tally.add_queue(0, name.as_bytes(), *length, 10, Some(NOW - 1_000));
            }
            while tally.sum_up(most) {}
            let classes = tally.classes(NOW);
            let sum = lengths.iter().sum();
            assert_eq!(field(&classes, &["queue", "length"]), &Reply::count(sum));
            let Reply::Array(told) = field(&classes, &["queue", "queues"]) else {
                panic!("{classes:?}");
            };
            let told: Vec<&Reply> = told.iter().map(|queue| field(queue, &["name"])).collect();
            let names: Vec<Reply> = expected
                .iter()
                .map(|(_, name)| Reply::bytes(name.as_slice()))
                .collect();
            assert_eq!(told, names.iter().collect::<Vec<_>>(), "{most} at a time");
        }
    }

    #[test]
    fn only_lists_of_priorities_are_merged_into_a_queue() {
        let mut tally = Tally::new(0, 0);
        for name in [
            "a", "a|3", "a|10", "a|b", "a|03", "a|3|1", "ab", "b|3", "a|",
        ] {
            tally.add(&key(name.as_bytes(), Class::Queue, None, 10));
            tally.add_queue(0, name.as_bytes(), 1, 10, None);
        }
        tally.add_queue(1, b"a|3", 1, 10, None);
        tally.merge_priorities(0, b"a", b"|");
        let left: Vec<(i32, &[u8], u64)> = tally
            .queues
            .iter()
            .map(|((db, name), queue)| (*db, name.as_slice(), queue.length))
            .collect();
        let expected: [(i32, &[u8], u64); 8] = [
            (0, b"a", 3),
            (0, b"ab", 1),
            (0, b"a|", 1),
            (0, b"a|03", 1),
            (0, b"a|3|1", 1),
            (0, b"a|b", 1),
            (0, b"b|3", 1),
            (1, b"a|3", 1),
        ];
        assert_eq!(left, expected);
    }

    #[test]
    fn other_systems_are_told_once_one_of_their_keys_is_certain() {
        let mut tally = Tally::new(0, 0);
        let list = |name, bytes| Seen {
            kind: KeyType::List,
            ..key(name, Class::Other, None, bytes)
        };
        tally.add(&list(b"queue:default", 500));
        tally.add(&list(b"rq:queue:mail", 100));
        tally.add(&key(b"mine", Class::Other, None, 9));
        let systems = |tally: &Tally| field(&tally.classes(NOW), &["other", "systems"]).clone();
        let told =
            |keys, bytes| Reply::map([("keys", Reply::Int(keys)), ("bytes", Reply::Int(bytes))]);
        assert_eq!(systems(&tally), Reply::map([("RQ", told(1, 100))]));
        tally.add(&key(b"stat:processed", Class::Other, None, 50));
        assert_eq!(
            systems(&tally),
            Reply::map([("Sidekiq", told(2, 550)), ("RQ", told(1, 100))])
        );
    }

    #[test]
    fn a_stream_of_events_is_no_event_queue_that_somebody_left() {
        let settings = Settings::default();
        let moment = Moment {
            now_ms: NOW,
            maxmemory: 0,
            policy: b"",
            memory: None,
            beat: &[],
        };
        let mut tally = Tally::new(0, 0);
        let stream = Seen {
            kind: KeyType::Stream,
            ..key(b"/0.celeryev", Class::EventQueue, None, 70)
        };
        tally.add(&stream);
        let count = |tally: &Tally| match tally.findings(&settings, &moment) {
            Reply::Array(found) => found
                .iter()
                .find(|found| field(found, &["class"]) == &Reply::word("event_queue"))
                .map(|found| field(found, &["keys"]).clone()),
            other => panic!("{other:?}"),
        };
        assert_eq!(count(&tally), None);
        tally.add(&key(b"celeryev.a", Class::EventQueue, None, 7));
        assert_eq!(count(&tally), Some(Reply::Int(1)));
    }

    #[test]
    fn only_the_biggest_keys_are_kept_and_they_come_in_order() {
        let mut tally = Tally::new(2, 0);
        for (name, bytes) in [(b"a", 5), (b"b", 50), (b"c", 500), (b"d", 1)] {
            tally.add(&key(name, Class::Other, Some(90_500), bytes));
        }
        let top = tally.top();
        assert_eq!(field(&top, &["0", "name"]), &Reply::bytes("c"));
        assert_eq!(field(&top, &["1", "name"]), &Reply::bytes("b"));
        assert_eq!(field(&top, &["0", "ttl_s"]), &Reply::Int(90));
        assert!(matches!(&top, Reply::Array(items) if items.len() == 2));
    }

    #[test]
    fn findings_come_the_worst_first_and_only_where_there_is_something() {
        let settings = Settings::default();
        let moment = Moment {
            now_ms: NOW,
            maxmemory: 0,
            policy: b"allkeys-lru",
            memory: None,
            beat: &[],
        };
        let codes = |tally: &Tally| -> Vec<Reply> {
            match tally.findings(&settings, &moment) {
                Reply::Array(items) => items
                    .iter()
                    .map(|item| field(item, &["code"]).clone())
                    .collect(),
                other => panic!("{other:?}"),
            }
        };
        let mut tally = Tally::new(0, 0);
        assert_eq!(
            codes(&tally),
            [Reply::word("default_ttl_not_above_visibility_timeout")]
        );
        tally.add(&key(b"r", Class::TaskResult, None, 1));
        tally.add(&key(b"unacked_mutex", Class::Unacked, None, 1));
        assert_eq!(
            codes(&tally),
            [
                Reply::word("unacked_mutex_without_ttl"),
                Reply::word("results_without_ttl"),
                Reply::word("default_ttl_not_above_visibility_timeout"),
            ]
        );
    }

    #[test]
    fn what_is_around_the_broker_is_told_only_where_it_is_so() {
        let settings = Settings::default();
        let codes = |tally: &Tally, maxmemory, policy: &[u8]| -> Vec<String> {
            let moment = Moment {
                now_ms: NOW,
                maxmemory,
                policy,
                memory: None,
                beat: &[],
            };
            let findings = tally.broker_findings(&settings, &moment);
            findings.iter().map(|found| found.code.to_owned()).collect()
        };
        let mut tally = Tally::new(0, 0);
        assert_eq!(codes(&tally, 1, b"volatile-lru"), [""; 0], "nothing there");
        tally.add(&key(b"r", Class::TaskResult, None, 1));
        assert_eq!(codes(&tally, 1, b"volatile-lru"), ["nothing_to_evict"]);
        assert_eq!(codes(&tally, 1, b"noeviction"), [""; 0]);
        assert_eq!(codes(&tally, 1, b"allkeys-lru"), [""; 0]);
        tally.add(&key(b"celery", Class::Queue, None, 1));
        assert_eq!(codes(&tally, 1, b"allkeys-lru"), ["eviction_can_drop_work"]);
        assert_eq!(codes(&tally, 0, b"allkeys-lru"), [""; 0], "no limit");
        tally.add(&key(b"r", Class::TaskResult, Some(9), 1));
        assert_eq!(codes(&tally, 1, b"volatile-lru"), [""; 0], "one may go");
        tally.add(&Seen {
            elements: BIG_RESULT,
            ..key(b"r", Class::TaskResult, Some(9), 1)
        });
        tally.unknown_prefix(b"shop:");
        tally.add(&Seen {
            kind: KeyType::Zset,
            since_ms: Some(NOW - settings.visibility_timeout_ms - 1),
            ..key(b"unacked_index", Class::Unacked, None, 1)
        });
        assert_eq!(
            codes(&tally, 0, b"noeviction"),
            [
                "unacked_older_than_visibility_timeout",
                "big_results",
                "prefix_not_in_settings"
            ]
        );
    }

    #[test]
    fn memory_is_told_as_outside_the_keys_only_where_it_is_most_of_it() {
        const MIB: u64 = 1024 * 1024;
        let mut tally = Tally::new(0, 0);
        tally.add(&key(b"r", Class::TaskResult, None, 100 * MIB));
        for (used, told) in [
            (150 * MIB, None),
            (201 * MIB, None),
            (203 * MIB, Some(102 * MIB)),
            (0, None),
        ] {
            let memory = ServerMemory {
                used,
                startup: MIB,
                clients: 7,
                ..ServerMemory::default()
            };
            let found = tally.outside_keys(memory);
            assert_eq!(found.as_ref().map(|found| found.bytes), told, "{used}");
            if let Some(found) = found {
                assert!(found.detail.contains("clients take 7,"), "{}", found.detail);
            }
        }
        let little = ServerMemory {
            used: LEAST_OUTSIDE - 1,
            ..ServerMemory::default()
        };
        assert!(
            Tally::new(0, 0).outside_keys(little).is_none(),
            "too little"
        );
    }

    #[test]
    fn an_age_that_nothing_tells_is_minus_one_and_none_is_negative() {
        let mut tally = Tally::new(0, 0);
        tally.add(&key(b"a", Class::TaskResult, None, 0));
        assert_eq!(
            field(&tally.classes(NOW), &["task_result", "oldest_s"]),
            &Reply::Int(-1)
        );
        tally.add(&Seen {
            since_ms: Some(NOW + 5_000),
            ..key(b"a", Class::TaskResult, None, 0)
        });
        assert_eq!(
            field(&tally.classes(NOW), &["task_result", "oldest_s"]),
            &Reply::Int(0)
        );
    }
}
