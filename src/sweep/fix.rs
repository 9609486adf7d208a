//! FIXTTL's work, also done by the background sweep: every `task_result` gets a
//! TTL, finished ones that are too old go.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Cost, Decided, Kept, Run, Turn, Visitor, lists};
use crate::core::celery::result;
use crate::core::glob::Glob;
use crate::core::keys::{Class, KeyType, Names};
use crate::core::orphans::CHORD_IDLE_MS;
use crate::core::policy::{Change, Plan};
use crate::core::reply::Reply;
use crate::server::acl::{Right, User};
use crate::server::scan::Found;
use crate::server::{Ctx, call, context, differences, key};
use crate::{keyspace, known, stats};

/// Why the queue of an asker under celery-redis-plus is left.
const PLUS_ANSWERS: &str =
    "its messages lie in keys of their own, which would stay: HYGIENE.ORPHANS PURGE takes both";

/// Why a stream of celery-redis-plus is left.
const STREAM: &str = "it is a stream that every worker reads and that is trimmed by itself";

/// What a sweep is to do.
pub struct FixOrder {
    /// What happens to a key.
    pub plan: Plan,
    /// The classes it is about.
    pub classes: Vec<Class>,
    /// Only keys of this name.
    pub pattern: Option<Glob>,
    /// The most keys changed; 0 is all.
    pub limit: u64,
    /// Only count.
    pub dry_run: bool,
    /// Read every result, decided by its date or not, for what it says of its task.
    pub learn: bool,
    /// Nobody asked for it, and nothing is left out: what it counts is told in STATS.
    pub background: bool,
}

#[derive(Clone, Debug, Default)]
struct Counts {
    matched: u64,
    already_had_ttl: u64,
    results_without_ttl: u64,
    kept_exempt: u64,
    unreadable: u64,
    skipped_noperm: u64,
    left: BTreeMap<(Class, &'static str), u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Changes {
    stamped: u64,
    cut: u64,
    deleted: u64,
    bytes_freed: u64,
}

/// The visitor of FIXTTL and of the background sweep.
pub struct Fix {
    order: FixOrder,
    names: Rc<Names>,
    counts: Counts,
    changes: Changes,
    random: u64,
    memory_before: u64,
}

impl Fix {
    /// A visitor under the names in force now. `seed` is any number.
    pub fn new(ctx: Ctx<'_>, order: FixOrder, names: Rc<Names>, seed: u64) -> Self {
        Self {
            order,
            names,
            counts: Counts::default(),
            changes: Changes::default(),
            random: seed | 1,
            memory_before: used_memory(ctx),
        }
    }

    /// Xorshift: spreading expiries over minutes needs no better.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn leave(&mut self, class: Class, why: &'static str) {
        *self.counts.left.entry((class, why)).or_default() += 1;
    }

    fn apply(&mut self, turn: &Turn<'_>, kept: &Kept, change: Change) -> Cost {
        let mut cost = Cost::default();
        match change {
            Change::Stamp(ms) | Change::Cut(ms) => {
                if !self.order.dry_run {
                    if !keyspace::give_ttl(turn.ctx, &kept.name, ms, turn.cluster) {
                        return cost;
                    }
                    cost.writes = 1;
                }
                if matches!(change, Change::Cut(_)) {
                    self.changes.cut += 1;
                } else {
                    self.changes.stamped += 1;
                }
            }
            Change::Delete => {
                let bytes = call::memory_usage(turn.ctx, &kept.name, 5);
                if !self.order.dry_run {
                    if !key::unlink(turn.ctx, &kept.name) {
                        return cost;
                    }
                    cost.writes = 1;
                }
                self.changes.deleted += 1;
                self.changes.bytes_freed += bytes;
            }
        }
        if !self.order.dry_run {
            match change {
                Change::Stamp(_) => stats::stamped_by_sweep(kept.class),
                Change::Cut(_) => stats::cut_by_sweep(kept.class),
                Change::Delete => stats::deleted(kept.class),
            }
        }
        cost
    }

    /// What a result is due; `None` if its value cannot be read inside the scan.
    fn decide(
        &mut self,
        key: &key::Key<'_>,
        name: &[u8],
        turn: &Turn<'_>,
        inside_scan: bool,
    ) -> Option<Decided> {
        let ttl = key.ttl();
        let mut decided = Decided::default();
        let mut finished = None;
        let dates = self.order.plan.reads_dates(ttl);
        if dates || self.order.learn {
            finished = date(key, name, turn, inside_scan)?;
            decided.undated = dates && finished.is_none();
        }
        decided.no_ttl = ttl.is_none();
        let draw = self.draw();
        decided.change = self.order.plan.decide(turn.now_ms, ttl, finished, draw);
        Some(decided)
    }

    fn settle(&mut self, turn: Option<(&Turn<'_>, &Kept)>, decided: Decided) -> Cost {
        self.counts.unreadable += u64::from(decided.undated);
        self.counts.results_without_ttl += u64::from(decided.no_ttl);
        stats::UNREADABLE_RESULTS.add(u64::from(decided.undated));
        match (decided.change, turn) {
            (Some(change), Some((turn, kept))) => self.apply(turn, kept, change),
            _ => {
                self.counts.already_had_ttl += 1;
                Cost::default()
            }
        }
    }

    fn handle_result(&mut self, turn: &Turn<'_>, kept: &Kept) -> Cost {
        if let Some(decided) = kept.decided {
            return self.settle(Some((turn, kept)), decided);
        }
        // The key may have changed since the scan saw it.
        let Some(key) = key::Key::read(turn.ctx, &kept.name) else {
            return Cost::default();
        };
        if key.kind() != Some(KeyType::String) {
            return Cost::default();
        }
        let decided = self
            .decide(&key, kept.name.bytes(), turn, false)
            .unwrap_or_default();
        drop(key);
        let mut cost = self.settle(Some((turn, kept)), decided);
        cost.bytes += turn.read.take();
        cost
    }

    fn handle_list(&mut self, turn: &Turn<'_>, mut kept: Kept) -> Cost {
        let bytes = call::memory_usage(turn.ctx, &kept.name, lists::FIRST);
        kept.class = lists::class(turn.ctx, kept.db, kept.name.bytes(), kept.len, bytes);
        // What was read of it may be long.
        let mut cost = Cost::of_its_own();
        if self.admits(turn, kept.class, |user| user.may(Right::Change, &kept.name)) {
            cost.writes = self.handle_asked(turn, &kept).writes;
        }
        cost
    }

    fn handle_asked(&mut self, turn: &Turn<'_>, kept: &Kept) -> Cost {
        let Some(key) = key::Key::read(turn.ctx, &kept.name) else {
            return Cost::default();
        };
        let ttl = key.ttl();
        let idle = key.idle_ms();
        drop(key);
        if kept.class == Class::Chord
            && ttl.is_none()
            && idle.is_none_or(|idle| idle < CHORD_IDLE_MS)
        {
            self.leave(
                Class::Chord,
                "its parts may still be coming: no part for less than a day, or not known under an LFU policy",
            );
            return Cost::default();
        }
        let draw = self.draw();
        match self.order.plan.stamp(ttl, draw) {
            Some(change) => self.apply(turn, kept, change),
            None => {
                self.counts.already_had_ttl += 1;
                Cost::default()
            }
        }
    }

    /// Whether a key is to be changed: keys of its class were asked for, and the user
    /// whose rights count `may` change it. Counts it either way.
    fn admits(&mut self, turn: &Turn<'_>, class: Class, may: impl FnOnce(&User) -> bool) -> bool {
        if !self.order.classes.contains(&class) {
            let why = class.protected().unwrap_or("only with CLASS and its name");
            self.leave(class, why);
            return false;
        }
        if turn.user.is_some_and(|user| !may(user)) {
            self.counts.skipped_noperm += 1;
            return false;
        }
        self.counts.matched += 1;
        true
    }
}

impl Visitor for Fix {
    fn sift(&mut self, found: &Found<'_>, turn: &Turn<'_>, db: i32) -> Option<Kept> {
        let name = found.name();
        let kind = found.key().kind()?;
        let class = self.names.class(name, kind);
        known::seen(db, name, class, kind);
        if self
            .order
            .pattern
            .as_ref()
            .is_some_and(|glob| !glob.matches(name))
        {
            return None;
        }
        let plus = match (class, kind) {
            (Class::EventQueue, KeyType::Stream) => Some(STREAM),
            (Class::ReplyQueue, KeyType::Zset) => Some(PLUS_ANSWERS),
            _ => None,
        };
        if let Some(why) = plus {
            self.leave(class, why);
            return None;
        }
        if class == Class::Other && kind == KeyType::List && !self.names.exempt(name) {
            return Kept::new(found, db, class, kind, None);
        }
        // What is decided by a result's content shows some of it.
        let reads = class == Class::TaskResult && self.order.plan.reads_dates(None);
        let may = |user: &User| {
            found.permits(user, Right::Change) && (!reads || found.permits(user, Right::Access))
        };
        if !self.admits(turn, class, may) {
            return None;
        }
        if self.names.exempt(name) {
            self.counts.kept_exempt += 1;
            return None;
        }
        if class == Class::TaskResult {
            let decided = self.decide(found.key(), name, turn, true);
            if let Some(decided @ Decided { change: None, .. }) = decided {
                self.settle(None, decided);
                return None;
            }
            let mut kept = Kept::unmeasured(found, db, class, kind, None)?;
            kept.decided = decided;
            return Some(kept);
        }
        let ttl = found.key().ttl();
        if ttl.is_some() {
            self.counts.already_had_ttl += 1;
            return None;
        }
        Kept::unmeasured(found, db, class, kind, ttl)
    }

    fn handle(&mut self, turn: &Turn<'_>, kept: Kept) -> Cost {
        match kept.class {
            Class::TaskResult => self.handle_result(turn, &kept),
            Class::Other => self.handle_list(turn, kept),
            _ => self.handle_asked(turn, &kept),
        }
    }

    fn writes(&self) -> bool {
        !self.order.dry_run
    }

    fn full(&self) -> bool {
        let Changes {
            stamped,
            cut,
            deleted,
            ..
        } = self.changes;
        self.order.limit > 0 && stamped + cut + deleted >= self.order.limit
    }

    fn restart(&mut self) {
        self.counts = Counts::default();
        if self.order.dry_run {
            self.changes = Changes::default();
        }
    }

    fn report(&mut self, ctx: Ctx<'_>, run: &Run) -> Reply {
        if !self.order.dry_run {
            stats::FREED_BYTES.add(self.changes.bytes_freed);
        }
        if self.order.background {
            stats::results(self.counts.matched, self.counts.results_without_ttl);
        }
        let left = self
            .counts
            .left
            .iter()
            .map(|((class, why), keys)| {
                Reply::map([
                    ("class", Reply::word(class.name())),
                    ("keys", Reply::count(*keys)),
                    ("why", Reply::word(why)),
                ])
            })
            .collect();
        Reply::map([
            ("scanned", Reply::count(run.scanned)),
            ("matched", Reply::count(self.counts.matched)),
            ("already_had_ttl", Reply::count(self.counts.already_had_ttl)),
            ("stamped", Reply::count(self.changes.stamped)),
            ("cut", Reply::count(self.changes.cut)),
            ("deleted", Reply::count(self.changes.deleted)),
            ("kept_exempt", Reply::count(self.counts.kept_exempt)),
            ("unreadable", Reply::count(self.counts.unreadable)),
            ("skipped_noperm", Reply::count(self.counts.skipped_noperm)),
            ("acl_checked", acl_checked()),
            ("bytes_freed", Reply::count(self.changes.bytes_freed)),
            ("used_memory_before", Reply::count(self.memory_before)),
            ("used_memory_after", Reply::count(used_memory(ctx))),
            ("duration_ms", Reply::Int(run.duration_ms)),
            ("server_ms", Reply::count(run.server_us / 1_000)),
            ("left", Reply::Array(left)),
        ])
    }
}

/// Whether the caller's rights were checked key by key: 6.2 has no way to.
pub fn acl_checked() -> Reply {
    Reply::word(if differences::here().key_rights {
        "yes"
    } else {
        "no"
    })
}

/// The shortest value that can hold a date: `{"date_done":"2026-11-25T03:43:28"}`.
const SHORTEST_DATED: usize = 35;

/// When the task of a stored result finished, Unix ms: `Some(None)` if it has not or
/// no date can be read. Reads no more than the payload bound, and notes what the
/// result says of its task. `None` if the value cannot be read inside a scan.
#[allow(clippy::option_option, reason = "not yet read is not undated")]
pub fn date(
    key: &key::Key<'_>,
    name: &[u8],
    turn: &Turn<'_>,
    inside_scan: bool,
) -> Option<Option<i64>> {
    let len = key.len();
    if !(SHORTEST_DATED..=result::MAX_PAYLOAD).contains(&len) {
        return Some(None);
    }
    turn.has_read(len as u64);
    let value = if inside_scan {
        key.long_string()?
    } else {
        key.string().unwrap_or_default()
    };
    let Ok(stored) = result::read(value) else {
        return Some(None);
    };
    known::result(name, &stored);
    Some(stored.finished_at_ms())
}

/// When the task of a stored result finished, Unix ms, where that can be read.
pub fn finished_ms(key: &key::Key<'_>, name: &[u8], turn: &Turn<'_>) -> Option<i64> {
    date(key, name, turn, false).flatten()
}

fn used_memory(ctx: Ctx<'_>) -> u64 {
    context::server_info(ctx, c"memory", c"used_memory")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}
