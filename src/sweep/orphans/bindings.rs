//! Bindings whose owner is gone.

use super::super::tables::Member;
use super::super::{Cost, Turn};
use super::{EXEMPT, Kind, NOT_KNOWN, Orphans, may};
use crate::core::celery::binding::Owner;
use crate::core::keys::KeyType;
use crate::server::acl::Right;
use crate::server::call;
use crate::server::key::{Key, untouched};
use crate::server::{Ctx, Str};

impl Orphans {
    /// Judges a binding of one process, and removes it if that is asked for.
    pub(super) fn member(&mut self, turn: &Turn<'_>, member: &Member) -> Cost {
        let cost = Cost {
            writes: 0,
            bytes: member.member.len() as u64,
        };
        if !turn.ctx.select(member.db) {
            return cost;
        }
        let (Some(table), Some(list)) = (Str::new(&member.table), Str::new(&member.list)) else {
            return cost;
        };
        if Key::read(turn.ctx, &list).is_some() {
            self.keep(Kind::Binding, "its list is there");
            return cost;
        }
        let unused_ms = Key::read(turn.ctx, &table).and_then(|key| key.idle_ms());
        let age_ms = match self.gone(turn.ctx, member.owner, unused_ms) {
            Ok(age_ms) => age_ms,
            Err(why) => {
                self.keep(Kind::Binding, why);
                return cost;
            }
        };
        if !self.purges(Kind::Binding) {
            self.orphan(Kind::Binding, member.db, &member.list, age_ms, 0);
            return cost;
        }
        if self.names.exempt(&member.table) {
            self.keep(Kind::Binding, EXEMPT);
            return cost;
        }
        if !self.may_unbind(turn, member.db, &member.table) {
            self.skipped_noperm += 1;
            return cost;
        }
        let writes = self.unbind(turn, member.db, &member.table, &member.member);
        if writes > 0 || self.order.dry_run {
            self.orphan(Kind::Binding, member.db, &member.list, age_ms, 0);
            self.purged(Kind::Binding);
            self.changes.members += 1;
        }
        Cost { writes, ..cost }
    }

    /// Since when, in ms, an owner without a list has certainly not been there.
    /// Nobody is called gone on the silence of an instant: an asker binds its queue
    /// anew with each question, and each answer looks the table up; a monitor and a
    /// worker are subscribed to patterns as long as they live.
    fn gone(
        &self,
        ctx: Ctx<'_>,
        owner: Owner,
        unused_ms: Option<i64>,
    ) -> Result<i64, &'static str> {
        if owner != Owner::Asker && pattern_subscribers(ctx) != Some(0) {
            return Err("workers or monitors are connected: whose it is cannot be told");
        }
        let unused_ms = match (owner, unused_ms) {
            // Nothing is routed by it while commands travel by pub/sub.
            (Owner::Worker, unused_ms) => return Ok(unused_ms.unwrap_or(0)),
            (_, None) => return Err(NOT_KNOWN),
            (_, Some(ms)) => ms,
        };
        if unused_ms < self.order.ages.unread_ms {
            return Err("its table was used lately: its owner may be there");
        }
        Ok(unused_ms)
    }

    /// Whether the caller may change the table and its permanent twin.
    pub(super) fn may_unbind(&self, turn: &Turn<'_>, db: i32, table: &[u8]) -> bool {
        let may_change = |name: &[u8]| {
            Str::new(name).is_some_and(|name| {
                may(turn, Right::Change, &name) || Key::read(turn.ctx, &name).is_none()
            })
        };
        may_change(table) && self.tables.permanent(db, table).is_none_or(may_change)
    }

    /// Takes a member out of its table, and out of the permanent one as kombu does
    /// (`Channel._delete`). The number of writes.
    pub(super) fn unbind(&self, turn: &Turn<'_>, db: i32, table: &[u8], member: &[u8]) -> u64 {
        if self.order.dry_run {
            return 0;
        }
        let tables = [Some(table), self.tables.permanent(db, table)];
        tables
            .into_iter()
            .flatten()
            .filter(|table| remove(turn.ctx, table, member))
            .count() as u64
    }
}

fn remove(ctx: Ctx<'_>, table: &[u8], member: &[u8]) -> bool {
    let Some(name) = Str::new(table) else {
        return false;
    };
    let set = Key::read(ctx, &name).is_some_and(|key| key.kind() == Some(KeyType::Set));
    // What we remove is no use of the table: others are judged by that.
    set && untouched(ctx, &name, || call::write(ctx, c"SREM", &[table, member])).int() == Some(1)
}

/// Patterns that clients are subscribed to, in all databases.
fn pattern_subscribers(ctx: Ctx<'_>) -> Option<i64> {
    call::read(ctx, c"PUBSUB", &[b"NUMPAT"]).int()
}
