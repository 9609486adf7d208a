//! Tasks of which more than one message lies among the unacknowledged: each of them
//! runs the task.

use std::collections::{BTreeMap, HashMap, LinkedList};
use std::hash::{BuildHasher, RandomState};

use super::{Cost, lists};
use crate::core::celery::{body, envelope};
use crate::core::keys::KeyType;
use crate::server::key::Key;
use crate::server::scan::MembersCursor;
use crate::server::{Ctx, Str};

/// The most tasks remembered of one hash; what comes behind them is not looked at.
const MOST_TASKS: usize = 200_000;

/// Parts that they are remembered in: a table that is full is made anew in one go, which
/// of one table of them all would take milliseconds.
const PARTS: u64 = 256;

/// Hashes of unacknowledged messages, walked through in small steps.
#[derive(Default)]
pub struct Twice {
    due: LinkedList<(i32, Str)>,
    reading: Option<Reading>,
    hasher: RandomState,
    found: u64,
}

struct Reading {
    db: i32,
    hash: Str,
    cursor: MembersCursor,
    tags: Tags,
}

/// With which delivery tag each task id was seen first. The cursor may show an entry
/// twice, so that the id alone proves nothing. Both are kept hashed: they may be of any
/// length.
#[derive(Default)]
struct Tags {
    parts: BTreeMap<u64, HashMap<u64, u64>>,
    len: usize,
}

impl Tags {
    /// Whether the task was seen with another tag before.
    fn seen(&mut self, id: u64, tag: u64) -> bool {
        let part = self.parts.entry(id % PARTS).or_default();
        let before = part.len();
        let first = *part.entry(id).or_insert(tag);
        self.len += part.len() - before;
        first != tag
    }
}

impl Twice {
    /// Notes a hash to be walked through.
    pub fn note(&mut self, db: i32, hash: Str) {
        self.due.push_back((db, hash));
    }

    /// Messages whose task another message before them is of too.
    pub const fn found(&self) -> u64 {
        self.found
    }

    /// Reads a few messages. `None` when all are read.
    pub fn step(&mut self, ctx: Ctx<'_>) -> Option<Cost> {
        let mut cost = Cost::default();
        let mut reading = match self.reading.take() {
            Some(reading) => reading,
            None => {
                let (db, hash) = self.due.pop_back()?;
                let Some(cursor) = MembersCursor::new() else {
                    return Some(cost);
                };
                // The server copies each value that it shows.
                if !ctx.select(db) || lists::holds_long(ctx, &hash) {
                    return Some(cost);
                }
                Reading {
                    db,
                    hash,
                    cursor,
                    tags: Tags::default(),
                }
            }
        };
        if !ctx.select(reading.db) {
            return Some(cost);
        }
        let Some(hash) =
            Key::read(ctx, &reading.hash).filter(|key| key.kind() == Some(KeyType::Hash))
        else {
            // Gone by now.
            return Some(cost);
        };
        let (tags, hasher, found) = (&mut reading.tags, &self.hasher, &mut self.found);
        let more = reading.cursor.step_fields(&hash, |tag, value| {
            cost.bytes += value.len() as u64;
            let Some(mut taken) = envelope::read_unacked(value) else {
                return;
            };
            body::complete(&mut taken.envelope, value);
            let Some(id) = taken.envelope.id else {
                return;
            };
            let (id, tag) = (hasher.hash_one(id.as_bytes()), hasher.hash_one(tag));
            *found += u64::from(tags.seen(id, tag));
        });
        drop(hash);
        if more && reading.tags.len < MOST_TASKS {
            self.reading = Some(reading);
        }
        Some(cost)
    }
}
