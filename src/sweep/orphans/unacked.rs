//! Messages that were taken and neither acknowledged nor put back.
//!
//! What kombu's workers do for each other (kombu 5.7 `kombu/transport/redis.py`,
//! `QoS.restore_visible` and `restore_by_tag`) is done here where no worker is left:
//! out of index and hash and into the queue, in one step. Unlike kombu, a message
//! that no binding leads anywhere is left where it is, not dropped.

use std::collections::VecDeque;
use std::ops::Bound;
use std::rc::Rc;

use super::super::tables::Ways;
use super::super::{Cost, Turn, lists};
use super::{EXEMPT, Kind, Orphans, may};
use crate::core::celery::binding::{list_at, list_of};
use crate::core::celery::{body, envelope, restore};
use crate::core::keys::KeyType;
use crate::core::orphans::same_slot;
use crate::core::reply::Reply;
use crate::known;
use crate::observe;
use crate::server::acl::Right;
use crate::server::call::{self, Value};
use crate::server::key::{self, Key};
use crate::server::scan::MembersCursor;
use crate::server::{Ctx, Str};
use crate::sweep::report::seconds_to_ms;

/// Entries of the index asked for at a time.
const PORTION: u64 = 20;

/// What the ways of messages may take that are remembered, in bytes. All are let go at
/// once.
const WAYS_BYTES: usize = 1024 * 1024;

/// To put a message back takes as long as to read about so many bytes.
const PUT_BACK: u64 = 1_024;

/// The longest delivery that is copied to be read and put back, in bytes. The server copies
/// it several times for that: at this length it takes 1.6 ms of a processor, at 4 MiB 8 ms
/// (Redis 7.0.15).
const LONGEST: u64 = 1024 * 1024;

/// Why a longer one stays.
const TOO_LONG: &str =
    "it is longer than 1 MiB, too long to be read here: the next worker puts it back";

const MUTEX_HELD: &str = "the unacked mutex is held: a worker is putting messages back, or died doing so within the last 5 minutes";
const MUTEX_STUCK: &str = "the unacked mutex has no TTL: nothing is put back while it lies there; with no worker at that, EXPIRE it";

/// What belongs to one hash of unacknowledged messages.
#[derive(Clone)]
struct Names {
    hash: Vec<u8>,
    index: Vec<u8>,
    /// The mutex, or the names it may have.
    mutexes: Vec<Vec<u8>>,
    /// The key prefix of its broker, if it is known.
    prefix: Option<Vec<u8>>,
    /// A setting or kombu's own names say that this is the hash of that broker. Where
    /// only its content does, a message goes only where a table leads.
    named: bool,
}

impl Names {
    /// The table of an exchange's bindings. The default exchange has none: its messages
    /// go to the queue that their routing key names.
    fn table_of(&self, exchange: &str) -> Option<Vec<u8>> {
        let prefix = self.prefix.as_deref()?;
        let named = [prefix, b"_kombu.binding.", exchange.as_bytes()];
        (!exchange.is_empty()).then(|| named.concat())
    }
}

/// A search for the index of a hash.
pub struct Search {
    db: i32,
    names: Names,
    tags: Vec<Vec<u8>>,
    /// Zsets of the usual names.
    usual: VecDeque<Vec<u8>>,
    /// The last of the database's others that was looked into.
    other: Option<Vec<u8>>,
}

/// Candidates looked at in one step of a search.
const CANDIDATES: usize = 10;

/// Messages of a hash that its index is searched by.
const TAGS: usize = 3;

/// A walk through the index of one hash, from the youngest entry that is old enough
/// to the oldest, as kombu goes: what is put back last is read first.
pub struct Walk {
    db: i32,
    names: Names,
    /// Where to go on: a score as the server prints it, none at the beginning, and
    /// how many entries of just that score are behind us.
    from: Vec<u8>,
    skip: u64,
    portion: VecDeque<(Vec<u8>, Vec<u8>)>,
    messages: i64,
    indexed: i64,
    mutex_state: &'static str,
    stuck: u64,
    waiting: u64,
    requeued: u64,
    oldest_ms: Option<i64>,
}

impl Walk {
    /// The hash as the reply tells it.
    pub fn reply(self) -> Reply {
        Reply::map([
            ("db", Reply::Int(i64::from(self.db))),
            ("name", Reply::bytes(self.names.hash)),
            ("index", Reply::bytes(self.names.index)),
            ("messages", Reply::Int(self.messages)),
            ("stuck", Reply::count(self.stuck)),
            ("waiting", Reply::count(self.waiting)),
            ("requeued", Reply::count(self.requeued)),
            (
                "not_indexed",
                Reply::Int(self.messages.saturating_sub(self.indexed).max(0)),
            ),
            (
                "oldest_s",
                Reply::Int(self.oldest_ms.map_or(-1, |ms| ms / 1_000)),
            ),
            ("mutex", Reply::word(self.mutex_state)),
        ])
    }

    /// Goes past an entry that stays.
    fn pass(&mut self, score: &[u8]) {
        if self.from == score {
            self.skip += 1;
        } else {
            self.from = score.to_vec();
            self.skip = 1;
        }
    }

    /// Goes past an entry that is gone.
    fn past_gone(&mut self, score: &[u8]) {
        if self.from != score {
            self.from = score.to_vec();
            self.skip = 0;
        }
    }
}

/// A delivery that is due to go back.
struct Stuck<'a> {
    tag: &'a [u8],
    value: &'a [u8],
    /// Where its exchange sends it; `None` for the default exchange.
    ways: Option<&'a Ways>,
    routing_key: &'a str,
    priority: Option<i64>,
}

impl Orphans {
    /// Takes the next entry of the walk in hand, or begins the next. `None` when
    /// all are done.
    pub(super) fn unacked_step(&mut self, turn: &Turn<'_>) -> Option<Cost> {
        if let Some(search) = self.due.search.take() {
            self.search_step(turn, search);
            return Some(Cost::of_its_own());
        }
        if let Some(ways) = self.due.looking.take() {
            self.look_on(ways);
            return Some(Cost::default());
        }
        let Some(mut walk) = self.due.walk.take() else {
            let (db, hash) = self.due.unacked.pop_first()?;
            self.begin(turn, db, hash);
            return Some(Cost::default());
        };
        if !turn.ctx.select(walk.db) {
            return Some(Cost::default());
        }
        if walk.portion.is_empty() && !self.next_portion(turn, &mut walk) {
            self.places.push(walk.reply());
            return Some(Cost::default());
        }
        let mut cost = Cost::default();
        if let Some((tag, score)) = walk.portion.pop_front() {
            cost = self.entry(turn, &mut walk, &tag, &score);
            if self.due.looking.is_some() {
                walk.portion.push_front((tag, score));
            } else if cost.writes > 0 {
                walk.past_gone(&score);
            } else {
                walk.pass(&score);
            }
        }
        self.due.walk = Some(walk);
        Some(cost)
    }

    /// Finds out what belongs to a hash, and begins with it. Its index may have to be
    /// searched first.
    fn begin(&mut self, turn: &Turn<'_>, db: i32, hash: Vec<u8>) {
        if !turn.ctx.select(db) || !self.may_look(turn, &hash, KeyType::Hash) {
            return;
        }
        let names = self.names_of(db, hash);
        if is(turn.ctx, &names.index, KeyType::Zset) {
            self.walk(turn, db, names);
            return;
        }
        self.due.search = Some(Search {
            db,
            tags: some_tags(turn.ctx, &names.hash),
            usual: self.usual_indexes(&names),
            other: None,
            names,
        });
    }

    /// Whether there is a key of this type that the caller may read.
    fn may_look(&mut self, turn: &Turn<'_>, name: &[u8], kind: KeyType) -> bool {
        if !is(turn.ctx, name, kind) {
            return false;
        }
        let read = Str::new(name).is_some_and(|name| may(turn, Right::Access, &name));
        self.skipped_noperm += u64::from(!read);
        read
    }

    fn names_of(&self, db: i32, hash: Vec<u8>) -> Names {
        let tables = self.tables.prefixes(db);
        let prefixes = self
            .names
            .prefixes()
            .chain(tables.iter().map(Vec::as_slice));
        if let Some((prefix, names)) = self.names.unacked_of(&hash, prefixes) {
            return Names {
                hash,
                index: names.index,
                mutexes: vec![names.mutex],
                prefix: Some(prefix.to_vec()),
                named: true,
            };
        }
        let prefix = tables.into_iter().find(|prefix| hash.starts_with(prefix));
        let mut mutexes = vec![[hash.as_slice(), b"_mutex"].concat()];
        for names in self.names.unacked() {
            mutexes.push(names.behind(prefix.as_deref().unwrap_or_default()).mutex);
        }
        let index = known::index_of(db, &hash);
        Names {
            index: index.unwrap_or_else(|| [hash.as_slice(), b"_index"].concat()),
            hash,
            mutexes,
            prefix,
            named: false,
        }
    }

    /// Zsets that would be the index of a hash by their name.
    fn usual_indexes(&self, names: &Names) -> VecDeque<Vec<u8>> {
        let prefix = names.prefix.as_deref().unwrap_or_default();
        let usual = self.names.unacked();
        usual.map(|names| names.behind(prefix).index).collect()
    }

    /// Looks into a few zsets for the messages of the hash.
    fn search_step(&mut self, turn: &Turn<'_>, mut search: Search) {
        if !turn.ctx.select(search.db) {
            return;
        }
        for _ in 0..CANDIDATES {
            let zset = search.usual.pop_front().or_else(|| {
                let from = match search.other.take() {
                    Some(name) => Bound::Excluded((search.db, name)),
                    None => Bound::Included((search.db, Vec::new())),
                };
                let mut others = self.due.zsets.range((from, Bound::Unbounded));
                let (_, name) = others.next().filter(|(db, _)| *db == search.db)?;
                search.other = Some(name.clone());
                search.other.clone()
            });
            let Some(zset) = zset else {
                // An index that is missing is told: its messages come back to nobody.
                self.walk(turn, search.db, search.names);
                return;
            };
            let holds = |tag: &Vec<u8>| {
                let score = key::ask(turn.ctx, &zset, c"ZSCORE", &[tag]);
                score.str().and_then(seconds_to_ms).is_some()
            };
            if is(turn.ctx, &zset, KeyType::Zset) && search.tags.iter().any(holds) {
                known::index_found(search.db, &search.names.hash, &zset);
                search.names.index = zset;
                self.walk(turn, search.db, search.names);
                return;
            }
        }
        self.due.search = Some(search);
    }

    fn walk(&mut self, turn: &Turn<'_>, db: i32, names: Names) {
        if is(turn.ctx, &names.index, KeyType::Zset)
            && !self.may_look(turn, &names.index, KeyType::Zset)
        {
            return;
        }
        let too_long = |index| call::too_long_to_copy(turn.ctx, &index, PORTION);
        if Str::new(&names.index).is_some_and(too_long) {
            self.left_out += 1;
            return;
        }
        let size = |name: &[u8]| {
            let key = Str::new(name);
            let key = key.as_ref().and_then(|name| Key::read(turn.ctx, name));
            key.map_or(0, |key| i64::try_from(key.len()).unwrap_or(i64::MAX))
        };
        self.due.walk = Some(Walk {
            db,
            messages: size(&names.hash),
            indexed: size(&names.index),
            mutex_state: mutex_state(turn.ctx, &names.mutexes),
            from: Vec::new(),
            skip: 0,
            portion: VecDeque::new(),
            stuck: 0,
            waiting: 0,
            requeued: 0,
            oldest_ms: None,
            names,
        });
    }

    /// Asks for more entries that are old enough.
    fn next_portion(&self, turn: &Turn<'_>, walk: &mut Walk) -> bool {
        if walk.from.is_empty() {
            let limit_ms = turn.now_ms.saturating_sub(self.order.ages.unacked_ms);
            let (seconds, ms) = (limit_ms.div_euclid(1_000), limit_ms.rem_euclid(1_000));
            walk.from = format!("({seconds}.{ms:03}").into_bytes();
        }
        let (skip, portion) = (walk.skip.to_string(), PORTION.to_string());
        let reply = key::ask(
            turn.ctx,
            &walk.names.index,
            c"ZREVRANGEBYSCORE",
            &[
                &walk.from,
                b"-inf",
                b"WITHSCORES",
                b"LIMIT",
                skip.as_bytes(),
                portion.as_bytes(),
            ],
        );
        walk.portion = reply
            .array()
            .chunks(2)
            .filter_map(|pair| match pair {
                [tag, score] => Some((tag.str()?.to_vec(), score.str()?.to_vec())),
                _ => None,
            })
            .collect();
        !walk.portion.is_empty()
    }

    /// Goes on looking for the ways of messages.
    fn look_on(&mut self, mut ways: Ways) {
        if self.tables.go_on(&mut ways) {
            self.due.looking = Some(ways);
            return;
        }
        let bytes = ways.bytes();
        if self.due.ways_bytes + bytes > WAYS_BYTES {
            self.due.ways.clear();
            self.due.ways_bytes = 0;
        }
        self.due.ways_bytes += bytes;
        self.due.ways.insert(ways.place(), Rc::new(ways));
    }

    /// Where messages of this routing key go by a table. `None` where that takes a
    /// while: then it is being looked for.
    fn ways(&mut self, db: i32, table: Vec<u8>, routing_key: &[u8]) -> Option<Rc<Ways>> {
        let mut ways = self.tables.ways(db, &table, routing_key);
        if !self.tables.go_on(&mut ways) {
            return Some(Rc::new(ways));
        }
        let known = self.due.ways.get(&ways.place()).cloned();
        if known.is_none() {
            self.due.looking = Some(ways);
        }
        known
    }

    /// Judges one delivery, and puts it back if that is asked for. While where it goes
    /// is being looked for, it is to be judged again.
    fn entry(&mut self, turn: &Turn<'_>, walk: &mut Walk, tag: &[u8], score: &[u8]) -> Cost {
        let mut cost = Cost::default();
        let length = key::ask(turn.ctx, &walk.names.hash, c"HSTRLEN", &[tag]).int();
        let length = length.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        if length == 0 {
            self.keep(
                Kind::Unacked,
                "the index names a message that is gone: it was acknowledged or put back",
            );
            return cost;
        }
        if length > LONGEST {
            self.keep(Kind::Unacked, TOO_LONG);
            return cost;
        }
        let Value::Str(value) = key::ask(turn.ctx, &walk.names.hash, c"HGET", &[tag]) else {
            return cost;
        };
        cost.bytes = value.len() as u64 + PUT_BACK;
        let Some(mut taken) = envelope::read_unacked(&value) else {
            self.keep(Kind::Unacked, "it cannot be read");
            return cost;
        };
        body::complete(&mut taken.envelope, &value);
        let Some(eta_ms) = eta_of(&taken.envelope) else {
            self.keep(Kind::Unacked, "it does not say when it is due");
            return cost;
        };
        if eta_ms.is_some_and(|eta_ms| eta_ms > turn.now_ms) {
            walk.waiting += 1;
            self.keep(Kind::Unacked, "its eta lies ahead");
            return cost;
        }
        let ways = match walk.names.table_of(&taken.exchange) {
            Some(table) => {
                let routing_key = taken.routing_key.as_bytes();
                let Some(ways) = self.ways(walk.db, table, routing_key) else {
                    return cost;
                };
                Some(ways)
            }
            None => None,
        };
        let age_ms = seconds_to_ms(score).map_or(0, |ms| turn.now_ms.saturating_sub(ms));
        walk.stuck += 1;
        walk.oldest_ms = walk.oldest_ms.max(Some(age_ms));
        let id = taken.envelope.id.as_deref().unwrap_or_default();
        let name = if id.is_empty() { tag } else { id.as_bytes() };
        let stuck = Stuck {
            tag,
            value: &value,
            ways: ways.as_deref(),
            routing_key: &taken.routing_key,
            priority: taken.envelope.priority,
        };
        match self.requeue(turn, walk, &stuck) {
            Ok(writes) => {
                cost.writes = writes;
                self.orphan(Kind::Unacked, walk.db, name, age_ms, length);
            }
            Err(Some(why)) => self.keep(Kind::Unacked, why),
            Err(None) => self.skipped_noperm += 1,
        }
        cost
    }

    /// Puts a delivery back if that is asked for: the number of writes. In a report
    /// it only looks whether that could be done.
    ///
    /// # Errors
    /// Why it stays; `None` if the caller may not.
    fn requeue(
        &mut self,
        turn: &Turn<'_>,
        walk: &mut Walk,
        stuck: &Stuck<'_>,
    ) -> Result<u64, Option<&'static str>> {
        let lists = self.lists_of(turn, walk, stuck)?;
        if !self.order.action.cleans(Kind::Unacked) {
            return Ok(0);
        }
        // Here is one step, so whoever holds the mutex is another: taking it and
        // giving it back within the step would only be noise for replicas and AOF.
        walk.mutex_state = mutex_state(turn.ctx, &walk.names.mutexes);
        match walk.mutex_state {
            "absent" => {}
            "no_ttl" => return Err(Some(MUTEX_STUCK)),
            _ => return Err(Some(MUTEX_HELD)),
        }
        let mut names = lists.clone();
        names.extend([walk.names.hash.clone(), walk.names.index.clone()]);
        for name in &names {
            let string = Str::new(name).ok_or(Some("the server is out of memory"))?;
            if self.names.exempt(name) {
                return Err(Some(EXEMPT));
            }
            if !may(turn, Right::Change, &string) {
                return Err(None);
            }
            if turn.cluster && !same_slot(name, &walk.names.hash) {
                return Err(Some("its queue lies in another slot of the cluster"));
            }
        }
        let message = restore::redelivered(stuck.value).ok_or(Some("it cannot be read"))?;
        self.changes.requeued += 1;
        walk.requeued += 1;
        if self.order.dry_run {
            return Ok(0);
        }
        let mut writes = 0;
        for list in &lists {
            // At the end that is read next, as kombu does.
            let pushed = call::write(turn.ctx, c"RPUSH", &[list, &message]);
            writes += u64::from(pushed.int().is_some());
        }
        if writes == 0 {
            self.changes.requeued -= 1;
            walk.requeued -= 1;
            return Err(Some("the server refused to push it"));
        }
        call::write(turn.ctx, c"ZREM", &[&walk.names.index, stuck.tag]);
        call::write(turn.ctx, c"HDEL", &[&walk.names.hash, stuck.tag]);
        Ok(writes + 2)
    }

    /// The lists it goes back to.
    fn lists_of(
        &self,
        turn: &Turn<'_>,
        walk: &Walk,
        stuck: &Stuck<'_>,
    ) -> Result<Vec<Vec<u8>>, Option<&'static str>> {
        let key = stuck.routing_key.as_bytes();
        let prefix = walk.names.prefix.as_deref().ok_or(Some(
            "no routing table tells the key prefix of its queue: the setting unacked-key and \
             those beside it do",
        ))?;
        let queues: Vec<Vec<u8>> = if let Some(ways) = stuck.ways {
            let (_, table, _) = ways.place();
            let bound = |member: &[u8]| {
                key::ask(turn.ctx, &table, c"SISMEMBER", &[member]).int() == Some(1)
            };
            ways.queues()
                .ok_or(Some(
                    "its routing key leads to more queues than one step fills",
                ))?
                .iter()
                .filter(|(_, member)| bound(member))
                .map(|(queue, _)| queue.clone())
                .collect()
        } else {
            let bound = || walk.names.named || self.tables.leads_to(walk.db, prefix, key);
            if key.is_empty() || !bound() {
                Vec::new()
            } else {
                vec![key.to_vec()]
            }
        };
        if queues.is_empty() {
            return Err(Some(
                "no binding leads it to a queue: a worker that declares its queue does",
            ));
        }
        let sep = self.tables.separator(walk.db, prefix);
        let mut lists = Vec::new();
        for queue in queues {
            let queue = [prefix, &queue].concat();
            let list = if let Some(step) = observe::lowest_step(walk.db, &queue) {
                // Its workers read no first list; which others, is not known.
                list_at(&queue, sep, step)
            } else if self.other_steps.contains(&walk.db) {
                // Which lists its workers read is not known, but for this one: it
                // is the one that kombu before 5.3 puts all messages back to.
                queue
            } else {
                list_of(&queue, sep, stuck.priority)
            };
            let string = Str::new(&list).ok_or(None)?;
            let kind = Key::read(turn.ctx, &string).and_then(|key| key.kind());
            if kind.is_some_and(|kind| kind != KeyType::List) {
                return Err(Some("a key of its queue's name is no list"));
            }
            lists.push(list);
        }
        Ok(lists)
    }
}

/// When a task is due, Unix ms; `None` if nobody can tell.
#[allow(clippy::option_option, reason = "due at once is not unknown")]
fn eta_of(message: &envelope::Envelope<'_>) -> Option<Option<i64>> {
    let told = message.kind() == envelope::Kind::Task && !message.eta_unread;
    told.then_some(message.eta_ms)
}

/// The state of a mutex: of several names it may have, the worst.
fn mutex_state(ctx: Ctx<'_>, mutexes: &[Vec<u8>]) -> &'static str {
    let ttls = mutexes.iter().filter_map(|mutex| {
        let name = Str::new(mutex)?;
        Key::read(ctx, &name).map(|key| key.ttl())
    });
    ttls.fold("absent", |state, ttl| match ttl {
        None => "no_ttl",
        Some(_) if state == "no_ttl" => state,
        Some(_) => "held",
    })
}

fn is(ctx: Ctx<'_>, name: &[u8], kind: KeyType) -> bool {
    Str::new(name)
        .as_ref()
        .and_then(|name| Key::read(ctx, name))
        .is_some_and(|key| key.kind() == Some(kind))
}

/// A few fields of a hash.
fn some_tags(ctx: Ctx<'_>, hash: &[u8]) -> Vec<Vec<u8>> {
    const MOST_STEPS: u32 = 100;
    let mut tags = Vec::new();
    let (Some(name), Some(mut cursor)) = (Str::new(hash), MembersCursor::new()) else {
        return tags;
    };
    if lists::holds_long(ctx, &name) {
        return tags;
    }
    let Some(key) = Key::read(ctx, &name) else {
        return tags;
    };
    for _ in 0..MOST_STEPS {
        let more = cursor.step(&key, |tag| {
            if tags.len() < TAGS {
                tags.push(tag.to_vec());
            }
        });
        if !more || tags.len() >= TAGS {
            break;
        }
    }
    tags
}
