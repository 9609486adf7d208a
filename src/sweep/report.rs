//! SCAN's work: counting, and changing nothing.

use std::collections::HashMap;
use std::rc::Rc;

use super::last::{self, Question};
use super::twice::Twice;
use super::{Cost, Kept, Run, Scope, Turn, Visitor, fix, lists};
use crate::core::celery::binding;
use crate::core::glob::Glob;
use crate::core::keys::{Class, KeyType, Names};
use crate::core::reply::Reply;
use crate::core::settings::Settings;
use crate::core::tally::{Moment, Seen, ServerMemory, Tally};
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
    twice: Twice,
    skipped_noperm: u64,
}

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
            twice: Twice::default(),
            skipped_noperm: 0,
        }
    }

    /// Whether the keys counted are all that the server holds.
    fn saw_all(&self) -> bool {
        self.order.scope == Scope::All
            && self.order.prefix.is_empty()
            && self.order.pattern.is_none()
            && self.skipped_noperm == 0
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

    /// Counts a string inside the scan, where nothing has to be asked about it:
    /// most keys are such. `false` if something has.
    fn count_at_once(&mut self, found: &Found<'_>, seen: &mut Seen<'_>) -> bool {
        let bytes = match self.order.memory {
            Memory::Off => Some(0),
            Memory::Sample => self.sizes.known(seen.name.len(), seen.elements),
            Memory::Exact => None,
        };
        let Some(bytes) = bytes else {
            return false;
        };
        if seen.class == Class::TaskResult {
            let Some(since_ms) = fix::date(found.key(), true) else {
                return false;
            };
            seen.since_ms = since_ms;
        }
        seen.bytes = bytes;
        self.tally.add(seen);
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
            if self.count_at_once(found, &mut seen) {
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
        let mut since_ms = None;
        match (kept.class, kept.kind) {
            (Class::TaskResult, _) => {
                if let Some(key) = key::Key::read(turn.ctx, &kept.name) {
                    cost.bytes += kept.len;
                    since_ms = fix::finished_ms(&key);
                }
            }
            (Class::Unacked, KeyType::Zset) if delivery_times(kept.name.bytes()) => {
                since_ms = lowest_score_ms(turn, &kept)
            }
            (Class::Other, kind) if lists::may_tell(&self.names, kept.name.bytes(), kind) => {
                let size = match self.order.memory {
                    Memory::Off => call::memory_usage(turn.ctx, &kept.name, 1),
                    _ => bytes,
                };
                kept.class = lists::told(turn.ctx, kept.db, &kept.name, kind, kept.len, size);
                if kept.class == Class::Queue {
                    let name = kept.name.bytes();
                    let ends = if kind == KeyType::List {
                        lists::ends(turn.ctx, name, kept.len, size, turn.now_ms)
                    } else {
                        lists::Ends::default()
                    };
                    let queue = lists::queue_name(name);
                    self.tally
                        .add_queue(kept.db, queue, kept.len, bytes, ends.sent_ms);
                    if ends.expired {
                        self.tally.add_expired(bytes, ends.all_expired);
                    }
                }
            }
            _ => {}
        }
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
        if kept.class == Class::Unacked && kept.kind == KeyType::Hash {
            self.twice.note(kept.db, kept.name);
        }
        cost
    }

    fn after(&mut self, turn: &Turn<'_>) -> Option<Cost> {
        self.twice.step(turn.ctx)
    }

    fn writes(&self) -> bool {
        false
    }

    fn restart(&mut self) {
        self.tally = Tally::new(self.order.top, self.settings.max_ttl_ms);
        self.twice = Twice::default();
        self.skipped_noperm = 0;
    }

    fn report(&mut self, ctx: Ctx<'_>, run: &Run) -> Reply {
        let now_ms = context::now_ms();
        let maxmemory = setting(ctx, b"maxmemory");
        let maxmemory = std::str::from_utf8(&maxmemory)
            .ok()
            .and_then(|text| text.parse().ok());
        let moment = Moment {
            now_ms,
            maxmemory: maxmemory.unwrap_or(0),
            policy: &setting(ctx, b"maxmemory-policy"),
            memory: (self.saw_all() && self.order.memory != Memory::Off)
                .then(|| server_memory(ctx))
                .flatten(),
        };
        if self.saw_all() {
            let (all, without_ttl) = self.tally.results();
            stats::results(all, without_ttl);
        }
        self.tally.set_duplicates(self.twice.found());
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

/// A setting of the server; empty if it has none of that name.
fn setting(ctx: Ctx<'_>, name: &[u8]) -> Vec<u8> {
    let reply = call::read(ctx, c"CONFIG", &[b"GET", name]);
    let value = reply.array().get(1).and_then(call::Value::str);
    value.unwrap_or_default().to_vec()
}

/// The lowest score of a zset that holds Unix seconds, in ms.
fn lowest_score_ms(turn: &Turn<'_>, kept: &Kept) -> Option<i64> {
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
