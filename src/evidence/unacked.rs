//! What workers have taken and not acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use super::look::{Field, Look, Shown, scored};
use super::{Gathering, UnackedPlace, seconds_to_ms};
use crate::core::beat::{self, Hold, Place};
use crate::core::celery::envelope;
use crate::core::keys::{Class, KeyType, Unacked};
use crate::known;
use crate::server::context::db_number;

/// Entries looked at: the oldest, and the newest, which beat may have sent just
/// now.
const OLDEST: u64 = 200;
const NEWEST: u64 = 100;

/// The longest message copied, in bytes.
const LONGEST_MESSAGE: u64 = 256 * 1024;

/// Share of the call's bytes that is left to queues.
const LEFT_TO_QUEUES: u64 = 384 * 1024;

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

    pub(super) fn unacked_of(&mut self, db: i32, prefix: usize, names: &Unacked) {
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
            return;
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
                self.entries(&hash, prefix, &index, &mut found);
            }
        }
        self.evidence.unacked.push(found);
    }

    /// Reads the oldest and the newest entries.
    fn entries(&mut self, hash: &Shown, prefix: usize, index: &Shown, found: &mut beat::Unacked) {
        let prefix = hash.name().get(..prefix).unwrap_or_default();
        let now_ms = self.now_ms;
        let limit_ms = now_ms.saturating_sub(self.evidence.visibility_timeout_ms);
        let past = |at_ms: i64| at_ms < limit_ms;
        let mut entries: Vec<(Vec<u8>, i64)> = Vec::new();
        for (from, to) in slices(index.len) {
            let range = [from.to_string(), to.to_string()];
            let reply = self.look.ask(
                index,
                c"ZRANGE",
                &[range[0].as_bytes(), range[1].as_bytes(), b"WITHSCORES"],
            );
            let timed = scored(&reply)
                .filter_map(|(tag, score)| Some((tag.to_vec(), seconds_to_ms(score)?)));
            entries.extend(timed);
        }
        found.newest_delivered_at_ms = entries.last().map(|(_, at_ms)| *at_ms);

        let mut ids = BTreeSet::new();
        let (mut past_looked_at, mut past_not_stuck, mut unread) = (0_u64, 0_u64, 0_u64);
        for (tag, at_ms) in &entries {
            past_looked_at += u64::from(past(*at_ms));
            let bytes = self.message_bytes.saturating_sub(LEFT_TO_QUEUES);
            let value = match self.look.field(hash, tag, bytes.min(LONGEST_MESSAGE)) {
                Field::Value(value) => value,
                // The index alone keeps what was acknowledged or is gone.
                Field::Absent => {
                    past_not_stuck += u64::from(past(*at_ms));
                    continue;
                }
                // Its `eta` is not known. Workers put back whatever is older than
                // the timeout, so an old one is odd in any case.
                Field::TooLong => {
                    unread += 1;
                    found.oldest_delivered_at_ms.get_or_insert(*at_ms);
                    continue;
                }
            };
            self.message_bytes = self.message_bytes.saturating_sub(value.len() as u64);
            let taken = envelope::read_unacked(&value);
            if let Some(taken) = &taken {
                let message = &taken.envelope;
                let queue = [prefix, taken.routing_key.as_bytes()].concat();
                self.sightings
                    .add(found.db, &queue, Place::Unacked, message);
                found.redelivered += u64::from(message.redelivered);
                if let Some(id) = &message.id {
                    found.duplicates += u64::from(!ids.insert(id.clone().into_owned()));
                }
            }
            let eta_ms = taken.and_then(|taken| taken.envelope.eta_ms);
            if eta_ms.is_some_and(|eta_ms| eta_ms > now_ms) {
                found.eta_ahead += 1;
                past_not_stuck += u64::from(past(*at_ms));
            } else {
                found.oldest_delivered_at_ms.get_or_insert(*at_ms);
            }
        }

        let before = format!(
            "({}.{:03}",
            limit_ms.div_euclid(1000),
            limit_ms.rem_euclid(1000)
        );
        let counted = self
            .look
            .ask(index, c"ZCOUNT", &[b"-inf", before.as_bytes()])
            .int()
            .and_then(|n| u64::try_from(n).ok())
            .unwrap_or(past_looked_at);
        found.past_timeout = counted.saturating_sub(past_not_stuck).min(found.count);
        let looked_at = entries.len() as u64;
        if looked_at < index.len || unread > 0 {
            self.evidence.left_out.push(format!(
                "of {} in unacked {} were looked at, {unread} of which are too long to be read: others that wait for their eta count as taken",
                index.len, looked_at
            ));
        }
    }
}

/// Ranks of the entries to look at.
fn slices(len: u64) -> Vec<(i64, i64)> {
    if len <= OLDEST + NEWEST {
        return vec![(0, -1)];
    }
    let (oldest, newest) = (OLDEST.cast_signed(), NEWEST.cast_signed());
    vec![(0, oldest - 1), (-newest, -1)]
}
