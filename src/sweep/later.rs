//! What SCAN can tell only when it has seen all keys: lists and bindings that lead
//! nowhere, chords and groups by what belongs to them.

use std::collections::{BTreeMap, BTreeSet, LinkedList};

use super::tables::{Member, Tables};
use super::twice::Twice;
use super::{Cost, Turn};
use crate::core::celery::binding::Owner;
use crate::core::celery::{group, result};
use crate::core::keys::{Class, KeyType, LONGEST_NAME, Names, result_of_group};
use crate::core::orphans::{CHORD_IDLE_MS, UNREAD_MS, chord_of};
use crate::core::tally::{Pile, Remains};
use crate::evidence::Crowds;
use crate::server::acl::Right;
use crate::server::key::Key;
use crate::server::{Ctx, Str};

/// Keys remembered of each sort; those beyond are not looked at.
const MOST_KEYS: usize = 100_000;

/// Queues without binding that are named.
const NAMED: usize = 3;

/// Tasks of one group that are looked for.
const MOST_TASKS: usize = 100;

/// How long a saved group must not have been used, in ms, for its missing results to
/// be gone rather than still to come: Celery keeps results for a day by itself.
const GROUP_IDLE_MS: i64 = 86_400_000;

struct Chord {
    /// Since the last part, in ms; `None` where it is not known.
    idle_ms: Option<i64>,
    bytes: u64,
}

/// Keys to be looked at, and what was found. None lie in one piece that grows with them,
/// as in [`Tables`].
#[derive(Default)]
pub struct Later {
    tables: Tables,
    twice: Twice,
    lists: LinkedList<(i32, Class, Vec<u8>, u64)>,
    queues: LinkedList<(i32, Vec<u8>, u64)>,
    groups: LinkedList<(i32, Str, u64)>,
    chords: BTreeMap<(i32, Vec<u8>), Chord>,
    /// Brokers whose prefix no setting names.
    brokers: BTreeSet<(i32, Vec<u8>)>,
    /// Bindings of monitors without a list, by database.
    monitors: BTreeMap<i32, u64>,
    /// Whoever may be theirs, being counted.
    crowds: Crowds,
    found: Remains,
}

impl Later {
    /// Notes a routing table.
    pub fn table(&mut self, db: i32, name: &[u8], kind: KeyType) {
        self.tables.note(db, name, kind);
    }

    /// Notes a broker whose prefix no setting names.
    pub fn broker(&mut self, db: i32, prefix: &[u8]) {
        if self.brokers.len() < MOST_KEYS {
            self.brokers.insert((db, prefix.to_vec()));
        }
    }

    /// Notes a list of answers or events.
    pub fn list(&mut self, db: i32, class: Class, name: &[u8], bytes: u64) {
        if self.lists.len() < MOST_KEYS && name.len() <= LONGEST_NAME {
            self.lists.push_back((db, class, name.to_vec(), bytes));
        }
    }

    /// Notes a list of messages.
    pub fn queue(&mut self, db: i32, name: &[u8], bytes: u64) {
        if self.queues.len() < MOST_KEYS && name.len() <= LONGEST_NAME {
            self.queues.push_back((db, name.to_vec(), bytes));
        }
    }

    /// Notes a saved group.
    pub fn group(&mut self, db: i32, name: Option<Str>, bytes: u64) {
        if self.groups.len() < MOST_KEYS {
            self.groups.extend(name.map(|name| (db, name, bytes)));
        }
    }

    /// Notes a key that a chord is counted with.
    pub fn chord(&mut self, db: i32, name: &[u8], idle_ms: Option<i64>, bytes: u64) {
        let Some(chord) = chord_of(name).filter(|chord| chord.len() <= LONGEST_NAME) else {
            return;
        };
        let place = (db, chord.to_vec());
        if let Some(chord) = self.chords.get_mut(&place) {
            chord.idle_ms = chord.idle_ms.zip(idle_ms).map(|(a, b)| a.min(b));
            chord.bytes += bytes;
        } else if self.chords.len() < MOST_KEYS {
            self.chords.insert(place, Chord { idle_ms, bytes });
        }
    }

    /// Lets go of up to so many keys; `false` when none is left.
    pub fn shed(&mut self, most: usize) -> bool {
        for _ in 0..most {
            if self.chords.pop_first().is_none()
                && self.lists.pop_front().is_none()
                && self.queues.pop_front().is_none()
                && self.groups.pop_front().is_none()
                && self.brokers.pop_first().is_none()
            {
                return self.tables.shed(most);
            }
        }
        true
    }

    /// Notes a hash of unacknowledged messages.
    pub fn unacked(&mut self, db: i32, hash: Str) {
        self.twice.note(db, hash);
    }

    /// One small step. `None` when all is known.
    pub fn step(&mut self, turn: &Turn<'_>, names: &Names) -> Option<Cost> {
        if let Some(cost) = self.tables.step(turn.ctx) {
            return Some(cost);
        }
        if let Some((db, class, name, bytes)) = self.lists.pop_front() {
            if !self.tables.lead_to_process(db, &name) {
                match class {
                    Class::ReplyQueue => self.found.replies.add(bytes),
                    _ => self.found.events.add(bytes),
                }
            }
            return Some(Cost::default());
        }
        if let Some((db, name, bytes)) = self.queues.pop_front() {
            if self.tables.bind(db, &name) == Some(false) {
                self.found.unbound.add(bytes);
                if self.found.unbound_names.len() < NAMED {
                    self.found.unbound_names.push(name);
                }
            }
            return Some(Cost::default());
        }
        if let Some(member) = self.tables.next_process() {
            self.member(turn, &member);
            return Some(Cost::default());
        }
        if let Some((db, prefix)) = self.brokers.pop_first() {
            self.mutex(turn, names, db, &prefix);
            return Some(Cost::default());
        }
        if let Some((db, name, bytes)) = self.groups.pop_front() {
            return Some(self.saved(turn, db, &name, bytes));
        }
        if let Some((_, chord)) = self.chords.pop_first() {
            if chord.idle_ms.is_some_and(|ms| ms >= CHORD_IDLE_MS) {
                self.found.chords.add(chord.bytes);
            }
            return Some(Cost::default());
        }
        if !self.monitors.is_empty() {
            self.nobodys_monitors(turn.ctx);
            return Some(Cost::of_its_own());
        }
        self.twice.step(turn.ctx)
    }

    /// A binding of a process that leads to no list.
    fn member(&mut self, turn: &Turn<'_>, member: &Member) {
        if !turn.ctx.select(member.db) || there(turn, &member.list) != Some(false) {
            return;
        }
        match member.owner {
            // Its answers come within seconds, and each is routed by the table.
            Owner::Asker => {
                let unused = Str::new(&member.table)
                    .and_then(|table| Key::read(turn.ctx, &table)?.idle_ms());
                self.found.bindings += u64::from(unused.is_some_and(|ms| ms >= UNREAD_MS));
            }
            Owner::Monitor => *self.monitors.entry(member.db).or_default() += 1,
            Owner::Worker | Owner::Work => {}
        }
    }

    /// Counts clients, some at a time, and then the bindings of monitors that are
    /// certainly nobody's.
    fn nobodys_monitors(&mut self, ctx: Ctx<'_>) {
        let counting = std::mem::take(&mut self.crowds);
        // Clients are connected to the primary.
        let crowds = match ctx.flags().primary().then(|| counting.go_on(ctx)) {
            Some(Err(rest)) => {
                self.crowds = rest;
                return;
            }
            Some(Ok(crowds)) => crowds,
            None => None,
        };
        let monitors = std::mem::take(&mut self.monitors);
        let Some(crowds) = crowds else {
            return;
        };
        for (db, monitors) in monitors {
            // Each monitor, and each worker's gossip, that lives is subscribed to a
            // pattern: so many are nobody's at least.
            let crowd = u32::try_from(db).ok().and_then(|db| crowds.get(&db));
            let live = crowd.map_or(0, |crowd| crowd.subscribers);
            self.found.bindings += monitors.saturating_sub(live);
        }
    }

    fn mutex(&mut self, turn: &Turn<'_>, names: &Names, db: i32, prefix: &[u8]) {
        if !turn.ctx.select(db) {
            return;
        }
        for names in names.unacked() {
            let mutex = names.behind(prefix).mutex;
            let stays = |key: Key<'_>| key.kind() == Some(KeyType::String) && key.ttl().is_none();
            if look(turn, &mutex, |key| key.is_some_and(stays)) == Some(true) {
                self.found.mutexes.push(mutex);
            }
        }
    }

    /// A saved group that was not used for long: are the results of its tasks there?
    fn saved(&mut self, turn: &Turn<'_>, db: i32, name: &Str, bytes: u64) -> Cost {
        let mut cost = Cost::default();
        if !turn.ctx.select(db) {
            return cost;
        }
        let Some(key) = Key::read(turn.ctx, name) else {
            return cost;
        };
        let unused = key.idle_ms().is_some_and(|ms| ms >= GROUP_IDLE_MS);
        if !unused || key.len() > result::MAX_PAYLOAD {
            return cost;
        }
        let value = key.string().unwrap_or_default();
        cost.bytes += value.len() as u64;
        let results: Vec<Vec<u8>> = group::tasks(value, MOST_TASKS)
            .unwrap_or_default()
            .iter()
            .filter_map(|id| result_of_group(name.bytes(), id.as_bytes()))
            .collect();
        drop(key);
        cost.bytes += 16 * results.len() as u64;
        if results
            .iter()
            .any(|result| there(turn, result) == Some(false))
        {
            self.found.groups.add(bytes);
        }
        cost
    }

    /// What was found. Unless the scan saw the `whole` of its databases, nothing is said
    /// of what another key would explain.
    pub fn remains(&mut self, whole: bool) -> Remains {
        let mut found = std::mem::take(&mut self.found);
        if !whole || self.tables.cut() {
            (found.replies, found.events, found.unbound) = Default::default();
        }
        if !whole {
            found.chords = Pile::default();
        }
        found.duplicates = self.twice.found();
        found.unbound_names.sort();
        found
    }

    /// The next queue of tasks whose table has another separator than kombu's own, as
    /// [`Tables::next_other_separator`] tells it.
    pub fn next_other_separator(&mut self) -> Option<(i32, Vec<u8>, Vec<u8>)> {
        self.tables.next_other_separator()
    }
}

/// Whether a key of the selected database is there; `None` if the caller may not know.
fn there(turn: &Turn<'_>, name: &[u8]) -> Option<bool> {
    look(turn, name, |key| key.is_some())
}

/// What a key of the selected database shows; `None` if the caller may not know.
fn look<T>(turn: &Turn<'_>, name: &[u8], at: impl FnOnce(Option<Key<'_>>) -> T) -> Option<T> {
    let name = Str::new(name)?;
    let may = turn.user.is_none_or(|user| user.may(Right::Access, &name));
    may.then(|| at(Key::read(turn.ctx, &name)))
}
