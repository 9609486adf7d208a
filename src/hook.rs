//! Enforcement: a `task_result` has a TTL by the time other clients see it.
//!
//! Inside the event nothing may be written: the expiry would reach replicas and
//! AOF before the write that clears it (every server tested does so). Nor can the
//! event tell whether a TTL is about to follow, for SETEX raises `set` first. So
//! the key is noted, and looked at when the unit of work is over: in the server's
//! post-notification job where it has one (7.2 and later, Valkey), in the same
//! transaction on the wire; else in a timer of 0 ms, in the same turn of the event
//! loop and behind the write on the wire.

use std::collections::HashSet;

use crate::core::keys::KeyType;
use crate::core::policy::{self, Change};
use crate::core::settings::Settings;
use crate::keyspace;
use crate::known;
use crate::observe;
use crate::server::context::writes_paused;
use crate::server::events::{self, OnWrite, Written, kind};
use crate::server::guard::Entry;
use crate::server::key::Key;
use crate::server::timer::{Task, Timer};
use crate::server::{Ctx, MainCell, Str};
use crate::settings::{self, Current};
use crate::stats;
use crate::trigger;

/// Keys in one portion of the timer path: what one timer writes goes out as one
/// transaction, so it is kept small.
const PORTION: usize = 200;

/// The most keys that wait for a timer. More only come together while writes are
/// let in and timers are not; the sweep finds what is let go.
const MOST_WAITING: usize = 1_000_000;

/// How long to wait when writes are paused, in ms.
const PAUSE_MS: u64 = 50;

/// A result to look at.
struct Stored {
    db: i32,
    name: Str,
    /// How often it was written; 0 if a client gave it a TTL and nothing else.
    writes: u32,
}

struct Noted {
    keys: Vec<Stored>,
    job: bool,
    timers: Vec<Timer>,
}

static NOTED: MainCell<Noted> = MainCell::new(Noted {
    keys: Vec::new(),
    job: false,
    timers: Vec::new(),
});

/// Hears of writes.
pub struct Hook;

impl OnWrite for Hook {
    fn written(ctx: Ctx<'_>, what: &Written<'_>) {
        stats::timed(&stats::HOOK, || Self::hear(ctx, what));
    }
}

impl Hook {
    fn hear(ctx: Ctx<'_>, what: &Written<'_>) {
        match what.kind {
            kind::STRING => {
                trigger::stored(ctx, what);
                note_result(ctx, what);
            }
            kind::LIST => {
                trigger::popped(ctx, what);
                observe::list_changed(ctx, what);
            }
            kind::GENERIC => match what.event() {
                b"rename_to" | b"copy_to" | b"move_to" | b"restore" => note_result(ctx, what),
                b"expire" => {
                    observe::ttl_given(ctx, what);
                    if !keyspace::stamping() {
                        // A TTL that a client gives may be too long. It is no write:
                        // that of SETEX, say, was heard just before.
                        note_result_if(ctx, what, 0, |settings| settings.max_ttl_ms > 0);
                    }
                }
                b"del" => observe::key_deleted(ctx, what),
                _ => {}
            },
            kind::SET if what.event() == b"sadd" => known::binding_written(ctx, what),
            _ => {}
        }
    }
}

/// Notes the key if it is a result, to be looked at when the unit of work is over.
fn note_result(ctx: Ctx<'_>, what: &Written<'_>) {
    note_result_if(ctx, what, 1, |_| true);
}

fn note_result_if(
    ctx: Ctx<'_>,
    what: &Written<'_>,
    writes: u32,
    wanted: impl FnOnce(&Settings) -> bool,
) {
    let concerns_us = settings::with(|current| {
        if !wanted(&current.settings) {
            return false;
        }
        let name = what.key();
        current.names.task_result(name)
            && !current.names.exempt(name)
            && (current.settings.enforce || current.settings.observe)
    });
    if concerns_us == Some(true) {
        note(ctx, what, writes);
    }
}

fn note(ctx: Ctx<'_>, what: &Written<'_>, writes: u32) {
    let by_job = events::jobs_after_writes();
    // The server refuses jobs by itself while it loads or follows a primary; a
    // timer it would grant.
    if !by_job && !ctx.flags().may_write() {
        return;
    }
    let db = ctx.db();
    let mut noted = NOTED.get_mut();
    if by_job {
        if !noted.job && !events::after_write::<AfterUnit>(ctx) {
            return;
        }
        noted.job = true;
    }
    // Most often a command's second event, or the same task again.
    if let Some(last) = noted.keys.last_mut()
        && last.db == db
        && last.name.bytes() == what.key()
    {
        last.writes = last.writes.saturating_add(writes);
        return;
    }
    if by_job {
        // One job for all of them.
    } else if noted.keys.len() >= MOST_WAITING {
        stats::LEFT_TO_SWEEP.add(1);
        return;
    } else if noted.keys.len().is_multiple_of(PORTION) {
        let Some(timer) = Timer::arm::<SameTurn>(ctx, 0) else {
            return;
        };
        noted.timers.push(timer);
    }
    if let Some(name) = what.keep() {
        noted.keys.push(Stored { db, name, writes });
    }
}

/// The end of a command, transaction or script.
struct AfterUnit;

impl Task for AfterUnit {
    fn fire(ctx: Ctx<'_>) {
        let keys = {
            let mut noted = NOTED.get_mut();
            noted.job = false;
            std::mem::take(&mut noted.keys)
        };
        stamp_all(ctx, &keys);
        reuse(keys);
    }
}

/// The same turn of the event loop.
struct SameTurn;

impl Task for SameTurn {
    const ENTRY: Entry = Entry::After;

    /// What it was about is left to the next sweep.
    fn failed(_ctx: Ctx<'_>) {
        let mut noted = NOTED.get_mut();
        stats::LEFT_TO_SWEEP.add(noted.keys.len() as u64);
        noted.keys.clear();
        noted.timers.clear();
    }

    fn fire(ctx: Ctx<'_>) {
        let portion: Vec<Stored> = {
            let mut noted = NOTED.get_mut();
            if !noted.timers.is_empty() {
                // They fire in the order they were armed.
                noted.timers.remove(0);
            }
            if !ctx.flags().may_write() {
                noted.keys.clear();
                return;
            }
            if writes_paused() {
                noted.timers.extend(Timer::arm::<Self>(ctx, PAUSE_MS));
                return;
            }
            let count = noted.keys.len().min(PORTION);
            noted.keys.drain(..count).collect()
        };
        stamp_all(ctx, &portion);
        let mut noted = NOTED.get_mut();
        if !noted.keys.is_empty() && noted.timers.is_empty() {
            noted.timers.extend(Timer::arm::<Self>(ctx, 0));
        }
    }
}

fn stamp_all(ctx: Ctx<'_>, keys: &[Stored]) {
    stats::timed(&stats::STAMP_RUNS, || stamp_each(ctx, keys));
}

fn stamp_each(ctx: Ctx<'_>, keys: &[Stored]) {
    let flags = ctx.flags();
    if !flags.may_write() {
        return;
    }
    let current = settings::now();
    let mut db = ctx.db();
    let mut given = Given::default();
    for result in keys {
        if result.db != db {
            if !ctx.select(result.db) {
                continue;
            }
            db = result.db;
        }
        let stamped = if flags.cluster() {
            stamp_through_server(ctx, &current, result, &mut given)
        } else {
            stamp(ctx, &current, result, &mut given)
        };
        match stamped {
            Some(Change::Stamp(_)) => {
                stats::stamped_by_hook();
                // One that is alone comes up no second time.
                if keys.len() > 1 {
                    given.young.push(result);
                }
            }
            Some(Change::Cut(_)) => stats::cut_by_hook(),
            Some(Change::Delete) | None => {}
        }
    }
}

/// What got its TTL from the hook in this run: where such a key was written twice, the
/// second look finds a TTL that no client gave. Asked seldom, so it is put in order
/// only then.
#[derive(Default)]
struct Given<'a> {
    young: Vec<&'a Stored>,
    sought: HashSet<(i32, &'a [u8])>,
}

impl<'a> Given<'a> {
    fn has(&mut self, result: &'a Stored) -> bool {
        let young = self.young.drain(..);
        self.sought
            .extend(young.map(|result| (result.db, result.name.bytes())));
        !self.sought.is_empty() && self.sought.contains(&(result.db, result.name.bytes()))
    }
}

/// What the hook does to an open key, if it is a string, and the TTL it gives in ms.
fn due<'a>(
    key: &Key<'_>,
    current: &Current,
    result: &'a Stored,
    given: &mut Given<'a>,
) -> Option<(Change, i64)> {
    if key.kind() != Some(KeyType::String) {
        return None;
    }
    let ttl = key.ttl();
    if result.writes > 0 {
        let by_client = ttl.is_some() && !given.has(result);
        let written = if by_client {
            &stats::WRITTEN_WITH_TTL
        } else {
            &stats::WRITTEN_WITHOUT_TTL
        };
        written.add(result.writes.into());
        learn(key, &result.name);
    }
    if !current.settings.enforce {
        return None;
    }
    match policy::enforce(ttl, &current.settings)? {
        change @ (Change::Stamp(ms) | Change::Cut(ms)) => Some((change, ms)),
        Change::Delete => None,
    }
}

/// Opens the key once, for writing: who watches it is told only if it changes.
fn stamp<'a>(
    ctx: Ctx<'_>,
    current: &Current,
    result: &'a Stored,
    given: &mut Given<'a>,
) -> Option<Change> {
    let key = Key::write(ctx, &result.name)?;
    let (change, ms) = due(&key, current, result, given)?;
    keyspace::give_open_key_ttl(ctx, key, &result.name, ms).then_some(change)
}

fn stamp_through_server<'a>(
    ctx: Ctx<'_>,
    current: &Current,
    result: &'a Stored,
    given: &mut Given<'a>,
) -> Option<Change> {
    let (change, ms) =
        Key::read(ctx, &result.name).and_then(|key| due(&key, current, result, given))?;
    keyspace::give_ttl(ctx, &result.name, ms, true).then_some(change)
}

/// How a task ended that is watched.
fn learn(key: &Key<'_>, name: &Str) {
    if observe::awaits(name.bytes(), key.len())
        && let Some(payload) = key.string()
    {
        observe::result_written(name.bytes(), payload);
    }
}

/// Keeps the room of the list for the next unit, unless one was very large.
fn reuse(mut keys: Vec<Stored>) {
    keys.clear();
    let mut noted = NOTED.get_mut();
    if noted.keys.capacity() < keys.capacity() && keys.capacity() <= 1_024 {
        keys.append(&mut noted.keys);
        noted.keys = keys;
    }
}

/// Stops what is armed and forgets what is noted; the next sweep finds it.
pub fn stop(ctx: Ctx<'_>) {
    let mut noted = NOTED.get_mut();
    for timer in noted.timers.drain(..) {
        timer.stop(ctx);
    }
    noted.keys = Vec::new();
    noted.timers = Vec::new();
    noted.job = false;
}

/// The server's periodic round, outside any unit of work: nothing may be noted by
/// now. If something is, the server dropped our job, and it is done here.
pub fn settle(ctx: Ctx<'_>) {
    let forgotten = {
        let noted = NOTED.get();
        noted.job || (!noted.keys.is_empty() && noted.timers.is_empty())
    };
    if !forgotten || writes_paused() {
        return;
    }
    let keys = {
        let mut noted = NOTED.get_mut();
        noted.job = false;
        let count = noted.keys.len().min(PORTION);
        noted.keys.drain(..count).collect::<Vec<_>>()
    };
    stamp_all(ctx, &keys);
}
