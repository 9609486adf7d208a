//! Workers, told by their connections.

use std::collections::BTreeMap;
use std::vec::IntoIter;

use super::Gathering;
use super::bounds::IN_SLICES;
use super::look::Look;
use crate::clients;
use crate::core::beat::{Crowd, client_ids, crowds};
use crate::server::context::db_number;
use crate::server::{Ctx, call};

/// Connections that CLIENT LIST is asked to describe in one step.
const AT_ONCE: usize = 50;

/// And in one piece, where the server has not told of all of them: a module that is
/// loaded later learns once who was connected before it.
const MOST_IN_ONE_PIECE: u64 = 500;

impl Gathering<Look<'_>> {
    /// Counts connections on the databases in which a broker was found: some of them at
    /// a time, and what is left of that.
    ///
    /// Workers connect to the primary, so a replica knows nothing of them; and
    /// where queues are no lists, their consumers do not BRPOP.
    pub(super) fn workers(&mut self, counting: Option<Counting>) -> Option<Counting> {
        let ctx = self.look.ctx();
        let mut counting = match counting {
            Some(counting) => counting,
            None => self.begin_to_count(ctx)?,
        };
        if counting.step(ctx) {
            return Some(counting);
        }
        let mut crowds = counting.crowds;
        if !self.broker_dbs.is_empty() {
            crowds.retain(|db, _| {
                self.broker_dbs
                    .iter()
                    .any(|broker| db_number(*broker) == *db)
            });
        }
        self.evidence.workers.crowds = Some(crowds);
        None
    }

    fn begin_to_count(&mut self, ctx: Ctx<'_>) -> Option<Counting> {
        if self.other_transport {
            self.evidence.left_out.push(
                "workers of celery-redis-plus cannot be told by their connections".to_owned(),
            );
            return None;
        }
        if !ctx.flags().primary() {
            self.evidence
                .left_out
                .push("this is a replica: workers connect to its primary".to_owned());
            return None;
        }
        match Counting::begin(ctx, self.bounds.clients) {
            Ok(counting) => Some(counting),
            Err(Uncounted::TooMany(clients)) => {
                self.evidence.left_out.push(format!(
                    "{clients} clients are connected, too many to look for workers among them"
                ));
                None
            }
            Err(Uncounted::Untold) => None,
        }
    }
}

/// Connections that may be workers', by the number of their database, being counted.
pub struct Counting {
    ids: IntoIter<u64>,
    crowds: BTreeMap<u32, Crowd>,
}

/// Why connections were not counted.
enum Uncounted {
    /// So many clients that they were not described.
    TooMany(u64),
    /// The server does not tell.
    Untold,
}

impl Counting {
    fn begin(ctx: Ctx<'_>, most: u64) -> Result<Self, Uncounted> {
        let count = clients::count(ctx).ok_or(Uncounted::Untold)?;
        if count > most {
            return Err(Uncounted::TooMany(count));
        }
        if let Some(ids) = clients::ids() {
            return Ok(Self {
                ids: ids.into_iter(),
                crowds: BTreeMap::new(),
            });
        }
        if count > MOST_IN_ONE_PIECE {
            return Err(Uncounted::TooMany(count));
        }
        match call::read(ctx, c"CLIENT", &[b"LIST"]) {
            call::Value::Str(list) => {
                clients::learn(client_ids(&list));
                Ok(Self {
                    ids: Vec::new().into_iter(),
                    crowds: crowds(&list),
                })
            }
            _ => Err(Uncounted::Untold),
        }
    }

    /// Counts some more; `false` if those were the last.
    fn step(&mut self, ctx: Ctx<'_>) -> bool {
        let ids: Vec<String> = self
            .ids
            .by_ref()
            .take(AT_ONCE)
            .map(|id| id.to_string())
            .collect();
        if ids.is_empty() {
            return false;
        }
        let mut words: Vec<&[u8]> = vec![b"LIST", b"ID"];
        words.extend(ids.iter().map(String::as_bytes));
        // Who has left meanwhile is passed over.
        if let call::Value::Str(list) = call::read(ctx, c"CLIENT", &words) {
            for (db, crowd) in crowds(&list) {
                self.crowds.entry(db).or_default().add(crowd);
            }
        }
        self.ids.len() > 0
    }

    /// All at once; `None` where there are too many for that, or they are not told.
    fn in_one_piece(ctx: Ctx<'_>) -> Option<BTreeMap<u32, Crowd>> {
        let mut counting = Self::begin(ctx, MOST_IN_ONE_PIECE).ok()?;
        while counting.step(ctx) {}
        Some(counting.crowds)
    }
}

/// Connections to one database that may be workers'; `None` where they were not
/// counted.
pub fn connected(ctx: Ctx<'_>, db: u32) -> Option<Crowd> {
    let crowds = Counting::in_one_piece(ctx)?;
    Some(crowds.get(&db).copied().unwrap_or_default())
}

/// Connections to every database that may be workers', some counted at a time.
#[derive(Default)]
pub struct Crowds(Option<Counting>);

impl Crowds {
    /// Counts some more: `Err` with what is left of that, else who was counted, or `None`
    /// where nobody was.
    ///
    /// # Errors
    /// There is more to do.
    pub fn go_on(self, ctx: Ctx<'_>) -> Result<Option<BTreeMap<u32, Crowd>>, Self> {
        let Some(mut counting) = self
            .0
            .or_else(|| Counting::begin(ctx, IN_SLICES.clients).ok())
        else {
            return Ok(None);
        };
        if counting.step(ctx) {
            Err(Self(Some(counting)))
        } else {
            Ok(Some(counting.crowds))
        }
    }
}
