//! kombu's routing tables: what leads where, and bindings whose owner is gone.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Cost, Turn};
use super::{EXEMPT, Kind, MOST_ITEMS, NOT_KNOWN, Orphans, may};
use crate::core::celery::binding::{self, Owner, SEP, guess_separator, parse_with};
use crate::core::keys::KeyType;
use crate::server::acl::Right;
use crate::server::call;
use crate::server::key::{Key, untouched};
use crate::server::scan::MembersCursor;
use crate::server::{Ctx, Str};

/// A table that is being read.
pub struct Reading {
    db: i32,
    name: Vec<u8>,
    cursor: MembersCursor,
    members: BTreeSet<Vec<u8>>,
    /// A member was seen that kombu's usual separator splits.
    usual: bool,
    /// All members have been seen: what they say, as far as they were gone through.
    routes: Option<Routes>,
}

/// Members gone through at a time.
const PORTION: usize = 64;

/// Members that a separator other than the usual one is guessed from.
const GUESSED_FROM: usize = 1_000;

/// A table that has been read.
struct Routes {
    /// kombu 5.7's other table of the same bindings.
    permanent: Vec<u8>,
    sep: Vec<u8>,
    /// Bindings of queues of tasks.
    work: Vec<Vec<u8>>,
}

/// A binding of one process.
#[derive(Clone)]
pub struct Member {
    db: i32,
    table: Vec<u8>,
    member: Vec<u8>,
    /// The list it leads to, if there is one.
    list: Vec<u8>,
    owner: Owner,
}

/// A member of a table.
#[derive(Clone)]
pub struct Bound {
    /// The table's name.
    pub table: Vec<u8>,
    /// The member.
    pub member: Vec<u8>,
}

/// What the tables say.
#[derive(Default)]
pub struct Tables {
    tables: BTreeMap<(i32, Vec<u8>), Routes>,
    /// Bindings of single processes, by the list they lead to.
    leads: BTreeMap<(i32, Vec<u8>), Vec<Bound>>,
    members: usize,
}

impl Tables {
    /// The bindings that lead to this list of one process.
    pub fn leading_to(&self, db: i32, list: &[u8]) -> Vec<Bound> {
        self.leads
            .get(&(db, list.to_vec()))
            .cloned()
            .unwrap_or_default()
    }

    /// The queues that messages of this exchange and routing key go to, each with
    /// the member that says so.
    pub fn routes(&self, db: i32, table: &[u8], routing_key: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let Some(routes) = self.tables.get(&(db, table.to_vec())) else {
            return Vec::new();
        };
        let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for member in &routes.work {
            if let Some(binding) = parse_with(member, &routes.sep)
                && binding.leads(routing_key)
                && !found.iter().any(|(queue, _)| queue == binding.queue)
            {
                found.push((binding.queue.to_vec(), member.clone()));
            }
        }
        found
    }

    /// The separator that a broker's tables use.
    pub fn separator(&self, db: i32, prefix: &[u8]) -> Vec<u8> {
        self.tables
            .iter()
            .filter(|((table_db, name), _)| *table_db == db && name.starts_with(prefix))
            .filter(|((_, name), _)| {
                binding::binding_key(name).is_some_and(|key| key.prefix == prefix)
            })
            .map(|(_, routes)| routes.sep.clone())
            .next()
            .unwrap_or_else(|| SEP.to_vec())
    }

    fn permanent(&self, db: i32, table: &[u8]) -> Option<&[u8]> {
        let routes = self.tables.get(&(db, table.to_vec()))?;
        Some(&routes.permanent)
    }
}

impl Orphans {
    /// Reads a portion of the table in hand, or takes the next.
    pub(super) fn read_table(&mut self, turn: &Turn<'_>) -> Cost {
        let mut reading = match self.due.reading.take() {
            Some(reading) => reading,
            None => {
                let Some((db, name)) = self.due.tables.pop_front() else {
                    return Cost::default();
                };
                let Some(cursor) = MembersCursor::new() else {
                    return Cost::default();
                };
                Reading {
                    db,
                    name,
                    cursor,
                    members: BTreeSet::new(),
                    usual: false,
                    routes: None,
                }
            }
        };
        let mut cost = Cost::default();
        if reading.routes.is_some() {
            self.go_through(reading, &mut cost);
            return cost;
        }
        if !turn.ctx.select(reading.db) {
            return cost;
        }
        let name = Str::new(&reading.name);
        let Some(set) = name
            .as_ref()
            .and_then(|name| Key::read(turn.ctx, name))
            .filter(|key| key.kind() == Some(KeyType::Set))
        else {
            // Gone, or of another type by now.
            return cost;
        };
        let (members, usual) = (&mut reading.members, &mut reading.usual);
        let before = members.len();
        let more = reading.cursor.step(&set, |member| {
            cost.bytes += member.len() as u64;
            *usual |= parse_with(member, SEP).is_some();
            members.insert(member.to_vec());
        });
        self.tables.members += reading.members.len() - before;
        if !more {
            self.table_read(reading);
        } else if self.tables.members >= MOST_ITEMS {
            self.left_out += 1;
            self.table_read(reading);
        } else {
            self.due.reading = Some(reading);
        }
        cost
    }

    /// All members have been seen; they are gone through in portions.
    fn table_read(&mut self, mut reading: Reading) {
        let Some(key) = binding::binding_key(&reading.name) else {
            return;
        };
        let sep = if reading.usual {
            Some(SEP)
        } else {
            let some = reading.members.iter().take(GUESSED_FROM);
            guess_separator(&some.map(Vec::as_slice).collect::<Vec<_>>())
        };
        let Some(sep) = sep else {
            return;
        };
        reading.routes = Some(Routes {
            permanent: [key.prefix, b"_kombu.binding_permanent.", key.exchange].concat(),
            sep: sep.to_vec(),
            work: Vec::new(),
        });
        self.due.reading = Some(reading);
    }

    /// Sorts a portion of a table's members by whose they are.
    fn go_through(&mut self, mut reading: Reading, cost: &mut Cost) {
        let (Some(mut routes), Some(key)) =
            (reading.routes.take(), binding::binding_key(&reading.name))
        else {
            return;
        };
        for _ in 0..PORTION {
            let Some(member) = reading.members.pop_first() else {
                self.tables
                    .tables
                    .insert((reading.db, reading.name), routes);
                return;
            };
            cost.bytes += member.len() as u64;
            let Some(binding) = parse_with(&member, &routes.sep) else {
                continue;
            };
            let owner = binding.owner(key.exchange);
            if owner == Owner::Work {
                routes.work.push(member);
                continue;
            }
            let list = [key.prefix, binding.queue].concat();
            self.tables
                .leads
                .entry((reading.db, list.clone()))
                .or_default()
                .push(Bound {
                    table: reading.name.clone(),
                    member: member.clone(),
                });
            if self.concerns(Kind::Binding) {
                self.due.members.push_back(Member {
                    db: reading.db,
                    table: reading.name.clone(),
                    member,
                    list,
                    owner,
                });
            }
        }
        reading.routes = Some(routes);
        self.due.reading = Some(reading);
    }

    /// Judges a binding of one process, and removes it if that is asked for.
    pub(super) fn member(&mut self, turn: &Turn<'_>, member: &Member) -> Cost {
        let cost = Cost {
            writes: 0,
            bytes: member.member.len() as u64,
        };
        if !turn.ctx.select(member.db) {
            return cost;
        }
        let (Some(table), Some(list)) = (Str::new(&member.table), Str::new(&member.list)) else {
            return cost;
        };
        if Key::read(turn.ctx, &list).is_some() {
            self.keep(Kind::Binding, "its list is there");
            return cost;
        }
        let unused_ms = Key::read(turn.ctx, &table).and_then(|key| key.idle_ms());
        let age_ms = match self.gone(turn.ctx, member.owner, unused_ms) {
            Ok(age_ms) => age_ms,
            Err(why) => {
                self.keep(Kind::Binding, why);
                return cost;
            }
        };
        if !self.purges(Kind::Binding) {
            self.orphan(Kind::Binding, member.db, &member.list, age_ms, 0);
            return cost;
        }
        if self.names.exempt(&member.table) {
            self.keep(Kind::Binding, EXEMPT);
            return cost;
        }
        if !self.may_unbind(turn, member.db, &member.table) {
            self.skipped_noperm += 1;
            return cost;
        }
        let writes = self.unbind(turn, member.db, &member.table, &member.member);
        if writes > 0 || self.order.dry_run {
            self.orphan(Kind::Binding, member.db, &member.list, age_ms, 0);
            self.changes.purged += 1;
            self.changes.members += 1;
        }
        Cost { writes, ..cost }
    }

    /// Since when, in ms, an owner without a list has certainly not been there.
    /// Nobody is called gone on the silence of an instant: an asker binds its queue
    /// anew with each question, and each answer looks the table up; a monitor and a
    /// worker are subscribed to patterns as long as they live.
    fn gone(
        &self,
        ctx: Ctx<'_>,
        owner: Owner,
        unused_ms: Option<i64>,
    ) -> Result<i64, &'static str> {
        if owner != Owner::Asker && pattern_subscribers(ctx) != Some(0) {
            return Err("workers or monitors are connected: whose it is cannot be told");
        }
        let unused_ms = match (owner, unused_ms) {
            // Nothing is routed by it while commands travel by pub/sub.
            (Owner::Worker, unused_ms) => return Ok(unused_ms.unwrap_or(0)),
            (_, None) => return Err(NOT_KNOWN),
            (_, Some(ms)) => ms,
        };
        if unused_ms < self.order.ages.unread_ms {
            return Err("its table was used lately: its owner may be there");
        }
        Ok(unused_ms)
    }

    /// Whether the caller may change the table and its permanent twin.
    pub(super) fn may_unbind(&self, turn: &Turn<'_>, db: i32, table: &[u8]) -> bool {
        let may_change = |name: &[u8]| {
            Str::new(name).is_some_and(|name| {
                may(turn, Right::Change, &name) || Key::read(turn.ctx, &name).is_none()
            })
        };
        may_change(table) && self.tables.permanent(db, table).is_none_or(may_change)
    }

    /// Takes a member out of its table, and out of the permanent one as kombu does
    /// (`Channel._delete`). The number of writes.
    pub(super) fn unbind(&self, turn: &Turn<'_>, db: i32, table: &[u8], member: &[u8]) -> u64 {
        if self.order.dry_run {
            return 0;
        }
        let tables = [Some(table), self.tables.permanent(db, table)];
        tables
            .into_iter()
            .flatten()
            .filter(|table| remove(turn.ctx, table, member))
            .count() as u64
    }
}

fn remove(ctx: Ctx<'_>, table: &[u8], member: &[u8]) -> bool {
    let Some(name) = Str::new(table) else {
        return false;
    };
    let set = Key::read(ctx, &name).is_some_and(|key| key.kind() == Some(KeyType::Set));
    // What we remove is no use of the table: others are judged by that.
    set && untouched(ctx, &name, || call::write(ctx, c"SREM", &[table, member])).int() == Some(1)
}

/// Patterns that clients are subscribed to, in all databases.
fn pattern_subscribers(ctx: Ctx<'_>) -> Option<i64> {
    call::read(ctx, c"PUBSUB", &[b"NUMPAT"]).int()
}
