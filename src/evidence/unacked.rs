//! What workers have taken and not acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::vec::IntoIter;

use super::look::{Field, Look, Shown, scored};
use super::{BYTES_AT_ONCE, ENTRIES_AT_ONCE, Gathering, UnackedPlace, seconds_to_ms};
use crate::core::beat::{self, Hold, Place};
use crate::core::celery::{body, envelope};
use crate::core::keys::{Class, KeyType, Unacked};
use crate::known;
use crate::server::context::db_number;

/// The longest message copied, in bytes.
const LONGEST_MESSAGE: u64 = 256 * 1024;

/// Eighths of a look's bytes that are left to queues.
const LEFT_TO_QUEUES: u64 = 3;

/// A hash of which the oldest and the newest entries are being read.
pub(super) struct Reading {
    hash: Shown,
    index: Shown,
    /// How many bytes of the hash's name are the key prefix.
    prefix: usize,
    /// Delivery tags and when each was taken, Unix ms.
    entries: IntoIter<(Vec<u8>, i64)>,
    /// Its tags are too long to be copied, and so to be counted: the server compares the
    /// last of them with itself.
    too_long: bool,
    /// How many were to be read.
    looked_at: u64,
    ids: BTreeSet<String>,
    past_looked_at: u64,
    past_not_stuck: u64,
    unread: u64,
    found: beat::Unacked,
}

impl Gathering<Look<'_>> {
    /// Where `unacked` may be: behind every prefix, and where one was seen.
    pub(super) fn unacked_places(&mut self) -> Vec<UnackedPlace> {
        let mut places: BTreeMap<(i32, Vec<u8>), (usize, Unacked)> = BTreeMap::new();
        for (db, prefix) in &self.places.brokers {
            for names in self.names.unacked() {
                let names = names.behind(prefix);
                let place = (*db, names.hash.clone());
                places.entry(place).or_insert((prefix.len(), names));
            }
        }
        for (db, hash) in std::mem::take(&mut self.places.unacked) {
            if places.contains_key(&(db, hash.clone())) {
                continue;
            }
            // Told by its content: its index may have been found, its mutex cannot be.
            let named = |end: &[u8]| [hash.as_slice(), end].concat();
            let names = Unacked {
                index: known::index_of(db, &hash).unwrap_or_else(|| named(b"_index")),
                mutex: named(b"_mutex"),
                hash: hash.clone(),
            };
            let brokers = self.places.brokers.iter();
            let prefix = brokers
                .filter(|(broker_db, prefix)| *broker_db == db && hash.starts_with(prefix))
                .map(|(_, prefix)| prefix.len())
                .max();
            places.insert((db, hash), (prefix.unwrap_or(0), names));
        }
        places
            .into_iter()
            .map(|((db, _), (prefix, names))| (db, prefix, names))
            .collect()
    }

    /// Looks at what may be such a hash. Its entries, if it has an index of them, are
    /// read step by step.
    pub(super) fn unacked_of(
        &mut self,
        db: i32,
        prefix: usize,
        names: &Unacked,
    ) -> Option<Box<Reading>> {
        let name = names.hash.as_slice();
        let hash = self
            .look
            .key(db, name)
            .filter(|key| key.kind == KeyType::Hash);
        let mutex = self
            .look
            .key(db, &names.mutex)
            .filter(|key| key.kind == KeyType::String)
            .map_or(Hold::Absent, |key| key.hold);
        if hash.is_none() && mutex == Hold::Absent {
            return None;
        }
        self.broker_dbs.insert(db);
        let mut found = beat::Unacked {
            db: db_number(db),
            key: name.to_vec(),
            mutex_key: names.mutex.clone(),
            mutex,
            ..beat::Unacked::default()
        };
        if let Some(hash) = hash {
            known::seen(db, name, Class::Unacked, KeyType::Hash);
            found.count = hash.len;
            let index = self.look.key(db, &names.index);
            if let Some(index) = index.filter(|key| key.kind == KeyType::Zset) {
                found.index_present = true;
                return Some(Box::new(self.reading(hash, prefix, index, found)));
            }
        }
        self.evidence.unacked.push(found);
        None
    }

    /// Finds the oldest and the newest entries.
    fn reading(
        &mut self,
        hash: Shown,
        prefix: usize,
        index: Shown,
        mut found: beat::Unacked,
    ) -> Reading {
        let mut entries: Vec<(Vec<u8>, i64)> = Vec::new();
        let (oldest, newest) = self.bounds.unacked;
        let too_long = self.look.too_long_to_copy(&index, oldest + newest);
        let ranges = if too_long {
            Vec::new()
        } else {
            slices(index.len, self.bounds.unacked)
        };
        for (from, to) in ranges {
            let range = [from.to_string(), to.to_string()];
            let reply = self.look.ask(
                &index,
                c"ZRANGE",
                &[range[0].as_bytes(), range[1].as_bytes(), b"WITHSCORES"],
            );
            let timed = scored(&reply)
                .filter_map(|(tag, score)| Some((tag.to_vec(), seconds_to_ms(score)?)));
            entries.extend(timed);
        }
        found.newest_delivered_at_ms = entries.last().map(|(_, at_ms)| *at_ms);
        Reading {
            hash,
            index,
            prefix,
            too_long,
            looked_at: entries.len() as u64,
            entries: entries.into_iter(),
            ids: BTreeSet::new(),
            past_looked_at: 0,
            past_not_stuck: 0,
            unread: 0,
            found,
        }
    }

    /// When messages taken before are past the time-out, Unix ms.
    const fn unacked_limit_ms(&self) -> i64 {
        self.now_ms
            .saturating_sub(self.evidence.visibility_timeout_ms)
    }

    /// Reads some entries; what is left of them.
    pub(super) fn read_unacked(&mut self, mut reading: Box<Reading>) -> Option<Box<Reading>> {
        let enough = self.message_bytes.saturating_sub(BYTES_AT_ONCE);
        for _ in 0..ENTRIES_AT_ONCE {
            let Some((tag, at_ms)) = reading.entries.next() else {
                self.conclude_unacked(*reading);
                return None;
            };
            self.unacked_entry(&mut reading, &tag, at_ms);
            if self.message_bytes < enough {
                break;
            }
        }
        Some(reading)
    }

    fn unacked_entry(&mut self, reading: &mut Reading, tag: &[u8], at_ms: i64) {
        let past = at_ms < self.unacked_limit_ms();
        reading.past_looked_at += u64::from(past);
        let left = self.bounds.message_bytes / 8 * LEFT_TO_QUEUES;
        let bytes = self.message_bytes.saturating_sub(left);
        let most = bytes.min(LONGEST_MESSAGE);
        let value = match self.look.field(&reading.hash, tag, most) {
            Field::Value(value) => value,
            // The index alone keeps what was acknowledged or is gone.
            Field::Absent => {
                reading.past_not_stuck += u64::from(past);
                return;
            }
            // Its `eta` is not known. Workers put back whatever is older than
            // the timeout, so an old one is odd in any case.
            Field::TooLong => {
                reading.unread += 1;
                reading.found.oldest_delivered_at_ms.get_or_insert(at_ms);
                return;
            }
        };
        self.message_bytes = self.message_bytes.saturating_sub(value.len() as u64);
        let mut taken = envelope::read_unacked(&value);
        if let Some(taken) = &mut taken {
            body::complete(&mut taken.envelope, &value);
        }
        let found = &mut reading.found;
        if let Some(taken) = &taken {
            let message = &taken.envelope;
            let prefix = reading.hash.name().get(..reading.prefix);
            let queue = [prefix.unwrap_or_default(), taken.routing_key.as_bytes()].concat();
            self.sightings
                .add(found.db, &queue, Place::Unacked, message);
            found.redelivered += u64::from(message.redelivered);
            if let Some(id) = &message.id {
                found.duplicates += u64::from(!reading.ids.insert(id.clone().into_owned()));
            }
        }
        let eta_ms = taken.and_then(|taken| taken.envelope.eta_ms);
        if eta_ms.is_some_and(|eta_ms| eta_ms > self.now_ms) {
            found.eta_ahead += 1;
            reading.past_not_stuck += u64::from(past);
        } else {
            found.oldest_delivered_at_ms.get_or_insert(at_ms);
        }
    }

    /// All entries have been read that were to be.
    fn conclude_unacked(&mut self, reading: Reading) {
        let limit_ms = self.unacked_limit_ms();
        let before = format!(
            "({}.{:03}",
            limit_ms.div_euclid(1000),
            limit_ms.rem_euclid(1000)
        );
        let Reading {
            index,
            too_long,
            looked_at,
            past_looked_at,
            past_not_stuck,
            unread,
            mut found,
            ..
        } = reading;
        let counted = (!too_long)
            .then(|| {
                let words = [b"-inf".as_slice(), before.as_bytes()];
                self.look.ask(&index, c"ZCOUNT", &words).int()
            })
            .flatten()
            .and_then(|n| u64::try_from(n).ok())
            .unwrap_or(past_looked_at);
        found.past_timeout = counted.saturating_sub(past_not_stuck).min(found.count);
        if looked_at < index.len || unread > 0 {
            self.evidence.left_out.push(format!(
                "of {} in unacked {looked_at} were looked at, {unread} of which are too long to be read: others that wait for their eta count as taken",
                index.len
            ));
        }
        self.evidence.unacked.push(found);
    }
}

/// Ranks of the entries to look at.
fn slices(len: u64, (oldest, newest): (u64, u64)) -> Vec<(i64, i64)> {
    if len <= oldest + newest {
        return vec![(0, -1)];
    }
    let (oldest, newest) = (oldest.cast_signed(), newest.cast_signed());
    vec![(0, oldest - 1), (-newest, -1)]
}
