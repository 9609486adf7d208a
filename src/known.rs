//! Names worth looking at: what scans and sweeps have come across, and bindings as
//! they are written. BEATSTATUS never walks the keyspace; it looks here.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::celery::binding::{SEP, split_priority};
use crate::core::celery::result::StoredResult;
use crate::core::keys::{Class, KeyType, LONGEST_NAME, result_id};
use crate::server::events::Written;
use crate::server::{Ctx, MainCell};

/// The most names of one kind; more are not learnt, nor is one above [`LONGEST_NAME`].
const MOST_NAMES: usize = 10_000;

/// The most brokers whose separator is kept.
const MOST_SEPARATORS: usize = 500;

/// The most characters of an exception's name that are kept.
const LONGEST_EXCEPTION: usize = 256;

/// The most task names whose last result is kept.
const MOST_TASKS: usize = 1_000;

/// A key: its database and name.
pub type Place = (i32, Vec<u8>);

/// The last result of a task that a sweep has read, where results carry the
/// task's name (`result_extended`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastResult {
    /// When it finished, Unix ms.
    pub finished_ms: i64,
    /// SUCCESS, FAILURE or REVOKED.
    pub status: String,
    /// The exception's type, if it failed.
    pub exc_type: Option<String>,
    /// The name of its key: who may not read it is told nothing of it.
    pub key: Vec<u8>,
}

/// What is known.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// kombu's routing tables, `_kombu.binding.<exchange>`.
    pub bindings: BTreeSet<Place>,
    /// Lists of messages, priorities and all.
    pub queues: BTreeSet<Place>,
    /// Hashes of unacknowledged messages.
    pub unacked: BTreeSet<Place>,
    /// The indexes of those hashes whose index was found by what lies in it.
    pub indexes: BTreeMap<Place, Vec<u8>>,
    /// RedBeat's schedules.
    pub schedules: BTreeSet<Place>,
    /// kombu's separator (transport option `sep`) of brokers whose routing tables show
    /// another than the default, by database and key prefix.
    pub separators: BTreeMap<Place, Vec<u8>>,
    /// Of the queues those that nobody asked for yet.
    fresh: Vec<Place>,
    /// The last result per task name, and by what stands in front of the task's id in
    /// the result's name: tenants may call their tasks alike.
    pub results: BTreeMap<(Vec<u8>, Vec<u8>), LastResult>,
}

impl Known {
    fn all_places(&mut self) -> [&mut BTreeSet<Place>; 4] {
        [
            &mut self.bindings,
            &mut self.queues,
            &mut self.unacked,
            &mut self.schedules,
        ]
    }
}

static KNOWN: MainCell<Option<Known>> = MainCell::new(None);

/// A copy of what is known.
#[must_use]
pub fn now() -> Known {
    KNOWN.get().clone().unwrap_or_default()
}

/// Runs `look` on what is known without copying it. It may call nothing of the
/// server that raises events.
pub fn with<R>(look: impl FnOnce(&Known) -> R) -> Option<R> {
    KNOWN.get().as_ref().map(look)
}

/// Forgets everything.
pub fn forget() {
    *KNOWN.get_mut() = None;
}

/// Answers whether it is new.
fn learn(places: &mut BTreeSet<Place>, db: i32, name: &[u8]) -> bool {
    places.len() < MOST_NAMES && name.len() <= LONGEST_NAME && places.insert((db, name.to_vec()))
}

/// Queues that were learnt since the last call, or all that are known.
#[must_use]
pub fn fresh_queues(all: bool) -> Vec<Place> {
    let mut known = KNOWN.get_mut();
    let Some(known) = known.as_mut() else {
        return Vec::new();
    };
    let fresh = std::mem::take(&mut known.fresh);
    if all {
        known.queues.iter().cloned().collect()
    } else {
        fresh
    }
}

/// Notes a key that a pass over the keyspace has come across.
pub fn seen(db: i32, name: &[u8], class: Class, kind: KeyType) {
    if !matches!(
        class,
        Class::Binding | Class::Queue | Class::Unacked | Class::Redbeat
    ) {
        return;
    }
    let mut known = KNOWN.get_mut();
    let known = known.get_or_insert_default();
    match (class, kind) {
        (Class::Binding, _) if is_binding(name) => {
            learn(&mut known.bindings, db, name);
        }
        (Class::Queue, KeyType::List) => {
            let new = learn(&mut known.queues, db, name);
            let room = known.fresh.len() < MOST_NAMES;
            known
                .fresh
                .extend((new && room).then(|| (db, name.to_vec())));
        }
        (Class::Unacked, KeyType::Hash) => {
            learn(&mut known.unacked, db, name);
        }
        (Class::Redbeat, KeyType::Zset) if name.ends_with(b":schedule") => {
            learn(&mut known.schedules, db, name);
        }
        _ => {}
    }
}

/// Hashes of unacknowledged messages in a database, some of them if there are many.
#[must_use]
pub fn unacked(db: i32) -> Vec<Vec<u8>> {
    const SOME: usize = 16;
    with(|known| {
        let all = known.unacked.range((db, Vec::new())..);
        let here = all.take_while(|(at, _)| *at == db).take(SOME);
        here.map(|(_, name)| name.clone()).collect()
    })
    .unwrap_or_default()
}

/// The index that was found to be that of a hash of unacknowledged messages.
#[must_use]
pub fn index_of(db: i32, hash: &[u8]) -> Option<Vec<u8>> {
    with(|known| known.indexes.get(&(db, hash.to_vec())).cloned()).flatten()
}

/// Notes the index of a hash of unacknowledged messages.
pub fn index_found(db: i32, hash: &[u8], index: &[u8]) {
    let mut known = KNOWN.get_mut();
    let known = known.get_or_insert_default();
    learn(&mut known.unacked, db, hash);
    let longest = hash.len().max(index.len());
    if known.indexes.len() < MOST_NAMES && longest <= LONGEST_NAME {
        known.indexes.insert((db, hash.to_vec()), index.to_vec());
    }
}

/// Notes the separator that a broker's tables show. Answers whether that is news.
pub fn separator_found(db: i32, prefix: &[u8], sep: &[u8]) -> bool {
    let mut known = KNOWN.get_mut();
    let known = known.get_or_insert_default();
    let place = (db, prefix.to_vec());
    let room = known.separators.len() < MOST_SEPARATORS;
    match known.separators.get_mut(&place) {
        Some(old) if old == sep => false,
        Some(old) => {
            *old = sep.to_vec();
            true
        }
        None if room && sep != SEP => {
            known.separators.insert(place, sep.to_vec());
            true
        }
        None => false,
    }
}

/// The queue's first list that a list belongs to, as a length of its name: kombu puts
/// separator and priority behind that.
#[must_use]
pub fn first_list(db: i32, name: &[u8]) -> usize {
    let (first, priority) = split_priority(name, SEP);
    if priority.is_some() {
        return first.len();
    }
    let longest = with(|known| {
        let of_db = known.separators.range((db, Vec::new())..);
        let of_db = of_db.take_while(|((at, _), _)| *at == db);
        let split = of_db.filter_map(|((_, prefix), sep)| {
            let queue = name.strip_prefix(prefix.as_slice())?;
            let (queue, priority) = split_priority(queue, sep);
            priority.map(|_| prefix.len() + queue.len())
        });
        split.last()
    });
    longest.flatten().unwrap_or(name.len())
}

/// Whether a list of that name was once seen to be a queue.
#[must_use]
pub fn queue(db: i32, name: &[u8]) -> bool {
    has(|known| &known.queues, db, name)
}

/// Whether this is the name of a RedBeat schedule that was seen.
#[must_use]
pub fn schedule(db: i32, name: &[u8]) -> bool {
    has(|known| &known.schedules, db, name)
}

fn has(places: fn(&Known) -> &BTreeSet<Place>, db: i32, name: &[u8]) -> bool {
    with(|known| places(known).contains(&(db, name.to_vec()))) == Some(true)
}

/// Notes a binding at the moment it is written, so that a queue declared after
/// the last sweep is known too.
pub fn binding_written(ctx: Ctx<'_>, what: &Written<'_>) {
    let name = what.key();
    if is_binding(name) {
        seen(ctx.db(), name, Class::Binding, KeyType::Set);
    }
}

fn is_binding(name: &[u8]) -> bool {
    name.len() <= LONGEST_NAME && memchr::memmem::find(name, b"_kombu.binding.").is_some()
}

/// Notes a result that a sweep has read under that name, if it says which task it was of.
pub fn result(key: &[u8], result: &StoredResult<'_>) {
    let (Some(name), Some(finished_ms), Some(status)) =
        (&result.name, result.finished_at_ms(), &result.status)
    else {
        return;
    };
    if name.len() > LONGEST_NAME || key.len() > LONGEST_NAME {
        return;
    }
    let id = result_id(key).unwrap_or(key);
    let before = key.strip_suffix(id).unwrap_or_default();
    let place = (name.as_bytes().to_vec(), before.to_vec());
    let mut known = KNOWN.get_mut();
    let known = known.get_or_insert_default();
    match known.results.get(&place) {
        Some(last) if last.finished_ms >= finished_ms => return,
        None if known.results.len() >= MOST_TASKS => return,
        _ => {}
    }
    known.results.insert(
        place,
        LastResult {
            finished_ms,
            status: status.to_string(),
            exc_type: result
                .exc_type
                .as_deref()
                .map(|name| name.chars().take(LONGEST_EXCEPTION).collect()),
            key: key.to_vec(),
        },
    );
}

/// A database, or with `None` all of them, has been emptied. Which of them the last
/// results came from is not kept, so they are forgotten either way.
pub fn flushed(db: Option<i32>) {
    let mut known = KNOWN.get_mut();
    let Some(flushed) = db else {
        *known = None;
        return;
    };
    let Some(known) = known.as_mut() else {
        return;
    };
    known.results.clear();
    known.indexes.retain(|(db, _), _| *db != flushed);
    known.separators.retain(|(db, _), _| *db != flushed);
    for places in known.all_places() {
        places.retain(|(db, _)| *db != flushed);
    }
}

/// Two databases have changed places. A name that is no longer there does no harm.
pub fn swapped(a: i32, b: i32) {
    let mut known = KNOWN.get_mut();
    let Some(known) = known.as_mut() else {
        return;
    };
    let moved = |(db, name)| match db {
        db if db == a => (b, name),
        db if db == b => (a, name),
        db => (db, name),
    };
    for places in known.all_places() {
        *places = std::mem::take(places).into_iter().map(moved).collect();
    }
    known.separators = std::mem::take(&mut known.separators)
        .into_iter()
        .map(|(place, sep)| (moved(place), sep))
        .collect();
    known.indexes = std::mem::take(&mut known.indexes)
        .into_iter()
        .map(|(place, index)| (moved(place), index))
        .collect();
}
