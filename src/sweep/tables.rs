//! kombu's routing tables, read in small steps: what leads where, for SCAN and
//! ORPHANS.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, LinkedList};

use super::Cost;
use super::lists::holds_long;
use crate::core::celery::binding::{
    self, Owner, SEP, Table, guess_separator, parse_with, split_priority,
};
use crate::core::keys::{KeyType, LONGEST_NAME};
use crate::server::key::Key;
use crate::server::scan::MembersCursor;
use crate::server::{Ctx, Str};

/// Members remembered of all tables; those beyond are not read.
const MOST_MEMBERS: usize = 200_000;

/// The longest member that is remembered, in bytes: a routing key, a pattern and a queue,
/// for each of which AMQP allows 255.
const LONGEST_MEMBER: usize = 4 * 1024;

/// Members gone through at a time. Each is put into trees of as many as there are, which
/// takes some µs.
const PORTION: usize = 16;

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
    /// Bindings of queues of tasks, numbered.
    work: BTreeMap<usize, Vec<u8>>,
    /// Where among those are the ones that take one routing key, by that key.
    by_key: BTreeMap<Vec<u8>, Vec<usize>>,
    /// Where the others are, which have wildcards.
    wild: Vec<usize>,
}

impl Routes {
    fn add(&mut self, member: Vec<u8>) {
        let Some(binding) = parse_with(&member, &self.sep) else {
            return;
        };
        let at = self.work.len();
        if binding.has_wildcards() {
            self.wild.push(at);
        } else {
            let key = binding.routing_key.to_vec();
            self.by_key.entry(key).or_default().push(at);
        }
        self.work.insert(at, member);
    }

    /// Lets go of one binding; `false` when none is left.
    fn shed(&mut self) -> bool {
        let keyed = self.by_key.pop_first().is_some();
        self.work.pop_last().is_some() || keyed
    }
}

/// Queues that one message is put into at most: all of it is one step.
pub const MOST_WAYS: usize = 200;

/// What comparing topics with a routing key may cost in one step, in bytes compared.
const COMPARED_AT_ONCE: usize = 2 * 1024;

/// Which queues messages of a routing key go to by one table, looked for in small
/// steps: each binding with wildcards has to be compared.
pub struct Ways {
    place: (i32, Vec<u8>),
    routing_key: Vec<u8>,
    /// How many bindings with wildcards have been compared.
    compared: usize,
    /// The queues, each with the member that says so, up to one more than
    /// [`MOST_WAYS`].
    found: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Ways {
    /// The table's database and name, and the routing key.
    pub fn place(&self) -> (i32, Vec<u8>, Vec<u8>) {
        let (db, table) = self.place.clone();
        (db, table, self.routing_key.clone())
    }

    /// About what it takes to be remembered.
    pub fn bytes(&self) -> usize {
        let found = self
            .found
            .iter()
            .map(|(queue, member)| queue.len() + member.len());
        200 + self.place.1.len() + 2 * self.routing_key.len() + found.sum::<usize>()
    }

    /// The queues that were found, each with the member that says so. `None` if there
    /// are more than [`MOST_WAYS`].
    pub fn queues(&self) -> Option<&[(Vec<u8>, Vec<u8>)]> {
        (self.found.len() <= MOST_WAYS).then_some(&self.found)
    }

    fn add(&mut self, routes: &Routes, at: usize) {
        let Some(member) = routes.work.get(&at) else {
            return;
        };
        if let Some(binding) = parse_with(member, &routes.sep)
            && self.found.len() <= MOST_WAYS
            && binding.leads(&self.routing_key)
            && !self.found.iter().any(|(queue, _)| queue == binding.queue)
        {
            self.found.push((binding.queue.to_vec(), member.clone()));
        }
    }
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

/// What is known of a broker from the first of its tables, by name.
struct Broker {
    table: Vec<u8>,
    sep: Vec<u8>,
}

/// What the tables say. Nothing here lies in one piece that grows with what is read:
/// where a piece of megabytes is full, all of it has to be moved at once.
#[derive(Default)]
pub struct Tables {
    due: LinkedList<(i32, Vec<u8>)>,
    reading: Option<Reading>,
    tables: BTreeMap<(i32, Vec<u8>), Routes>,
    /// Brokers by database and key prefix.
    brokers: BTreeMap<(i32, Vec<u8>), Broker>,
    /// Queues that a table leads to, by broker.
    queues: BTreeSet<(i32, Vec<u8>, Vec<u8>)>,
    /// Bindings of single processes, by the list they lead to.
    leads: BTreeMap<(i32, Vec<u8>), Vec<Bound>>,
    /// Those not yet handed out.
    processes: LinkedList<Member>,
    /// Databases with tables of celery-redis-plus, which are zsets.
    not_read: BTreeSet<i32>,
    /// Tables with another separator than kombu's own whose queues are still to be
    /// handed out, and how many of the first have been.
    others: LinkedList<(i32, Vec<u8>)>,
    handed_out: usize,
    members: usize,
    cut: bool,
}

impl Tables {
    /// Notes a key to be read, if it is a table of bindings.
    pub fn note(&mut self, db: i32, name: &[u8], kind: KeyType) -> bool {
        let table = binding::binding_key(name).is_some_and(|key| key.table == Table::Bindings);
        let noted = table && kind == KeyType::Set;
        if table && kind == KeyType::Zset {
            self.not_read.insert(db);
        }
        // Each of its members is remembered with its table's name.
        let too_long = name.len() > LONGEST_NAME;
        self.cut |= noted && too_long;
        if noted && !too_long && self.due.len() < MOST_MEMBERS {
            self.due.push_back((db, name.to_vec()));
        }
        noted && !too_long
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
                // What leads nowhere is not known where a table is not read.
                if ctx.select(db) && Str::new(&name).is_some_and(|name| holds_long(ctx, &name)) {
                    self.cut = true;
                    return Some(cost);
                }
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
            self.go_through(reading);
            return Some(Cost::of_its_own());
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
        let (members, usual, cut) = (&mut reading.members, &mut reading.usual, &mut self.cut);
        let before = members.len();
        let more = reading.cursor.step(&set, |member| {
            cost.bytes += member.len() as u64;
            if member.len() > LONGEST_MEMBER {
                *cut = true;
                return;
            }
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
            if self.processes.pop_front().is_some()
                || self.due.pop_front().is_some()
                || self.others.pop_front().is_some()
                || self.queues.pop_first().is_some()
            {
                left -= 1;
            } else if let Some((_, bound)) = self.leads.pop_first() {
                left = left.saturating_sub(bound.len().max(1));
            } else if let Some(reading) = &mut self.reading {
                left -= 1;
                let routes = reading.routes.as_mut();
                if reading.members.pop_first().is_none() && !routes.is_some_and(Routes::shed) {
                    self.reading = None;
                }
            } else if let Some(mut table) = self.tables.first_entry() {
                left -= 1;
                if !table.get_mut().shed() {
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
            work: BTreeMap::new(),
            by_key: BTreeMap::new(),
            wild: Vec::new(),
        });
        self.reading = Some(reading);
    }

    /// Sorts a portion of a table's members by whose they are.
    fn go_through(&mut self, mut reading: Reading) {
        let (Some(mut routes), Some(key)) =
            (reading.routes.take(), binding::binding_key(&reading.name))
        else {
            return;
        };
        for _ in 0..PORTION {
            let Some(member) = reading.members.pop_first() else {
                self.know(reading.db, reading.name, routes);
                return;
            };
            let Some(binding) = parse_with(&member, &routes.sep) else {
                continue;
            };
            let owner = binding.owner(key.exchange);
            if owner == Owner::Work {
                let queue = (reading.db, key.prefix.to_vec(), binding.queue.to_vec());
                self.queues.insert(queue);
                routes.add(member);
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

    /// Whether a table leads to the queue whose list of some priority this is. `None`
    /// where that cannot be told: no table was read in that database, or not all.
    pub fn bind(&self, db: i32, list: &[u8]) -> Option<bool> {
        if self.cut || self.not_read.contains(&db) {
            return None;
        }
        let mut brokers = self.brokers_of(db).peekable();
        brokers.peek()?;
        Some(brokers.any(|(prefix, sep)| {
            list.strip_prefix(prefix).is_some_and(|queue| {
                let (first, _) = split_priority(queue, sep);
                self.leads_to(db, prefix, queue) || self.leads_to(db, prefix, first)
            })
        }))
    }

    /// The key prefixes of the brokers of a database, each with its separator.
    fn brokers_of(&self, db: i32) -> impl Iterator<Item = (&[u8], &[u8])> {
        let brokers = self.brokers.range((db, Vec::new())..);
        brokers
            .take_while(move |((of, _), _)| *of == db)
            .map(|((_, prefix), broker)| (prefix.as_slice(), broker.sep.as_slice()))
    }

    /// The next queue of tasks whose table has another separator than kombu's own, each
    /// once: its database, its first list and the separator.
    pub fn next_other_separator(&mut self) -> Option<(i32, Vec<u8>, Vec<u8>)> {
        while let Some(place) = self.others.front() {
            let found = self.tables.get(place).and_then(|routes| {
                let member = routes.work.get(&self.handed_out)?;
                let queue = parse_with(member, &routes.sep)?.queue;
                let prefix = binding::binding_key(&place.1).map_or(&b""[..], |key| key.prefix);
                Some((place.0, [prefix, queue].concat(), routes.sep.clone()))
            });
            if found.is_some() {
                self.handed_out += 1;
                return found;
            }
            self.handed_out = 0;
            self.others.pop_front();
        }
        None
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

    /// Begins to look for the queues that messages of this routing key go to by a
    /// table. What needs no comparing is found at once.
    pub fn ways(&self, db: i32, table: &[u8], routing_key: &[u8]) -> Ways {
        let mut ways = Ways {
            place: (db, table.to_vec()),
            routing_key: routing_key.to_vec(),
            compared: 0,
            found: Vec::new(),
        };
        if let Some(routes) = self.tables.get(&ways.place) {
            for at in routes.by_key.get(routing_key).into_iter().flatten() {
                ways.add(routes, *at);
            }
        }
        ways
    }

    /// Goes on looking; `false` when all is found.
    pub fn go_on(&self, ways: &mut Ways) -> bool {
        let Some(routes) = self.tables.get(&ways.place) else {
            return false;
        };
        let mut compared = 0;
        while compared < COMPARED_AT_ONCE {
            let Some(at) = routes.wild.get(ways.compared) else {
                return false;
            };
            ways.compared += 1;
            ways.add(routes, *at);
            let topic = routes.work.get(at).map_or(0, Vec::len);
            compared += topic * (1 + ways.routing_key.len() / 4);
        }
        true
    }

    /// The prefixes of the brokers of a database, as their tables' names show them, the
    /// longest first.
    pub fn prefixes(&self, db: i32) -> Vec<Vec<u8>> {
        let brokers = self.brokers_of(db);
        let mut prefixes: Vec<Vec<u8>> = brokers.map(|(prefix, _)| prefix.to_vec()).collect();
        prefixes.sort_by_key(|prefix| Reverse(prefix.len()));
        prefixes
    }

    /// Whether one of a broker's tables leads to this queue.
    pub fn leads_to(&self, db: i32, prefix: &[u8], queue: &[u8]) -> bool {
        self.queues.contains(&(db, prefix.to_vec(), queue.to_vec()))
    }

    /// The separator that a broker's tables use.
    pub fn separator(&self, db: i32, prefix: &[u8]) -> &[u8] {
        let broker = self.brokers.get(&(db, prefix.to_vec()));
        broker.map_or(SEP, |broker| &broker.sep)
    }

    fn know(&mut self, db: i32, name: Vec<u8>, routes: Routes) {
        if let Some(key) = binding::binding_key(&name) {
            let place = (db, key.prefix.to_vec());
            let known = self.brokers.get(&place);
            if known.is_none_or(|known| name < known.table) {
                let broker = Broker {
                    table: name.clone(),
                    sep: routes.sep.clone(),
                };
                self.brokers.insert(place, broker);
            }
        }
        if routes.sep != SEP {
            self.others.push_back((db, name.clone()));
        }
        self.tables.insert((db, name), routes);
    }

    /// kombu 5.7's other table of the same bindings.
    pub fn permanent(&self, db: i32, table: &[u8]) -> Option<&[u8]> {
        let routes = self.tables.get(&(db, table.to_vec()))?;
        Some(&routes.permanent)
    }
}
