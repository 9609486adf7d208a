//! The context of one callback, and what it tells about the server.

use std::ffi::{CStr, CString};
use std::marker::PhantomData;

use redis_module::raw;

use super::call;

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

    /// A child saves, rewrites or sends the data set: what is written now is copied,
    /// page by page.
    #[must_use]
    pub const fn saving(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_ACTIVE_CHILD)
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

    /// The context of no server: none of its databases is there.
    #[cfg(any(test, fuzzing))]
    pub(crate) const fn nowhere() -> Self {
        Self::new(std::ptr::null_mut())
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

/// A database's number where it is no index of the server's: in replies and in what
/// was observed.
#[must_use]
pub fn db_number(db: i32) -> u32 {
    u32::try_from(db).unwrap_or(0)
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

/// Whether memory is at `maxmemory`, by the server's own count.
#[must_use]
pub fn memory_full() -> bool {
    let Some(ratio) = api!(RedisModule_GetUsedMemoryRatio) else {
        return false;
    };
    // SAFETY: takes nothing and only reads state.
    unsafe { ratio() >= 1.0 }
}

/// Whether memory is at `maxmemory` and the server has nothing that it may evict to
/// make room: clients' writes that take memory are refused then, with OOM.
#[must_use]
pub fn memory_refuses(ctx: Ctx<'_>) -> bool {
    if !memory_full() {
        return false;
    }
    let policy = eviction_policy(ctx);
    policy == "noeviction" || (policy.starts_with("volatile-") && nothing_expires(ctx))
}

/// `maxmemory-policy`. Costs what `INFO memory` costs.
pub fn eviction_policy(ctx: Ctx<'_>) -> String {
    server_info(ctx, c"memory", c"maxmemory_policy").unwrap_or_default()
}

/// Databases that are asked for keys with a TTL.
const MOST_DATABASES: u32 = 64;

/// Whether no key has a TTL, in the first databases. Costs what `INFO keyspace` costs.
fn nothing_expires(ctx: Ctx<'_>) -> bool {
    let Some(info) = Info::of(ctx, c"keyspace") else {
        return false;
    };
    let mut dbs =
        (0..MOST_DATABASES).filter_map(|n| info.field(&CString::new(format!("db{n}")).ok()?));
    dbs.all(|db| db.split(',').any(|field| field == "expires=0"))
}

/// What a primary knows of its replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replicas {
    /// How far the slowest is behind in bytes, by what it has acknowledged.
    pub lag_bytes: u64,
    /// Whether fewer are in step than `min-replicas-to-write` asks for: clients'
    /// writes are refused then, with NOREPLICAS.
    pub too_few: bool,
}

/// Asks for the replicas. Costs what `INFO replication` costs.
pub fn replicas(ctx: Ctx<'_>) -> Replicas {
    let Some(info) = Info::of(ctx, c"replication") else {
        return Replicas::default();
    };
    Replicas {
        lag_bytes: lag_bytes(&info).unwrap_or(0),
        too_few: too_few(ctx, &info).unwrap_or(false),
    }
}

fn lag_bytes(info: &Info<'_>) -> Option<u64> {
    let sent: u64 = info.field(c"master_repl_offset")?.parse().ok()?;
    let acknowledged = (0..MOST_REPLICAS)
        .map_while(|n| info.field(&CString::new(format!("slave{n}")).ok()?))
        .filter(|replica| replica.contains("state=online"))
        .filter_map(|replica| {
            let offset = replica
                .split(',')
                .find_map(|part| part.strip_prefix("offset="));
            offset?.parse::<u64>().ok()
        })
        .min()?;
    Some(sent.saturating_sub(acknowledged))
}

/// INFO counts those in step only where a minimum is set, so only then is that
/// asked for. Where nobody can ask it is one at least.
fn too_few(ctx: Ctx<'_>, info: &Info<'_>) -> Option<bool> {
    let in_step: u64 = info.field(c"min_slaves_good_slaves")?.parse().ok()?;
    let wanted = setting(ctx, b"min-replicas-to-write");
    let wanted = wanted.map_or(Some(1), |wanted| {
        std::str::from_utf8(&wanted).ok()?.parse().ok()
    })?;
    Some(in_step < wanted)
}

/// Why the server refuses clients' writes for its disk's sake (MISCONF), if it does: a
/// module's would pass, and be lost with a crash. Costs what `INFO persistence` costs.
///
/// Where nobody can ask for the settings that decide, they are taken for the defaults.
///
/// Source: Redis 6.2 to 8.2 and Valkey 9.1, src/server.c, `writeCommandsDeniedByDiskError`.
pub fn disk_forbids(ctx: Ctx<'_>) -> Option<&'static str> {
    let info = Info::of(ctx, c"persistence")?;
    let failed = |field| info.field(field).as_deref() == Some("err");
    if info.field(c"aof_enabled").as_deref() == Some("1") && failed(c"aof_last_write_status") {
        return Some("the append-only file cannot be written");
    }
    if failed(c"rdb_last_bgsave_status")
        && setting(ctx, b"stop-writes-on-bgsave-error").is_none_or(|stop| stop == b"yes")
        && setting(ctx, b"save").is_none_or(|save| !save.is_empty())
    {
        return Some("the last save failed, and stop-writes-on-bgsave-error is set");
    }
    None
}

/// Why the server refuses clients' writes at this moment, if it does: its error's code
/// and text. For commands that write only when asked to: one with the flag `write` is
/// refused by the server itself, whatever it is asked for.
///
/// Source: Redis 6.2 to 8.2 and Valkey 9.1, src/server.c, `processCommand`.
pub fn writes_denied(ctx: Ctx<'_>) -> Option<(&'static str, &'static str)> {
    if !ctx.flags().primary() {
        return Some(("READONLY", "You can't write against a read only replica."));
    }
    if let Some(why) = disk_forbids(ctx) {
        return Some(("MISCONF", why));
    }
    let denied = ("NOREPLICAS", "Not enough good replicas to write.");
    replicas(ctx).too_few.then_some(denied)
}

/// A setting of the server's own, as CONFIG GET tells it; `None` where
/// `rename-command` hides that.
pub fn setting(ctx: Ctx<'_>, name: &[u8]) -> Option<Vec<u8>> {
    let answer = call::read(ctx, c"CONFIG", &[b"GET", name]);
    answer.array().get(1)?.str().map(<[u8]>::to_vec)
}

/// Replicas looked at for their lag.
const MOST_REPLICAS: u32 = 64;

/// A section of INFO. Freed on drop.
struct Info<'a> {
    ctx: Ctx<'a>,
    data: *mut raw::RedisModuleServerInfoData,
}

impl<'a> Info<'a> {
    fn of(ctx: Ctx<'a>, section: &CStr) -> Option<Self> {
        let load = api!(RedisModule_GetServerInfo)?;
        // SAFETY: the context is live and the section's name ends in NUL.
        let data = unsafe { load(ctx.ptr, section.as_ptr()) };
        (!data.is_null()).then(|| Self { ctx, data })
    }

    fn field(&self, name: &CStr) -> Option<String> {
        let look = api!(RedisModule_ServerInfoGetField)?;
        // SAFETY: the data are live and the field's name ends in NUL. Without a
        // context no automatic memory would free the string a second time.
        let value = unsafe { look(std::ptr::null_mut(), self.data, name.as_ptr()) };
        super::Str::own(value).map(|s| String::from_utf8_lossy(s.bytes()).into_owned())
    }
}

impl Drop for Info<'_> {
    fn drop(&mut self) {
        if let Some(free) = api!(RedisModule_FreeServerInfo) {
            // SAFETY: made for us and freed once.
            unsafe { free(self.ctx.ptr, self.data) }
        }
    }
}

/// A field of `INFO section`, as text. Costs what `INFO section` costs.
pub fn server_info(ctx: Ctx<'_>, section: &CStr, field: &CStr) -> Option<String> {
    Info::of(ctx, section)?.field(field)
}

/// Numbers of `INFO section`, 0 where the server has no such field. Costs what `INFO
/// section` costs.
pub fn server_numbers<const N: usize>(
    ctx: Ctx<'_>,
    section: &CStr,
    fields: [&CStr; N],
) -> Option<[u64; N]> {
    let info = Info::of(ctx, section)?;
    let number = |field| info.field(field)?.parse().ok();
    Some(fields.map(|field| number(field).unwrap_or(0)))
}

/// The id of this node of a cluster; `None` outside of one.
#[must_use]
pub fn node_id() -> Option<String> {
    const LEN: usize = raw::REDISMODULE_NODE_ID_LEN as usize;
    let id = api!(RedisModule_GetMyClusterID)?;
    // SAFETY: takes nothing and only reads state.
    let id = unsafe { id() };
    if id.is_null() {
        return None;
    }
    // SAFETY: an id has so many bytes, without a NUL behind them, and stays as long
    // as the server runs in a cluster.
    let id = unsafe { std::slice::from_raw_parts(id.cast::<u8>(), LEN) };
    Some(String::from_utf8_lossy(id).into_owned())
}

/// Bytes that nobody can guess, from the server's own generator.
#[must_use]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if let Some(fill) = api!(RedisModule_GetRandomBytes) {
        // SAFETY: the place has room for N bytes.
        unsafe { fill(bytes.as_mut_ptr(), N) }
    }
    bytes
}
