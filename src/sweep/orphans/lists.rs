//! Queues of answers and events that nobody reads, and chords that will not end.

use super::super::{Cost, Turn, lists};
use super::{EXEMPT, Kind, NOT_KNOWN, Orphans, may};
use crate::core::celery::body;
use crate::core::keys::{Class, KeyType};
use crate::core::orphans::CHORD_ENDS;
use crate::server::acl::Right;
use crate::server::key::{self, Key};
use crate::server::{Str, call};

/// Why a list that somebody uses is left.
pub(super) const IN_USE: &str = "it was read or written lately";

impl Orphans {
    /// Judges a list of answers or events, and takes it and its bindings away
    /// together if that is asked for: a list that is still bound fills again.
    pub(super) fn list(&mut self, turn: &Turn<'_>, db: i32, kind: Kind, name: &[u8]) -> Cost {
        let mut cost = Cost::default();
        if !turn.ctx.select(db) {
            return cost;
        }
        let Some(list) = Str::new(name) else {
            return cost;
        };
        let Some((len, idle_ms)) = Key::read(turn.ctx, &list)
            .filter(|key| key.kind() == Some(KeyType::List))
            .map(|key| (key.len() as u64, key.idle_ms()))
        else {
            return cost;
        };
        let bytes = call::memory_usage(turn.ctx, &list, 5);
        let limit_ms = self.order.ages.unread_ms;
        let mut unread_ms = idle_ms;
        if kind == Kind::EventQueue && idle_ms.is_none_or(|ms| ms < limit_ms) {
            // Workers write it as long as it is bound: then its oldest event tells
            // how long nobody has read.
            let oldest = lists::oldest(turn.ctx, name, len, bytes);
            cost.bytes += oldest.as_ref().map_or(0, Vec::len) as u64;
            let at_ms = oldest
                .and_then(|element| body::decoded(&element))
                .and_then(|body| body::event_ms(&body));
            unread_ms = unread_ms.max(at_ms.map(|at_ms| turn.now_ms.saturating_sub(at_ms)));
        }
        let Some(unread_ms) = unread_ms else {
            self.keep(kind, NOT_KNOWN);
            return cost;
        };
        if unread_ms < limit_ms {
            self.keep(kind, IN_USE);
            return cost;
        }
        if !self.purges(kind) {
            self.orphan(kind, db, name, unread_ms, bytes);
            return cost;
        }
        let bindings = self.tables.leading_to(db, name);
        let tables = || bindings.iter().map(|bound| bound.table.as_slice());
        if self.names.exempt(name) || tables().any(|table| self.names.exempt(table)) {
            self.keep(kind, EXEMPT);
            return cost;
        }
        if !may(turn, Right::Change, &list)
            || !tables().all(|table| self.may_unbind(turn, db, table))
        {
            self.skipped_noperm += 1;
            return cost;
        }
        if !self.order.dry_run {
            if !key::unlink(turn.ctx, &list) {
                return cost;
            }
            cost.writes = 1;
        }
        for bound in &bindings {
            cost.writes += self.unbind(turn, db, &bound.table, &bound.member);
        }
        self.changes.members += bindings.len() as u64;
        self.purged(kind);
        self.changes.bytes_freed += bytes;
        self.orphan(kind, db, name, unread_ms, bytes);
        cost
    }

    /// Judges a chord by all its keys together: each part touches some of them.
    pub(super) fn chord(&mut self, turn: &Turn<'_>, db: i32, chord: &[u8]) -> Cost {
        let mut cost = Cost::default();
        if !turn.ctx.select(db) {
            return cost;
        }
        let (mut keys, mut idle_ms, mut known) = (Vec::new(), i64::MAX, true);
        for end in CHORD_ENDS {
            let name = [chord, end].concat();
            let Some(string) = Str::new(&name) else {
                return cost;
            };
            let Some(key) = Key::read(turn.ctx, &string) else {
                continue;
            };
            // A saved group's own id may end like that.
            let is_part = key
                .kind()
                .is_some_and(|kind| self.names.class(&name, kind) == Class::Chord);
            if !is_part {
                continue;
            }
            match key.idle_ms() {
                Some(ms) => idle_ms = idle_ms.min(ms),
                None => known = false,
            }
            drop(key);
            keys.push(string);
        }
        if keys.is_empty() {
            return cost;
        }
        if !known {
            self.keep(Kind::Chord, NOT_KNOWN);
            return cost;
        }
        if idle_ms < self.order.ages.chord_ms {
            self.keep(Kind::Chord, "a part may still come");
            return cost;
        }
        let bytes = keys
            .iter()
            .map(|key| call::memory_usage(turn.ctx, key, 5))
            .sum();
        if !self.purges(Kind::Chord) {
            self.orphan(Kind::Chord, db, chord, idle_ms, bytes);
            return cost;
        }
        if keys.iter().any(|key| self.names.exempt(key.bytes())) {
            self.keep(Kind::Chord, EXEMPT);
            return cost;
        }
        if !keys.iter().all(|key| may(turn, Right::Change, key)) {
            self.skipped_noperm += 1;
            return cost;
        }
        if !self.order.dry_run {
            // One by one: in a cluster they need not share a slot.
            cost.writes = keys.iter().filter(|key| key::unlink(turn.ctx, key)).count() as u64;
        }
        self.purged(Kind::Chord);
        self.changes.bytes_freed += bytes;
        self.orphan(Kind::Chord, db, chord, idle_ms, bytes);
        cost
    }
}
