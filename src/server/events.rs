//! What the server tells without being asked: writes to keys, and its own life.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use redis_module::raw;

use super::guard::{Entry, guard};
use super::key::Key;
use super::string::lent_bytes;
use super::timer::{Task, Timer};
use super::{Ctx, Str, call, differences, pushed};

/// Kinds of keyspace events, as the server's mask has them.
pub mod kind {
    /// DEL, EXPIRE, RENAME, COPY, RESTORE, MOVE and the like.
    pub const GENERIC: i32 = 1 << 2;
    /// Writes to strings.
    pub const STRING: i32 = 1 << 3;
    /// Writes to lists.
    pub const LIST: i32 = 1 << 4;
    /// Writes to sets.
    pub const SET: i32 = 1 << 5;
}

/// A write that has just happened, inside the command that did it. Nothing may be
/// written from here: it would reach replicas and AOF before the command itself.
pub struct Written<'a> {
    /// One of [`kind`].
    pub kind: i32,
    event: &'a CStr,
    lent: *mut raw::RedisModuleString,
}

impl<'a> Written<'a> {
    /// The event's name; bytes, since another module may send any. Its length is
    /// counted here: most events end at their kind or at the key's name.
    #[must_use]
    pub fn event(&self) -> &'a [u8] {
        self.event.to_bytes()
    }

    /// The key's name. Asked for last: most events end at their own name.
    #[must_use]
    pub fn key(&self) -> &'a [u8] {
        lent_bytes(self.lent)
    }

    /// The key's name, to keep beyond the callback.
    #[must_use]
    pub fn keep(&self) -> Option<Str> {
        Str::hold(self.lent)
    }

    /// The key, to look at.
    #[must_use]
    pub fn open<'c>(&self, ctx: Ctx<'c>) -> Option<Key<'c>> {
        Key::read_lent(ctx, self.lent)
    }

    /// The element that was pushed to the head of the list or to its tail: the
    /// command's own argument, else a copy, which takes as long as the element is.
    #[must_use]
    pub fn element(&self, ctx: Ctx<'_>, head: bool) -> Option<Str> {
        if let Some(pushed) = pushed::take(self.lent, head) {
            return Some(pushed);
        }
        if !differences::here().list_elements {
            let at: &[u8] = if head { b"0" } else { b"-1" };
            let value = call::read(ctx, c"LINDEX", &[self.key(), at]);
            return value.str().and_then(Str::new);
        }
        self.open(ctx)?.element(if head { 0 } else { -1 })
    }
}

/// Who hears of writes.
pub trait OnWrite {
    /// Called inside each command that writes a key of a kind subscribed to.
    fn written(ctx: Ctx<'_>, what: &Written<'_>);
}

/// Subscribes to keyspace events of these kinds until the module is unloaded;
/// `notify-keyspace-events` plays no part in it. `false` if the server refuses.
pub fn watch_writes<W: OnWrite>(ctx: Ctx<'_>, kinds: i32) -> bool {
    let Some(subscribe) = api!(RedisModule_SubscribeToKeyspaceEvents) else {
        return false;
    };
    // SAFETY: called while the module is being loaded; the callback takes no data.
    unsafe { subscribe(ctx.ptr(), kinds, Some(written::<W>)) == 0 }
}

unsafe extern "C" fn written<W: OnWrite>(
    ctx: *mut raw::RedisModuleCtx,
    kind: c_int,
    event: *const c_char,
    key: *mut raw::RedisModuleString,
) -> c_int {
    guard(Entry::Event, || {
        if event.is_null() {
            return;
        }
        // SAFETY: the server hands over a text that ends in NUL and outlives the call.
        let event = unsafe { CStr::from_ptr(event) };
        W::written(
            Ctx::new(ctx),
            &Written {
                kind,
                event,
                lent: key,
            },
        );
        if kind == kind::LIST {
            // Nobody wanted to see it, and it may be large.
            pushed::let_go();
        }
    });
    0
}

/// Asks for `T` to run at the end of the unit that is writing; `false` if the
/// server has no such thing or refuses (a replica, a load).
pub fn after_write<T: Task>(ctx: Ctx<'_>) -> bool {
    let Some(add) = api!(RedisModule_AddPostNotificationJob) else {
        return false;
    };
    // SAFETY: called from an event's callback; no data is handed over, so none
    // leaks when the server refuses.
    unsafe { add(ctx.ptr(), Some(job::<T>), std::ptr::null_mut(), None) == 0 }
}

unsafe extern "C" fn job<T: Task>(ctx: *mut raw::RedisModuleCtx, _data: *mut c_void) {
    guard(Entry::After, || T::fire(Ctx::new(ctx)));
}

/// Publishes a message to the clients of this server that listen, and in a cluster of
/// every node. `false` if the server has no such thing. It writes nothing, so it may
/// be done while writes are paused.
pub fn publish(ctx: Ctx<'_>, channel: &[u8], message: &[u8]) -> bool {
    let Some(publish) = api!(RedisModule_PublishMessage) else {
        return false;
    };
    let (Some(channel), Some(message)) = (Str::new(channel), Str::new(message)) else {
        return false;
    };
    // SAFETY: the context is live, as are both strings, which stay ours.
    unsafe {
        publish(ctx.ptr(), channel.ptr(), message.ptr());
    }
    true
}

/// A turn in the server's own life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It has become a primary.
    Primary,
    /// It has become a replica.
    Replica,
    /// It begins to read a data set.
    LoadStarted,
    /// A data set has been read or given up.
    LoadEnded,
    /// A database has been emptied, or with `None` all of them.
    Flushed(Option<i32>),
    /// Two databases have changed places.
    Swapped(i32, i32),
    /// Its periodic round, `hz` times a second.
    Cron,
    /// A client of this id is connected.
    Came(u64),
    /// A client of this id is gone.
    Left(u64),
}

/// Who hears of the server's life.
pub trait OnTurn {
    /// Called on the main thread.
    fn turn(ctx: Ctx<'_>, turn: Turn);
}

/// Turns of the event loop since [`count_turns`] was told to count.
static TURNS: AtomicU64 = AtomicU64::new(0);

/// Somebody wants the next turn.
static TURN_WANTED: AtomicBool = AtomicBool::new(false);

/// Counts the turns of the server's event loop, or stops counting. With nobody
/// else at work a turn comes only when a timer does; each request of a client is
/// one more. `false` where the server does not tell (before 7.0). While it counts,
/// `T` can have itself called by [`in_next_turn`].
pub fn count_turns<T: Task>(ctx: Ctx<'_>, on: bool) -> bool {
    if !differences::here().turns {
        return false;
    }
    let Some(subscribe) = api!(RedisModule_SubscribeToServerEvent) else {
        return false;
    };
    let event = raw::RedisModuleEvent {
        id: EVENT_LOOP,
        dataver: 1,
    };
    let callback: raw::RedisModuleEventCallback = if on { Some(looped::<T>) } else { None };
    TURN_WANTED.store(false, Relaxed);
    // SAFETY: the context is live; an unknown event is refused, and no callback
    // ends the subscription.
    unsafe { subscribe(ctx.ptr(), event, callback) == 0 }
}

/// The turns counted since the last call.
pub fn take_turns() -> u64 {
    TURNS.swap(0, Relaxed)
}

/// Has the task that [`count_turns`] was given called in the next turn of the event
/// loop, behind the clients who wait by then. `false` where the server cannot.
///
/// A timer armed from a timer fires after 1 ms at the earliest. So the loop is only
/// woken here, and the timer armed when it is about to wait.
pub fn in_next_turn() -> bool {
    let Some(wake) = api!(RedisModule_EventLoopAddOneShot) else {
        return false;
    };
    // SAFETY: the callback takes no data. It is called before the loop sleeps again,
    // and a job runs till then, so that the library cannot be unloaded.
    let woken = unsafe { wake(Some(woken), std::ptr::null_mut()) == 0 };
    TURN_WANTED.store(woken, Relaxed);
    woken
}

const unsafe extern "C" fn woken(_data: *mut c_void) {}

unsafe extern "C" fn looped<T: Task>(
    ctx: *mut raw::RedisModuleCtx,
    _event: raw::RedisModuleEvent,
    sub: u64,
    _data: *mut c_void,
) {
    const AFTER_SLEEP: u64 = 1;
    if sub == AFTER_SLEEP {
        TURNS.fetch_add(1, Relaxed);
    } else if TURN_WANTED.swap(false, Relaxed) {
        guard(Entry::Turn, || Timer::arm::<T>(Ctx::new(ctx), 0));
    }
}

const EVENT_LOOP: u64 = 15;
const ROLE: u64 = 0;
const FLUSH: u64 = 2;
const LOADING: u64 = 3;
const CLIENT_CHANGE: u64 = 4;
const CRON: u64 = 8;
const SWAPDB: u64 = 11;
const ASYNC_LOAD: u64 = 14;

/// Subscribes to what this server knows of [`Turn`]; 6.2 does not know all.
pub fn watch_server<T: OnTurn>(ctx: Ctx<'_>) {
    let Some(subscribe) = api!(RedisModule_SubscribeToServerEvent) else {
        return;
    };
    let events = [
        ROLE,
        FLUSH,
        LOADING,
        CLIENT_CHANGE,
        CRON,
        SWAPDB,
        ASYNC_LOAD,
    ];
    for id in events {
        let event = raw::RedisModuleEvent { id, dataver: 1 };
        // SAFETY: called while the module is being loaded; an unknown event is
        // refused, not harmful.
        unsafe {
            subscribe(ctx.ptr(), event, Some(turned::<T>));
        }
    }
}

unsafe extern "C" fn turned<T: OnTurn>(
    ctx: *mut raw::RedisModuleCtx,
    event: raw::RedisModuleEvent,
    sub: u64,
    data: *mut c_void,
) {
    guard(Entry::Turn, || {
        let turn = match (event.id, sub) {
            (ROLE, 0) => Turn::Primary,
            (ROLE, 1) => Turn::Replica,
            (LOADING, 0..=2) | (ASYNC_LOAD, 0) => Turn::LoadStarted,
            (LOADING, 3 | 4) | (ASYNC_LOAD, 1 | 2) => Turn::LoadEnded,
            (FLUSH, 1) if !data.is_null() => {
                // SAFETY: with this event the server hands over this struct.
                let flush = unsafe { &*data.cast::<raw::RedisModuleFlushInfo>() };
                Turn::Flushed((flush.dbnum >= 0).then_some(flush.dbnum))
            }
            (CLIENT_CHANGE, 0 | 1) if !data.is_null() => {
                // SAFETY: with this event the server hands over this struct.
                let client = unsafe { &*data.cast::<raw::RedisModuleClientInfo>() };
                if sub == 0 {
                    Turn::Came(client.id)
                } else {
                    Turn::Left(client.id)
                }
            }
            (CRON, _) => Turn::Cron,
            (SWAPDB, _) if !data.is_null() => {
                // SAFETY: with this event the server hands over this struct.
                let swap = unsafe { &*data.cast::<raw::RedisModuleSwapDbInfo>() };
                Turn::Swapped(swap.dbnum_first, swap.dbnum_second)
            }
            _ => return,
        };
        T::turn(Ctx::new(ctx), turn);
    });
}
