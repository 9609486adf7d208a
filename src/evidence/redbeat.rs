//! RedBeat's lock, schedule and entries.

use std::collections::BTreeSet;
use std::vec::IntoIter;

use super::look::{Field, Look, Shown, scored};
use super::{BYTES_AT_ONCE, ENTRIES_AT_ONCE, Gathering, seconds_to_ms};
use crate::core::beat::{Entry, Hold, RedBeat};
use crate::core::celery::redbeat::{MAX_FIELD, Schedule, read_definition, read_meta};
use crate::core::keys::{Class, KeyType};
use crate::known;
use crate::server::context::db_number;

/// Of a longer schedule: those that fell due last, which a dead beat leaves
/// behind; those due next, which a live one has just run; those due first, which
/// a live one has left behind; and finished ones. Entries that are disabled keep
/// their place, so the first of the past may be of no account.
const PARTS: [(&std::ffi::CStr, Bound, Bound); 4] = [
    (c"ZREVRANGEBYSCORE", Bound::Now, Bound::Zero),
    (c"ZRANGEBYSCORE", Bound::AfterNow, Bound::Infinity),
    (c"ZRANGEBYSCORE", Bound::Zero, Bound::Now),
    (c"ZRANGEBYSCORE", Bound::MinusInfinity, Bound::BelowZero),
];

#[derive(Clone, Copy)]
enum Bound {
    MinusInfinity,
    BelowZero,
    Zero,
    Now,
    AfterNow,
    Infinity,
}

impl Bound {
    fn text(self, now_s: i64) -> String {
        match self {
            Self::MinusInfinity => "-inf".to_owned(),
            Self::BelowZero => "(0".to_owned(),
            Self::Zero => "0".to_owned(),
            Self::Now => now_s.to_string(),
            Self::AfterNow => format!("({now_s}"),
            Self::Infinity => "+inf".to_owned(),
        }
    }
}

/// A schedule whose entries are being read.
pub(super) struct Reading {
    db: i32,
    /// What the names of its entries begin with.
    prefix: Vec<u8>,
    /// Members, each with when it is due, Unix ms.
    members: IntoIter<(Vec<u8>, Option<i64>)>,
    found: RedBeat,
}

impl Gathering<Look<'_>> {
    /// Where RedBeat may be: behind every prefix, and where a schedule was seen.
    pub(super) fn redbeat_places(&mut self) -> BTreeSet<(i32, Vec<u8>)> {
        let mut places: BTreeSet<(i32, Vec<u8>)> = self
            .places
            .brokers
            .iter()
            .map(|(db, prefix)| (*db, [prefix.as_slice(), b"redbeat::schedule"].concat()))
            .collect();
        places.extend(std::mem::take(&mut self.places.schedules));
        places
    }

    /// Looks at what may be a schedule. Its entries are read step by step.
    pub(super) fn redbeat_of(&mut self, db: i32, name: &[u8]) -> Option<Box<Reading>> {
        let stem = name.strip_suffix(b"schedule")?;
        let lock_key = [stem, b"lock"].concat();
        let lock = self
            .look
            .key(db, &lock_key)
            .filter(|key| key.kind == KeyType::String)
            .map_or(Hold::Absent, |key| key.hold);
        let schedule = self
            .look
            .key(db, name)
            .filter(|key| key.kind == KeyType::Zset);
        if schedule.is_none() && lock == Hold::Absent {
            return None;
        }
        let mut found = RedBeat {
            db: db_number(db),
            lock_key,
            schedule_key: name.to_vec(),
            lock,
            ..RedBeat::default()
        };
        if let Some(schedule) = schedule {
            known::seen(db, name, Class::Redbeat, KeyType::Zset);
            found.total = schedule.len;
            let members = self.scheduled(&schedule);
            if (members.len() as u64) < found.total {
                self.evidence.left_out.push(format!(
                    "of {} RedBeat entries {} were looked at",
                    found.total,
                    members.len()
                ));
            }
            // `redbeat:` of `redbeat::schedule`.
            let prefix = stem.strip_suffix(b":").unwrap_or(stem);
            return Some(Box::new(Reading {
                db,
                prefix: prefix.to_vec(),
                members: members.into_iter(),
                found,
            }));
        }
        self.evidence.redbeat.push(found);
        None
    }

    /// Reads some entries; what is left of them.
    pub(super) fn read_redbeat(&mut self, mut reading: Box<Reading>) -> Option<Box<Reading>> {
        let enough = self.entry_bytes.saturating_sub(BYTES_AT_ONCE);
        for _ in 0..ENTRIES_AT_ONCE {
            let Some((member, due_ms)) = reading.members.next() else {
                self.evidence.redbeat.push(reading.found);
                return None;
            };
            let entry = self.entry(reading.db, &reading.prefix, member, due_ms);
            reading.found.entries.extend(entry);
            if self.entry_bytes < enough {
                break;
            }
        }
        Some(reading)
    }

    fn scheduled(&mut self, schedule: &Shown) -> Vec<(Vec<u8>, Option<i64>)> {
        let mut members = Vec::new();
        let mut seen = BTreeSet::new();
        let mut add = |reply| {
            for (member, score) in scored(&reply) {
                if seen.insert(member.to_vec()) {
                    members.push((member.to_vec(), seconds_to_ms(score)));
                }
            }
        };
        let (all, counts) = self.bounds.entries;
        if self.look.too_long_to_copy(schedule, all) {
            return Vec::new();
        }
        if schedule.len <= all {
            add(self
                .look
                .ask(schedule, c"ZRANGE", &[b"0", b"-1", b"WITHSCORES"]));
            return members;
        }
        for ((command, from, to), count) in PARTS.into_iter().zip(counts) {
            let now_s = self.now_ms / 1000;
            let (from, to) = (from.text(now_s), to.text(now_s));
            let words: [&[u8]; 6] = [
                from.as_bytes(),
                to.as_bytes(),
                b"WITHSCORES",
                b"LIMIT",
                b"0",
                count,
            ];
            add(self.look.ask(schedule, command, &words));
        }
        members
    }

    /// `None` where the entry was not looked at: too long, or not the caller's.
    fn entry(
        &mut self,
        db: i32,
        prefix: &[u8],
        member: Vec<u8>,
        due_ms: Option<i64>,
    ) -> Option<Entry> {
        let hidden = self.look.hidden();
        let hash = self.look.key(db, &member);
        if self.look.hidden() > hidden {
            return None;
        }
        let mut entry = Entry {
            name: String::from_utf8_lossy(member.strip_prefix(prefix).unwrap_or(&member))
                .into_owned(),
            due_ms,
            ..Entry::default()
        };
        if let Some(hash) = hash.filter(|key| key.kind == KeyType::Hash) {
            let [definition, meta] = self.fields(&hash)?;
            for value in [&definition, &meta].into_iter().flatten() {
                self.entry_bytes = self.entry_bytes.saturating_sub(value.len() as u64);
            }
            if let Some(definition) = definition.as_deref().and_then(read_definition) {
                entry.name = definition.name;
                entry.task = definition.task;
                entry.enabled = definition.enabled;
                entry.queue = definition.queue.map(String::into_bytes);
                entry.has_definition = true;
                if let Schedule::Interval { every_ms } = definition.schedule {
                    entry.interval_ms = Some(every_ms);
                }
            }
            entry.last_run_at_ms = meta
                .as_deref()
                .and_then(read_meta)
                .and_then(|meta| meta.last_run_at_ms);
        }
        entry.key = member;
        Some(entry)
    }

    /// Definition and meta; `None` if the definition is too long to be copied.
    fn fields(&mut self, hash: &Shown) -> Option<[Option<Vec<u8>>; 2]> {
        const NAMES: [&[u8]; 2] = [b"definition", b"meta"];
        let most = self.entry_bytes.min(MAX_FIELD as u64);
        // One look at the whole instead of one at each field: a real entry has
        // these two and a few hundred bytes.
        let small = hash.len <= 4 && self.look.bytes(hash, 5) <= most;
        if small {
            let found = self.look.ask(hash, c"HMGET", &NAMES);
            let mut found = found
                .array()
                .iter()
                .map(|value| value.str().map(<[u8]>::to_vec));
            return Some([found.next().flatten(), found.next().flatten()]);
        }
        let mut found = [None, None];
        for (name, slot) in NAMES.into_iter().zip(&mut found) {
            match self.look.field(hash, name, most) {
                Field::Value(value) => *slot = Some(value),
                Field::TooLong if name == b"definition" => return None,
                Field::TooLong | Field::Absent => {}
            }
        }
        Some(found)
    }
}
