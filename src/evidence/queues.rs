//! Routing tables, the queues and workers they name, and what waits there.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, btree_set};
use std::iter::Enumerate;
use std::vec::IntoIter;

use super::look::{Look, Shown};
use super::{Broker, Gathering};
use crate::core::beat::{Place, Queue};
use crate::core::celery::binding::{
    self, PRIORITY_STEPS, SEP, Table, guess_separator, list_at, parse_with, split_priority,
    worker_of,
};
use crate::core::celery::{body, envelope};
use crate::core::keys::{Class, KeyType};
use crate::known;
use crate::observe;
use crate::server::call::Value;
use crate::server::context::db_number;
use crate::server::scan::MembersCursor;

/// Members read of one table, and their bytes.
const MOST_MEMBERS: u64 = 1_000;
const TABLE_BYTES: u64 = 128 * 1024;

/// Members of a table, or queues that tables name, gone through in one step.
const MEMBERS_AT_ONCE: usize = 64;

/// Worker names taken from tables.
const MOST_WORKERS: usize = 1_000;

/// Bytes of messages copied from one queue, and what each gets while others wait
/// for their share.
const QUEUE_BYTES: u64 = 256 * 1024;
const LEAST_SHARE: u64 = 8 * 1024;

/// Messages read from either end of a list.
const MOST_MESSAGES: u64 = 50;

/// Nodes of one list that are measured before anything is copied.
const MOST_NODES: u64 = 1_000;

/// Nodes at a list's head that are measured by themselves.
const FEW_NODES: u32 = 5;

/// A list of no more bytes than this may be read whatever lies in it.
const SMALL_LIST: u64 = 1024 * 1024;

/// Of a larger one, the most a message may have on average.
const LONGEST_MEAN: u64 = 16 * 1024;

/// A queue that may be there.
pub(super) struct Candidate {
    db: i32,
    /// Its first list's name.
    name: Vec<u8>,
    prefix: usize,
    sep: Vec<u8>,
    /// Priorities of lists that were seen.
    priorities: BTreeSet<u8>,
    /// A table names it.
    bound: bool,
    /// Its content was seen to be Celery's.
    known: bool,
    maintenance: bool,
}

/// A queue that is there.
pub(super) struct Present {
    candidate: Candidate,
    lists: Vec<(u8, Shown)>,
    length: u64,
}

/// What was read of a queue.
#[derive(Default)]
struct Read {
    messages: u64,
    /// Elements that are no messages of kombu's, or too long to tell.
    strangers: u64,
    /// Publish time of the oldest message that tells it.
    oldest_ms: Option<i64>,
    /// The step behind which messages of priority 0 lie, if it is another than 0.
    lowest: Option<u8>,
}

/// Queues to look at, in order of weight.
#[derive(Default)]
pub(super) struct Candidates {
    all: Vec<Candidate>,
    at: HashMap<(i32, Vec<u8>), usize>,
    most: usize,
    left_out: usize,
}

impl Candidates {
    /// The candidate of that name, a new one if there is room.
    fn get(&mut self, db: i32, prefix: &[u8], queue: &[u8], sep: &[u8]) -> Option<&mut Candidate> {
        let name = [prefix, queue].concat();
        let place = (db, name.clone());
        let at = match self.at.get(&place) {
            Some(at) => *at,
            None if self.all.len() >= self.most => {
                self.left_out += 1;
                return None;
            }
            None => {
                self.at.insert(place, self.all.len());
                self.all.push(Candidate {
                    db,
                    name,
                    prefix: prefix.len(),
                    sep: sep.to_vec(),
                    priorities: BTreeSet::new(),
                    bound: false,
                    known: false,
                    maintenance: false,
                });
                self.all.len() - 1
            }
        };
        self.all.get_mut(at)
    }

    /// Takes a list that is known for a candidate.
    fn known(&mut self, brokers: &BTreeSet<Broker>, routes: &Routes, db: i32, list: &[u8]) {
        let broker = broker_of(brokers, db, list);
        let rest = list.get(broker.1.len()..).unwrap_or(list);
        let sep = routes.sep(&broker);
        let (queue, priority) = split_priority(rest, sep);
        if let Some(candidate) = self.get(db, &broker.1, queue, sep) {
            candidate.known = true;
            candidate.priorities.insert(priority.unwrap_or(0));
        }
    }
}

/// What is to be done about queues, after what was done.
pub(super) enum Work {
    /// To read these routing tables, and one of them to its end.
    Tables {
        names: IntoIter<(i32, Vec<u8>)>,
        reading: Option<Box<Reading>>,
        seen: BTreeSet<(i32, Vec<u8>)>,
        routes: Routes,
    },
    /// To take these lists, which are known, and then those queues, which tables name, for
    /// candidates as well.
    Candidates {
        brokers: BTreeSet<Broker>,
        lists: IntoIter<(i32, Vec<u8>)>,
        bound: btree_set::IntoIter<(Broker, Vec<u8>)>,
        candidates: Candidates,
        routes: Routes,
    },
    /// To ask for the lengths of these, in order of weight.
    Lengths {
        candidates: Enumerate<IntoIter<Candidate>>,
        present: Vec<Present>,
    },
    /// To read messages of these. `left` are the queues that still want to be read.
    Messages {
        present: IntoIter<Present>,
        left: u64,
        nodes: u64,
    },
}

/// A routing table that is being read.
pub(super) struct Reading {
    broker: Broker,
    table: Shown,
    members: Vec<Vec<u8>>,
    /// How many of its members are to be read at most.
    most: u64,
    /// Buckets to look into at most: one of a set that has shrunk may be empty.
    buckets: u64,
    cursor: Option<MembersCursor>,
    /// What splits its members, once all have been read.
    sep: Option<Vec<u8>>,
}

/// What the tables say.
#[derive(Default)]
pub(super) struct Routes {
    /// How many tables and how many members have been read.
    tables: usize,
    members: u64,
    /// Queues that a table names.
    queues: BTreeSet<(Broker, Vec<u8>)>,
    /// Separators other than the default.
    seps: BTreeMap<Broker, Vec<u8>>,
    workers: BTreeSet<Vec<u8>>,
}

impl Routes {
    fn sep(&self, broker: &Broker) -> &[u8] {
        self.seps.get(broker).map_or(SEP, Vec::as_slice)
    }
}

impl Gathering<Look<'_>> {
    /// What is to be done about queues: to find them, their lengths, and what lies at
    /// their ends.
    pub(super) fn queues(&mut self) -> Work {
        Work::Tables {
            names: self.table_names().into_iter(),
            reading: None,
            seen: BTreeSet::new(),
            routes: Routes::default(),
        }
    }

    /// Takes one step; `None` if that was the last.
    pub(super) fn queue_step(&mut self, work: Work) -> Option<Work> {
        match work {
            Work::Tables {
                mut names,
                reading: None,
                mut seen,
                mut routes,
            } => {
                let Some((db, name)) = names.next() else {
                    return Some(self.candidates(routes));
                };
                let mut reading = None;
                if seen.insert((db, name.clone())) {
                    reading = self.route(db, &name, &mut routes);
                }
                Some(Work::Tables {
                    names,
                    reading,
                    seen,
                    routes,
                })
            }
            Work::Tables {
                names,
                reading: Some(reading),
                seen,
                mut routes,
            } => Some(Work::Tables {
                names,
                reading: self.read_table(reading, &mut routes),
                seen,
                routes,
            }),
            Work::Candidates {
                brokers,
                mut lists,
                mut bound,
                mut candidates,
                routes,
            } => {
                if lists.len() == 0 && bound.len() == 0 {
                    return Some(self.measure_all(candidates, routes));
                }
                let portion = lists.by_ref().take(MEMBERS_AT_ONCE);
                let mut left = MEMBERS_AT_ONCE;
                for (db, list) in portion {
                    candidates.known(&brokers, &routes, db, &list);
                    left -= 1;
                }
                for (broker, queue) in bound.by_ref().take(left) {
                    let (db, prefix) = &broker;
                    let sep = routes.sep(&broker);
                    if let Some(candidate) = candidates.get(*db, prefix, &queue, sep) {
                        candidate.bound = true;
                    }
                }
                Some(Work::Candidates {
                    brokers,
                    lists,
                    bound,
                    candidates,
                    routes,
                })
            }
            Work::Lengths {
                mut candidates,
                mut present,
            } => {
                let Some((rank, candidate)) = candidates.next() else {
                    return Some(self.read_all(present));
                };
                present.extend(self.measure(candidate, rank < self.bounds.in_full));
                Some(Work::Lengths {
                    candidates,
                    present,
                })
            }
            Work::Messages {
                mut present,
                mut left,
                nodes,
            } => {
                let queue = present.next()?;
                let holds_some = queue.length > 0;
                self.queue(queue, left, nodes);
                left = left.saturating_sub(u64::from(holds_some));
                Some(Work::Messages {
                    present,
                    left,
                    nodes,
                })
            }
        }
    }

    fn measure_all(&mut self, candidates: Candidates, routes: Routes) -> Work {
        if candidates.left_out > 0 {
            self.evidence.left_out.push(format!(
                "{} queues were looked at and {} left out",
                candidates.all.len(),
                candidates.left_out
            ));
        }
        self.evidence.workers.bound = routes.workers.into_iter().collect();
        Work::Lengths {
            candidates: candidates.all.into_iter().enumerate(),
            present: Vec::new(),
        }
    }

    fn read_all(&mut self, mut present: Vec<Present>) -> Work {
        present.sort_by_key(|queue| (!queue.candidate.maintenance, Reverse(queue.length)));
        let waiting = present.iter().filter(|queue| queue.length > 0).count();
        let in_full = self.bounds.in_full;
        if waiting > in_full {
            self.evidence.left_out.push(format!(
                "{waiting} queues hold messages, those of {in_full} were looked at"
            ));
        }
        let lists = present
            .iter()
            .take(in_full)
            .fold(0, |sum, queue| sum + queue.lists.len() as u64);
        Work::Messages {
            nodes: (self.bounds.nodes / lists.max(1)).clamp(u64::from(FEW_NODES), MOST_NODES),
            // Only those that hold something want a share of what may be copied.
            left: waiting.min(in_full) as u64,
            present: present.into_iter(),
        }
    }

    /// Routing tables: those of default names and those that are known.
    fn table_names(&mut self) -> Vec<(i32, Vec<u8>)> {
        let mut names: Vec<(i32, Vec<u8>)> = Vec::new();
        let exchanges: Vec<&[u8]> = [b"celery".as_slice(), b"celery.pidbox"]
            .into_iter()
            .chain(self.settings.maintenance_queues.iter().map(Vec::as_slice))
            .chain([b"celeryev".as_slice(), b"reply.celery.pidbox"])
            .collect();
        for (db, prefix) in &self.places.brokers {
            for exchange in &exchanges {
                names.push((
                    *db,
                    [prefix, b"_kombu.binding.".as_slice(), exchange].concat(),
                ));
            }
        }
        names.append(&mut self.places.tables);
        names
    }

    /// Looks at a routing table, unless as many have been read as are allowed. Its
    /// members are read step by step.
    fn route(&mut self, db: i32, name: &[u8], routes: &mut Routes) -> Option<Box<Reading>> {
        let table = binding::binding_key(name).filter(|t| t.table == Table::Bindings)?;
        let broker = (db, table.prefix.to_vec());
        if routes.tables >= self.bounds.tables || routes.members >= self.bounds.members {
            // Celery names an exchange after its queue.
            if is_work(table.exchange) {
                routes.queues.insert((broker, table.exchange.to_vec()));
            }
            return None;
        }
        let shown = self.look.key(db, name)?;
        routes.tables += 1;
        self.broker_dbs.insert(db);
        self.other_transport |= shown.kind == KeyType::Zset;
        known::seen(db, name, Class::Binding, shown.kind);
        // Their members are monitors and askers, however many.
        if table.exchange == b"celeryev" || table.exchange.starts_with(b"reply.") {
            return None;
        }
        let mean = (self.look.bytes(&shown, 5) / shown.len.max(1)).max(1);
        let left = self.bounds.members.saturating_sub(routes.members);
        let most = (TABLE_BYTES / mean).min(MOST_MEMBERS).min(left);
        Some(Box::new(Reading {
            broker,
            table: shown,
            members: Vec::new(),
            most,
            // SSCAN looks into as many.
            buckets: most * 10,
            cursor: MembersCursor::new(),
            sep: None,
        }))
    }

    /// Reads some members of a table, or goes through some that were read; what is left
    /// of that.
    fn read_table(
        &mut self,
        mut reading: Box<Reading>,
        routes: &mut Routes,
    ) -> Option<Box<Reading>> {
        let Some(sep) = &reading.sep else {
            if self.read_members(&mut reading) {
                return Some(reading);
            }
            routes.members += reading.members.len() as u64;
            let members: Vec<&[u8]> = reading.members.iter().map(Vec::as_slice).collect();
            let sep = if members.iter().any(|m| parse_with(m, SEP).is_some()) {
                SEP
            } else {
                let sep = guess_separator(&members)?;
                routes.seps.insert(reading.broker.clone(), sep.to_vec());
                sep
            };
            let (db, prefix) = &reading.broker;
            observe::separator_found(*db, prefix, sep);
            reading.sep = Some(sep.to_vec());
            return Some(reading);
        };
        let left = reading.members.len().saturating_sub(MEMBERS_AT_ONCE);
        for member in reading.members.drain(left..) {
            let Some(binding) = parse_with(&member, sep) else {
                continue;
            };
            let queue = binding.queue;
            if let Some(worker) = worker_of(queue) {
                if routes.workers.len() < MOST_WORKERS {
                    routes.workers.insert(worker.to_vec());
                }
            } else if is_work(queue) {
                let broker = reading.broker.clone();
                routes.queues.insert((broker, queue.to_vec()));
            }
        }
        (left > 0).then_some(reading)
    }

    /// Reads some members; `false` if those were all that are to be read.
    fn read_members(&mut self, reading: &mut Reading) -> bool {
        if reading.most == 0 {
            return false;
        }
        let (table, members) = (&reading.table, &mut reading.members);
        match (table.kind, &mut reading.cursor) {
            (KeyType::Set, Some(cursor)) => {
                let more = self.look.members(table, cursor, MEMBERS_AT_ONCE, members);
                reading.buckets = reading.buckets.saturating_sub(MEMBERS_AT_ONCE as u64);
                more && reading.buckets > 0 && (members.len() as u64) < reading.most
            }
            (KeyType::Zset, _) => {
                let last = (reading.most - 1).to_string();
                let reply = self.look.ask(table, c"ZRANGE", &[b"0", last.as_bytes()]);
                let found = reply.array().iter().filter_map(Value::str);
                members.extend(found.map(<[u8]>::to_vec));
                false
            }
            _ => false,
        }
    }

    /// Everything that may be a queue, what matters most first.
    fn candidates(&mut self, mut routes: Routes) -> Work {
        let mut candidates = Candidates {
            most: self.bounds.queues,
            ..Candidates::default()
        };
        let settings = std::rc::Rc::clone(&self.settings);
        let brokers = std::mem::take(&mut self.places.brokers);
        for broker in &brokers {
            let (db, prefix) = broker;
            for queue in &settings.maintenance_queues {
                if let Some(candidate) = candidates.get(*db, prefix, queue, routes.sep(broker)) {
                    candidate.maintenance = true;
                }
            }
            candidates.get(*db, prefix, b"celery", routes.sep(broker));
        }
        Work::Candidates {
            brokers,
            lists: std::mem::take(&mut self.places.lists).into_iter(),
            bound: std::mem::take(&mut routes.queues).into_iter(),
            candidates,
            routes,
        }
    }

    /// The queue with the lengths of its lists, if there is one.
    fn measure(&mut self, candidate: Candidate, in_full: bool) -> Option<Present> {
        let Candidate {
            db,
            ref name,
            ref sep,
            ref priorities,
            ..
        } = candidate;
        let mut steps: BTreeSet<u8> = priorities.clone();
        if in_full {
            steps.extend(0..10);
        } else {
            steps.extend(PRIORITY_STEPS);
        }
        let mut lists = Vec::new();
        let mut length = 0_u64;
        for priority in steps {
            let list = list_at(name, sep, priority);
            let shown = self.look.key(db, &list);
            if let Some(shown) = shown.filter(|key| key.kind == KeyType::List) {
                length += shown.len;
                lists.push((priority, shown));
            }
        }
        if self.other_transport {
            // celery-redis-plus keeps them in a sorted set.
            let (prefix, queue) = name.split_at_checked(candidate.prefix)?;
            let zset = [prefix, b"queue:", queue].concat();
            let shown = self.look.key(db, &zset);
            length += shown
                .filter(|key| key.kind == KeyType::Zset)
                .map_or(0, |key| key.len);
        }
        (candidate.bound || length > 0).then_some(Present {
            candidate,
            lists,
            length,
        })
    }

    /// Notes the queue, after reading some of its messages. `left` are the queues
    /// that still want to be read, this one among them.
    fn queue(&mut self, queue: Present, left: u64, nodes: u64) {
        let read = self.message_bytes.checked_div(left).map(|share| {
            let most = share.clamp(LEAST_SHARE, QUEUE_BYTES);
            self.messages(&queue, most, nodes)
        });
        let read = read.unwrap_or_default();
        let Present {
            candidate,
            lists,
            length,
        } = queue;
        // A list of somebody else's that happens to be called like a queue.
        let vouched = candidate.bound || candidate.known;
        if !vouched && read.messages == 0 && read.strangers > 0 {
            return;
        }
        self.broker_dbs.insert(candidate.db);
        if !candidate.known {
            for (_, list) in &lists {
                known::seen(candidate.db, list.name(), Class::Queue, KeyType::List);
            }
        }
        self.evidence.queues.push(Queue {
            name: candidate.name,
            prefix: candidate.prefix,
            db: db_number(candidate.db),
            sep: candidate.sep,
            lowest: read.lowest,
            length,
            per_priority: lists.iter().map(|(n, list)| (*n, list.len)).collect(),
            maintenance: candidate.maintenance,
            bound: candidate.bound,
            oldest_message_ms: read.oldest_ms,
        });
    }

    fn messages(&mut self, queue: &Present, most: u64, nodes: u64) -> Read {
        let mut read = Read::default();
        for (step, list) in &queue.lists {
            let most = (most / queue.lists.len() as u64).min(self.message_bytes);
            let found = self.ends(list, most, nodes);
            for element in found.iter().filter_map(Value::str) {
                self.message_bytes = self.message_bytes.saturating_sub(element.len() as u64);
                let Some(mut message) = envelope::read(element) else {
                    read.strangers += 1;
                    continue;
                };
                body::complete(&mut message, element);
                read.messages += 1;
                if *step > 0 && message.is_of_lowest_priority() {
                    read.lowest = Some(*step);
                }
                if let Some(at_ms) = message.published_at_ms() {
                    let oldest_ms = read.oldest_ms.map_or(at_ms, |oldest| oldest.min(at_ms));
                    read.oldest_ms = Some(oldest_ms);
                }
                let Candidate { db, name, .. } = &queue.candidate;
                self.sightings
                    .add(db_number(*db), name, Place::Queue, &message);
            }
        }
        read
    }

    /// Messages from both ends of a list, about `most` bytes of them.
    ///
    /// The server tells the length of no single message without copying it. So
    /// what is copied goes by the mean of those that were measured, which begin
    /// at the newest; and where some of these are much longer than the newest,
    /// only the newest are read. Beyond the nodes measured one long message may
    /// still be met: it is copied once.
    fn ends(&mut self, list: &Shown, most: u64, nodes: u64) -> Vec<Value> {
        let nodes = u32::try_from(nodes).unwrap_or(FEW_NODES);
        let bytes = self.look.bytes(list, nodes);
        let at_head = match bytes {
            ..=SMALL_LIST => bytes,
            _ => self.look.bytes(list, FEW_NODES),
        };
        let uneven = bytes > at_head.saturating_mul(2);
        let mean = (if uneven { at_head } else { bytes } / list.len.max(1)).max(1);
        let count = (most / mean / 2).min(MOST_MESSAGES);
        if count == 0 || (bytes > SMALL_LIST && mean > LONGEST_MEAN) {
            return Vec::new();
        }
        let (newest, oldest) = ((count - 1).to_string(), format!("-{count}"));
        if uneven {
            return self.range(list, "0", &newest);
        }
        if list.len <= 2 * count {
            return self.range(list, "0", "-1");
        }
        let mut found = self.range(list, &oldest, "-1");
        found.extend(self.range(list, "0", &newest));
        found
    }

    fn range(&mut self, list: &Shown, from: &str, to: &str) -> Vec<Value> {
        let words = [from.as_bytes(), to.as_bytes()];
        elements(self.look.ask(list, c"LRANGE", &words))
    }
}

fn elements(reply: Value) -> Vec<Value> {
    match reply {
        Value::Array(elements) => elements,
        _ => Vec::new(),
    }
}

/// Whether a queue is for tasks: control queues, their answers and monitors are
/// not.
fn is_work(queue: &[u8]) -> bool {
    !queue.ends_with(b".pidbox") && queue != b"celeryev" && !queue.starts_with(b"celeryev.")
}

/// The broker a list belongs to: the one with the longest prefix that fits.
fn broker_of(brokers: &BTreeSet<Broker>, db: i32, list: &[u8]) -> Broker {
    let prefix = brokers
        .iter()
        .filter(|(broker_db, prefix)| *broker_db == db && list.starts_with(prefix))
        .map(|(_, prefix)| prefix)
        .max_by_key(|prefix| prefix.len());
    (db, prefix.cloned().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_queues_and_monitors_are_no_work() {
        for (queue, expected) in [
            ("celery", true),
            ("celeryev-like", true),
            ("", true),
            ("w1@lab.celery.pidbox", false),
            (
                "6f1e0b9a-0000-3000-8000-000000000002.reply.celery.pidbox",
                false,
            ),
            ("w1@lab.other.pidbox", false),
            ("celeryev", false),
            ("celeryev.6f1e0b9a-0000-3000-8000-000000000002", false),
        ] {
            assert_eq!(is_work(queue.as_bytes()), expected, "{queue}");
        }
    }

    #[test]
    fn a_list_belongs_to_the_longest_prefix_of_its_database() {
        let brokers: BTreeSet<Broker> = [(0, ""), (0, "a"), (0, "ab:"), (1, "abc")]
            .map(|(db, prefix)| (db, prefix.as_bytes().to_vec()))
            .into();
        for (db, list, expected) in [
            (0, "celery", ""),
            (0, "acelery", "a"),
            (0, "ab:celery", "ab:"),
            (0, "abcelery", "a"),
            (1, "abcelery", "abc"),
            (1, "celery", ""),
            (7, "celery", ""),
        ] {
            let found = broker_of(&brokers, db, list.as_bytes());
            assert_eq!(found, (db, expected.as_bytes().to_vec()), "{db} {list}");
        }
    }
}
