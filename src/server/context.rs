//! The context of one callback, and what it tells about the server.

use std::marker::PhantomData;

use redis_module::raw;

/// The server's context for the length of one callback.
#[derive(Clone, Copy)]
pub struct Ctx<'a> {
    ptr: *mut raw::RedisModuleCtx,
    callback: PhantomData<&'a ()>,
}

/// What the server is and does at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(i32);

#[allow(clippy::cast_possible_wrap, reason = "the flags are small constants")]
impl Flags {
    const fn has(self, flag: u32) -> bool {
        self.0 & flag as i32 != 0
    }

    /// A primary, and not reading a data set in.
    #[must_use]
    pub const fn may_write(self) -> bool {
        self.primary() && !self.loading()
    }

    /// A primary.
    #[must_use]
    pub const fn primary(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_MASTER)
    }

    /// Reading RDB or AOF, or serving the old data set while the next arrives.
    #[must_use]
    pub const fn loading(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_LOADING)
            || self.has(raw::REDISMODULE_CTX_FLAGS_ASYNC_LOADING)
    }

    /// Part of a cluster.
    #[must_use]
    pub const fn cluster(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_CLUSTER)
    }

    /// The client cannot wait: it is in a transaction, a script, or a connection
    /// of the server's own.
    #[must_use]
    pub const fn deny_blocking(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_DENY_BLOCKING)
            || self.has(raw::REDISMODULE_CTX_FLAGS_LUA)
            || self.has(raw::REDISMODULE_CTX_FLAGS_MULTI)
    }
}

impl<'a> Ctx<'a> {
    /// Wraps the context of the callback that is running.
    pub(super) const fn new(ptr: *mut raw::RedisModuleCtx) -> Self {
        Self {
            ptr,
            callback: PhantomData,
        }
    }

    pub(super) const fn ptr(self) -> *mut raw::RedisModuleCtx {
        self.ptr
    }

    /// What the server is and does now.
    #[must_use]
    pub fn flags(self) -> Flags {
        let Some(flags) = api!(RedisModule_GetContextFlags) else {
            return Flags(0);
        };
        // SAFETY: the context is that of the running callback.
        Flags(unsafe { flags(self.ptr) })
    }

    /// The database the callback is about.
    #[must_use]
    pub fn db(self) -> i32 {
        let Some(selected) = api!(RedisModule_GetSelectedDb) else {
            return 0;
        };
        // SAFETY: the context is that of the running callback.
        unsafe { selected(self.ptr) }
    }

    /// Goes to another database; `false` if there is none of that number. Not in
    /// an event's callback: from Valkey 8.1 on that would move the user's own
    /// connection.
    pub fn select(self, db: i32) -> bool {
        let Some(select) = api!(RedisModule_SelectDb) else {
            return false;
        };
        // SAFETY: the context is that of the running callback.
        unsafe { select(self.ptr, db) == 0 }
    }

    /// Remembers the selected database, and goes back to it on drop: a command's
    /// context selects for the client that called.
    #[must_use]
    pub fn home(self) -> Home<'a> {
        Home(self, self.db())
    }

    /// How many keys the selected database has.
    #[must_use]
    pub fn db_size(self) -> u64 {
        let Some(size) = api!(RedisModule_DbSize) else {
            return 0;
        };
        // SAFETY: the context is that of the running callback.
        unsafe { size(self.ptr) }
    }

    /// The id of the client that called.
    #[must_use]
    pub fn client_id(self) -> u64 {
        let Some(id) = api!(RedisModule_GetClientId) else {
            return 0;
        };
        // SAFETY: the context is that of the running callback.
        unsafe { id(self.ptr) }
    }
}

/// The way back to the database that a callback began in.
pub struct Home<'a>(Ctx<'a>, i32);

impl Drop for Home<'_> {
    fn drop(&mut self) {
        self.0.select(self.1);
    }
}

/// Unix time in ms, the clock that expiries are compared with.
#[must_use]
pub fn now_ms() -> i64 {
    let Some(clock) = api!(RedisModule_Milliseconds) else {
        return 0;
    };
    // SAFETY: takes nothing and only reads the clock.
    unsafe { clock() }
}

/// Whether writes are paused (`CLIENT PAUSE ... WRITE`, a failover): a write from
/// a timer would end the server by an assertion then, on every version.
#[must_use]
pub fn writes_paused() -> bool {
    let Some(avoid) = api!(RedisModule_AvoidReplicaTraffic) else {
        return false;
    };
    // SAFETY: takes nothing and only reads state.
    unsafe { avoid() != 0 }
}

/// A field of `INFO section`, as text. Costs what `INFO section` costs.
pub fn server_info(
    ctx: Ctx<'_>,
    section: &std::ffi::CStr,
    field: &std::ffi::CStr,
) -> Option<String> {
    let load = api!(RedisModule_GetServerInfo)?;
    let look = api!(RedisModule_ServerInfoGetField)?;
    let free = api!(RedisModule_FreeServerInfo)?;
    // SAFETY: the context is live and the section's name ends in NUL.
    let info = unsafe { load(ctx.ptr, section.as_ptr()) };
    // SAFETY: `info` is what the API just made, and the field's name ends in NUL.
    // Without a context no automatic memory would free the string a second time.
    let value = unsafe { look(std::ptr::null_mut(), info, field.as_ptr()) };
    let text = super::Str::own(value).map(|s| String::from_utf8_lossy(s.bytes()).into_owned());
    // SAFETY: freed once, after its last use.
    unsafe { free(ctx.ptr, info) };
    text
}
