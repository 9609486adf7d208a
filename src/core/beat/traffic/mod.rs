//! What is learnt by watching messages go into queues and out again.
//!
//! Called for each of them, so nothing here allocates for a task, origin and
//! queue already known, and everything has a bound. Nothing is judged: `heard`
//! gives plain values, and `judge` says what follows from them.

mod flow;
mod heard;
mod hearing;
mod recent;
mod rhythm;
mod senders;
mod series;
mod state;

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

pub use heard::{End, Heard, Line, Movement, Tick, Voice};
pub use hearing::Hearing;
pub use rhythm::Rhythm;
pub(super) use rhythm::{bit, minute_of};
pub(super) use series::is_steady;
pub use state::Changes;

use crate::core::celery::envelope::{Envelope, Kind};
use crate::core::celery::message::ORIGIN;
use crate::core::keys::result_id;
use flow::Flow;
use recent::Recent;
use senders::Senders;
use series::{Id, Series};

/// Tasks and queues kept; when there are more, a tenth of them goes: first what
/// is not periodic, then what was silent for the longest.
const MOST_SERIES: usize = 1_000;
const MOST_QUEUES: usize = 1_000;

/// RedBeat locks kept.
const MOST_LOCKS: usize = 16;

/// The longest name that is kept, in bytes. Celery's are far shorter, and
/// django-celery-beat cuts its own at 200.
const LONGEST_NAME: usize = 255;

/// The longest status and exception type that are kept, in bytes.
const LONGEST_WORD: usize = 100;

/// A step back of the clock that is more than two events out of order.
const STEP_BACK_MS: i64 = 2_000;

/// A map by hashes that [`Traffic`]'s keyed hasher made: they need no second hashing.
type ByHash<T> = HashMap<u64, T, BuildHasherDefault<AsItIs>>;

/// Takes a `u64` for its own hash.
#[derive(Clone, Copy, Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What was learnt.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    hasher: RandomState,
    series: ByHash<Series>,
    /// The series of a task that was published last, by the hash of its name.
    named: ByHash<u64>,
    queues: ByHash<(u32, Box<[u8]>, Flow)>,
    /// Of one of them it is known that it has no step 0.
    has_lowest: bool,
    locks: Vec<Lock>,
    /// Task ids that went by, each with its series: the newest 16,384 or so, in 256 KB.
    ids: Recent<u64, 4_096>,
    senders: Senders,
    since_ms: Option<i64>,
    /// The newest moment known.
    newest_ms: Option<i64>,
    /// What nobody watched between moments that are known, in all.
    unwatched_ms: i64,
    changes: state::Pending,
    /// How far telling them has come.
    round: state::Round,
}

/// A RedBeat lock.
#[derive(Clone, Debug)]
struct Lock {
    db: u32,
    key: Box<[u8]>,
    timeout_ms: i64,
    last_ms: i64,
    dirty: bool,
}

impl Traffic {
    /// A message was pushed to a work queue. `queue` is the queue's first list:
    /// key prefix and name, no priority suffix. `None`: not readable (too large,
    /// not kombu's); it counts for the rate only.
    ///
    /// A publish is what nobody published before: no retry, nothing delivered
    /// again, no id already seen unless with another delivery tag, and no child of
    /// another task.
    pub fn pushed(&mut self, at_ms: i64, db: u32, queue: &[u8], message: Option<&Envelope<'_>>) {
        self.watched(at_ms);
        if let Some(flow) = self.flow(db, queue) {
            flow.pushed(at_ms);
        }
        let Some(message) = message.filter(|m| m.kind() == Kind::Task) else {
            return;
        };
        let (Some(task), Some(id)) = (&message.task, &message.id) else {
            return;
        };
        let entry = message.periodic_task_name.as_deref();
        let origin = message.origin.as_deref().unwrap_or_default();
        // HYGIENE.TRIGGER's is a person's question, not the schedule's.
        if origin == ORIGIN {
            return;
        }
        if message.is_again()
            || message.parent_id.is_some()
            || queue.len() > LONGEST_NAME
            || ![task, entry.unwrap_or_default(), origin]
                .into_iter()
                .all(is_sane)
        {
            return;
        }
        let key = self.hasher.hash_one((db, queue, &**task, entry));
        let tag = message.delivery_tag.as_deref();
        let again = tag.map(|tag| self.hasher.hash_one((&**id, tag)));
        let id = self.hasher.hash_one(id.as_bytes());
        if self.ids.get(id).is_some() {
            // A schedule may give all messages of an entry one id; each has a tag of
            // its own, which one that is moved keeps.
            let Some(again) = again.filter(|again| self.ids.get(*again).is_none()) else {
                return;
            };
            self.ids.put(again, key);
        }
        self.ids.put(id, key);
        if !self.series.contains_key(&key) {
            self.make_room();
        }
        let series = self.series.entry(key).or_insert_with(|| {
            let id = Id {
                db,
                queue: queue.into(),
                task: (&**task).into(),
                entry: entry.map(Into::into),
            };
            let mut series = Series::new(id);
            series.task_hash = self.hasher.hash_one(&**task);
            series
        });
        self.named.insert(series.task_hash, key);
        let marked = message.beat || entry.is_some();
        series.spoke(at_ms, origin, marked, self.unwatched_ms, &mut self.senders);
        self.changes.series(series);
    }

    /// A message was popped from it.
    pub fn popped(&mut self, at_ms: i64, db: u32, queue: &[u8]) {
        self.watched(at_ms);
        if let Some(flow) = self.flow(db, queue) {
            flow.popped(at_ms);
        }
    }

    /// Whether a result of this task id is worth reading: its publish was seen.
    #[must_use]
    pub fn awaits(&self, id: &[u8]) -> bool {
        self.ids.get(self.hasher.hash_one(id)).is_some()
    }

    /// Whether any task is known that a result could be of.
    #[must_use]
    pub fn knows_tasks(&self) -> bool {
        !self.named.is_empty()
    }

    /// A stored result in a final state, by the name of its key; `named` where the result carries its task's
    /// name (`result_extended`): the name and when that says it was done, Unix ms. That
    /// counts where the publish was not seen, for old results may be restored.
    pub fn finished(
        &mut self,
        at_ms: i64,
        result: &[u8],
        named: Option<(&str, i64)>,
        status: &str,
        exc_type: Option<&str>,
    ) {
        self.watched(at_ms);
        // Under a name of the operator's own the whole of it.
        let id = result_id(result).unwrap_or(result);
        let published = self.ids.get(self.hasher.hash_one(id));
        let published = published.map(|key| (key, at_ms));
        let named = || {
            let (name, done_ms) = named?;
            let key = self.named.get(&self.hasher.hash_one(name))?;
            Some((*key, done_ms.min(at_ms)))
        };
        let Some((key, at_ms)) = published.or_else(named) else {
            return;
        };
        let Some(series) = self.series.get_mut(&key) else {
            return;
        };
        if series.end.as_ref().is_some_and(|end| end.at_ms > at_ms) {
            return;
        }
        series.last_ms = series.last_ms.max(at_ms);
        series.end = Some(End {
            at_ms,
            status: cut(status),
            exc_type: exc_type.map(cut),
            key: std::str::from_utf8(result)
                .ok()
                .filter(|key| key.len() <= LONGEST_NAME)
                .map(str::to_owned),
        });
        self.changes.series(series);
    }

    /// RedBeat's lock was seen with this TTL, as beat renewed it: once per tick.
    /// The largest TTL seen is `redbeat_lock_timeout`.
    pub fn redbeat_ticked(&mut self, at_ms: i64, db: u32, lock_key: &[u8], ttl_ms: i64) {
        self.watched(at_ms);
        if ttl_ms <= 0 || lock_key.len() > LONGEST_NAME {
            return;
        }
        let known = self
            .locks
            .iter_mut()
            .find(|l| l.db == db && *l.key == *lock_key);
        let lock = match known {
            Some(lock) => lock,
            None => {
                if self.locks.len() >= MOST_LOCKS {
                    let oldest = (0..).zip(&self.locks).min_by_key(|(_, lock)| lock.last_ms);
                    if let Some((oldest, _)) = oldest {
                        let lock = self.locks.swap_remove(oldest);
                        self.changes.gone(state::lock_field(&lock));
                    }
                }
                self.locks.push(Lock {
                    db,
                    key: lock_key.into(),
                    timeout_ms: 0,
                    last_ms: at_ms,
                    dirty: true,
                });
                let Some(lock) = self.locks.last_mut() else {
                    return;
                };
                lock
            }
        };
        lock.timeout_ms = lock.timeout_ms.max(ttl_ms);
        lock.last_ms = at_ms;
        lock.dirty = true;
        self.changes.any = true;
    }

    /// Watching begins, or begins again after a break: the time in between is
    /// neither silence nor health.
    pub fn resumed(&mut self, at_ms: i64) {
        self.move_anew(at_ms);
        self.unheard(at_ms);
    }

    /// What moved in queues counts from now on.
    fn move_anew(&mut self, at_ms: i64) {
        for (.., flow) in self.queues.values_mut() {
            *flow = flow.at_rest();
            flow.since_ms = Some(at_ms);
        }
    }

    /// Up to this moment nobody could publish: as if nobody had watched.
    pub fn unheard(&mut self, at_ms: i64) {
        let away = self
            .newest_ms
            .map_or(0, |newest| at_ms.saturating_sub(newest));
        self.unwatched_ms = self.unwatched_ms.saturating_add(away.max(0));
        self.since_ms = Some(at_ms);
        self.watched(at_ms);
    }

    /// From now on pops of this queue are told, too: it is known to be one before
    /// anything was pushed to it.
    pub fn adopted(&mut self, at_ms: i64, db: u32, queue: &[u8]) {
        self.watched(at_ms);
        if let Some(flow) = self.flow(db, queue) {
            flow.since_ms.get_or_insert(at_ms);
        }
    }

    /// A message of priority 0 was published to the list of a queue behind this step.
    pub fn lowest_lies(&mut self, db: u32, queue: &[u8], step: u8) {
        let lowest = Some(step).filter(|step| *step > 0);
        self.has_lowest |= lowest.is_some();
        if self.has_lowest
            && let Some(flow) = self.flow(db, queue)
        {
            flow.lowest = lowest;
        }
    }

    /// The step behind which messages of priority 0 lie, if it is another than 0.
    #[must_use]
    pub fn lowest(&self, db: u32, queue: &[u8]) -> Option<u8> {
        if !self.has_lowest {
            return None;
        }
        let key = self.hasher.hash_one((db, queue));
        self.queues.get(&key)?.2.lowest
    }

    /// What was taken for a queue is a list of another: what was heard of it is that
    /// one's, unless as much was heard there already.
    pub fn renamed(&mut self, db: u32, from: &[u8], to: &[u8]) {
        if let Some((.., flow)) = self.queues.remove(&self.hasher.hash_one((db, from))) {
            let key = self.hasher.hash_one((db, to));
            self.queues.entry(key).or_insert((db, to.into(), flow));
        }
        let of_queue = |series: &Series| series.id.db == db && *series.id.queue == *from;
        let moved = self.series.extract_if(|_, series| of_queue(series));
        let moved: Vec<Series> = moved.map(|(_, series)| series).collect();
        for mut series in moved {
            if series.stored.there {
                self.changes.gone(state::series_field(&series.id));
            }
            series.id.queue = to.into();
            series.stored = series::Stored {
                dirty: true,
                there: false,
                at_ms: i64::MIN,
            };
            let id = &series.id;
            let entry = id.entry.as_deref();
            let key = self.hasher.hash_one((id.db, &*id.queue, &*id.task, entry));
            self.named.insert(series.task_hash, key);
            self.series.entry(key).or_insert(series);
            self.changes.any = true;
        }
    }

    /// The queues that messages were heard in.
    pub fn heard_queues(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let all = self.series.values();
        all.map(|series| (series.id.db, &*series.id.queue))
    }

    /// Keeps the time of the newest event, and sees a clock that steps back: what
    /// came before goes back with it, for it came just before.
    fn watched(&mut self, at_ms: i64) {
        self.since_ms.get_or_insert(at_ms);
        let newest = *self.newest_ms.get_or_insert(at_ms);
        if at_ms >= newest.saturating_sub(STEP_BACK_MS) {
            self.newest_ms = Some(newest.max(at_ms));
            return;
        }
        let by_ms = newest.saturating_sub(at_ms);
        self.newest_ms = Some(at_ms);
        self.since_ms = self.since_ms.map(|since| since.saturating_sub(by_ms));
        self.move_anew(at_ms);
        for series in self.series.values_mut() {
            series.last_ms = series.last_ms.saturating_sub(by_ms);
            series.stored.at_ms = series.stored.at_ms.saturating_sub(by_ms);
            for voice in series.voices.iter_mut().chain([&mut series.whole]) {
                voice.step_back(by_ms);
            }
            if let Some(end) = &mut series.end {
                end.at_ms = end.at_ms.saturating_sub(by_ms);
            }
        }
        for lock in &mut self.locks {
            lock.last_ms = lock.last_ms.saturating_sub(by_ms);
        }
        self.senders.step_back(by_ms);
        self.mark_all_changed();
    }

    fn flow(&mut self, db: u32, queue: &[u8]) -> Option<&mut Flow> {
        if queue.len() > LONGEST_NAME {
            return None;
        }
        let key = self.hasher.hash_one((db, queue));
        if self.queues.len() >= MOST_QUEUES && !self.queues.contains_key(&key) {
            let mut ages: Vec<i64> = self
                .queues
                .values()
                .map(|(.., flow)| flow.last_ms())
                .collect();
            let bound = tenth(&mut ages);
            let mut most = MOST_QUEUES / 10;
            self.queues.retain(|_, (.., flow)| {
                let stays = most == 0 || Some(flow.last_ms()) > bound;
                most -= usize::from(!stays);
                stays
            });
        }
        let fresh = || (db, queue.into(), Flow::default());
        Some(&mut self.queues.entry(key).or_insert_with(fresh).2)
    }

    /// Takes in what was stored.
    fn keep(&mut self, mut series: Series) {
        let id = &series.id;
        let key = self
            .hasher
            .hash_one((id.db, &*id.queue, &*id.task, id.entry.as_deref()));
        series.task_hash = self.hasher.hash_one(&*id.task);
        series.introduce(&mut self.senders);
        self.named.insert(series.task_hash, key);
        self.series.insert(key, series);
    }

    /// Drops a tenth of the series where there is no room for one more.
    fn make_room(&mut self) {
        if self.series.len() < MOST_SERIES {
            return;
        }
        let rank = |series: &Series| (series.periodic, series.last_ms);
        let mut ranks: Vec<(bool, i64)> = self.series.values().map(rank).collect();
        let bound = tenth(&mut ranks);
        let mut most = MOST_SERIES / 10;
        let changes = &mut self.changes;
        self.series.retain(|_, series| {
            let stays = most == 0 || Some(rank(series)) > bound;
            if !stays {
                most -= 1;
                if series.stored.there {
                    changes.gone(state::series_field(&series.id));
                }
            }
            stays
        });
        let kept = &self.series;
        self.named.retain(|_, key| kept.contains_key(key));
    }
}

/// The value below and at which the lowest tenth lies.
fn tenth<T: Ord + Copy>(values: &mut [T]) -> Option<T> {
    let at = values.len().checked_sub(1)? / 10;
    Some(*values.select_nth_unstable(at).1)
}

fn told(voice: &series::Voice, senders: &Senders) -> Voice {
    let known_ms = senders.first_ms(voice.sender).unwrap_or(voice.first_ms);
    Voice {
        origin: voice.origin.to_string(),
        known_ms: known_ms.min(voice.first_ms),
        first_ms: voice.first_ms,
        last_ms: voice.last_ms,
        count: voice.count,
        marked: voice.marked,
        times_ms: voice.times.iter().map(|(at, _)| at).collect(),
        rhythm: voice.rhythm(),
        minutes: voice.times.minutes(),
    }
}

fn line(series: &Series, senders: &Senders) -> Line {
    let told = |voice| told(voice, senders);
    Line {
        task: series.id.task.to_string(),
        entry: series.id.entry.as_deref().map(str::to_owned),
        db: series.id.db,
        queue: series.id.queue.to_vec(),
        voices: series.voices.iter().map(told).collect(),
        whole: told(&series.whole),
        crowd: series.crowd.count_ones(),
        left: series.left,
        end: series.end.clone(),
    }
}

/// Whether a name is one that Celery could have written, or a person.
fn is_sane(name: &str) -> bool {
    let plain = |byte: &u8| matches!(byte, b' '..=b'~');
    name.len() <= LONGEST_NAME
        && (name.as_bytes().iter().all(plain) || !name.chars().any(char::is_control))
}

fn cut(word: &str) -> String {
    word.chars()
        .filter(|c| !c.is_control())
        .take(LONGEST_WORD)
        .collect()
}

#[cfg(test)]
mod tests;
