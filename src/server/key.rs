//! One key, opened.

use std::ffi::CStr;
use std::marker::PhantomData;

use redis_module::raw;

use super::call::Value;
use super::context::now_ms;
use super::{Ctx, Str};
use crate::core::keys::KeyType;
use crate::core::policy::Ttl;

const READ: i32 = 1;
const WRITE: i32 = 2;
/// Looking at a key for housekeeping is no use of it: LRU and LFU stay, one that is
/// not there is no `keymiss` for anybody, and neither counts as a hit or a miss.
/// Servers before 7.2 know only the first of these bits and ignore the others.
const QUIETLY: i32 = (1 << 16) | (1 << 17) | (1 << 18);

/// The longest string, in bytes, that a server keeps in one piece with its object:
/// 44 in Redis to 8.2, up to what is left of 128 in Valkey 9 (object.c).
const LONGEST_EMBEDDED: usize = 128;

/// An open key. Closed on drop.
pub struct Key<'a> {
    ptr: *mut raw::RedisModuleKey,
    owned: bool,
    callback: PhantomData<&'a ()>,
}

impl<'a> Key<'a> {
    /// Opens an existing key to look at, without touching its idle time.
    pub fn read(ctx: Ctx<'a>, name: &Str) -> Option<Self> {
        Self::open(ctx, name, READ | QUIETLY)
    }

    /// Opens an existing key to change. Closing it tells nobody, by the
    /// module's options ([`super::load`]); whoever changes it tells its watchers.
    pub fn write(ctx: Ctx<'a>, name: &Str) -> Option<Self> {
        let key = Self::open(ctx, name, READ | WRITE | QUIETLY)?;
        // Opened for writing, a missing key is a handle too.
        key.kind().is_some().then_some(key)
    }

    /// [`Key::read`] by a name that the server lent for the length of the callback.
    pub(super) fn read_lent(ctx: Ctx<'a>, name: *mut raw::RedisModuleString) -> Option<Self> {
        Self::open_by(ctx, name, READ | QUIETLY)
    }

    fn open(ctx: Ctx<'a>, name: &Str, mode: i32) -> Option<Self> {
        Self::open_by(ctx, name.ptr(), mode)
    }

    fn open_by(ctx: Ctx<'a>, name: *mut raw::RedisModuleString, mode: i32) -> Option<Self> {
        let open = api!(RedisModule_OpenKey)?;
        // SAFETY: context and name are live; the handle is closed before the
        // callback ends, since it cannot outlive the context.
        let ptr = unsafe { open(ctx.ptr(), name, mode) };
        (!ptr.is_null()).then(|| Self {
            ptr,
            owned: true,
            callback: PhantomData,
        })
    }

    /// Wraps a handle that the scan lends for the length of its callback.
    pub(super) fn lent(ptr: *mut raw::RedisModuleKey) -> Option<Self> {
        (!ptr.is_null()).then(|| Self {
            ptr,
            owned: false,
            callback: PhantomData,
        })
    }

    /// Its type; `None` if it holds nothing.
    #[must_use]
    pub fn kind(&self) -> Option<KeyType> {
        let kind = api!(RedisModule_KeyType)?;
        // SAFETY: the handle is open.
        match unsafe { kind(self.ptr) } {
            0 => None,
            1 => Some(KeyType::String),
            2 => Some(KeyType::List),
            3 => Some(KeyType::Hash),
            4 => Some(KeyType::Set),
            5 => Some(KeyType::Zset),
            7 => Some(KeyType::Stream),
            _ => Some(KeyType::Module),
        }
    }

    /// Bytes of a string, elements of anything else.
    #[must_use]
    pub fn len(&self) -> usize {
        let Some(length) = api!(RedisModule_ValueLength) else {
            return 0;
        };
        // SAFETY: the handle is open.
        unsafe { length(self.ptr) }
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its remaining life; 0 ms if that is past and the key not yet gone.
    ///
    /// Counted by the clock that TTLs are given by ([`now_ms`]). The server's own count
    /// goes by the time at which the command began (`RM_GetExpire`, Redis 7.2 and
    /// later), and a TTL given since would come out longer than it was given.
    #[must_use]
    pub fn ttl(&self) -> Ttl {
        if let Some(expires_at) = api!(RedisModule_GetAbsExpire) {
            // SAFETY: the handle is open.
            let at_ms = unsafe { expires_at(self.ptr) };
            return (at_ms >= 0).then(|| at_ms.saturating_sub(now_ms()).max(0));
        }
        let Some(expire) = api!(RedisModule_GetExpire) else {
            return Some(0);
        };
        // SAFETY: the handle is open.
        let ms = unsafe { expire(self.ptr) };
        (ms >= 0).then_some(ms)
    }

    /// Time since its last use in ms; `None` where the server counts uses instead
    /// (an LFU policy).
    #[must_use]
    pub fn idle_ms(&self) -> Option<i64> {
        let lru = api!(RedisModule_GetLRU)?;
        let mut idle = -1;
        // SAFETY: the handle is open and `idle` is a place for the answer.
        let status = unsafe { lru(self.ptr, &raw mut idle) };
        (status == 0 && idle >= 0).then_some(idle)
    }

    /// How much it is used: what the server's eviction goes by.
    fn usage(&self) -> Usage {
        if let Some(ms) = self.idle_ms() {
            return Usage::IdleMs(ms);
        }
        let Some(lfu) = api!(RedisModule_GetLFU) else {
            return Usage::Unknown;
        };
        let mut uses = -1;
        // SAFETY: the handle is open and `uses` is a place for the answer.
        let status = unsafe { lfu(self.ptr, &raw mut uses) };
        if status == 0 && uses >= 0 {
            Usage::Uses(uses)
        } else {
            Usage::Unknown
        }
    }

    fn put_usage(&self, usage: Usage) {
        match usage {
            Usage::IdleMs(ms) => {
                self.put_idle(ms);
                // Valkey 9.1.2 multiplies by 1,000 where it should divide: what it
                // can be told exactly is thousands of seconds. Rounded down, nothing
                // looks more idle than it is.
                let off = |now: i64| now.abs_diff(ms) > 2_000;
                if self.idle_ms().is_some_and(off) {
                    self.put_idle(ms / 1_000_000);
                }
            }
            Usage::Uses(uses) => {
                if let Some(set) = api!(RedisModule_SetLFU) {
                    // SAFETY: the handle is open; the call changes nothing else.
                    unsafe {
                        set(self.ptr, uses);
                    }
                }
            }
            Usage::Unknown => {}
        }
    }

    fn put_idle(&self, idle: i64) {
        if let Some(set) = api!(RedisModule_SetLRU) {
            // SAFETY: the handle is open; the call changes nothing else.
            unsafe {
                set(self.ptr, idle);
            }
        }
    }

    /// An element of a list, counted from its end where negative; that is no use of
    /// the list. `None` where the server has no such call (before 7.0).
    #[must_use]
    pub fn element(&self, at: i64) -> Option<Str> {
        let get = api!(RedisModule_ListGet)?;
        if self.kind() != Some(KeyType::List) {
            return None;
        }
        // SAFETY: the handle is open and holds a list; the string is ours.
        Str::own(unsafe { get(self.ptr, at) })
    }

    pub(super) const fn ptr(&self) -> *mut raw::RedisModuleKey {
        self.ptr
    }

    /// A string's bytes, without a copy, and without moving it: `None` if it is so
    /// short that the server may keep it beside its key and would have to. This is
    /// what a scan's callback may ask.
    #[must_use]
    pub fn long_string(&self) -> Option<&[u8]> {
        (self.len() > LONGEST_EMBEDDED)
            .then(|| self.string())
            .flatten()
    }

    /// A string's bytes, without a copy. A short one may be moved to be read: not
    /// inside a scan's callback.
    #[must_use]
    pub fn string(&self) -> Option<&[u8]> {
        if self.kind() != Some(KeyType::String) {
            return None;
        }
        let dma = api!(RedisModule_StringDMA)?;
        let mut len = 0;
        // SAFETY: the handle is open and holds a string.
        let ptr = unsafe { dma(self.ptr, &raw mut len, READ) };
        if ptr.is_null() {
            return None;
        }
        // SAFETY: the server says that `len` bytes stand there until the key is
        // changed, and nothing is called while the borrow of the handle lives.
        Some(unsafe { std::slice::from_raw_parts(ptr.cast(), len) })
    }

    /// Gives it an expiry at a Unix time in ms; `false` where the server has no
    /// such call. Replicates nothing.
    pub(super) fn expire_at(&self, at_ms: i64) -> bool {
        let Some(set) = api!(RedisModule_SetAbsExpire) else {
            return false;
        };
        // SAFETY: the handle is open for writing.
        unsafe { set(self.ptr, at_ms) == 0 }
    }
}

/// How much a key is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Usage {
    /// Ms since its last use.
    IdleMs(i64),
    /// The logarithmic counter of an LFU policy.
    Uses(i64),
    /// The server does not tell.
    Unknown,
}

/// Lets `work` ask the server about a key without that counting as a use: a
/// command called from inside sets the key's idle time back, as any client's does.
pub fn untouched<R>(ctx: Ctx<'_>, name: &Str, work: impl FnOnce() -> R) -> R {
    let before = Key::read(ctx, name).map(|key| key.usage());
    let result = work();
    if let (Some(before), Some(key)) = (before, Key::read(ctx, name)) {
        key.put_usage(before);
    }
    result
}

/// Asks the server about a key, whose name comes first, without that being a use of
/// it.
pub fn ask(ctx: Ctx<'_>, name: &[u8], command: &CStr, args: &[&[u8]]) -> Value {
    let Some(key) = Str::new(name) else {
        return Value::Nil;
    };
    let mut words = vec![name];
    words.extend(args);
    untouched(ctx, &key, || super::call::read(ctx, command, &words))
}

impl Drop for Key<'_> {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        if let Some(close) = api!(RedisModule_CloseKey) {
            // SAFETY: opened by us and closed once.
            unsafe { close(self.ptr) }
        }
    }
}

/// Gives the key an expiry at a Unix time in ms, for replicas and AOF too, in
/// that order: whatever was written before in this callback goes out before.
/// `false` if there is no such key or the server refuses. With `heard` it raises
/// the event that EXPIRE raises, which the low-level call does not.
///
/// `through_server` goes by the PEXPIREAT command, which in a cluster refuses a
/// slot that is not ours yet; the direct way is about a third cheaper and leaves
/// the key's idle time alone.
pub fn expire_at(ctx: Ctx<'_>, name: &Str, at_ms: i64, through_server: bool, heard: bool) -> bool {
    if through_server {
        return expire_through_server(ctx, name, at_ms);
    }
    Key::write(ctx, name).is_some_and(|key| expire_open(ctx, key, name, at_ms, heard))
}

/// The direct way of [`expire_at`], for a key that is open for writing.
pub fn expire_open(ctx: Ctx<'_>, key: Key<'_>, name: &Str, at_ms: i64, heard: bool) -> bool {
    let done = key.expire_at(at_ms);
    drop(key);
    if !done {
        // A server without the low-level call, before 6.2.2.
        return expire_through_server(ctx, name, at_ms);
    }
    tell_watchers(ctx, name);
    replicate_expiry(ctx, name, at_ms);
    if heard {
        notify_expire(ctx, name);
    }
    true
}

fn expire_through_server(ctx: Ctx<'_>, name: &Str, at_ms: i64) -> bool {
    let at = at_ms.to_string();
    matches!(
        super::call::write(ctx, c"PEXPIREAT", &[name.bytes(), at.as_bytes()]),
        Value::Int(1)
    )
}

/// Tells who watches or tracks the key that it has changed.
fn tell_watchers(ctx: Ctx<'_>, name: &Str) {
    let Some(signal) = api!(RedisModule_SignalModifiedKey) else {
        return;
    };
    // SAFETY: context and name are live.
    unsafe {
        signal(ctx.ptr(), name.ptr());
    }
}

fn replicate_expiry(ctx: Ctx<'_>, name: &Str, at_ms: i64) {
    let Some(replicate) = api!(RedisModule_Replicate) else {
        return;
    };
    // SAFETY: command and format end in NUL; "sl" is followed by one string of
    // the server and one long long. The expiry is absolute, since the command
    // goes out as it stands and would start anew when an AOF is read.
    unsafe {
        replicate(
            ctx.ptr(),
            c"PEXPIREAT".as_ptr(),
            c"sl".as_ptr(),
            name.ptr(),
            at_ms,
        );
    }
}

fn notify_expire(ctx: Ctx<'_>, name: &Str) {
    const GENERIC: i32 = 1 << 2;
    let Some(notify) = api!(RedisModule_NotifyKeyspaceEvent) else {
        return;
    };
    // SAFETY: the event's name ends in NUL, context and key are live.
    unsafe {
        notify(ctx.ptr(), GENERIC, c"expire".as_ptr(), name.ptr());
    }
}

/// Deletes the key by UNLINK, for replicas and AOF too; `false` if it was gone.
pub fn unlink(ctx: Ctx<'_>, name: &Str) -> bool {
    matches!(
        super::call::write(ctx, c"UNLINK", &[name.bytes()]),
        Value::Int(1)
    )
}
