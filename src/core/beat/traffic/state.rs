//! What was learnt, as fields of one hash, so that a restart forgets nothing.
//!
//! `task:<task> queue:<db>:<queue>[ entry:<entry>]` and `redbeat:<db>:<lock>`,
//! each a small JSON object that a person can read.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::super::known::SLACK_MS;
use super::heard::End;
use super::senders::Senders;
use super::series::{Id, MOST_VOICES, Series, Voice};
use super::{ByHash, Lock, MOST_LOCKS, MOST_SERIES, Traffic, cut, is_sane};

/// The form of the values. A field of another form is not read.
const FORM: i64 = 1;

/// Fields written at a time, at most.
const MOST_CHANGES: usize = 100;

/// What is not periodic changes with each message; it is written this rarely.
const SELDOM_MS: i64 = 600_000;

/// Publishes after which a task without a rhythm is taken for one that has none.
const MANY: u64 = 16;

/// Origins written of one task.
const MOST_WRITTEN: usize = 4;

/// The longest value that is read, in bytes; ours are below 4 KB.
const LONGEST_VALUE: usize = 16 * 1024;

/// What changed since it was written last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Fields to set.
    pub set: Vec<(Vec<u8>, Vec<u8>)>,
    /// Fields to delete.
    pub del: Vec<Vec<u8>>,
}

impl Changes {
    /// Whether there is nothing to write.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.set.is_empty() && self.del.is_empty()
    }
}

/// What is still to be written.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    /// Something is.
    pub any: bool,
    gone: Vec<Vec<u8>>,
}

impl Pending {
    /// A series changed.
    pub fn series(&mut self, series: &mut Series) {
        series.stored.dirty = true;
        self.any |= is_due(series);
    }

    /// A field is of no use any more. There are never more of these than there
    /// were fields.
    pub fn gone(&mut self, field: Vec<u8>) {
        self.gone.push(field);
        self.any = true;
    }
}

fn is_due(series: &Series) -> bool {
    let stored = series.stored;
    let count = || {
        series
            .voices
            .iter()
            .map(|v| v.count)
            .fold(0, u64::saturating_add)
    };
    stored.dirty
        && (series.periodic
            || series.last_ms.saturating_sub(stored.at_ms) >= SELDOM_MS
            || count() < MANY)
}

/// How far a round of telling what changed has come. It takes as many steps as there
/// are series, three times, so it is gone through in pieces; what it holds are the
/// series still to come, by their hashes.
#[derive(Clone, Debug, Default)]
pub(super) enum Round {
    /// None is under way.
    #[default]
    Rests,
    /// Who speaks there is noted, and when that beat was heard last.
    Hears {
        left: Vec<u64>,
        spoke: HashMap<Box<str>, i64>,
    },
    /// What its beat goes on without is marked.
    Marks {
        left: Vec<u64>,
        spoke: HashMap<Box<str>, i64>,
    },
    /// What changed is told.
    Tells { left: Vec<u64> },
}

impl Traffic {
    /// What changed, as fields of the hash in `state-key`: as much as there is before
    /// `enough`, which is asked after each step, and at most 100 fields. Those to
    /// delete come before any to set. What is left comes with the next call.
    pub fn take_changes(&mut self, mut enough: impl FnMut() -> bool) -> Changes {
        let mut changes = Changes::default();
        let gone = &mut self.changes.gone;
        changes.del = gone.drain(..gone.len().min(MOST_CHANGES)).collect();
        // A task that was dropped may be there again: what is told now must be newer
        // than what is deleted.
        if !gone.is_empty() {
            return changes;
        }
        for lock in self.locks.iter_mut().filter(|lock| lock.dirty) {
            lock.dirty = false;
            changes.set.push((lock_field(lock), lock_value(lock)));
        }
        if matches!(self.round, Round::Rests) {
            // What changes from now on is for the next round.
            self.changes.any = false;
        }
        while self.step(&mut changes) {
            if changes.set.len() >= MOST_CHANGES || enough() {
                break;
            }
        }
        changes
    }

    /// The same without telling: marks what its beat goes on without, where nobody
    /// wants the changes. Answers whether that was all.
    pub fn mark_left(&mut self, mut enough: impl FnMut() -> bool) -> bool {
        self.changes.gone.clear();
        if matches!(self.round, Round::Rests) {
            self.changes.any = false;
        }
        let mut changes = Changes::default();
        while self.step(&mut changes) {
            if matches!(self.round, Round::Tells { .. }) {
                self.round = Round::Rests;
                return true;
            }
            if enough() {
                return false;
            }
        }
        true
    }

    /// One step of a round; `false` if that was the last.
    fn step(&mut self, changes: &mut Changes) -> bool {
        let all = |series: &ByHash<Series>| series.keys().copied().collect();
        self.round = match std::mem::take(&mut self.round) {
            Round::Rests => Round::Hears {
                left: all(&self.series),
                spoke: HashMap::new(),
            },
            Round::Hears {
                mut left,
                mut spoke,
            } => match left.pop() {
                Some(key) => {
                    self.note_spoken(key, &mut spoke);
                    Round::Hears { left, spoke }
                }
                None => Round::Marks {
                    left: all(&self.series),
                    spoke,
                },
            },
            Round::Marks { mut left, spoke } => match left.pop() {
                Some(key) => {
                    self.mark(key, &spoke);
                    Round::Marks { left, spoke }
                }
                None => Round::Tells {
                    left: all(&self.series),
                },
            },
            Round::Tells { mut left } => match left.pop() {
                Some(key) => {
                    changes.set.extend(self.tell(key));
                    Round::Tells { left }
                }
                None => return false,
            },
        };
        true
    }

    /// Notes when the beats of a line were heard last.
    fn note_spoken(&self, key: u64, spoke: &mut HashMap<Box<str>, i64>) {
        let Some(series) = self.series.get(&key).filter(|series| series.periodic) else {
            return;
        };
        let last_ms = series.whole.last_ms;
        let named = series.voices.iter().filter(|v| !v.origin.is_empty());
        for voice in named.filter(|v| v.beats()) {
            let newest = spoke.entry(voice.origin.clone()).or_insert(last_ms);
            *newest = last_ms.max(*newest);
        }
    }

    /// Marks a line that its beat goes on without: an origin of it was heard in
    /// another line long after this one should have come again.
    fn mark(&mut self, key: u64, spoke: &HashMap<Box<str>, i64>) {
        let since_ms = self.since_ms.unwrap_or(i64::MAX);
        let Some(series) = self.series.get_mut(&key) else {
            return;
        };
        if !series.periodic || series.left {
            return;
        }
        let voices = series.voices.iter().filter(|v| v.beats());
        let newest = voices.filter_map(|v| spoke.get(&v.origin)).max();
        let heard_ms = series.whole.last_ms.max(since_ms);
        let quiet = newest.map_or(0, |newest| newest.saturating_sub(heard_ms));
        let patience = |pause: i64| pause.saturating_mul(2).saturating_add(SLACK_MS);
        if series
            .pause_ms()
            .is_some_and(|pause| quiet > patience(pause))
        {
            series.left = true;
            series.stored.dirty = true;
        }
    }

    /// The field of a line that has changed.
    fn tell(&mut self, key: u64) -> Option<(Vec<u8>, Vec<u8>)> {
        let series = self.series.get_mut(&key).filter(|series| is_due(series))?;
        series.look_again();
        series.stored.dirty = false;
        series.stored.at_ms = series.last_ms;
        if std::str::from_utf8(&series.id.queue).is_err() {
            return None;
        }
        series.stored.there = true;
        let series = self.series.get(&key)?;
        let lowest = self.lowest(series.id.db, &series.id.queue);
        let value = series_value(series, &self.senders, lowest);
        Some((series_field(&series.id), value))
    }

    /// Whether there is something to write, or may be.
    #[must_use]
    pub const fn has_changes(&self) -> bool {
        self.changes.any || self.is_telling()
    }

    /// Whether a round of telling is under way, or fields are still to be deleted.
    #[must_use]
    pub const fn is_telling(&self) -> bool {
        !matches!(self.round, Round::Rests) || !self.changes.gone.is_empty()
    }

    /// Everything is to be written again: the hash was lost.
    pub fn mark_all_changed(&mut self) {
        for series in self.series.values_mut() {
            series.stored.dirty = true;
            series.stored.at_ms = i64::MIN;
        }
        for lock in &mut self.locks {
            lock.dirty = true;
        }
        // Of a round under way some is told, and its times may be of another clock.
        self.round = Round::Rests;
        self.changes.any = !self.series.is_empty() || !self.locks.is_empty();
    }

    /// Reads the hash back; foreign, old or broken fields are passed over.
    /// `now_ms`: the start of this watch.
    pub fn read<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>, now_ms: i64) -> Self {
        let mut traffic = Self::default();
        for (field, value) in fields {
            traffic.take_in(field, value);
        }
        traffic.resumed(now_ms);
        traffic
    }

    /// Reads one field back, before the watch begins; one that comes twice is one.
    pub fn take_in(&mut self, field: &[u8], value: &[u8]) {
        if let Some(lock) = read_lock(field, value) {
            self.locks
                .retain(|known| (known.db, &known.key) != (lock.db, &lock.key));
            if self.locks.len() < MOST_LOCKS {
                self.newest_ms = self.newest_ms.max(Some(lock.last_ms));
                self.locks.push(lock);
            }
        } else if let Some((series, lowest)) = read_series(field, value)
            && self.series.len() < MOST_SERIES
        {
            self.newest_ms = self.newest_ms.max(Some(series.last_ms));
            if let Some(lowest) = lowest {
                self.lowest_lies(series.id.db, &series.id.queue, lowest);
            }
            self.keep(series);
        }
    }
}

pub(super) fn series_field(id: &Id) -> Vec<u8> {
    let mut field = format!("task:{} queue:{}:", id.task, id.db).into_bytes();
    field.extend_from_slice(&id.queue);
    if let Some(entry) = &id.entry {
        field.extend_from_slice(b" entry:");
        field.extend_from_slice(entry.as_bytes());
    }
    field
}

fn series_value(series: &Series, senders: &Senders, lowest: Option<u8>) -> Vec<u8> {
    let mut voices: Vec<&Voice> = series.voices.iter().collect();
    voices.sort_by_key(|voice| {
        let beats = voice.beats() || senders.is_beat(voice.sender);
        std::cmp::Reverse((beats, voice.last_ms))
    });
    let origins: Vec<Value> = voices.into_iter().take(MOST_WRITTEN).map(origin).collect();
    let mut value = json!({
        "v": FORM,
        "task": &*series.id.task,
        "db": series.id.db,
        "queue": String::from_utf8_lossy(&series.id.queue),
        "all": origin(&series.whole),
        "origins": origins,
    });
    if series.crowd != 0 {
        put(&mut value, "crowd", json!(series.crowd));
    }
    if series.left {
        put(&mut value, "left", json!(true));
    }
    if let Some(lowest) = lowest {
        put(&mut value, "lowest_step", json!(lowest));
    }
    if let Some(entry) = &series.id.entry {
        put(&mut value, "entry", json!(&**entry));
    }
    if let Some(end) = &series.end {
        let mut told = json!({ "at_ms": end.at_ms, "status": end.status });
        if let Some(exc_type) = &end.exc_type {
            put(&mut told, "exc_type", json!(exc_type));
        }
        if let Some(key) = &end.key {
            put(&mut told, "key", json!(key));
        }
        put(&mut value, "end", told);
    }
    value.to_string().into_bytes()
}

fn origin(voice: &Voice) -> Value {
    let mut times = Vec::new();
    for (at, cut) in voice.times.iter() {
        if cut && !times.is_empty() {
            times.push(Value::Null);
        }
        times.push(json!(at));
    }
    let mut told = json!({
        "origin": &*voice.origin,
        "first_ms": voice.first_ms,
        "last_ms": voice.last_ms,
        "count": voice.count,
        "times_ms": times,
    });
    if voice.marked {
        put(&mut told, "beat", json!(true));
    }
    if let Some(rhythm) = voice.rhythm() {
        // For the reader; what is read back is learnt from the times again.
        put(&mut told, "interval_ms", json!(rhythm.interval_ms));
    }
    if voice.times.minutes() != 0 {
        put(&mut told, "minutes", json!(voice.times.minutes()));
    }
    let (longest, at) = voice.times.longest();
    if longest > 0 {
        put(&mut told, "longest_gap_ms", json!(longest));
        put(&mut told, "longest_gap_at_ms", json!(at));
    }
    told
}

fn put(object: &mut Value, name: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(name.to_owned(), value);
    }
}

pub(super) fn lock_field(lock: &Lock) -> Vec<u8> {
    let mut field = format!("redbeat:{}:", lock.db).into_bytes();
    field.extend_from_slice(&lock.key);
    field
}

fn lock_value(lock: &Lock) -> Vec<u8> {
    let value = json!({ "v": FORM, "lock_timeout_ms": lock.timeout_ms, "last_ms": lock.last_ms });
    value.to_string().into_bytes()
}

fn read_lock(field: &[u8], value: &[u8]) -> Option<Lock> {
    let rest = field.strip_prefix(b"redbeat:")?;
    let colon = memchr::memchr(b':', rest)?;
    let value = object(value)?;
    Some(Lock {
        db: std::str::from_utf8(rest.get(..colon)?).ok()?.parse().ok()?,
        key: rest.get(colon + 1..)?.into(),
        timeout_ms: moment(value.get("lock_timeout_ms"))?,
        last_ms: moment(value.get("last_ms"))?,
        dirty: false,
    })
}

/// A line, and the step behind which its queue's messages of priority 0 lie.
fn read_series(field: &[u8], value: &[u8]) -> Option<(Series, Option<u8>)> {
    if !field.starts_with(b"task:") {
        return None;
    }
    let value = object(value)?;
    let id = Id {
        db: value.get("db")?.as_u64()?.try_into().ok()?,
        queue: value.get("queue")?.as_str()?.as_bytes().into(),
        task: name(value.get("task"))?.into(),
        entry: match value.get("entry") {
            Some(entry) => Some(name(Some(entry))?.into()),
            None => None,
        },
    };
    if series_field(&id) != field {
        return None;
    }
    let mut series = Series::new(id);
    let origins = value.get("origins")?.as_array()?;
    series.voices = origins
        .iter()
        .take(MOST_VOICES)
        .filter_map(read_voice)
        .collect();
    series.whole = value.get("all").and_then(read_voice)?;
    let latest = (0..).zip(&series.voices).max_by_key(|(_, v)| v.last_ms);
    series.latest = latest.map(|(at, _)| at);
    let crowd = value.get("crowd").and_then(Value::as_u64);
    series.crowd = crowd.and_then(|bits| bits.try_into().ok()).unwrap_or(0);
    series.left = value.get("left").and_then(Value::as_bool) == Some(true);
    series.end = value.get("end").and_then(read_end);
    let spoken = series.voices.iter().map(|voice| voice.last_ms);
    series.last_ms = spoken
        .chain(series.end.as_ref().map(|end| end.at_ms))
        .max()?;
    series.stored.dirty = false;
    series.stored.there = true;
    series.stored.at_ms = series.last_ms;
    series.look_again();
    let lowest = value.get("lowest_step").and_then(Value::as_u64);
    Some((series, lowest.and_then(|step| step.try_into().ok())))
}

fn read_voice(value: &Value) -> Option<Voice> {
    let mut voice = Voice::new(name(value.get("origin"))?);
    voice.first_ms = moment(value.get("first_ms"))?;
    voice.last_ms = moment(value.get("last_ms"))?.max(voice.first_ms);
    voice.count = value.get("count")?.as_u64()?;
    voice.marked = value.get("beat").and_then(Value::as_bool) == Some(true);
    let (mut cut, mut before) = (false, 0);
    for time in value.get("times_ms")?.as_array()? {
        if time.is_null() {
            cut = true;
            continue;
        }
        let at = moment(Some(time)).filter(|at| (before..=voice.last_ms).contains(at))?;
        voice.times.push(at, cut);
        (cut, before) = (false, at);
    }
    if let Some(minutes) = value.get("minutes").and_then(Value::as_u64) {
        voice.times.restore_minutes(minutes);
    }
    let longest = moment(value.get("longest_gap_ms"));
    if let Some((gap, at)) = longest.zip(moment(value.get("longest_gap_at_ms"))) {
        voice.times.restore_longest(gap, at.min(voice.last_ms));
    }
    Some(voice)
}

fn read_end(value: &Value) -> Option<End> {
    Some(End {
        at_ms: moment(value.get("at_ms"))?,
        status: cut(value.get("status")?.as_str()?),
        exc_type: value.get("exc_type").and_then(Value::as_str).map(cut),
        key: name(value.get("key")).map(str::to_owned),
    })
}

fn object(value: &[u8]) -> Option<Map<String, Value>> {
    if value.len() > LONGEST_VALUE {
        return None;
    }
    let object: Map<String, Value> = serde_json::from_slice(value).ok()?;
    (object.get("v")?.as_i64()? == FORM).then_some(object)
}

fn name(value: Option<&Value>) -> Option<&str> {
    value?.as_str().filter(|name| is_sane(name))
}

/// A time or a span in ms, as far as it makes sense.
fn moment(value: Option<&Value>) -> Option<i64> {
    value?.as_i64().filter(|ms| (0..=1 << 48).contains(ms))
}
