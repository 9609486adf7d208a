//! The hash named by `state-key`: what was observed, across restarts and failovers.
//!
//! It is written by a primary only, at most every 10 s and only when something has
//! changed, by plain HSET and HDEL, so replicas and AOF get what is written. It is
//! read when a data set has been loaded and when a replica becomes a primary. The
//! hash *is* the memory: who deletes it, or empties database 0, has it forgotten.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::core::args;
use crate::core::beat::Traffic;
use crate::core::keys::KeyType;
use crate::core::settings::Settings;
use crate::server::call;
use crate::server::context::{disk_forbids, memory_full, now_ms, writes_paused};
use crate::server::guard::Entry;
use crate::server::key::Key;
use crate::server::pushed::watch_pushes;
use crate::server::scan::MembersCursor;
use crate::server::timer::{Task, Timer};
use crate::server::{Ctx, MainCell, Str, log};
use crate::settings;

use super::refusal::refusal;

/// Between two writes, in ms.
const WRITE_EVERY_MS: i64 = 10_000;

/// Between two readings on a replica, in ms.
const READ_EVERY_MS: i64 = 5_000;

/// The server's rounds are 100 ms apart by default, 1 s at most. After a longer
/// pause nobody knows what was not published and what was not served.
const GAP_MS: i64 = 2_500;

/// How often it is looked whether the server refuses writes, in ms.
const REFUSAL_EVERY_MS: i64 = 1_000;

/// The share of a slice in which changes are gathered; what is gathered is written
/// behind it, which takes less.
const GATHERING: u32 = 4;

/// Fields of a hash that may be ours: 1,000 tasks, and as much beside them.
const MOST_FIELDS: u64 = 4_000;

/// Bytes of a hash that may be ours.
const MOST_BYTES: u64 = 4 * 1024 * 1024;

/// The database the hash lies in.
const DB: i32 = 0;

struct Clock {
    /// The hash is still to be read: the data set, or this server's role, is new.
    unread: bool,
    /// When it was last written, or, on a replica, read; Unix ms.
    last_ms: i64,
    timer: Option<Timer>,
    reading: Option<Box<Reading>>,
    /// The hash was written.
    there: bool,
    /// Whether observation was on in the last round, and the name of the hash then.
    observe: bool,
    name: Vec<u8>,
    /// When the last round was, Unix ms.
    round_ms: i64,
    /// Something else lies under that name, and the log says so.
    refused: bool,
    /// Whether the server refused writes when that was looked at, and when it was,
    /// Unix ms.
    refusing: bool,
    refusal_ms: i64,
}

static CLOCK: MainCell<Clock> = MainCell::new(Clock {
    unread: true,
    last_ms: 0,
    timer: None,
    reading: None,
    there: false,
    observe: false,
    name: Vec::new(),
    round_ms: 0,
    refused: false,
    refusing: false,
    refusal_ms: 0,
});

/// Set while a write of ours raises its own events.
static WRITING: AtomicBool = AtomicBool::new(false);

/// The name of the hash; `None` where observations are kept in memory only.
fn name<'a>(ctx: Ctx<'_>, settings: &'a Settings) -> Option<&'a [u8]> {
    // A cluster's node may not own the slot of that name, and has no other database.
    if ctx.flags().cluster() {
        return None;
    }
    Some(settings.state_key.as_slice()).filter(|name| !name.is_empty())
}

/// The server's periodic round: reads what is unread and has written what is due.
pub fn round(ctx: Ctx<'_>) {
    let now = now_ms();
    let settings = settings::now().settings;
    let name = name(ctx, &settings);
    let due = {
        let mut clock = CLOCK.get_mut();
        let observe = super::wanted();
        if observe && !clock.observe {
            // What went by in the meantime was not seen.
            super::with(|traffic| traffic.resumed(now));
        }
        clock.observe = observe;
        watch_pushes(ctx, observe);
        // The clock was set forward, or the server stood still and served nobody.
        if observe && clock.round_ms > 0 && now.saturating_sub(clock.round_ms) > GAP_MS {
            super::with(|traffic| traffic.resumed(now));
        }
        clock.round_ms = now;
        let wanted = name.unwrap_or_default();
        if clock.name != wanted {
            clock.name = wanted.to_vec();
            clock.refused = false;
            clock.there = false;
            super::with(Traffic::mark_all_changed);
        }
        clock.last_ms = clock.last_ms.min(now);
        clock.timer.is_none() && now.saturating_sub(clock.last_ms) >= WRITE_EVERY_MS
    };
    if !super::wanted() {
        return;
    }
    if !ctx.flags().primary() {
        let due = {
            let clock = CLOCK.get();
            clock.timer.is_none() && now.saturating_sub(clock.last_ms) >= READ_EVERY_MS
        };
        if due {
            let timer = Timer::arm::<Read>(ctx, 0);
            CLOCK.get_mut().timer = timer;
        }
        return;
    }
    if !ctx.flags().may_write() {
        return;
    }
    if CLOCK.get().unread {
        // Most often the first slice is all of it.
        if CLOCK.get().timer.is_none() {
            Read::fire(ctx);
        }
        if CLOCK.get().unread {
            return;
        }
    }
    if refuses(ctx, now) {
        super::with(|traffic| traffic.unheard(now));
    }
    super::adopt(now);
    if !due {
        return;
    }
    let refused = still_refused(ctx, name);
    if !super::with(|traffic| traffic.has_changes()) {
        if refused {
            // To look costs something, and as much as writing is often enough.
            CLOCK.get_mut().last_ms = now;
        }
        return;
    }
    let timer = if name.is_none() || refused {
        Timer::arm::<Mark>(ctx, 0)
    } else if !writes_paused() && !memory_full() && disk_forbids(ctx).is_none() {
        Timer::arm::<Write>(ctx, 0)
    } else {
        return;
    };
    CLOCK.get_mut().timer = timer;
}

/// Whether the server refuses its clients' writes, as of lately.
fn refuses(ctx: Ctx<'_>, now: i64) -> bool {
    if writes_paused() {
        return true;
    }
    let ago = now.saturating_sub(CLOCK.get().refusal_ms);
    if (0..REFUSAL_EVERY_MS).contains(&ago) {
        return CLOCK.get().refusing;
    }
    let refusing = refusal(ctx).is_some();
    let mut clock = CLOCK.get_mut();
    clock.refusal_ms = now;
    clock.refusing = refusing;
    refusing
}

/// Takes up what the hash remembers; what was observed meanwhile is not in it, so the
/// watch begins now.
fn take_up(remembered: Option<Traffic>) {
    CLOCK.get_mut().unread = false;
    *super::TRAFFIC.get_mut() = Some(remembered.unwrap_or_else(|| {
        let mut traffic = Traffic::default();
        traffic.resumed(now_ms());
        traffic
    }));
    if let Some(lists) = super::LISTS.get_mut().as_mut() {
        lists.adopted = false;
    }
}

/// Whether what lies under the name is still none of ours. Once it is gone, all that
/// was observed is to be written.
fn still_refused(ctx: Ctx<'_>, name: Option<&[u8]>) -> bool {
    if !CLOCK.get().refused {
        return false;
    }
    let _home = ctx.home();
    let key = name.and_then(Str::new).filter(|_| ctx.select(DB));
    if key.is_none_or(|key| matches!(found_to_read(ctx, &key), Found::SomethingElse)) {
        return true;
    }
    CLOCK.get_mut().refused = false;
    super::with(Traffic::mark_all_changed);
    false
}

/// What lies under the name.
enum Found {
    Nothing,
    Ours,
    /// Another type, or a hash larger than ours can be.
    SomethingElse,
}

fn found(ctx: Ctx<'_>, name: &Str) -> Found {
    let Some(key) = Key::read(ctx, name) else {
        return Found::Nothing;
    };
    if key.kind() == Some(KeyType::Hash) && key.len() as u64 <= MOST_FIELDS {
        Found::Ours
    } else {
        Found::SomethingElse
    }
}

/// The same, before it is read: each field is weighed.
fn found_to_read(ctx: Ctx<'_>, name: &Str) -> Found {
    match found(ctx, name) {
        Found::Ours if call::memory_usage(ctx, name, 0) > MOST_BYTES => Found::SomethingElse,
        found => found,
    }
}

fn refuse(name: &[u8]) {
    let mut clock = CLOCK.get_mut();
    if !clock.refused {
        clock.refused = true;
        log::warning(&format!(
            "hygiene.state-key {}: what lies under that name was not written by this module and is left alone; what is observed is kept in memory only",
            args::quoted(name)
        ));
    }
}

/// A slice of a round of writing what has changed.
struct Write;

impl Task for Write {
    const ENTRY: Entry = Entry::After;

    fn failed(_ctx: Ctx<'_>) {
        CLOCK.get_mut().timer = None;
        WRITING.store(false, Relaxed);
    }

    fn fire(ctx: Ctx<'_>) {
        let started = Instant::now();
        CLOCK.get_mut().timer = None;
        let settings = settings::now().settings;
        let Some(name) = name(ctx, &settings).filter(|_| settings.observe) else {
            return;
        };
        if !ctx.flags().may_write() || writes_paused() || memory_full() || CLOCK.get().unread {
            return;
        }
        let Some(key) = Str::new(name) else {
            return;
        };
        match found(ctx, &key) {
            Found::Ours => {}
            Found::SomethingElse => return refuse(name),
            // New, or evicted: all of it is to be written.
            Found::Nothing => {
                let gone = std::mem::take(&mut CLOCK.get_mut().there);
                super::with(|traffic| {
                    if gone || !traffic.is_telling() {
                        traffic.mark_all_changed();
                    }
                });
            }
        }
        let slice = gathering(&settings);
        write(ctx, name, || started.elapsed() >= slice);
        again::<Self>(ctx, super::with(|traffic| traffic.is_telling()));
    }
}

/// A slice of what is done instead where nobody wants the changes: what beat goes on
/// without is marked.
struct Mark;

impl Task for Mark {
    const ENTRY: Entry = Entry::After;

    fn failed(_ctx: Ctx<'_>) {
        CLOCK.get_mut().timer = None;
    }

    fn fire(ctx: Ctx<'_>) {
        let started = Instant::now();
        let settings = settings::now().settings;
        let slice = gathering(&settings);
        let enough = || started.elapsed() >= slice;
        let done = !settings.observe || super::with(|traffic| traffic.mark_left(enough));
        again::<Self>(ctx, !done);
    }
}

/// For how long changes are gathered at a time.
fn gathering(settings: &Settings) -> Duration {
    Duration::from_micros(settings.slice_us) / GATHERING
}

/// Arms the next slice, if there is one, and notes when this was.
fn again<T: Task>(ctx: Ctx<'_>, more: bool) {
    let timer = if more { Timer::arm::<T>(ctx, 1) } else { None };
    let mut clock = CLOCK.get_mut();
    clock.timer = timer;
    clock.last_ms = now_ms();
}

/// Writes what there is before it is `enough`.
fn write(ctx: Ctx<'_>, name: &[u8], enough: impl FnMut() -> bool) {
    let changes = super::with(|traffic| traffic.take_changes(enough));
    WRITING.store(true, Relaxed);
    if !changes.del.is_empty() {
        let words: Vec<&[u8]> = std::iter::once(name)
            .chain(changes.del.iter().map(Vec::as_slice))
            .collect();
        call::write(ctx, c"HDEL", &words);
    }
    if !changes.set.is_empty() {
        let fields = changes.set.iter().flat_map(|(field, value)| [field, value]);
        let words: Vec<&[u8]> = std::iter::once(name)
            .chain(fields.map(Vec::as_slice))
            .collect();
        call::write(ctx, c"HSET", &words);
        CLOCK.get_mut().there = true;
    }
    WRITING.store(false, Relaxed);
}

/// What has been read so far.
struct Reading {
    traffic: Traffic,
    cursor: MembersCursor,
    bytes: u64,
}

/// A slice of reading: on a replica of what its primary has written, which is then what
/// is heard; on a primary of what is to be remembered.
struct Read;

impl Task for Read {
    const ENTRY: Entry = Entry::After;

    fn failed(_ctx: Ctx<'_>) {
        CLOCK.get_mut().timer = None;
    }

    fn fire(ctx: Ctx<'_>) {
        let started = Instant::now();
        let reading = {
            let mut clock = CLOCK.get_mut();
            clock.timer = None;
            clock.reading.take()
        };
        let (primary, loading) = (ctx.flags().primary(), ctx.flags().loading());
        if loading || (primary && !CLOCK.get().unread) {
            return;
        }
        let settings = settings::now().settings;
        let slice = Duration::from_micros(settings.slice_us);
        let enough = || started.elapsed() >= slice;
        let name = name(ctx, &settings).filter(|_| settings.observe);
        let read = name.and_then(|name| read_on(ctx, name, reading, enough));
        let read = match read {
            Some(Err(rest)) => {
                CLOCK.get_mut().reading = Some(rest);
                return again::<Self>(ctx, true);
            }
            Some(Ok(traffic)) => Some(traffic),
            None => None,
        };
        if !primary {
            *super::TRAFFIC.get_mut() = read;
        } else if settings.observe {
            take_up(read);
            super::adopt(now_ms());
        }
        again::<Self>(ctx, false);
    }
}

/// Reads until it is `enough`: all of the hash, or the rest. `None` if there is none,
/// or none that may be ours.
fn read_on(
    ctx: Ctx<'_>,
    name: &[u8],
    reading: Option<Box<Reading>>,
    enough: impl Fn() -> bool,
) -> Option<Result<Traffic, Box<Reading>>> {
    let _home = ctx.home();
    if !ctx.select(DB) {
        return None;
    }
    let key = Str::new(name)?;
    let found = match reading {
        None => found_to_read(ctx, &key),
        Some(_) => found(ctx, &key),
    };
    match found {
        Found::Nothing => return None,
        Found::SomethingElse => {
            refuse(name);
            return None;
        }
        Found::Ours => {}
    }
    let mut reading = match reading {
        Some(reading) => reading,
        None => Box::new(Reading {
            traffic: Traffic::default(),
            cursor: MembersCursor::new()?,
            bytes: 0,
        }),
    };
    let Reading {
        traffic,
        cursor,
        bytes,
    } = &mut *reading;
    let key = Key::read(ctx, &key)?;
    while cursor.step_fields(&key, |field, value| {
        *bytes = bytes.saturating_add((field.len() + value.len()) as u64);
        traffic.take_in(field, value);
    }) {
        if *bytes > MOST_BYTES {
            refuse(name);
            return None;
        }
        if enough() {
            return Some(Err(reading));
        }
    }
    let mut traffic = reading.traffic;
    traffic.resumed(now_ms());
    Some(Ok(traffic))
}

/// Whether the key that is being deleted is the hash, by somebody else's hand.
pub fn deleted(db: i32, name: &[u8]) -> bool {
    db == DB
        && !CLOCK.get().refused
        && !WRITING.load(Relaxed)
        && settings::with(|current| {
            !name.is_empty() && current.settings.state_key.as_slice() == name
        }) == Some(true)
}

/// The data set or this server's role is new: what was observed is in the hash, or
/// nowhere.
pub fn anew() {
    let mut clock = CLOCK.get_mut();
    clock.unread = true;
    clock.last_ms = 0;
    clock.refused = false;
    clock.there = false;
    clock.reading = None;
}

/// Stops what is armed.
pub fn stop(ctx: Ctx<'_>) {
    watch_pushes(ctx, false);
    let mut clock = CLOCK.get_mut();
    clock.name = Vec::new();
    clock.reading = None;
    if let Some(timer) = clock.timer.take() {
        timer.stop(ctx);
    }
}
