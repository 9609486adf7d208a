//! Lists, told by what lies in them, and how old it is.

use crate::core::celery::binding::{SEP, split_priority};
use crate::core::celery::envelope::{self, Kind};
use crate::core::keys::{Class, KeyType};
use crate::known;
use crate::server::call::{self, Value};
use crate::server::key::{Key, untouched};
use crate::server::{Ctx, Str};

/// The largest element fetched to be looked into, in bytes. LINDEX copies it whole.
const LARGEST_ELEMENT: u64 = 256 * 1024;

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

/// When the oldest message of a list was sent, Unix ms, where the message tells:
/// Celery 5.2.7 and later with an `expires` option. Messages are pushed at the
/// head, so it is the last.
pub fn oldest_message_ms(ctx: Ctx<'_>, name: &[u8], length: u64, bytes: u64) -> Option<i64> {
    let element = element(ctx, name, -1, length, bytes)?;
    envelope::read(&element)?.published_at_ms()
}

/// The element that is read next; `None` if it is too long to be looked into.
pub fn oldest(ctx: Ctx<'_>, name: &[u8], length: u64, bytes: u64) -> Option<Vec<u8>> {
    element(ctx, name, -1, length, bytes)
}

fn element(ctx: Ctx<'_>, name: &[u8], at: i64, length: u64, bytes: u64) -> Option<Vec<u8>> {
    // The mean is all that can be known without a copy.
    if bytes.checked_div(length).unwrap_or(0) > LARGEST_ELEMENT {
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
    name.len() == 36
        && name.get(14) == Some(&b'3')
        && name.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}
