//! The one engine under every pass over the keyspace.
//!
//! A pass is a job: a cursor over the databases and a visitor that decides on
//! each key. Jobs take turns in slices on a timer; a slice ends when its time is
//! up or when it has written its portion, and the next waits until the main
//! thread has had its share. Nothing here runs while no job does.

pub mod background;
pub mod engine;
pub mod fix;
pub mod last;
pub mod later;
pub mod lists;
pub mod orphans;
pub mod report;
pub mod tables;
pub mod twice;

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Instant;

use crate::core::keys::{Class, KeyType};
use crate::core::policy::{Change, Ttl};
use crate::core::reply::Reply;
use crate::server::acl::User;
use crate::server::command::Waiting;
use crate::server::scan::{Cursor, Found};
use crate::server::{Ctx, Str};

/// A key that a visitor wants to look into once the scan's callback is over.
pub struct Kept {
    /// Its name.
    pub name: Str,
    /// Its database.
    pub db: i32,
    /// What name and type make of it.
    pub class: Class,
    /// Its type.
    pub kind: KeyType,
    /// Its remaining life in ms.
    pub ttl: Ttl,
    /// Bytes of a string, elements of anything else; 0 for a key kept [unmeasured].
    ///
    /// [unmeasured]: Kept::unmeasured
    pub len: u64,
    /// What was decided when the scan showed it. It holds for the slice it was
    /// decided in: until that is over nobody else can change the key.
    pub decided: Option<Decided>,
}

/// What a result is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    /// The change, if there is one.
    pub change: Option<Change>,
    /// Its value was to be read and holds no date.
    pub undated: bool,
    /// It was found without TTL.
    pub no_ttl: bool,
}

impl Kept {
    /// Keeps a key with what the scan shows of it.
    pub fn new(found: &Found<'_>, db: i32, class: Class, kind: KeyType, ttl: Ttl) -> Option<Self> {
        let mut kept = Self::unmeasured(found, db, class, kind, ttl)?;
        kept.len = found.key().len() as u64;
        Some(kept)
    }

    /// The same without the value's length: to ask for it is to fetch a part of the
    /// value into the cache, for each of a million keys.
    pub fn unmeasured(
        found: &Found<'_>,
        db: i32,
        class: Class,
        kind: KeyType,
        ttl: Ttl,
    ) -> Option<Self> {
        Some(Self {
            name: found.keep()?,
            db,
            class,
            kind,
            ttl,
            len: 0,
            decided: None,
        })
    }
}

/// What handling a key cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Keys written.
    pub writes: u64,
    /// Bytes read or moved: after many of them the clock is looked at.
    pub bytes: u64,
}

impl Cost {
    /// That of a step after which the clock is looked at at once.
    pub const fn of_its_own() -> Self {
        Self {
            writes: 0,
            bytes: engine::BYTES_PER_CLOCK,
        }
    }
}

/// Where and when a key is handled.
pub struct Turn<'a> {
    /// In the key's database.
    pub ctx: Ctx<'a>,
    /// Unix ms.
    pub now_ms: i64,
    /// Part of a cluster.
    pub cluster: bool,
    /// Whose rights count; nobody's for the operator's own sweeps.
    pub user: Option<&'a User>,
    /// Bytes of values read by [`Visitor::sift`] since the engine last asked.
    pub read: Cell<u64>,
}

impl Turn<'_> {
    /// A value of so many bytes was read inside the scan.
    pub fn has_read(&self, bytes: u64) {
        self.read.set(self.read.get().saturating_add(bytes));
    }
}

/// What a pass is for.
pub trait Visitor {
    /// Looks at a key inside the scan's callback and keeps it if more is to be done.
    /// What it reads of the value it tells the turn.
    fn sift(&mut self, found: &Found<'_>, turn: &Turn<'_>, db: i32) -> Option<Kept>;
    /// Does the rest.
    fn handle(&mut self, turn: &Turn<'_>, kept: Kept) -> Cost;
    /// Called when the last key has been shown, again and again until it answers
    /// `None`: one small step of what had to wait for the whole picture. It goes to
    /// the databases by itself.
    fn after(&mut self, turn: &Turn<'_>) -> Option<Cost> {
        let _ = turn;
        None
    }
    /// Whether it writes: then it runs on a primary only, one at a time, and rests
    /// while writes are paused.
    fn writes(&self) -> bool;
    /// Whether it has done all it may.
    fn full(&self) -> bool {
        false
    }
    /// The data set was replaced under the cursor: what was counted counts no longer,
    /// what was changed does.
    fn restart(&mut self);
    /// The reply.
    fn report(&mut self, ctx: Ctx<'_>, run: &Run) -> Reply;
    /// After the reply: lets go of up to so many of the things it keeps. `false` when it
    /// keeps but a few. To free a hundred thousand names at once takes ten milliseconds.
    fn shed(&mut self, most: usize) -> bool {
        let _ = most;
        false
    }
}

/// What the engine knows of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Keys shown by the cursor.
    pub scanned: u64,
    /// Since when, Unix ms.
    pub started_ms: i64,
    /// Wall time in ms.
    pub duration_ms: i64,
    /// Main-thread time in µs.
    pub server_us: u64,
    /// Slices taken.
    pub slices: u64,
}

/// Which databases a pass covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    All,
    /// One.
    One(i32),
}

impl Scope {
    /// Where a pass begins.
    const fn first_db(self) -> i32 {
        match self {
            Self::All => 0,
            Self::One(db) => db,
        }
    }
}

/// What is asked of the engine.
pub struct Order {
    /// The command, or what else started it.
    pub what: &'static str,
    /// Who asked, for people to read.
    pub by: String,
    /// The user whose rights count.
    pub user: Option<Vec<u8>>,
    /// Where.
    pub scope: Scope,
    /// What for.
    pub visitor: Box<dyn Visitor>,
}

/// One pass.
pub struct Job {
    id: u64,
    order: Order,
    client: Option<Waiting>,
    /// Set when the client has gone or somebody cancelled.
    stop: Option<&'static str>,
    db: i32,
    cursor: Option<Cursor>,
    /// The cursor has been through the database.
    db_done: bool,
    /// It has been through all of them.
    all_shown: bool,
    pending: VecDeque<Kept>,
    expected: Option<u64>,
    /// Why it rests or goes slowly, if it does.
    rests: Option<&'static str>,
    /// When the replicas and the disk are asked for again.
    others_due: Option<Instant>,
    run: Run,
}
