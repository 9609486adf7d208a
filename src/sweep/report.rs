//! SCAN's work: counting, and changing nothing.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::rc::Rc;

use super::last::{self, Question};
use super::later::Later;
use super::{Cost, Kept, Run, Scope, Turn, Visitor, fix, lists};
use crate::core::beat::{Evidence, Finding};
use crate::core::celery::binding;
use crate::core::glob::Glob;
use crate::core::keys::{Class, KeyType, Names};
use crate::core::reply::Reply;
use crate::core::settings::Settings;
use crate::core::tally::{Moment, Seen, ServerMemory, Tally};
use crate::evidence::Paused;
use crate::evidence::judging::Judging;
use crate::server::acl::Right;
use crate::server::scan::Found;
use crate::server::{Ctx, call, context, key};
use crate::{known, stats};

/// How memory is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Every element of every value.
    Exact,
    /// Five elements of each aggregate, as MEMORY USAGE does by itself, and one in
    /// a few of the strings that are alike.
    Sample,
    /// Not at all.
    Off,
}

/// What a scan is to show.
pub struct ScanOrder {
    /// Only names that begin so; classes are seen behind it.
    pub prefix: Vec<u8>,
    /// Only keys of this name.
    pub pattern: Option<Glob>,
    /// How memory is counted.
    pub memory: Memory,
    /// How many of the biggest keys are named.
    pub top: usize,
    /// Who asks.
    pub user: Option<Vec<u8>>,
    /// Where.
    pub scope: Scope,
}

impl ScanOrder {
    fn question(&self) -> Question {
        Question {
            user: self.user.clone(),
            scope: self.scope,
            prefix: self.prefix.clone(),
            pattern: self.pattern.as_ref().map(|glob| glob.source().to_vec()),
            memory: self.memory,
        }
    }
}

/// The visitor of SCAN.
pub struct Report {
    order: ScanOrder,
    names: Rc<Names>,
    settings: Rc<Settings>,
    tally: Tally,
    sizes: Sizes,
    rest: Later,
    /// Zsets that can be told when all hashes have been seen, with their bytes.
    later: Vec<(Kept, u64)>,
    /// What the queues come to is known.
    summed_up: bool,
    beat: Beat,
    skipped_noperm: u64,
}

/// How far the look at periodic work has come, BEATSTATUS' own: it is the last part
/// of a scan of all keys, which has taught where to look.
#[derive(Default)]
enum Beat {
    #[default]
    Due,
    Gathers(Box<Paused>),
    Found(Box<Evidence>),
    Judges(Judging),
    Done(Vec<Finding>),
}

/// Zsets that are looked at once more; others stay what they seem.
const MOST_LATER: usize = 10_000;

/// Queues summed up between two looks at the clock.
const QUEUES_AT_ONCE: usize = 512;

/// What strings of one name and value length were measured to take. Of two such
/// strings only the spare room of an appended one and the encoding of a short
/// number differ, so one in a few is measured and stands for the next ones.
#[derive(Default)]
struct Sizes(HashMap<(usize, u64), (u64, u8)>);

impl Sizes {
    /// Lengths remembered.
    const MOST: usize = 4_096;
    /// Strings that one measured string stands for.
    const STANDS_FOR: u8 = 15;

    /// What a string of these lengths takes, unless it is time to measure one.
    fn known(&mut self, name: usize, value: u64) -> Option<u64> {
        let (bytes, left) = self.0.get_mut(&(name, value))?;
        *left = left.checked_sub(1)?;
        Some(*bytes)
    }

    fn measured(&mut self, name: usize, value: u64, bytes: u64) {
        if self.0.len() < Self::MOST || self.0.contains_key(&(name, value)) {
            self.0.insert((name, value), (bytes, Self::STANDS_FOR));
        }
    }
}

impl Report {
    /// A visitor under the settings in force now.
    pub fn new(order: ScanOrder, names: Rc<Names>, settings: Rc<Settings>) -> Self {
        let names = if order.prefix.is_empty() {
            names
        } else {
            Rc::new(Names::clone(&names).behind(order.prefix.clone()))
        };
        Self {
            tally: Tally::new(order.top, settings.max_ttl_ms),
            order,
            names,
            settings,
            sizes: Sizes::default(),
            rest: Later::default(),
            later: Vec::new(),
            summed_up: false,
            beat: Beat::default(),
            skipped_noperm: 0,
        }
    }

    /// Whether all keys of the databases were asked for.
    const fn whole(&self) -> bool {
        self.order.prefix.is_empty() && self.order.pattern.is_none()
    }

    /// Whether all keys were asked for.
    fn asked_for_all(&self) -> bool {
        self.order.scope == Scope::All && self.whole()
    }

    /// Whether what was counted is all that the server holds.
    fn saw_all(&self) -> bool {
        self.asked_for_all() && self.skipped_noperm == 0
    }

    fn bytes(&mut self, turn: &Turn<'_>, kept: &Kept) -> u64 {
        match self.order.memory {
            Memory::Off => 0,
            Memory::Sample => {
                let bytes = call::memory_usage(turn.ctx, &kept.name, 5);
                if kept.kind == KeyType::String {
                    let name = kept.name.bytes().len();
                    self.sizes.measured(name, kept.len, bytes);
                }
                bytes
            }
            Memory::Exact => call::memory_usage(turn.ctx, &kept.name, 0),
        }
    }

    /// What lies in a key that its name does not explain.
    fn told(&mut self, turn: &Turn<'_>, kept: &Kept, bytes: u64) -> Class {
        let (name, kind) = (&kept.name, kept.kind);
        let class = lists::told(turn.ctx, &self.names, kept.db, name, kind, kept.len, bytes);
        if class == Class::Unacked && kind == KeyType::Hash {
            self.tally.unacked_elsewhere(kept.db, name.bytes());
        }
        class
    }

    /// Adds a list, or a zset, to its queue.
    fn queue(&mut self, turn: &Turn<'_>, kept: &Kept, bytes: u64) {
        let name = kept.name.bytes();
        let samples = if kept.kind == KeyType::List {
            lists::samples(turn.ctx, name, kept.len, bytes, turn.now_ms)
        } else {
            lists::Samples::default()
        };
        let measured = if self.order.memory == Memory::Off {
            0
        } else {
            bytes
        };
        let queue = lists::queue_name(name);
        self.tally
            .add_queue(kept.db, queue, kept.len, measured, samples.sent_ms);
        self.tally
            .add_expired(measured, samples.looked_at, samples.expired);
    }

    /// Adds a key of a class that is certain now; answers the bytes read for that.
    fn count(&mut self, turn: &Turn<'_>, kept: Kept, bytes: u64) -> u64 {
        let since_ms = match (kept.class, kept.kind) {
            (Class::TaskResult, _) => {
                let key = key::Key::read(turn.ctx, &kept.name);
                key.and_then(|key| fix::finished_ms(&key, kept.name.bytes(), turn))
            }
            (Class::Unacked, KeyType::Zset) if delivery_times(kept.name.bytes()) => {
                lowest_score_ms(turn, &kept)
            }
            _ => None,
        };
        self.tally.add(&Seen {
            db: kept.db,
            name: kept.name.bytes(),
            class: kept.class,
            kind: kept.kind,
            ttl: kept.ttl,
            elements: kept.len,
            bytes,
            since_ms,
        });
        let name = kept.name.bytes();
        match (kept.class, kept.kind) {
            (Class::Unacked, KeyType::Hash) => self.rest.unacked(kept.db, kept.name),
            (Class::Binding, kind) => self.rest.table(kept.db, name, kind),
            (Class::Queue, KeyType::List) => self.rest.queue(kept.db, name, bytes),
            (Class::ReplyQueue | Class::EventQueue, KeyType::List) => {
                self.rest.list(kept.db, kept.class, name, bytes);
            }
            (Class::GroupResult, _) => self.rest.group(kept.db, Some(kept.name), bytes),
            (Class::Chord, _) => {
                let idle_ms = key::Key::read(turn.ctx, &kept.name).and_then(|key| key.idle_ms());
                self.rest.chord(kept.db, name, idle_ms, bytes);
            }
            _ => {}
        }
        turn.read.take()
    }

    /// The next step of the look at periodic work. `None` if there is none left.
    fn look_at_beat(&mut self, ctx: Ctx<'_>) -> Option<Cost> {
        if !self.asked_for_all() {
            return None;
        }
        let now_ms = context::now_ms();
        self.beat = match std::mem::take(&mut self.beat) {
            Beat::Due => {
                let user = self.order.user.as_deref();
                Beat::Gathers(Box::new(Paused::begin(ctx, user, now_ms)))
            }
            Beat::Gathers(look) => match look.go_on(ctx, || true) {
                Err(rest) => Beat::Gathers(rest),
                Ok(found) => Beat::Found(Box::new(found.evidence)),
            },
            Beat::Found(evidence) => Beat::Judges(Judging::begin(*evidence, now_ms)),
            Beat::Judges(judging) => match judging.go_on() {
                Judging::Done(assessment) => Beat::Done(assessment.findings),
                // The pass has the same end: without this its answer would be too good.
                Judging::Failed => resume_unwind(Box::new("no verdict")),
                judging @ Judging::Beside(_) => Beat::Judges(judging),
            },
            done @ Beat::Done(_) => {
                self.beat = done;
                return None;
            }
        };
        Some(Cost::of_its_own())
    }

    /// Counts a string inside the scan, where nothing has to be asked about it:
    /// most keys are such. `false` if something has.
    fn count_at_once(&mut self, found: &Found<'_>, turn: &Turn<'_>, seen: &mut Seen<'_>) -> bool {
        let bytes = match self.order.memory {
            Memory::Off => Some(0),
            Memory::Sample => self.sizes.known(seen.name.len(), seen.elements),
            Memory::Exact => None,
        };
        let Some(bytes) = bytes else {
            return false;
        };
        if seen.class == Class::TaskResult {
            let Some(since_ms) = fix::date(found.key(), seen.name, turn, true) else {
                return false;
            };
            seen.since_ms = since_ms;
        }
        seen.bytes = bytes;
        self.tally.add(seen);
        match seen.class {
            Class::GroupResult => self.rest.group(seen.db, found.keep(), bytes),
            Class::Chord => {
                let idle_ms = found.key().idle_ms();
                self.rest.chord(seen.db, seen.name, idle_ms, bytes);
            }
            _ => {}
        }
        true
    }
}

impl Visitor for Report {
    fn sift(&mut self, found: &Found<'_>, turn: &Turn<'_>, db: i32) -> Option<Kept> {
        let name = found.name();
        if !name.starts_with(&self.order.prefix)
            || self
                .order
                .pattern
                .as_ref()
                .is_some_and(|glob| !glob.matches(name))
        {
            return None;
        }
        if turn
            .user
            .is_some_and(|user| !found.permits(user, Right::Access))
        {
            self.skipped_noperm += 1;
            return None;
        }
        let kind = found.key().kind()?;
        let class = self.names.class(name, kind);
        known::seen(db, name, class, kind);
        if class == Class::Binding
            && let Some(table) = binding::binding_key(name)
            && !self.names.prefixes().any(|prefix| prefix == table.prefix)
        {
            self.tally.unknown_prefix(table.prefix);
            self.rest.broker(db, table.prefix);
        }
        let ttl = found.key().ttl();
        if kind == KeyType::String {
            let mut seen = Seen {
                db,
                name,
                class,
                kind,
                ttl,
                elements: found.key().len() as u64,
                bytes: 0,
                since_ms: None,
            };
            if self.count_at_once(found, turn, &mut seen) {
                return None;
            }
        }
        Kept::new(found, db, class, kind, ttl)
    }

    fn handle(&mut self, turn: &Turn<'_>, mut kept: Kept) -> Cost {
        let mut cost = Cost::default();
        let bytes = self.bytes(turn, &kept);
        if self.order.memory == Memory::Exact && kept.kind != KeyType::String {
            cost.bytes += kept.len.saturating_mul(16);
        }
        if kept.class == Class::Other && lists::may_tell(kept.kind) {
            // What is read of it may be long.
            cost.bytes += Cost::of_its_own().bytes;
            let size = match self.order.memory {
                Memory::Off => call::memory_usage(turn.ctx, &kept.name, lists::FIRST),
                _ => bytes,
            };
            kept.class = self.told(turn, &kept, size);
            match (kept.class, kept.kind) {
                (Class::Queue, _) => self.queue(turn, &kept, size),
                (Class::Other, KeyType::Zset) if self.later.len() < MOST_LATER => {
                    self.later.push((kept, bytes));
                    return cost;
                }
                _ => {}
            }
        }
        cost.bytes += self.count(turn, kept, bytes);
        cost
    }

    fn after(&mut self, turn: &Turn<'_>) -> Option<Cost> {
        if let Some((mut kept, bytes)) = self.later.pop() {
            if turn.ctx.select(kept.db) {
                kept.class = self.told(turn, &kept, bytes);
            }
            self.count(turn, kept, bytes);
            return Some(Cost::of_its_own());
        }
        if let Some(cost) = self.rest.step(turn, &self.names) {
            return Some(cost);
        }
        if let Some((db, queue, sep)) = self.rest.next_other_separator() {
            self.tally.merge_priorities(db, &queue, &sep);
            return Some(Cost::default());
        }
        if !self.summed_up {
            self.summed_up = !self.tally.sum_up(QUEUES_AT_ONCE);
            return Some(Cost::of_its_own());
        }
        self.look_at_beat(turn.ctx)
    }

    fn writes(&self) -> bool {
        false
    }

    fn restart(&mut self) {
        self.tally = Tally::new(self.order.top, self.settings.max_ttl_ms);
        self.rest = Later::default();
        self.later.clear();
        self.summed_up = false;
        self.beat = Beat::default();
        self.skipped_noperm = 0;
    }

    fn shed(&mut self, most: usize) -> bool {
        self.tally.shed(most) || self.rest.shed(most)
    }

    fn report(&mut self, ctx: Ctx<'_>, run: &Run) -> Reply {
        let now_ms = context::now_ms();
        let maxmemory = context::server_info(ctx, c"memory", c"maxmemory");
        let maxmemory = maxmemory.and_then(|text| text.parse().ok());
        let policy = context::eviction_policy(ctx);
        let beat = match std::mem::take(&mut self.beat) {
            Beat::Done(findings) => findings,
            _ => Vec::new(),
        };
        let moment = Moment {
            now_ms,
            maxmemory: maxmemory.unwrap_or(0),
            policy: policy.as_bytes(),
            memory: (self.saw_all() && self.order.memory != Memory::Off)
                .then(|| server_memory(ctx))
                .flatten(),
            beat: &beat,
        };
        if self.saw_all() {
            let (all, without_ttl) = self.tally.results();
            stats::results(all, without_ttl);
        }
        let whole = self.whole() && self.skipped_noperm == 0;
        self.tally.set_remains(self.rest.remains(whole));
        self.tally.name_indexes(known::index_of);
        let since_last = last::compare(&self.order.question(), self.tally.sums(), now_ms);
        Reply::map([
            ("scanned", Reply::count(run.scanned)),
            ("duration_ms", Reply::Int(run.duration_ms)),
            ("server_ms", Reply::count(run.server_us / 1_000)),
            ("skipped_noperm", Reply::count(self.skipped_noperm)),
            ("acl_checked", fix::acl_checked()),
            ("classes", self.tally.classes(now_ms)),
            ("top", self.tally.top()),
            ("findings", self.tally.findings(&self.settings, &moment)),
            ("since_last", since_last),
        ])
    }
}

fn server_memory(ctx: Ctx<'_>) -> Option<ServerMemory> {
    let fields = [
        c"used_memory",
        c"used_memory_startup",
        c"mem_clients_normal",
        c"mem_clients_slaves",
        c"mem_replication_backlog",
        c"mem_aof_buffer",
    ];
    let [used, startup, clients, replicas, backlog, aof] =
        context::server_numbers(ctx, c"memory", fields)?;
    Some(ServerMemory {
        used,
        startup,
        clients,
        replicas,
        backlog,
        aof,
    })
}

/// Whether the scores of an index of unacked messages are when those were taken.
/// celery-redis-plus' are when they will be put back.
fn delivery_times(name: &[u8]) -> bool {
    memchr::memmem::find(name, b"messages_index").is_none()
}

/// The lowest score of a zset that holds Unix seconds, in ms.
fn lowest_score_ms(turn: &Turn<'_>, kept: &Kept) -> Option<i64> {
    if call::too_long_to_copy(turn.ctx, &kept.name, 1) {
        return None;
    }
    let words: [&[u8]; 4] = [kept.name.bytes(), b"0", b"0", b"WITHSCORES"];
    let reply = key::untouched(turn.ctx, &kept.name, || {
        call::read(turn.ctx, c"ZRANGE", &words)
    });
    let score = reply.array().get(1)?.str()?.to_vec();
    seconds_to_ms(&score)
}

/// A score, Unix seconds as the server prints a double, in ms.
#[must_use]
pub fn seconds_to_ms(score: &[u8]) -> Option<i64> {
    let seconds: f64 = std::str::from_utf8(score).ok()?.parse().ok()?;
    // Beyond this no clock goes, and the conversion would not be exact.
    if !(0.0..1e12).contains(&seconds) {
        return None;
    }
    #[allow(clippy::cast_possible_truncation, reason = "bounded above")]
    Some((seconds * 1_000.0) as i64)
}
