//! Commands of the server, called from inside.

use std::ffi::CStr;

use redis_module::raw;

use super::key::Key;
use super::{Ctx, Str};

/// A reply, read in full. Depth and size are those of the commands we call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// An integer.
    Int(i64),
    /// A string of any kind.
    Str(Vec<u8>),
    /// A list.
    Array(Vec<Value>),
    /// Nothing.
    Nil,
    /// The server refused.
    Error(Vec<u8>),
}

impl Value {
    /// Its integer.
    #[must_use]
    pub const fn int(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            _ => None,
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn str(&self) -> Option<&[u8]> {
        match self {
            Self::Str(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Its elements; none if it is no list.
    #[must_use]
    pub fn array(&self) -> &[Value] {
        match self {
            Self::Array(items) => items,
            _ => &[],
        }
    }
}

/// Replies deeper than this are cut; the commands we call answer at most two deep.
const DEEPEST: u32 = 4;

/// Calls a command that only reads.
pub fn read(ctx: Ctx<'_>, command: &CStr, args: &[&[u8]]) -> Value {
    run(ctx, command, c"v", args)
}

/// Calls a command that writes: replicas and AOF get it as it stands.
pub fn write(ctx: Ctx<'_>, command: &CStr, args: &[&[u8]]) -> Value {
    run(ctx, command, c"!v", args)
}

fn run(ctx: Ctx<'_>, command: &CStr, format: &CStr, args: &[&[u8]]) -> Value {
    let (Some(call), Some(free)) = (api!(RedisModule_Call), api!(RedisModule_FreeCallReply)) else {
        return Value::Nil;
    };
    let owned: Vec<Str> = args.iter().filter_map(|arg| Str::new(arg)).collect();
    let mut argv: Vec<*mut raw::RedisModuleString> = owned.iter().map(Str::ptr).collect();
    // SAFETY: command and format end in NUL; "v" is followed by an array of live
    // strings and its length as size_t; "!" and "v" are known to every server.
    let reply = unsafe {
        call(
            ctx.ptr(),
            command.as_ptr(),
            format.as_ptr(),
            argv.as_mut_ptr(),
            argv.len(),
        )
    };
    if reply.is_null() {
        // Before 7.0 a refused call has no reply, only errno.
        return Value::Error(b"ERR the server refused the command".to_vec());
    }
    let value = decode(reply, DEEPEST);
    // SAFETY: the reply is ours and freed once; its elements go with it.
    unsafe { free(reply) };
    value
}

fn decode(reply: *mut raw::RedisModuleCallReply, depth: u32) -> Value {
    let Some(kind) = api!(RedisModule_CallReplyType) else {
        return Value::Nil;
    };
    // SAFETY: a live reply of ours, or an element of one.
    match unsafe { kind(reply) } {
        0 | 10 => Value::Str(reply_bytes(reply)),
        1 => Value::Error(reply_bytes(reply)),
        2 => api!(RedisModule_CallReplyInteger).map_or(Value::Nil, |int| {
            // SAFETY: the reply is an integer.
            Value::Int(unsafe { int(reply) })
        }),
        3 if depth > 0 => elements(reply, depth - 1),
        _ => Value::Nil,
    }
}

fn elements(reply: *mut raw::RedisModuleCallReply, depth: u32) -> Value {
    let (Some(length), Some(element)) = (
        api!(RedisModule_CallReplyLength),
        api!(RedisModule_CallReplyArrayElement),
    ) else {
        return Value::Nil;
    };
    // SAFETY: the reply is an array.
    let count = unsafe { length(reply) };
    let items = (0..count).map_while(|at| {
        // SAFETY: the reply is an array of `count` elements.
        let item = unsafe { element(reply, at) };
        (!item.is_null()).then(|| decode(item, depth))
    });
    Value::Array(items.collect())
}

fn reply_bytes(reply: *mut raw::RedisModuleCallReply) -> Vec<u8> {
    let Some(look) = api!(RedisModule_CallReplyStringPtr) else {
        return Vec::new();
    };
    let mut len = 0;
    // SAFETY: the reply is live and `len` a place for the length.
    let ptr = unsafe { look(reply, &raw mut len) };
    if ptr.is_null() {
        return Vec::new();
    }
    // SAFETY: the server says that `len` bytes stand at `ptr` while the reply lives.
    unsafe { std::slice::from_raw_parts(ptr.cast::<u8>(), len) }.to_vec()
}

/// Whether the server knows a command by that name: `rename-command` may have taken it
/// away. Where COMMAND itself is gone nobody can tell, and it is taken to be there.
pub fn is_known(ctx: Ctx<'_>, command: &[u8]) -> bool {
    let told = read(ctx, c"COMMAND", &[b"INFO", command]);
    !matches!(told.array(), [Value::Nil])
}

/// Bytes that a command may copy of a zset in one go.
const COPIED_AT_ONCE: u64 = 256 * 1024;

/// Members of a zset that are measured before some are copied.
const MEASURED: u32 = 64;

/// Whether so many members of a zset are too long together to be copied, as far as those
/// of the lowest scores tell: no server tells the length of a member without a copy of it.
pub fn too_long_to_copy(ctx: Ctx<'_>, zset: &Str, members: u64) -> bool {
    let length = Key::read(ctx, zset).map_or(0, |key| key.len() as u64);
    let mean = memory_usage(ctx, zset, MEASURED) / length.max(1);
    mean.saturating_mul(members.min(length)) > COPIED_AT_ONCE
}

/// What a key takes in memory, in bytes, by the server's own `MEMORY USAGE`;
/// aggregates are sized from `samples` elements, from all of them if it is 0.
pub fn memory_usage(ctx: Ctx<'_>, name: &Str, samples: u32) -> u64 {
    let samples = samples.to_string();
    let value = read(
        ctx,
        c"MEMORY",
        &[b"USAGE", name.bytes(), b"SAMPLES", samples.as_bytes()],
    );
    value.int().and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
}
