//! kombu's routing tables, read in small steps: what leads where, for SCAN and
//! ORPHANS.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Cost;
use crate::core::celery::binding::{self, Owner, SEP, Table, guess_separator, parse_with};
use crate::core::keys::KeyType;
use crate::server::key::Key;
use crate::server::scan::MembersCursor;
use crate::server::{Ctx, Str};

/// Members remembered of all tables; those beyond are not read.
const MOST_MEMBERS: usize = 200_000;

/// Members gone through at a time.
const PORTION: usize = 64;

/// Members that a separator other than the usual one is guessed from.
const GUESSED_FROM: usize = 1_000;

/// A table that is being read.
struct Reading {
    db: i32,
    name: Vec<u8>,
    cursor: MembersCursor,
    members: BTreeSet<Vec<u8>>,
    /// A member was seen that kombu's usual separator splits.
    usual: bool,
    /// All members have been seen: what they say, as far as they were gone through.
    routes: Option<Routes>,
}

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
    /// The table's database.
    pub db: i32,
    /// The table's name.
    pub table: Vec<u8>,
    /// The member itself.
    pub member: Vec<u8>,
    /// The list it leads to, whether or not there is one.
    pub list: Vec<u8>,
    /// Whose it is.
    pub owner: Owner,
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
    due: VecDeque<(i32, Vec<u8>)>,
    reading: Option<Reading>,
    tables: BTreeMap<(i32, Vec<u8>), Routes>,
    /// Bindings of single processes, by the list they lead to.
    leads: BTreeMap<(i32, Vec<u8>), Vec<Bound>>,
    /// Those not yet handed out.
    processes: VecDeque<Member>,
    members: usize,
    cut: bool,
}

impl Tables {
    /// Notes a key to be read, if it is a table of bindings.
    pub fn note(&mut self, db: i32, name: &[u8], kind: KeyType) -> bool {
        let table = binding::binding_key(name).is_some_and(|key| key.table == Table::Bindings);
        let noted = table && kind == KeyType::Set;
        if noted && self.due.len() < MOST_MEMBERS {
            self.due.push_back((db, name.to_vec()));
        }
        noted
    }

    /// Reads a portion of the table in hand, or takes the next. `None` when all have
    /// been read.
    pub fn step(&mut self, ctx: Ctx<'_>) -> Option<Cost> {
        let mut cost = Cost::default();
        let mut reading = match self.reading.take() {
            Some(reading) => reading,
            None => {
                let (db, name) = self.due.pop_front()?;
                let Some(cursor) = MembersCursor::new() else {
                    return Some(cost);
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
        if reading.routes.is_some() {
            self.go_through(reading, &mut cost);
            return Some(cost);
        }
        if !ctx.select(reading.db) {
            return Some(cost);
        }
        let name = Str::new(&reading.name);
        let Some(set) = name
            .as_ref()
            .and_then(|name| Key::read(ctx, name))
            .filter(|key| key.kind() == Some(KeyType::Set))
        else {
            // Gone, or of another type by now.
            return Some(cost);
        };
        let (members, usual) = (&mut reading.members, &mut reading.usual);
        let before = members.len();
        let more = reading.cursor.step(&set, |member| {
            cost.bytes += member.len() as u64;
            *usual |= parse_with(member, SEP).is_some();
            members.insert(member.to_vec());
        });
        self.members += reading.members.len() - before;
        self.cut |= more && self.members >= MOST_MEMBERS;
        if more && self.members < MOST_MEMBERS {
            self.reading = Some(reading);
        } else {
            self.read(reading);
        }
        Some(cost)
    }

    /// Whether there were more members than are remembered.
    pub const fn cut(&self) -> bool {
        self.cut
    }

    /// The next binding of a single process, each once.
    pub fn next_process(&mut self) -> Option<Member> {
        self.processes.pop_front()
    }

    /// Lets go of up to so many members; `false` when none is left.
    pub fn shed(&mut self, most: usize) -> bool {
        let mut left = most;
        while left > 0 {
            if self.processes.pop_front().is_some() || self.due.pop_front().is_some() {
                left -= 1;
            } else if let Some((_, bound)) = self.leads.pop_first() {
                left = left.saturating_sub(bound.len().max(1));
            } else if let Some(reading) = &mut self.reading {
                left -= 1;
                if reading.members.pop_first().is_none() {
                    self.reading = None;
                }
            } else if let Some(mut table) = self.tables.first_entry() {
                let work = &mut table.get_mut().work;
                let kept = work.len().saturating_sub(left);
                left -= (work.len() - kept).max(1).min(left);
                work.truncate(kept);
                if kept == 0 {
                    table.remove();
                }
            } else {
                return false;
            }
        }
        true
    }

    /// All members have been seen; they are gone through in portions.
    fn read(&mut self, mut reading: Reading) {
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
        self.reading = Some(reading);
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
                self.tables.insert((reading.db, reading.name), routes);
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
            self.leads
                .entry((reading.db, list.clone()))
                .or_default()
                .push(Bound {
                    table: reading.name.clone(),
                    member: member.clone(),
                });
            self.processes.push_back(Member {
                db: reading.db,
                table: reading.name.clone(),
                member,
                list,
                owner,
            });
        }
        reading.routes = Some(routes);
        self.reading = Some(reading);
    }

    /// Queues of tasks whose tables have another separator than kombu's own: each
    /// queue's database, its first list and the separator.
    pub fn other_separators(&self) -> impl Iterator<Item = (i32, Vec<u8>, &[u8])> {
        let tables = self.tables.iter().filter(|(_, routes)| routes.sep != SEP);
        tables.flat_map(|((db, name), routes)| {
            let prefix = binding::binding_key(name).map_or(&b""[..], |key| key.prefix);
            routes.work.iter().filter_map(move |member| {
                let queue = parse_with(member, &routes.sep)?.queue;
                Some((*db, [prefix, queue].concat(), routes.sep.as_slice()))
            })
        })
    }

    /// The bindings that lead to this list of one process.
    pub fn leading_to(&self, db: i32, list: &[u8]) -> Vec<Bound> {
        self.leads
            .get(&(db, list.to_vec()))
            .cloned()
            .unwrap_or_default()
    }

    /// Whether a binding leads to this list of one process.
    pub fn lead_to_process(&self, db: i32, list: &[u8]) -> bool {
        self.leads.contains_key(&(db, list.to_vec()))
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

    /// The prefixes of the brokers of a database, as their tables' names show them, the
    /// longest first.
    pub fn prefixes(&self, db: i32) -> Vec<Vec<u8>> {
        let prefixes: BTreeSet<&[u8]> = self
            .tables
            .keys()
            .filter(|(table_db, _)| *table_db == db)
            .filter_map(|(_, name)| binding::binding_key(name))
            .map(|key| key.prefix)
            .collect();
        let mut prefixes: Vec<Vec<u8>> = prefixes.into_iter().map(<[u8]>::to_vec).collect();
        prefixes.sort_by_key(|prefix| Reverse(prefix.len()));
        prefixes
    }

    /// Whether one of a broker's tables leads to this queue.
    pub fn leads_to(&self, db: i32, prefix: &[u8], queue: &[u8]) -> bool {
        let of_broker =
            |name: &[u8]| binding::binding_key(name).is_some_and(|key| key.prefix == prefix);
        self.tables
            .iter()
            .filter(|((table_db, name), _)| *table_db == db && of_broker(name))
            .any(|(_, routes)| {
                let mut bindings = routes.work.iter();
                bindings.any(|member| {
                    parse_with(member, &routes.sep).is_some_and(|binding| binding.queue == queue)
                })
            })
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

    /// kombu 5.7's other table of the same bindings.
    pub fn permanent(&self, db: i32, table: &[u8]) -> Option<&[u8]> {
        let routes = self.tables.get(&(db, table.to_vec()))?;
        Some(&routes.permanent)
    }
}
