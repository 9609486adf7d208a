//! Workers, told by their connections.

use std::collections::BTreeMap;

use super::Gathering;
use super::look::Look;
use crate::core::beat::{Crowd, crowds};
use crate::server::context::{db_number, server_info};
use crate::server::{Ctx, call};

/// Connections that CLIENT LIST is asked to describe. Each takes about 3 µs, and
/// no server before Valkey 9 has a way to ask for some only.
const MOST_CLIENTS: u64 = 1_000;

impl Gathering<Look<'_>> {
    /// Counts connections on the databases in which a broker was found.
    ///
    /// Workers connect to the primary, so a replica knows nothing of them; and
    /// where queues are no lists, their consumers do not BRPOP.
    pub(super) fn workers(&mut self) {
        let ctx = self.look.ctx();
        if self.other_transport {
            self.evidence.left_out.push(
                "workers of celery-redis-plus cannot be told by their connections".to_owned(),
            );
            return;
        }
        if !ctx.flags().primary() {
            self.evidence
                .left_out
                .push("this is a replica: workers connect to its primary".to_owned());
            return;
        }
        let mut crowds = match connections(ctx) {
            Connections::Counted(crowds) => crowds,
            Connections::TooMany(clients) => {
                self.evidence.left_out.push(format!(
                    "{clients} clients are connected, too many to look for workers among them"
                ));
                return;
            }
            Connections::Untold => return,
        };
        if !self.broker_dbs.is_empty() {
            crowds.retain(|db, _| {
                self.broker_dbs
                    .iter()
                    .any(|broker| db_number(*broker) == *db)
            });
        }
        self.evidence.workers.crowds = Some(crowds);
    }
}

/// Connections that may be workers', per database.
enum Connections {
    Counted(BTreeMap<u32, Crowd>),
    /// So many clients that they were not described.
    TooMany(u64),
    /// The server does not tell.
    Untold,
}

fn connections(ctx: Ctx<'_>) -> Connections {
    let clients = server_info(ctx, c"clients", c"connected_clients")
        .and_then(|text| text.trim().parse::<u64>().ok());
    match clients {
        Some(clients) if clients > MOST_CLIENTS => return Connections::TooMany(clients),
        Some(_) => {}
        None => return Connections::Untold,
    }
    match call::read(ctx, c"CLIENT", &[b"LIST"]) {
        call::Value::Str(list) => Connections::Counted(crowds(&list)),
        _ => Connections::Untold,
    }
}

/// Connections to one database that may be workers'; `None` where they were not
/// counted.
pub fn connected(ctx: Ctx<'_>, db: u32) -> Option<Crowd> {
    let crowds = crowds_by_database(ctx)?;
    Some(crowds.get(&db).copied().unwrap_or_default())
}

/// Connections that may be workers', by the number of their database; `None` where
/// they were not counted.
pub fn crowds_by_database(ctx: Ctx<'_>) -> Option<BTreeMap<u32, Crowd>> {
    match connections(ctx) {
        Connections::Counted(crowds) => Some(crowds),
        Connections::TooMany(_) | Connections::Untold => None,
    }
}
