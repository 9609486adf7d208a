//! ORPHANS' work: finding what nobody will come for, deleting it, and putting stuck
//! messages back.
//!
//! One pass over the keyspace collects names; what they mean is known only when
//! all routing tables have been read. So each item is judged afterwards, one small
//! step at a time, as it is at that moment: nothing is done on what a scan saw
//! before. All that is written for one item is written in one step, which reaches
//! replicas and AOF as one transaction.

mod answers;
mod bindings;
mod lists;
mod unacked;

use std::collections::{BTreeMap, BTreeSet, LinkedList};
use std::rc::Rc;

use super::tables::{Tables, Ways};
use super::{Cost, Kept, Run, Turn, Visitor, fix, lists as content};
use crate::core::celery::binding::{self, PRIORITY_STEPS, SEP, split_priority};
use crate::core::keys::{Class, KeyType, LONGEST_NAME, Names, PlusQueue};
use crate::core::orphans::{Action, Ages, Found, Kind, chord_of};
use crate::core::reply::Reply;
use crate::server::acl::Right;
use crate::server::scan::Found as Shown;
use crate::server::{Ctx, Str, log};
use crate::{known, stats};

use unacked::{Search, Walk};

/// Items collected in one pass; those beyond are left to the next.
const MOST_ITEMS: usize = 200_000;

/// Why nothing is known of how long a key lies there.
const NOT_KNOWN: &str = "an LFU policy keeps no idle time";

/// Why a key that the operator exempted is left.
const EXEMPT: &str = "it is named in exempt-keys";

/// What ORPHANS is asked for.
pub struct OrphanOrder {
    /// What to do.
    pub action: Action,
    /// From what age on.
    pub ages: Ages,
    /// The most items changed; 0 is all.
    pub limit: u64,
    /// The most names told of one kind.
    pub names: usize,
    /// Only tell what would be done.
    pub dry_run: bool,
    /// Who asked, for the log.
    pub by: String,
}

impl OrphanOrder {
    /// Whether anything may be changed.
    pub fn writes(&self) -> bool {
        self.action != Action::Report && !self.dry_run
    }
}

/// What has been done, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Changes {
    purged: u64,
    members: u64,
    bytes_freed: u64,
    requeued: u64,
}

/// What the pass over the keyspace has collected and is still to be judged. None of it
/// lies in one piece that grows with it, as in [`Tables`].
#[derive(Default)]
struct Due {
    items: usize,
    lists: LinkedList<(i32, Kind, Vec<u8>)>,
    /// Queues of answers under celery-redis-plus, by their zset.
    answers: BTreeSet<(i32, Vec<u8>)>,
    chords: BTreeSet<(i32, Vec<u8>)>,
    unacked: BTreeSet<(i32, Vec<u8>)>,
    /// Zsets of no known name: one of them may be an index of unacknowledged messages.
    zsets: BTreeSet<(i32, Vec<u8>)>,
    search: Option<Search>,
    walk: Option<Walk>,
    /// The ways of messages that are being looked for.
    looking: Option<Ways>,
    /// Those that took long to find, by table and routing key, and what they take.
    ways: BTreeMap<(i32, Vec<u8>, Vec<u8>), Rc<Ways>>,
    ways_bytes: usize,
}

impl Due {
    /// Lets go of one thing; `false` when none is left.
    fn shed(&mut self) -> bool {
        self.lists.pop_front().is_some()
            || self.answers.pop_first().is_some()
            || self.chords.pop_first().is_some()
            || self.unacked.pop_first().is_some()
            || self.ways.pop_first().is_some()
            || self.zsets.pop_first().is_some()
    }
}

/// The visitor of ORPHANS.
pub struct Orphans {
    /// The visitor of ORPHANS.
    order: OrphanOrder,
    names: Rc<Names>,
    due: Due,
    tables: Tables,
    /// Databases with lists of other priorities than kombu's usual steps.
    other_steps: BTreeSet<i32>,
    found: BTreeMap<Kind, Found>,
    places: Vec<Reply>,
    skipped_noperm: u64,
    left_out: u64,
    changes: Changes,
}

impl Orphans {
    /// A visitor under the names in force now.
    pub fn new(order: OrphanOrder, names: Rc<Names>) -> Self {
        Self {
            order,
            names,
            due: Due::default(),
            tables: Tables::default(),
            other_steps: BTreeSet::new(),
            found: BTreeMap::new(),
            places: Vec::new(),
            skipped_noperm: 0,
            left_out: 0,
            changes: Changes::default(),
        }
    }

    fn concerns(&self, kind: Kind) -> bool {
        self.order.action.concerns(kind)
    }

    fn found(&mut self, kind: Kind) -> &mut Found {
        self.found.entry(kind).or_default()
    }

    fn keep(&mut self, kind: Kind, why: &'static str) {
        self.found(kind).keep(why);
    }

    /// One of this kind was deleted, or would have been.
    fn purged(&mut self, kind: Kind) {
        self.changes.purged += 1;
        if !self.order.dry_run {
            stats::purged(kind.class());
        }
    }

    fn orphan(&mut self, kind: Kind, db: i32, name: &[u8], age_ms: i64, bytes: u64) {
        let names = self.order.names;
        self.found(kind).orphan(db, name, age_ms, bytes, names);
    }

    /// Whether an orphan of this kind is to be deleted, be it for show.
    fn purges(&self, kind: Kind) -> bool {
        self.order.action.cleans(kind)
    }

    /// Whether a name may be remembered until it is judged: no broker's is longer.
    fn knows(&mut self, name: &[u8]) -> bool {
        let short = name.len() <= LONGEST_NAME;
        self.left_out += u64::from(!short);
        short
    }

    /// Whether there is room for one more item.
    fn room(&mut self) -> bool {
        let room = self.due.items < MOST_ITEMS;
        if room {
            self.due.items += 1;
        } else {
            self.left_out += 1;
        }
        room
    }

    /// Notes what a key may turn out to be.
    fn collect(&mut self, db: i32, name: &[u8], class: Class, kind: KeyType) {
        match (class, kind) {
            (Class::Binding, KeyType::Set) => {
                let Some(key) = binding::binding_key(name) else {
                    return;
                };
                if !self.tables.note(db, name, kind) {
                    return;
                }
                if self.concerns(Kind::Unacked) {
                    // A prefix that nobody told us of shows here.
                    for names in self.names.unacked() {
                        let hash = names.behind(key.prefix).hash;
                        self.due.unacked.insert((db, hash));
                    }
                }
            }
            (Class::ReplyQueue | Class::EventQueue, KeyType::List) => {
                let kind = if class == Class::ReplyQueue {
                    Kind::ReplyQueue
                } else {
                    Kind::EventQueue
                };
                if self.concerns(kind) && self.knows(name) && self.room() {
                    self.due.lists.push_back((db, kind, name.to_vec()));
                }
            }
            (Class::ReplyQueue, KeyType::Zset) if self.concerns(Kind::ReplyQueue) => {
                let Some(queue) = PlusQueue::of(name) else {
                    return;
                };
                if !self.knows(name) {
                    return;
                }
                let queue = (db, queue.zset());
                if !self.due.answers.contains(&queue) && self.room() {
                    self.due.answers.insert(queue);
                }
            }
            (Class::Chord, _) if self.concerns(Kind::Chord) => {
                let Some(chord) = chord_of(name) else {
                    return;
                };
                if !self.knows(name) {
                    return;
                }
                let chord = (db, chord.to_vec());
                if !self.due.chords.contains(&chord) && self.room() {
                    self.due.chords.insert(chord);
                }
            }
            (Class::Unacked, KeyType::Hash) if self.concerns(Kind::Unacked) => {
                if !self.knows(name) {
                    return;
                }
                self.due.unacked.insert((db, name.to_vec()));
            }
            (Class::Other, KeyType::Zset)
                if self.due.items < MOST_ITEMS && name.len() <= LONGEST_NAME =>
            {
                self.due.items += 1;
                self.due.zsets.insert((db, name.to_vec()));
            }
            (Class::Other, KeyType::List) => {
                if let (_, Some(priority)) = split_priority(name, SEP)
                    && !PRIORITY_STEPS.contains(&priority)
                {
                    self.other_steps.insert(db);
                }
            }
            _ => {}
        }
    }

    /// The next step of what is due, in the order in which each needs the one before.
    fn step(&mut self, turn: &Turn<'_>) -> Option<Cost> {
        if let Some(cost) = self.tables.step(turn.ctx) {
            return Some(cost);
        }
        if let Some((db, kind, name)) = self.due.lists.pop_front() {
            return Some(self.list(turn, db, kind, &name));
        }
        if let Some((db, zset)) = self.due.answers.pop_first() {
            return Some(self.answers(turn, db, &zset));
        }
        if let Some((db, chord)) = self.due.chords.pop_first() {
            return Some(self.chord(turn, db, &chord));
        }
        if self.concerns(Kind::Binding)
            && let Some(member) = self.tables.next_process()
        {
            return Some(self.member(turn, &member));
        }
        self.unacked_step(turn)
    }

    fn log(&self) {
        let Action::Clean(kinds) = self.order.action else {
            return;
        };
        let Changes {
            purged,
            members,
            bytes_freed,
            requeued,
        } = self.changes;
        let by = &self.order.by;
        let mut purges = kinds
            .iter()
            .filter(|kind| *kind != Kind::Unacked)
            .peekable();
        let (mut what, mut done) = (Vec::new(), Vec::new());
        if kinds.has(Kind::Unacked) {
            what.push("REQUEUE".to_owned());
            done.push(format!("{requeued} messages put back into their queues"));
        }
        if purges.peek().is_some() {
            let names: Vec<&str> = purges.map(|kind| kind.class().name()).collect();
            what.push(format!("PURGE {}", names.join(" ")));
            done.push(format!(
                "{purged} purged, {members} bindings removed, {bytes_freed} bytes freed"
            ));
        }
        let (what, done) = (what.join(", "), done.join(", "));
        log::notice(&format!("ORPHANS {what} by {by}: {done}"));
    }
}

/// Whether the caller may do that to the key; nobody's rights count for 6.2.
fn may(turn: &Turn<'_>, right: Right, name: &Str) -> bool {
    turn.user.is_none_or(|user| user.may(right, name))
}

impl Visitor for Orphans {
    fn sift(&mut self, found: &Shown<'_>, turn: &Turn<'_>, db: i32) -> Option<Kept> {
        let name = found.name();
        let kind = found.key().kind()?;
        let class = self.names.class(name, kind);
        let concerns_us = match class {
            Class::Binding
            | Class::ReplyQueue
            | Class::EventQueue
            | Class::Chord
            | Class::Unacked => true,
            Class::Other => match kind {
                KeyType::List => true,
                KeyType::Hash | KeyType::Zset => self.concerns(Kind::Unacked),
                _ => false,
            },
            _ => false,
        };
        if !concerns_us {
            return None;
        }
        if turn
            .user
            .is_some_and(|user| !found.permits(user, Right::Access))
        {
            self.skipped_noperm += u64::from(class != Class::Other);
            return None;
        }
        if class == Class::Other && kind == KeyType::Hash {
            return Kept::new(found, db, class, kind, None);
        }
        self.collect(db, name, class, kind);
        None
    }

    /// A hash that no name explains: its content does, if it is one of ours.
    fn handle(&mut self, turn: &Turn<'_>, kept: Kept) -> Cost {
        let long = content::holds_long(turn.ctx, &kept.name);
        if !long && content::holds_unacked(turn.ctx, &kept.name) {
            let name = kept.name.bytes();
            known::seen(kept.db, name, Class::Unacked, KeyType::Hash);
            self.collect(kept.db, name, Class::Unacked, KeyType::Hash);
        }
        Cost::of_its_own()
    }

    fn after(&mut self, turn: &Turn<'_>) -> Option<Cost> {
        self.step(turn)
    }

    fn writes(&self) -> bool {
        self.order.writes()
    }

    fn full(&self) -> bool {
        let limit = self.order.limit;
        limit > 0 && self.changes.purged + self.changes.requeued >= limit
    }

    fn restart(&mut self) {
        self.due = Due::default();
        self.tables = Tables::default();
        self.other_steps.clear();
        self.found.clear();
        self.places.clear();
        self.skipped_noperm = 0;
        self.left_out = 0;
        if !self.writes() {
            self.changes = Changes::default();
        }
    }

    fn shed(&mut self, most: usize) -> bool {
        for _ in 0..most {
            if !self.due.shed() {
                return self.tables.shed(most);
            }
        }
        true
    }

    fn report(&mut self, _ctx: Ctx<'_>, run: &Run) -> Reply {
        if let Some(walk) = self.due.walk.take() {
            self.places.push(walk.reply());
        }
        if self.writes() {
            stats::REQUEUED.add(self.changes.requeued);
            if self.changes != Changes::default() {
                self.log();
            }
        }
        let kinds = Kind::ALL
            .into_iter()
            .filter(|kind| self.concerns(*kind))
            .map(|kind| {
                self.found
                    .get(&kind)
                    .cloned()
                    .unwrap_or_default()
                    .reply(kind)
            })
            .collect();
        let complete = self.left_out == 0 && !self.tables.cut();
        Reply::map([
            ("scanned", Reply::count(run.scanned)),
            ("duration_ms", Reply::Int(run.duration_ms)),
            ("server_ms", Reply::count(run.server_us / 1_000)),
            ("skipped_noperm", Reply::count(self.skipped_noperm)),
            ("acl_checked", fix::acl_checked()),
            ("complete", Reply::word(if complete { "yes" } else { "no" })),
            ("orphans", Reply::Array(kinds)),
            ("unacked", Reply::Array(std::mem::take(&mut self.places))),
            ("purged", Reply::count(self.changes.purged)),
            ("members_removed", Reply::count(self.changes.members)),
            ("bytes_freed", Reply::count(self.changes.bytes_freed)),
            ("requeued", Reply::count(self.changes.requeued)),
        ])
    }
}
