//! Keys that only their content tells: lists, zsets that are queues, and what is not
//! acknowledged under other names than kombu's own. And how old it is.

use crate::core::celery::binding::{SEP, is_uuid, split_priority};
use crate::core::celery::body;
use crate::core::celery::envelope::{self, Kind};
use crate::core::keys::{Class, KeyType, Names};
use crate::known;
use crate::server::call::{self, Value};
use crate::server::key::{self, Key, untouched};
use crate::server::scan::MembersCursor;
use crate::server::{Ctx, Str};

/// The largest element fetched to be looked into, in bytes. LINDEX copies it whole.
const LARGEST_ELEMENT: u64 = 256 * 1024;

/// Elements that are measured before a collection is looked into.
pub const FIRST: u32 = 5;

/// Whether a key that name and type do not explain may be told by what lies in it.
pub const fn may_tell(kind: KeyType) -> bool {
    matches!(kind, KeyType::List | KeyType::Hash | KeyType::Zset)
}

/// The class of such a key. `length` are its elements, `bytes` what it takes. An
/// index of unacknowledged messages is told only once their hash is known.
pub fn told(
    ctx: Ctx<'_>,
    names: &Names,
    db: i32,
    name: &Str,
    kind: KeyType,
    length: u64,
    bytes: u64,
) -> Class {
    match kind {
        KeyType::List => class(ctx, db, name.bytes(), length, bytes),
        KeyType::Hash if !too_long(length, bytes) && holds_unacked(ctx, name) => {
            known::seen(db, name.bytes(), Class::Unacked, kind);
            Class::Unacked
        }
        KeyType::Zset if !too_long(length, bytes) => zset(ctx, names, db, name),
        _ => Class::Other,
    }
}

fn zset(ctx: Ctx<'_>, names: &Names, db: i32, name: &Str) -> Class {
    let may_be_queue = names.may_be_zset_queue(name.bytes());
    let hashes = known::unacked(db);
    if !may_be_queue && hashes.is_empty() {
        return Class::Other;
    }
    let first = key::ask(ctx, name.bytes(), c"ZRANGE", &[b"0", b"0"]);
    let Some(tag) = first.array().first().and_then(Value::str) else {
        return Class::Other;
    };
    // celery-redis-plus: the members are delivery tags.
    if may_be_queue && is_uuid(tag) {
        return Class::Queue;
    }
    let newest = key::ask(ctx, name.bytes(), c"ZRANGE", &[b"-1", b"-1"]);
    let newest = newest.array().first().and_then(Value::str);
    // The oldest may have been acknowledged at this very moment.
    for tag in [Some(tag), newest].into_iter().flatten() {
        for hash in &hashes {
            if key::ask(ctx, hash, c"HEXISTS", &[tag]).int() == Some(1) {
                known::index_found(db, hash, name.bytes());
                return Class::Unacked;
            }
        }
    }
    Class::Other
}

/// Whether the elements of a collection are too long to be shown, as far as the first
/// few tell. The server copies what it shows, and the first few are shown first.
pub fn holds_long(ctx: Ctx<'_>, name: &Str) -> bool {
    let length = Key::read(ctx, name).map_or(0, |key| key.len() as u64);
    too_long(length, call::memory_usage(ctx, name, FIRST))
}

/// Whether this is a hash of messages that nobody acknowledged: kombu's own shape,
/// and each under the delivery tag that it bears. Its values must not be
/// [long](holds_long).
pub fn holds_unacked(ctx: Ctx<'_>, name: &Str) -> bool {
    // Empty buckets of a hash that has shrunk are shown one at a time.
    const MOST_STEPS: u32 = 100;
    let (Some(hash), Some(mut cursor)) = (Key::read(ctx, name), MembersCursor::new()) else {
        return false;
    };
    if hash.kind() != Some(KeyType::Hash) {
        return false;
    }
    for _ in 0..MOST_STEPS {
        let (mut shown, mut all) = (false, true);
        let more = cursor.step_fields(&hash, |tag, value| {
            if all {
                shown = true;
                all = envelope::read_unacked(value).is_some_and(|taken| {
                    let bears = taken.envelope.delivery_tag;
                    bears.is_some_and(|bears| bears.as_bytes() == tag)
                });
            }
        });
        if shown || !more {
            return shown && all;
        }
    }
    false
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

/// How far from either end of a list messages are looked at, and the bytes of them:
/// an element in the middle of millions takes the server long to find.
const DEEPEST_SAMPLE: u64 = 1_024;
const SAMPLED_BYTES: usize = 256 * 1024;

/// What some messages of a list tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Samples {
    /// When the oldest was sent, Unix ms: Celery 5.2.7 and later tell it of a message
    /// with an `expires` option.
    pub sent_ms: Option<i64>,
    /// Messages looked at.
    pub looked_at: u64,
    /// Those of them that are past their own `expires`.
    pub expired: u64,
}

/// Places of a list to look at: thinning out from either end.
fn places(length: u64) -> Vec<i64> {
    let deepest = length.min(DEEPEST_SAMPLE);
    let from_tail = std::iter::successors(Some(1_u64), |at| at.checked_mul(2));
    let from_tail: Vec<u64> = from_tail.take_while(|at| *at <= deepest).collect();
    // Counted from the head, and what the tail shows not twice.
    let shown = |at: &u64| from_tail.contains(&(length - at));
    let from_head = from_tail.iter().map(|at| at - 1).filter(|at| !shown(at));
    let from_head: Vec<i64> = from_head.map(u64::cast_signed).collect();
    let from_tail = from_tail.iter().map(|at| -at.cast_signed());
    from_tail.chain(from_head).collect()
}

/// Reads some messages of a list, most of them near its ends. Messages are pushed at
/// the head, so the oldest is the last.
pub fn samples(ctx: Ctx<'_>, name: &[u8], length: u64, bytes: u64, now_ms: i64) -> Samples {
    let mut found = Samples::default();
    let mut read = 0;
    for at in places(length) {
        let Some(element) = element(ctx, name, at, length, bytes) else {
            continue;
        };
        read += element.len();
        if let Some(mut message) = envelope::read(&element) {
            body::complete(&mut message, &element);
            found.looked_at += 1;
            let past = message.expires_ms.is_some_and(|ms| ms <= now_ms);
            found.expired += u64::from(past);
            if at == -1 {
                found.sent_ms = message.published_at_ms();
            }
        }
        if read >= SAMPLED_BYTES {
            break;
        }
    }
    found
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_thin_out_from_either_end_and_none_is_looked_at_twice() {
        assert!(places(0).is_empty());
        assert_eq!(places(1), [-1]);
        assert_eq!(places(2), [-1, -2]);
        assert_eq!(places(3), [-1, -2, 0]);
        for length in 0..3_000_u64 {
            let mut from_head: Vec<i64> = places(length)
                .into_iter()
                .map(|at| {
                    if at < 0 {
                        at + length.cast_signed()
                    } else {
                        at
                    }
                })
                .collect();
            from_head.sort_unstable();
            let looked_at = from_head.len();
            from_head.dedup();
            assert_eq!(from_head.len(), looked_at, "{length}");
            assert!(
                from_head
                    .iter()
                    .all(|at| (0..length.cast_signed()).contains(at))
            );
        }
        let far = places(12_000_000);
        assert!(far.iter().all(|at| at.unsigned_abs() <= DEEPEST_SAMPLE));
        assert_eq!(far.len(), 22);
    }
}
