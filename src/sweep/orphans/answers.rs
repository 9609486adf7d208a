//! Answers that nobody fetches under celery-redis-plus, where a queue is a zset of
//! delivery tags, with an index beside it and a hash for each message.
//!
//! A worker that answers has not declared the asker's queue, so none of these keys
//! expires (seen with celery-redis-plus 0.4.1 and Celery 5.7: an asker killed before it
//! reads leaves them). They go as its own `Channel._delete` takes them; the binding goes
//! by itself, as the transport drops those that nobody renews.

use std::collections::BTreeSet;

use super::super::{Cost, Turn};
use super::{EXEMPT, Kind, NOT_KNOWN, Orphans, may};
use crate::core::celery::binding::is_uuid;
use crate::core::keys::{KeyType, PlusQueue};
use crate::core::orphans::same_slot;
use crate::server::acl::Right;
use crate::server::call::{self, Value};
use crate::server::key::{self, Key, untouched};
use crate::server::{Ctx, Str};

use super::lists::IN_USE;

/// Messages of one queue taken in one step; a step is one transaction.
const PORTION: u64 = 50;

/// A zset: how many members it has, and for how long it was not used.
fn zset(ctx: Ctx<'_>, name: &[u8]) -> Option<(u64, Option<i64>)> {
    let name = Str::new(name)?;
    let key = Key::read(ctx, &name)?;
    (key.kind() == Some(KeyType::Zset)).then(|| (key.len() as u64, key.idle_ms()))
}

fn bytes(ctx: Ctx<'_>, name: &[u8]) -> u64 {
    Str::new(name).map_or(0, |name| call::memory_usage(ctx, &name, 5))
}

impl Orphans {
    /// Judges a queue of answers, and takes it with its index and messages away if that
    /// is asked for.
    pub(super) fn answers(&mut self, turn: &Turn<'_>, db: i32, name: &[u8]) -> Cost {
        let mut cost = Cost::default();
        let ctx = turn.ctx;
        let Some(keys) = PlusQueue::of(name) else {
            return cost;
        };
        if !ctx.select(db) {
            return cost;
        }
        let index = keys.index();
        // An asker that was killed with the answer in hand leaves the index alone.
        let there: Vec<_> = [name, &index]
            .into_iter()
            .filter_map(|name| zset(ctx, name))
            .collect();
        let Some(all) = there.iter().map(|(length, _)| *length).max() else {
            return cost;
        };
        let unread_ms = there.iter().map(|(_, idle_ms)| *idle_ms).min();
        let Some(unread_ms) = unread_ms.flatten() else {
            self.keep(Kind::ReplyQueue, NOT_KNOWN);
            return cost;
        };
        if unread_ms < self.order.ages.unread_ms {
            self.keep(Kind::ReplyQueue, IN_USE);
            return cost;
        }
        let tags = tags(ctx, [name, &index]);
        if tags.is_empty() || !tags.iter().all(|tag| is_uuid(tag)) {
            self.keep(Kind::ReplyQueue, "its members are no delivery tags");
            return cost;
        }
        let messages: Vec<Vec<u8>> = tags.iter().map(|tag| keys.message(tag)).collect();
        let all_keys = || messages.iter().map(Vec::as_slice).chain([name, &index]);
        let may_all = |right| {
            all_keys().all(|name| Str::new(name).is_some_and(|name| may(turn, right, &name)))
        };
        if !may_all(Right::Access) || self.purges(Kind::ReplyQueue) && !may_all(Right::Change) {
            self.skipped_noperm += 1;
            return cost;
        }
        if self.purges(Kind::ReplyQueue) && all_keys().any(|name| self.names.exempt(name)) {
            self.keep(Kind::ReplyQueue, EXEMPT);
            return cost;
        }
        if turn.cluster && !all_keys().all(|other| same_slot(other, name)) {
            let why = "its messages lie in other slots of the cluster";
            self.keep(Kind::ReplyQueue, why);
            return cost;
        }
        let is_ours = |message: &&Vec<u8>| {
            let queue = key::ask(ctx, message, c"HGET", &[b"routing_key"]);
            queue.str() == Some(keys.queue)
        };
        let messages: Vec<&Vec<u8>> = messages.iter().filter(is_ours).collect();
        let mut freed: u64 = messages.iter().map(|message| bytes(ctx, message)).sum();
        cost.bytes += freed;
        if !self.purges(Kind::ReplyQueue) || self.order.dry_run {
            // The first are taken for all of them.
            freed = freed.saturating_mul(all) / (tags.len() as u64).max(1);
        }
        let whole = all <= PORTION || self.order.dry_run;
        if whole || !self.purges(Kind::ReplyQueue) {
            freed += bytes(ctx, name) + bytes(ctx, &index);
        }
        if !self.purges(Kind::ReplyQueue) {
            self.orphan(Kind::ReplyQueue, db, name, unread_ms, freed);
            return cost;
        }
        if !self.order.dry_run {
            let mut gone: Vec<&[u8]> = messages.iter().map(|name| name.as_slice()).collect();
            if whole {
                gone.extend([name, &index]);
            }
            let taken = call::write(ctx, c"UNLINK", &gone).int().unwrap_or(0);
            cost.writes += u64::try_from(taken).unwrap_or(0);
            if !whole {
                cost.writes += remove(ctx, name, &tags) + remove(ctx, &index, &tags);
            }
            if cost.writes == 0 {
                return cost;
            }
        }
        self.changes.bytes_freed += freed;
        if whole {
            self.purged(Kind::ReplyQueue);
            self.orphan(Kind::ReplyQueue, db, name, unread_ms, freed);
        } else {
            self.due.answers.insert((db, name.to_vec()));
        }
        cost
    }
}

/// The first members of these zsets; none if they are too long to be delivery tags.
fn tags(ctx: Ctx<'_>, zsets: [&[u8]; 2]) -> BTreeSet<Vec<u8>> {
    let last = (PORTION - 1).to_string();
    let mut tags = BTreeSet::new();
    let too_long = |name| call::too_long_to_copy(ctx, &name, PORTION);
    if zsets
        .iter()
        .any(|zset| Str::new(zset).is_some_and(too_long))
    {
        return tags;
    }
    for zset in zsets {
        let reply = key::ask(ctx, zset, c"ZRANGE", &[b"0", last.as_bytes()]);
        let members = reply.array().iter().filter_map(Value::str);
        tags.extend(members.map(<[u8]>::to_vec));
    }
    tags
}

/// Takes members out of a zset, which is no use of it: the rest is judged by that.
/// The number of writes.
fn remove(ctx: Ctx<'_>, zset: &[u8], members: &BTreeSet<Vec<u8>>) -> u64 {
    let Some(name) = Str::new(zset) else {
        return 0;
    };
    let mut words = vec![zset];
    words.extend(members.iter().map(Vec::as_slice));
    let removed = untouched(ctx, &name, || call::write(ctx, c"ZREM", &words)).int();
    u64::from(removed.is_some_and(|removed| removed > 0))
}
