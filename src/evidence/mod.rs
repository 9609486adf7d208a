//! What lies in Redis about periodic work: the ground BEATSTATUS stands on.
//!
//! Never walks the keyspace. Where to look is known from Celery's own default
//! names, the settings, the routing tables, and what sweeps and events have
//! taught [`known`]. However much lies there, a call looks at no more than the
//! bounds in these files allow, and says what it left out.
//!
//! A look is a chain of small steps. BEATSTATUS takes them all at once; SCAN, and the
//! module's own look for the verdict, take a few at a time ([`Paused`]).

pub mod look;
mod queues;
mod redbeat;
mod sightings;
mod unacked;
mod workers;

use std::collections::{BTreeSet, btree_set};
use std::rc::Rc;
use std::vec;

use crate::core::beat::{Evidence, Expected, Finish, Heard};
use crate::core::celery::binding;
use crate::core::keys::{Names, Unacked};
use crate::core::settings::Settings;
use crate::known::{self, Place};
use crate::observe;
use crate::server::context::now_ms;
use crate::server::{Ctx, guard};
use crate::settings;
use look::Look;
use sightings::Sightings;
pub use workers::{connected, crowds_by_database};

/// Databases looked at by default names: the first of them, as far as they hold
/// keys. Others are looked at where something is known to be there.
const MOST_DATABASES: i32 = 64;

/// Pairs of database and key prefix looked at by default names.
const MOST_BROKERS: usize = 500;

/// Known names taken along, of each kind.
const MOST_NAMES: usize = 500;

/// Bytes of messages copied out of the data set in one call.
const MESSAGE_BYTES: u64 = 1024 * 1024;

/// Entries of a hash or of a schedule read in one step.
const ENTRIES_AT_ONCE: usize = 8;

/// Bytes read after which a step ends.
const BYTES_AT_ONCE: u64 = 4 * 1024;

/// What was found, and what the caller may not see.
pub struct Gathered {
    /// What may be judged.
    pub evidence: Evidence,
    /// Keys that are there and that the caller has no right to look at.
    pub skipped_noperm: u64,
}

/// A database and the `global_keyprefix` in front of a broker's keys.
type Broker = (i32, Vec<u8>);

/// Known names, and where else to look.
#[derive(Default)]
struct Places {
    brokers: BTreeSet<Broker>,
    tables: Vec<Place>,
    lists: Vec<Place>,
    unacked: Vec<Place>,
    schedules: Vec<Place>,
    /// Names known beyond those.
    left_out: usize,
}

/// The work of one look, with what it looks through, or without that between slices.
struct Gathering<L> {
    look: L,
    names: Rc<Names>,
    settings: Rc<Settings>,
    now_ms: i64,
    places: Places,
    evidence: Evidence,
    sightings: Sightings,
    /// Databases in which a broker was found.
    broker_dbs: BTreeSet<i32>,
    /// A broker was found whose queues are no lists (celery-redis-plus).
    other_transport: bool,
    /// What may still be copied of messages, and of RedBeat's entries.
    message_bytes: u64,
    entry_bytes: u64,
    stage: Stage,
}

/// A database, and the names of what kombu keeps there of messages that are not
/// acknowledged, the first so many bytes of each its key prefix.
type UnackedPlace = (i32, usize, Unacked);

/// What is to be done next.
#[derive(Default)]
enum Stage {
    /// These may hold unacknowledged messages, and of one the entries are being read.
    Unacked(vec::IntoIter<UnackedPlace>, Option<Box<unacked::Reading>>),
    /// These may be schedules of RedBeat's, and of one the entries are being read.
    RedBeat(btree_set::IntoIter<Place>, Option<Box<redbeat::Reading>>),
    Queues(Box<queues::Work>),
    Workers,
    #[default]
    Done,
}

impl<L> Gathering<L> {
    /// The same work, looking through something else.
    fn through<M>(self, look: M) -> Gathering<M> {
        Gathering {
            look,
            names: self.names,
            settings: self.settings,
            now_ms: self.now_ms,
            places: self.places,
            evidence: self.evidence,
            sightings: self.sightings,
            broker_dbs: self.broker_dbs,
            other_transport: self.other_transport,
            message_bytes: self.message_bytes,
            entry_bytes: self.entry_bytes,
            stage: self.stage,
        }
    }
}

impl<'a> Gathering<Look<'a>> {
    /// The look has found where to look, and looked at nothing yet.
    fn begin(ctx: Ctx<'a>, user: Option<&[u8]>, now_ms: i64) -> Self {
        let current = settings::now();
        let places = places(ctx, current.names.prefixes());
        let mut gathering = Self {
            look: Look::new(ctx, user),
            now_ms,
            places,
            evidence: Evidence {
                visibility_timeout_ms: current.settings.visibility_timeout_ms,
                expected: expected(&current.settings),
                results: results(),
                ..Evidence::default()
            },
            names: current.names,
            settings: current.settings,
            sightings: Sightings::default(),
            broker_dbs: BTreeSet::new(),
            other_transport: false,
            message_bytes: MESSAGE_BYTES,
            entry_bytes: redbeat::ENTRY_BYTES,
            stage: Stage::Done,
        };
        gathering.stage = Stage::Unacked(gathering.unacked_places().into_iter(), None);
        gathering
    }

    /// Takes one step; `false` if there is none left.
    fn step(&mut self) -> bool {
        self.stage = match std::mem::take(&mut self.stage) {
            Stage::Unacked(places, Some(reading)) => {
                Stage::Unacked(places, self.read_unacked(reading))
            }
            Stage::Unacked(mut places, None) => match places.next() {
                Some((db, prefix, names)) => {
                    let reading = self.unacked_of(db, prefix, &names);
                    Stage::Unacked(places, reading)
                }
                None => Stage::RedBeat(self.redbeat_places().into_iter(), None),
            },
            Stage::RedBeat(places, Some(reading)) => {
                Stage::RedBeat(places, self.read_redbeat(reading))
            }
            Stage::RedBeat(mut places, None) => match places.next() {
                Some((db, name)) => {
                    let reading = self.redbeat_of(db, &name);
                    Stage::RedBeat(places, reading)
                }
                None => Stage::Queues(Box::new(self.queues())),
            },
            Stage::Queues(work) => match self.queue_step(*work) {
                Some(work) => Stage::Queues(Box::new(work)),
                None => Stage::Workers,
            },
            Stage::Workers => {
                self.workers();
                Stage::Done
            }
            Stage::Done => return false,
        };
        true
    }

    fn finish(self) -> Gathered {
        let mut evidence = self.evidence;
        evidence.celery_seen |= !self.broker_dbs.is_empty();
        evidence.sightings = self.sightings.into_list();
        Gathered {
            evidence,
            skipped_noperm: self.look.hidden(),
        }
    }
}

/// A look between two of its slices. What it leaves out it says of queues and keys
/// alone: it is for those who ask what is wrong, not how that is known.
pub struct Paused {
    user: Option<Vec<u8>>,
    work: Gathering<()>,
}

impl Paused {
    /// A look that begins now, as that user; with `None` at everything.
    pub fn begin(ctx: Ctx<'_>, user: Option<&[u8]>, now_ms: i64) -> Self {
        let _home = ctx.home();
        Self {
            user: user.map(<[u8]>::to_vec),
            work: Gathering::begin(ctx, user, now_ms).through(()),
        }
    }

    /// Goes on until it is `enough`. What was found if that was all, else the rest of
    /// the look.
    ///
    /// # Errors
    /// There is more to do.
    pub fn go_on(
        self,
        ctx: Ctx<'_>,
        mut enough: impl FnMut() -> bool,
    ) -> Result<Evidence, Box<Self>> {
        let _home = ctx.home();
        let Self { user, work } = self;
        let mut gathering = work.through(Look::new(ctx, user.as_deref()));
        while gathering.step() {
            if enough() {
                let work = gathering.through(());
                return Err(Box::new(Self { user, work }));
            }
        }
        // What passed meanwhile is heard too.
        gathering.evidence.heard = heard(&gathering.look, now_ms());
        gathering.evidence.refusal = observe::refusal(ctx);
        Ok(gathering.finish().evidence)
    }
}

/// Looks at what the caller may see. The client's database is what it was
/// afterwards, whatever happens.
pub fn gather(ctx: Ctx<'_>, user: Option<&[u8]>, now_ms: i64) -> Gathered {
    let _home = ctx.home();
    let mut gathering = Gathering::begin(ctx, user, now_ms);
    gathering.evidence.heard = heard(&gathering.look, now_ms);
    gathering.evidence.refusal = observe::refusal(ctx);
    if guard::events_off() {
        gathering.evidence.left_out.push(format!(
            "after {} internal faults writes are looked at no longer: nothing was heard in the queues, and results get their TTL from sweeps alone; the log has the places, loading the module anew switches it on",
            guard::MOST_FAULTS
        ));
    }
    if gathering.evidence.heard.since_ms.is_some() && !ctx.flags().primary() {
        gathering.evidence.left_out.push(
            "this is a replica: its primary watches the queues and tells what it saw up to 15 s later, so silence shows there only".to_owned(),
        );
    }
    if gathering.places.left_out > 0 {
        gathering.evidence.left_out.push(format!(
            "{} more names of queues, routing tables and the like are known and were not looked at",
            gathering.places.left_out
        ));
    }
    while gathering.step() {}
    gathering.finish()
}

/// What was heard of queues and locks that the caller may look at: what passed
/// through a key is no more his than what lies there.
fn heard(look: &Look<'_>, now_ms: i64) -> Heard {
    observe::heard(now_ms, |key| look.may(key))
}

fn places<'a>(ctx: Ctx<'_>, prefixes: impl Iterator<Item = &'a [u8]>) -> Places {
    let mut places = known::with(|known| {
        let some = |all: &BTreeSet<Place>| all.iter().take(MOST_NAMES).cloned().collect();
        Places {
            brokers: BTreeSet::new(),
            tables: some(&known.bindings),
            lists: some(&known.queues),
            unacked: some(&known.unacked),
            schedules: some(&known.schedules),
            left_out: [&known.bindings, &known.queues]
                .into_iter()
                .chain([&known.unacked, &known.schedules])
                .map(|all| all.len().saturating_sub(MOST_NAMES))
                .sum(),
        }
    })
    .unwrap_or_default();

    let mut dbs: BTreeSet<i32> = [&places.tables, &places.lists, &places.unacked]
        .into_iter()
        .chain([&places.schedules])
        .flatten()
        .map(|(db, _)| *db)
        .collect();
    dbs.extend([0, ctx.db()]);
    for db in 0..MOST_DATABASES {
        if !ctx.select(db) {
            break;
        }
        if ctx.db_size() > 0 {
            dbs.insert(db);
        }
    }

    for prefix in prefixes {
        for db in &dbs {
            if places.brokers.len() < MOST_BROKERS {
                places.brokers.insert((*db, prefix.to_vec()));
            }
        }
    }
    for (db, table) in &places.tables {
        if let Some(table) = binding::binding_key(table)
            && places.brokers.len() < MOST_BROKERS
        {
            places.brokers.insert((*db, table.prefix.to_vec()));
        }
    }
    places
}

fn expected(settings: &Settings) -> Vec<Expected> {
    settings
        .expected_tasks
        .iter()
        .map(|task| Expected {
            task: String::from_utf8_lossy(&task.name).into_owned(),
            interval_ms: task.interval_ms,
        })
        .collect()
}

fn results() -> Vec<Finish> {
    known::with(|known| {
        known
            .results
            .iter()
            .map(|(task, last)| Finish {
                task: String::from_utf8_lossy(task).into_owned(),
                finished_at_ms: last.finished_ms,
                status: last.status.clone(),
                exc_type: last.exc_type.clone(),
            })
            .collect()
    })
    .unwrap_or_default()
}

/// A time of kombu's or RedBeat's, Unix seconds with a fraction, in ms.
#[expect(
    clippy::cast_possible_truncation,
    reason = "`as` saturates, and no sensible time is near the ends"
)]
fn seconds_to_ms(score: &[u8]) -> Option<i64> {
    let seconds: f64 = std::str::from_utf8(score).ok()?.parse().ok()?;
    seconds.is_finite().then_some((seconds * 1000.0) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_a_time_only_if_it_is_finite() {
        for (score, expected) in [
            ("1795578841.67", Some(1_795_578_841_670)),
            ("1.795578841e9", Some(1_795_578_841_000)),
            ("-1", Some(-1_000)),
            ("0", Some(0)),
            ("1e300", Some(i64::MAX)),
            ("inf", None),
            ("-inf", None),
            ("nan", None),
            ("", None),
            ("soon", None),
        ] {
            assert_eq!(seconds_to_ms(score.as_bytes()), expected, "{score}");
        }
        assert_eq!(seconds_to_ms(b"\xff"), None);
    }
}
