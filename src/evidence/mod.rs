//! What lies in Redis about periodic work: the ground BEATSTATUS stands on.
//!
//! Never walks the keyspace. Where to look is known from Celery's own default
//! names, the settings, the routing tables, and what sweeps and events have
//! taught [`known`]. However much lies there, a call looks at no more than the
//! bounds in these files allow, and says what it left out.
//!
//! A look is a chain of small steps, of which a few are taken at a time ([`Paused`]):
//! whoever asks waits for the rest of them ([`asked`]). In a transaction or a script
//! nobody can, and they are taken all at once.

pub mod asked;
mod bounds;
pub mod judging;
pub mod look;
mod queues;
mod redbeat;
mod sightings;
mod unacked;
mod workers;

use std::collections::{BTreeSet, btree_set};
use std::rc::Rc;
use std::vec;

use crate::core::beat::{Evidence, Expected, Finish, Hearing};
use crate::core::celery::binding;
use crate::core::keys::{Names, Unacked};
use crate::core::settings::Settings;
use crate::known::{self, Place};
use crate::observe;
use crate::server::context::now_ms;
use crate::server::{Ctx, guard};
use crate::settings;
use bounds::{Bounds, IN_ONE_PIECE, IN_SLICES};
use look::Look;
use sightings::Sightings;
pub use workers::{Crowds, connected};

/// Databases looked at by default names: the first of them, as far as they hold
/// keys. Others are looked at where something is known to be there.
const MOST_DATABASES: i32 = 64;

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
    /// Names that are known and were not looked at.
    names_left_out: usize,
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
    /// Keys that the caller may not see, met in slices before this one.
    hidden: u64,
    bounds: &'static Bounds,
    /// Names of keys and tasks that are known and were not looked at.
    names_left_out: usize,
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
    /// Connections are being counted.
    Workers(Option<workers::Counting>),
    /// What was heard meanwhile is being taken.
    Heard(Option<Hearing>),
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
            hidden: self.hidden,
            bounds: self.bounds,
            names_left_out: self.names_left_out,
            stage: self.stage,
        }
    }
}

impl<'a> Gathering<Look<'a>> {
    /// The look has found where to look, and looked at nothing yet.
    fn begin(ctx: Ctx<'a>, user: Option<&[u8]>, now_ms: i64, bounds: &'static Bounds) -> Self {
        let current = settings::now();
        let places = places(ctx, current.names.prefixes(), bounds);
        let mut gathering = Self {
            look: Look::new(ctx, user),
            now_ms,
            names_left_out: places.left_out,
            places,
            evidence: Evidence {
                visibility_timeout_ms: current.settings.visibility_timeout_ms,
                expected: expected(&current.settings),
                ..Evidence::default()
            },
            names: current.names,
            settings: current.settings,
            sightings: Sightings::default(),
            broker_dbs: BTreeSet::new(),
            other_transport: false,
            message_bytes: bounds.message_bytes,
            entry_bytes: bounds.entry_bytes,
            hidden: 0,
            bounds,
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
                None => Stage::Workers(None),
            },
            Stage::Workers(counting) => match self.workers(counting) {
                Some(counting) => Stage::Workers(Some(counting)),
                None => {
                    let ctx = self.look.ctx();
                    self.evidence.results = results(&self.look);
                    self.evidence.refusal = observe::refusal(ctx);
                    Stage::Heard(observe::hear(self.bounds.heard))
                }
            },
            // What passed through a key is no more the caller's than what lies there.
            Stage::Heard(Some(mut hearing)) => {
                if observe::hear_on(&mut hearing, now_ms(), |key| self.look.may(key)) {
                    Stage::Heard(Some(hearing))
                } else {
                    self.names_left_out += hearing.left_out();
                    self.evidence.heard = hearing.heard();
                    Stage::Done
                }
            }
            Stage::Heard(None) => Stage::Done,
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
            skipped_noperm: self.hidden + self.look.hidden(),
            names_left_out: self.names_left_out,
        }
    }
}

/// A look between two of its slices.
pub struct Paused {
    user: Option<Vec<u8>>,
    work: Gathering<()>,
}

impl Paused {
    /// A look that begins now, as that user; with `None` at everything.
    pub fn begin(ctx: Ctx<'_>, user: Option<&[u8]>, now_ms: i64) -> Self {
        Self::within(&IN_SLICES, ctx, user, now_ms)
    }

    fn within(bounds: &'static Bounds, ctx: Ctx<'_>, user: Option<&[u8]>, now_ms: i64) -> Self {
        let _home = ctx.home();
        Self {
            user: user.map(<[u8]>::to_vec),
            work: Gathering::begin(ctx, user, now_ms, bounds).through(()),
        }
    }

    fn in_one_piece(self, ctx: Ctx<'_>) -> Gathered {
        let mut rest = self;
        loop {
            match rest.go_on(ctx, || false) {
                Ok(found) => return found.with_limits_told(ctx),
                Err(more) => rest = *more,
            }
        }
    }

    /// Goes on until it is `enough`. What was found if that was all, else the rest of
    /// the look. The client's database is what it was afterwards, whatever happens.
    ///
    /// # Errors
    /// There is more to do.
    pub fn go_on(
        self,
        ctx: Ctx<'_>,
        mut enough: impl FnMut() -> bool,
    ) -> Result<Gathered, Box<Self>> {
        let _home = ctx.home();
        let Self { user, work } = self;
        let mut gathering = work.through(Look::new(ctx, user.as_deref()));
        while gathering.step() {
            if enough() {
                gathering.hidden += gathering.look.hidden();
                let work = gathering.through(());
                return Err(Box::new(Self { user, work }));
            }
        }
        Ok(gathering.finish())
    }
}

impl Gathered {
    /// Says what else was left out than queues and keys, for those who ask not only
    /// what is wrong but also how that is known.
    fn with_limits_told(mut self, ctx: Ctx<'_>) -> Self {
        let mut limits = Vec::new();
        if guard::events_off() {
            limits.push(format!(
                "after {} internal faults writes are looked at no longer: nothing was heard in the queues, and results get their TTL from sweeps alone; the log has the places, loading the module anew switches it on",
                guard::MOST_FAULTS
            ));
        }
        if self.evidence.heard.since_ms.is_some() && !ctx.flags().primary() {
            limits.push(
                "this is a replica: its primary watches the queues and tells what it saw up to 15 s later, so silence shows there only".to_owned(),
            );
        }
        if self.names_left_out > 0 {
            limits.push(format!(
                "{} more names of queues, routing tables and the like are known and were not looked at",
                self.names_left_out
            ));
        }
        self.evidence.left_out.splice(0..0, limits);
        self
    }
}

/// Looks at what the caller may see in one piece, where nobody can wait, and so within
/// narrower bounds.
fn gather_a_little(ctx: Ctx<'_>, user: Option<&[u8]>, now_ms: i64) -> Gathered {
    Paused::within(&IN_ONE_PIECE, ctx, user, now_ms).in_one_piece(ctx)
}

fn places<'a>(ctx: Ctx<'_>, prefixes: impl Iterator<Item = &'a [u8]>, bounds: &Bounds) -> Places {
    let mut places = known::with(|known| {
        let some = |all: &BTreeSet<Place>| all.iter().take(bounds.names).cloned().collect();
        Places {
            brokers: BTreeSet::new(),
            tables: some(&known.bindings),
            lists: some(&known.queues),
            unacked: some(&known.unacked),
            schedules: some(&known.schedules),
            left_out: [&known.bindings, &known.queues]
                .into_iter()
                .chain([&known.unacked, &known.schedules])
                .map(|all| all.len().saturating_sub(bounds.names))
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
            if places.brokers.len() < bounds.brokers {
                places.brokers.insert((*db, prefix.to_vec()));
            }
        }
    }
    for (db, table) in &places.tables {
        if let Some(table) = binding::binding_key(table)
            && places.brokers.len() < bounds.brokers
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

/// The last results of tasks, of those that the caller may look at.
fn results(look: &Look<'_>) -> Vec<Finish> {
    known::with(|known| {
        known
            .results
            .iter()
            .filter(|(_, last)| look.may(&last.key))
            .map(|((task, _), last)| Finish {
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
