//! Jobs and their slices.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::{Cost, Job, Order, Run, Scope, Turn, Visitor};
use crate::core::pace::{Next, Pace};
use crate::core::reply::Reply;
use crate::server::acl::User;
use crate::server::command::{Answers, Outcome, Waiting};
use crate::server::context::{disk_forbids, memory_full, now_ms, replicas, writes_paused};
use crate::server::guard::{Entry, guard};
use crate::server::scan::Cursor;
use crate::server::timer::{Task, Timer};
use crate::server::{Ctx, MainCell, differences, events};
use crate::slice::{self, Paced};
use crate::stats;

/// Jobs that run or wait at once; more are refused.
const MOST_JOBS: usize = 16;

/// Finished jobs that are remembered.
const MOST_FINISHED: usize = 100;

/// Writes in one slice, whatever the time: a slice's writes are one transaction
/// for replicas and AOF, and they go out after the slice, on top of its time.
const MOST_WRITES: u64 = 200;

/// Looks at keys between two looks at the clock.
const KEYS_PER_CLOCK: u32 = 8;

/// Bytes read after which the clock is looked at before the next key.
pub(super) const BYTES_PER_CLOCK: u64 = 4_096;

/// Things freed between two looks at the clock, after a pass.
const SHED_AT_ONCE: usize = 256;

/// How long a job that may not go on now rests, in ms.
const REST_MS: u64 = 50;

/// Writes in a slice, and the rest behind it in ms, while a sweep holds back: a few
/// thousand writes a second at most.
const HELD_BACK_WRITES: u64 = 50;
const HELD_BACK_MS: u64 = 20;

/// How often the replicas and the disk are asked for.
const OTHERS_ASKED: Duration = Duration::from_millis(100);

/// Bytes that a replica may be behind before a sweep rests for it. Replicas
/// acknowledge once a second, so a sweep at its default speed of writing has 10 MB
/// under way; the server drops a replica at 64 MB to 256 MB
/// (client-output-buffer-limit, Redis 6.2 to 8.2).
const MOST_LAG: u64 = 32 * 1024 * 1024;

/// A finished job.
#[derive(Clone, Debug)]
pub struct Finished {
    id: u64,
    what: &'static str,
    by: String,
    user: Option<Vec<u8>>,
    state: &'static str,
    run: Run,
    result: Result<Reply, String>,
}

/// What calls the next slice.
#[derive(Clone, Copy, Debug)]
enum Armed {
    Timer(Timer),
    NextTurn,
}

#[derive(Default)]
struct Jobs {
    running: Vec<Job>,
    finished: VecDeque<Finished>,
    answers: HashMap<u64, Result<Reply, String>>,
    last_id: u64,
    next: Option<Armed>,
    /// The id of the job whose slice is on the stack, and what was asked of it
    /// meanwhile.
    on_turn: Option<u64>,
    stop_on_turn: Option<&'static str>,
    paced: Paced,
    /// Visitors that have replied and keep a lot.
    leftover: Vec<Box<dyn Visitor>>,
}

static JOBS: MainCell<Option<Jobs>> = MainCell::new(None);

fn with<R>(work: impl FnOnce(&mut Jobs) -> R) -> R {
    work(JOBS.get_mut().get_or_insert_default())
}

/// Starts a pass for a client. It waits for the end, or with `asynchronous` gets
/// the job's id at once.
pub fn start_for_client(ctx: Ctx<'_>, order: Order, asynchronous: bool) -> Outcome {
    if !asynchronous && ctx.flags().deny_blocking() {
        return Outcome::Refused(format!(
            "{} works in slices and cannot wait in a transaction, a script or this kind of \
             connection: add ASYNC, then HYGIENE.JOBS shows the result",
            order.what
        ));
    }
    if with(|jobs| jobs.running.len()) >= MOST_JOBS {
        return Outcome::Refused(format!(
            "{MOST_JOBS} scans and sweeps are running already: wait for one or HYGIENE.CANCEL one"
        ));
    }
    if asynchronous {
        let id = start(ctx, order, None);
        return Outcome::Reply(Reply::map([("job", Reply::count(id))]));
    }
    let Some(client) = Waiting::block::<Clients>(ctx) else {
        return Outcome::Refused("the server does not let this client wait: add ASYNC".to_owned());
    };
    start(ctx, order, Some(client));
    Outcome::Waits
}

/// Starts a pass.
pub fn start(ctx: Ctx<'_>, order: Order, client: Option<Waiting>) -> u64 {
    with(|jobs| {
        jobs.last_id += 1;
        let id = jobs.last_id;
        jobs.running.push(Job {
            id,
            db: order.scope.first_db(),
            order,
            client,
            stop: None,
            cursor: None,
            db_done: false,
            all_shown: false,
            pending: VecDeque::new(),
            expected: None,
            rests: None,
            others_due: None,
            run: Run {
                started_ms: now_ms(),
                ..Run::default()
            },
        });
        if jobs.next.is_none() && jobs.on_turn.is_none() {
            jobs.next = Timer::arm::<Slice>(ctx, 0).map(Armed::Timer);
            jobs.paced = Paced::new(Pace::new(events::count_turns::<Slice>(ctx, true)));
        }
        id
    })
}

/// Whether a pass that writes is running or waiting.
#[must_use]
pub fn writing() -> bool {
    with(|jobs| jobs.on_turn.is_some() || jobs.running.iter().any(|job| job.order.visitor.writes()))
}

/// How many passes run or wait.
#[must_use]
pub fn running() -> usize {
    with(|jobs| jobs.running.len())
}

/// The same where the server may call at any point, as from its crash report.
#[must_use]
pub fn try_running() -> Option<usize> {
    let jobs = JOBS.try_get()?;
    Some(jobs.as_ref().map_or(0, |jobs| jobs.running.len()))
}

/// Asks a pass to stop; it answers its client and ends in its next slice. `false`
/// if there is none of that id.
pub fn cancel(id: u64) -> bool {
    with(|jobs| {
        if jobs.on_turn == Some(id) {
            jobs.stop_on_turn = Some("cancelled");
            return true;
        }
        let job = jobs.running.iter_mut().find(|job| job.id == id);
        job.is_some_and(|job| {
            job.stop = Some("cancelled");
            true
        })
    })
}

/// The data set is another one: every pass begins anew.
pub fn restart_all() {
    with(|jobs| {
        for job in &mut jobs.running {
            job.restart();
        }
    });
}

/// Stops the timer and forgets everything, before the library goes.
///
/// # Errors
/// A pass is running.
pub fn shut(ctx: Ctx<'_>) -> Result<(), String> {
    with(|jobs| {
        if let Some(job) = jobs.running.first() {
            return Err(format!(
                "{} (job {}) is running: HYGIENE.CANCEL {} first",
                job.order.what, job.id, job.id
            ));
        }
        if let Some(Armed::Timer(timer)) = jobs.next.take() {
            timer.stop(ctx);
        }
        Ok(())
    })?;
    *JOBS.get_mut() = None;
    Ok(())
}

/// Answers clients that wait for a pass.
struct Clients;

impl Answers for Clients {
    const LET_GO: &'static str = "told to stop waiting; what was asked for is stopped";

    fn take(id: u64) -> Option<Result<Reply, String>> {
        with(|jobs| jobs.answers.remove(&id))
    }

    fn left(client: &Waiting) {
        with(|jobs| {
            if let Some(job) = jobs
                .running
                .iter_mut()
                .find(|job| job.client.as_ref() == Some(client))
            {
                job.stop = Some("its client left");
            }
        });
    }
}

/// One slice of one job.
struct Slice;

enum Step {
    Again {
        writes: u64,
        /// Why it goes slowly, if it does.
        held_back: Option<&'static str>,
    },
    Rest(&'static str),
    Done,
    Failed(String),
}

impl Slice {
    /// Frees a part of what a pass that is over has kept; `false` if there is none.
    fn shed(ctx: Ctx<'_>) -> bool {
        let Some(mut visitor) = with(|jobs| jobs.leftover.pop()) else {
            return false;
        };
        let slice = slice::Slice::begin();
        let mut more = true;
        while more && !slice.over() {
            more = visitor.shed(SHED_AT_ONCE);
        }
        let left = if more {
            Some(visitor)
        } else {
            drop(visitor);
            None
        };
        slice.end();
        with(|jobs| {
            jobs.next = None;
            jobs.leftover.extend(left);
            jobs.rearm(ctx, Next::Ms(1));
        });
        true
    }
}

impl Task for Slice {
    fn fire(ctx: Ctx<'_>) {
        if Self::shed(ctx) {
            return;
        }
        let Some(mut job) = with(Jobs::next) else {
            with(|jobs| jobs.rearm(ctx, Next::Ms(REST_MS)));
            return;
        };
        let slice = with(|jobs| jobs.paced.begin(events::take_turns()));
        let step = guard(Entry::Slice, || job.slice(ctx, || slice.over()))
            .unwrap_or_else(|| Step::Failed("internal fault, see the log".to_owned()));
        let spent_us = slice.spent_us();
        job.run.server_us += spent_us;
        job.run.slices += 1;
        let wait = match &step {
            Step::Again { writes, held_back } => {
                let next = with(|jobs| jobs.paced.end(spent_us, *writes));
                if held_back.is_some() {
                    Next::Ms(next.ms().max(HELD_BACK_MS))
                } else {
                    next
                }
            }
            Step::Rest(_) => Next::Ms(REST_MS),
            Step::Done | Step::Failed(_) => Next::Ms(1),
        };
        match step {
            Step::Again { held_back, .. } => {
                job.rests = held_back;
                with(|jobs| jobs.give_back(job));
            }
            Step::Rest(why) => {
                job.rests = Some(why);
                with(|jobs| jobs.give_back(job));
            }
            Step::Done => {
                job.run.duration_ms = now_ms().saturating_sub(job.run.started_ms);
                let run = job.run;
                let reply = guard(Entry::Slice, || job.order.visitor.report(ctx, &run))
                    .ok_or_else(|| "internal fault, see the log".to_owned());
                finish(job, "finished", reply);
            }
            Step::Failed(why) => {
                let state = if job.stop.is_some() {
                    "cancelled"
                } else {
                    "failed"
                };
                finish(job, state, Err(why));
            }
        }
        // The last one ends with the reply.
        slice.end();
        with(|jobs| jobs.rearm(ctx, wait));
    }

    /// A pass that was on the stack is gone, and its client told so.
    fn failed(ctx: Ctx<'_>) {
        with(|jobs| {
            jobs.next = None;
            jobs.on_turn = None;
            jobs.rearm(ctx, Next::Ms(REST_MS));
        });
    }
}

impl Jobs {
    /// The oldest job that writes: the others wait for it.
    fn writer(&self) -> Option<u64> {
        self.running
            .iter()
            .filter(|job| job.order.visitor.writes())
            .map(|job| job.id)
            .min()
    }

    /// The job whose turn it is. Of those that write only the oldest has one.
    fn next(&mut self) -> Option<Job> {
        self.next = None;
        let writer = self.writer();
        let at = self
            .running
            .iter()
            .position(|job| job.stop.is_some() || !job.waits_for(writer))?;
        let job = self.running.remove(at);
        self.on_turn = Some(job.id);
        self.stop_on_turn = None;
        Some(job)
    }

    fn give_back(&mut self, mut job: Job) {
        self.on_turn = None;
        job.stop = job.stop.or(self.stop_on_turn.take());
        self.running.push(job);
    }

    fn rearm(&mut self, ctx: Ctx<'_>, wait: Next) {
        if self.running.is_empty() && self.leftover.is_empty() {
            events::count_turns::<Slice>(ctx, false);
            return;
        }
        if self.next.is_some() {
            return;
        }
        self.next = match wait {
            Next::Turn if events::in_next_turn() => Some(Armed::NextTurn),
            next => Timer::arm::<Slice>(ctx, next.ms()).map(Armed::Timer),
        };
    }
}

fn finish(job: Job, state: &'static str, result: Result<Reply, String>) {
    let mut run = job.run;
    run.duration_ms = now_ms().saturating_sub(run.started_ms);
    let id = job.id;
    let client = job.client;
    let cancelled = state == "cancelled";
    let mut visitor = job.order.visitor;
    // Most keep little, and then no timer of ours stands after them.
    let keeps_a_lot = visitor.shed(SHED_AT_ONCE);
    let leftover = keeps_a_lot.then_some(visitor);
    stats::job_ended(job.order.what, cancelled, &run, result.as_ref().ok());
    with(|jobs| {
        jobs.on_turn = None;
        if jobs.finished.len() >= MOST_FINISHED {
            jobs.finished.pop_front();
        }
        jobs.finished.push_back(Finished {
            id,
            what: job.order.what,
            by: job.order.by,
            user: job.order.user,
            state,
            run,
            result: result.clone(),
        });
        jobs.leftover.extend(leftover);
        if client.is_some() {
            jobs.answers.insert(id, result);
        }
    });
    if let Some(client) = client {
        client.done(id);
    }
}

impl Job {
    /// Whether it has to wait for `writer`, the one job that may write now.
    fn waits_for(&self, writer: Option<u64>) -> bool {
        self.order.visitor.writes() && Some(self.id) != writer
    }

    fn restart(&mut self) {
        self.db = self.order.scope.first_db();
        self.cursor = None;
        self.db_done = false;
        self.all_shown = false;
        self.pending.clear();
        self.expected = None;
        self.run.scanned = 0;
        self.order.visitor.restart();
    }

    fn slice(&mut self, ctx: Ctx<'_>, enough: impl Fn() -> bool) -> Step {
        if let Some(why) = self.stop {
            return Step::Failed(format!(
                "{} was stopped: {why}, after {} keys",
                self.order.what, self.run.scanned
            ));
        }
        let flags = ctx.flags();
        if flags.loading() {
            return Step::Rest("the data set is being loaded");
        }
        if self.order.visitor.writes() {
            if !flags.primary() {
                return Step::Failed(format!(
                    "{} was stopped: this server is no longer a primary, after {} keys",
                    self.order.what, self.run.scanned
                ));
            }
            if writes_paused() {
                return Step::Rest("writes are paused");
            }
            if let Some(why) = self.others_forbid(ctx) {
                return Step::Rest(why);
            }
        }
        let user = match &self.order.user {
            Some(name) if differences::here().key_rights => match User::named(name) {
                Some(user) => Some(user),
                None => {
                    return Step::Failed(format!(
                        "{} was stopped: its user is gone",
                        self.order.what
                    ));
                }
            },
            _ => None,
        };
        if self.expected.is_none() {
            self.expected = Some(keys_in(ctx, self.order.scope));
        }
        // What was decided before this slice is decided again.
        for kept in &mut self.pending {
            kept.decided = None;
        }
        let turn = Turn {
            ctx,
            now_ms: now_ms(),
            cluster: flags.cluster(),
            user: user.as_ref(),
            read: Cell::new(0),
        };
        let held_back = if !self.order.visitor.writes() {
            None
        } else if flags.saving() {
            Some("slowly: the server saves, and what is written is copied")
        } else if memory_full() {
            Some("slowly: memory is at maxmemory")
        } else {
            None
        };
        self.work(&turn, enough, held_back)
    }

    /// Whether a replica is too far behind to be sent more, or the disk takes nothing.
    fn others_forbid(&mut self, ctx: Ctx<'_>) -> Option<&'static str> {
        if self.others_due.is_some_and(|due| Instant::now() < due) {
            return None;
        }
        let replicas = replicas(ctx);
        let why = if replicas.lag_bytes > MOST_LAG {
            Some("a replica is behind")
        } else if replicas.too_few {
            Some("fewer replicas are in step than min-replicas-to-write asks for")
        } else {
            disk_forbids(ctx)
        };
        // What forbids is asked for again at the next slice.
        self.others_due = why.is_none().then(|| Instant::now() + OTHERS_ASKED);
        why
    }

    /// Scans and handles keys until it is `enough` or the portion of writes is used up.
    fn work(
        &mut self,
        turn: &Turn<'_>,
        enough: impl Fn() -> bool,
        held_back: Option<&'static str>,
    ) -> Step {
        let most_writes = if held_back.is_some() {
            HELD_BACK_WRITES
        } else {
            MOST_WRITES
        };
        let mut spent = Cost::default();
        let (mut looks, mut bytes) = (0_u32, 0_u64);
        if !self.all_shown && !turn.ctx.select(self.db) {
            return Step::Done;
        }
        loop {
            if self.order.visitor.full() {
                return Step::Done;
            }
            if let Some(kept) = self.pending.pop_front() {
                let cost = self.order.visitor.handle(turn, kept);
                spent.writes += cost.writes;
                bytes += cost.bytes;
            } else if self.all_shown {
                let Some(cost) = self.order.visitor.after(turn) else {
                    return Step::Done;
                };
                spent.writes += cost.writes;
                bytes += cost.bytes;
            } else if !self.scan(turn, &mut bytes) {
                self.all_shown = true;
            }
            looks += 1;
            if spent.writes >= most_writes {
                break;
            }
            if looks >= KEYS_PER_CLOCK || bytes >= BYTES_PER_CLOCK {
                (looks, bytes) = (0, 0);
                if enough() {
                    break;
                }
            }
        }
        Step::Again {
            writes: spent.writes,
            held_back,
        }
    }

    /// Takes the next bucket of keys in; nothing of the one before is pending then.
    /// `false` at the end of the last database.
    fn scan(&mut self, turn: &Turn<'_>, bytes: &mut u64) -> bool {
        if self.db_done {
            self.db_done = false;
            if !self.next_db(turn.ctx) {
                return false;
            }
        }
        if self.cursor.is_none() {
            self.cursor = Cursor::new();
        }
        let Some(cursor) = &mut self.cursor else {
            return false;
        };
        let (visitor, pending, db) = (&mut self.order.visitor, &mut self.pending, self.db);
        let mut shown = 0;
        let more = cursor.step(turn.ctx, |found| {
            shown += 1;
            pending.extend(visitor.sift(&found, turn, db));
        });
        *bytes += turn.read.take();
        self.run.scanned += shown;
        if !more {
            self.cursor = None;
            self.db_done = true;
        }
        true
    }

    /// Goes to the next database that holds anything.
    fn next_db(&mut self, ctx: Ctx<'_>) -> bool {
        if let Scope::One(_) = self.order.scope {
            return false;
        }
        loop {
            self.db += 1;
            if !ctx.select(self.db) {
                return false;
            }
            if ctx.db_size() > 0 {
                return true;
            }
        }
    }

    fn done_percent(&self) -> i64 {
        match self.expected {
            Some(0) => 99,
            Some(expected) => i64::try_from(self.run.scanned.saturating_mul(100) / expected)
                .map_or(99, |p| p.min(99)),
            None => 0,
        }
    }
}

fn keys_in(ctx: Ctx<'_>, scope: Scope) -> u64 {
    let home = ctx.db();
    let total = match scope {
        Scope::One(db) => {
            if ctx.select(db) {
                ctx.db_size()
            } else {
                0
            }
        }
        Scope::All => (0..)
            .map_while(|db| ctx.select(db).then(|| ctx.db_size()))
            .sum(),
    };
    ctx.select(home);
    total
}

/// The reply of HYGIENE.JOBS: what runs, in order, then what has finished, the
/// newest first. A reply names keys, so it is shown to the user it was made for
/// and to nobody else; what the module did by itself is shown to all.
#[must_use]
pub fn list(user: Option<&[u8]>) -> Reply {
    with(|jobs| {
        let writer = jobs.writer();
        let mut running: Vec<&Job> = jobs.running.iter().collect();
        running.sort_by_key(|job| job.id);
        let running = running
            .into_iter()
            .map(|job| running_reply(job, job.waits_for(writer)));
        let finished = jobs.finished.iter().rev().map(|job| {
            let theirs = job.user.is_none() || job.user.as_deref() == user;
            finished_reply(job, theirs)
        });
        Reply::Array(running.chain(finished).collect())
    })
}

fn running_reply(job: &Job, waits: bool) -> Reply {
    let duration_ms = now_ms().saturating_sub(job.run.started_ms).max(0);
    let scanned = i64::try_from(job.run.scanned).unwrap_or(i64::MAX);
    let per_s = scanned.saturating_mul(1_000) / duration_ms.max(1);
    let left = job.expected.map(|expected| {
        i64::try_from(expected.saturating_sub(job.run.scanned)).unwrap_or(i64::MAX)
    });
    let eta_ms = match (left, per_s) {
        (Some(left), per_s) if per_s > 0 => left.saturating_mul(1_000) / per_s,
        _ => -1,
    };
    let rests = if waits {
        "another sweep is writing"
    } else {
        job.rests.unwrap_or_default()
    };
    Reply::map([
        ("id", Reply::count(job.id)),
        ("what", Reply::word(job.order.what)),
        ("by", Reply::bytes(job.order.by.as_str())),
        (
            "state",
            Reply::word(if waits { "waiting" } else { "running" }),
        ),
        ("rests", Reply::word(rests)),
        ("started_ms", Reply::Int(job.run.started_ms)),
        ("duration_ms", Reply::Int(duration_ms)),
        ("server_ms", Reply::count(job.run.server_us / 1_000)),
        ("db", Reply::Int(i64::from(job.db))),
        ("scanned", Reply::Int(scanned)),
        ("done_percent", Reply::Int(job.done_percent())),
        ("keys_per_s", Reply::Int(per_s)),
        ("eta_ms", Reply::Int(eta_ms)),
    ])
}

fn finished_reply(job: &Finished, theirs: bool) -> Reply {
    let (name, result) = match &job.result {
        Ok(_) if !theirs => ("result", Reply::Map(Vec::new())),
        Ok(reply) => ("result", reply.clone()),
        Err(why) => ("error", Reply::bytes(why.as_str())),
    };
    Reply::map([
        ("id", Reply::count(job.id)),
        ("what", Reply::word(job.what)),
        ("by", Reply::bytes(job.by.as_str())),
        ("state", Reply::word(job.state)),
        ("started_ms", Reply::Int(job.run.started_ms)),
        ("duration_ms", Reply::Int(job.run.duration_ms)),
        ("server_ms", Reply::count(job.run.server_us / 1_000)),
        ("scanned", Reply::count(job.run.scanned)),
        (
            "done_percent",
            Reply::Int(if job.state == "finished" { 100 } else { -1 }),
        ),
        (name, result),
    ])
}
