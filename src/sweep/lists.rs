//! Lists, and zsets that are queues, told by what lies in them, and how old it is.

use crate::core::celery::binding::{SEP, is_uuid, split_priority};
use crate::core::celery::envelope::{self, Kind};
use crate::core::keys::{Class, KeyType, Names};
use crate::known;
use crate::server::call::{self, Value};
use crate::server::key::{Key, untouched};
use crate::server::{Ctx, Str};

/// The largest element fetched to be looked into, in bytes. LINDEX copies it whole.
const LARGEST_ELEMENT: u64 = 256 * 1024;

/// Whether a key that name and type do not explain is told by what lies in it.
pub fn may_tell(names: &Names, name: &[u8], kind: KeyType) -> bool {
    kind == KeyType::List || (kind == KeyType::Zset && names.may_be_zset_queue(name))
}

/// The class of such a key. `length` are its elements, `bytes` what it takes.
pub fn told(ctx: Ctx<'_>, db: i32, name: &Str, kind: KeyType, length: u64, bytes: u64) -> Class {
    if kind == KeyType::List {
        return class(ctx, db, name.bytes(), length, bytes);
    }
    if too_long(length, bytes) {
        return Class::Other;
    }
    // celery-redis-plus: the members are delivery tags.
    let look = || call::read(ctx, c"ZRANGE", &[name.bytes(), b"0", b"0"]);
    let first = untouched(ctx, name, look);
    let tag = first.array().first().and_then(Value::str);
    if tag.is_some_and(is_uuid) {
        Class::Queue
    } else {
        Class::Other
    }
}

/// The class of a list that its name does not explain.
pub fn class(ctx: Ctx<'_>, db: i32, name: &[u8], length: u64, bytes: u64) -> Class {
    if known::queue(db, name) {
        return Class::Queue;
    }
    let Some(element) = element(ctx, name, -1, length, bytes) else {
        return Class::Other;
    };
    let class = envelope::read(&element).map_or(Class::Other, |message| match message.kind() {
        Kind::PidboxReply => Class::ReplyQueue,
        _ if is_uuid3(name) => Class::RpcReply,
        _ => Class::Queue,
    });
    known::seen(db, name, class, KeyType::List);
    class
}

/// The queue that a list belongs to: its name without a priority.
#[must_use]
pub fn queue_name(list: &[u8]) -> &[u8] {
    split_priority(list, SEP).0
}

/// What the messages at the ends of a list tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// When the oldest was sent, Unix ms: Celery 5.2.7 and later tell it of a message
    /// with an `expires` option.
    pub sent_ms: Option<i64>,
    /// The oldest is past its `expires`.
    pub expired: bool,
    /// The newest is too.
    pub all_expired: bool,
}

/// Reads the ends of a list. Messages are pushed at the head, so the oldest is the
/// last.
pub fn ends(ctx: Ctx<'_>, name: &[u8], length: u64, bytes: u64, now_ms: i64) -> Ends {
    let times = |at| {
        let element = element(ctx, name, at, length, bytes);
        let message = element.as_deref().and_then(envelope::read);
        message.map_or((None, false), |message| {
            let expired = message.expires_ms.is_some_and(|ms| ms <= now_ms);
            (message.published_at_ms(), expired)
        })
    };
    let (sent_ms, expired) = times(-1);
    Ends {
        sent_ms,
        expired,
        all_expired: expired && times(0).1,
    }
}

/// The element that is read next; `None` if it is too long to be looked into.
pub fn oldest(ctx: Ctx<'_>, name: &[u8], length: u64, bytes: u64) -> Option<Vec<u8>> {
    element(ctx, name, -1, length, bytes)
}

/// Whether an element may be too long to be copied: the mean is all that can be known
/// before.
fn too_long(length: u64, bytes: u64) -> bool {
    bytes.checked_div(length).unwrap_or(0) > LARGEST_ELEMENT
}

fn element(ctx: Ctx<'_>, name: &[u8], at: i64, length: u64, bytes: u64) -> Option<Vec<u8>> {
    if too_long(length, bytes) {
        return None;
    }
    let key = Str::new(name)?;
    if let Some(element) = Key::read(ctx, &key)?.element(at) {
        return Some(element.bytes().to_vec());
    }
    let at = at.to_string();
    let look = || call::read(ctx, c"LINDEX", &[name, at.as_bytes()]);
    match untouched(ctx, &key, look) {
        Value::Str(element) => Some(element),
        _ => None,
    }
}

/// The `rpc://` backend names its lists by a UUID of version 3 (kombu,
/// `Producer.auto_declare` over `uuid3`), which no queue of a person is called.
fn is_uuid3(name: &[u8]) -> bool {
    name.get(14) == Some(&b'3') && is_uuid(name)
}
