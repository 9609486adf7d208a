//! Observation: what the traffic of the queues shows of beat and of the workers.
//!
//! Stock beat leaves no key, but each of its messages is pushed to a list here. A
//! message is read inside the event of its push, since a worker that waits takes it
//! right after the command. What is learnt lives in [`Traffic`], and in the hash
//! named by `state-key`, so that a restart or a failover forgets nothing ([`state`]).
//!
//! Only a primary watches. A replica is told of the same pushes, but writes nothing
//! by itself; it reads the hash that its primary writes.

mod lists;
mod refusal;
pub mod state;

use crate::core::beat::{Hearing, Traffic};
use crate::core::celery::binding::last_number;
use crate::core::celery::body;
use crate::core::celery::envelope::{self, Envelope, Kind};
use crate::core::celery::message::ORIGIN;
use crate::core::celery::result;
use crate::core::keys::{Class, KeyType, result_id};
use crate::known;
use crate::server::context::{db_number, now_ms};
use crate::server::events::Written;
use crate::server::guard::events_off;
use crate::server::{Ctx, MainCell};
use crate::{settings, stats};

use lists::{Lists, Look};
pub use refusal::refusal;

/// Bytes of a result that are read for how its task ended; a longer one is not.
const MOST_RESULT: usize = 16 * 1024;

/// A result that names its task (`result_extended`) is longer: its other fields take
/// more than that.
const LEAST_NAMED: usize = 100;

static TRAFFIC: MainCell<Option<Traffic>> = MainCell::new(None);
static LISTS: MainCell<Option<Lists>> = MainCell::new(None);

fn with<R>(change: impl FnOnce(&mut Traffic) -> R) -> R {
    change(TRAFFIC.get_mut().get_or_insert_default())
}

fn wanted() -> bool {
    settings::with(|current| current.settings.observe) == Some(true)
}

/// A list was pushed to or popped from, inside the command that did it.
pub fn list_changed(ctx: Ctx<'_>, what: &Written<'_>) {
    let (push, head) = match what.event() {
        b"lpush" => (true, true),
        b"rpush" => (true, false),
        b"rpop" | b"lpop" => (false, false),
        _ => return,
    };
    if !wanted() {
        return;
    }
    let (db, name) = (ctx.db(), what.key());
    let known = LISTS
        .get()
        .as_ref()
        .map_or(Look::Unknown, |lists| lists.look(db, name, now_ms));
    let queue = match known {
        Look::Queue(queue) => Some(queue),
        Look::Unknown if push => None,
        Look::Unknown | Look::Other => return,
    };
    if !ctx.flags().may_write() {
        return;
    }
    let now = now_ms();
    match queue {
        Some(queue) if push => {
            let element = what.element(ctx, head);
            let bytes = element.as_ref().map_or(&[][..], |e| e.bytes());
            let mut message = envelope::read_publish(bytes);
            if message.as_ref().is_some_and(|m| !is_task(m) || was_seen(m)) {
                message = read(bytes);
            }
            let task = message.as_ref().filter(|m| is_task(m));
            stats::UNREADABLE_MESSAGES.add(u64::from(task.is_none()));
            with(|traffic| {
                traffic.pushed(now, db_number(db), queue, task.filter(|m| may_be_beats(m)));
                let first = message.as_ref().is_some_and(is_publish);
                learn_lowest(traffic, db, name, queue, first, || {
                    envelope::is_of_lowest_priority(bytes)
                });
            });
        }
        Some(queue) => with(|traffic| traffic.popped(now, db_number(db), queue)),
        None => meet(ctx, what, head, db, now),
    }
}

/// Reads a message whole, and of a task of protocol 1 its body.
fn read(bytes: &[u8]) -> Option<Envelope<'_>> {
    let mut message = envelope::read(bytes)?;
    body::complete(&mut message, bytes);
    Some(message)
}

fn is_task(message: &Envelope<'_>) -> bool {
    message.kind() == Kind::Task
}

/// Whether the schedule may have sent it, so that its rhythm means something. In
/// protocol 1 nothing tells it from what another task sends, whose rhythm ends with the
/// workers: there only beat's mark and `expected-tasks` do.
fn may_be_beats(message: &Envelope<'_>) -> bool {
    if !message.protocol_1 || message.beat || message.periodic_task_name.is_some() {
        return true;
    }
    let task = message.task.as_deref().map(str::as_bytes);
    settings::with(|current| current.settings.expects(task.unwrap_or_default())) == Some(true)
}

/// Whether somebody published it, and no person by HYGIENE.TRIGGER.
fn is_publish(message: &Envelope<'_>) -> bool {
    !message.is_again() && message.origin.as_deref() != Some(ORIGIN)
}

/// Notes behind which step messages of priority 0 lie: not in the queue's first list,
/// where its clients' `priority_steps` has no 0.
fn learn_lowest(
    traffic: &mut Traffic,
    db: i32,
    name: &[u8],
    queue: &[u8],
    published: bool,
    lowest: impl FnOnce() -> bool,
) {
    let db = db_number(db);
    let known = traffic.lowest(db, queue);
    let suffix = name.len() > queue.len();
    if !published || (!suffix && known.is_none()) {
        return;
    }
    let step = suffix.then(|| last_number(name)).flatten().unwrap_or(0);
    if known.unwrap_or(0) != step && (step == 0 || lowest()) {
        traffic.lowest_lies(db, queue, step);
    }
}

/// The step behind which a queue's messages of priority 0 were published, if it is
/// another than 0.
pub fn lowest_step(db: i32, queue: &[u8]) -> Option<u8> {
    TRAFFIC.get().as_ref()?.lowest(db_number(db), queue)
}

/// Whether a first publish has an id that was seen: then only its delivery tag, which
/// stands at the end, tells it from a message that somebody moves.
fn was_seen(message: &Envelope<'_>) -> bool {
    let id = message.id.as_deref().filter(|_| !message.is_again());
    id.is_some_and(|id| with(|traffic| traffic.awaits(id.as_bytes())))
}

/// A list that nothing is known of was pushed to.
fn meet(ctx: Ctx<'_>, what: &Written<'_>, head: bool, db: i32, now: i64) {
    let name = what.key();
    let element = what.element(ctx, head);
    let message = element.as_ref().and_then(|e| read(e.bytes()));
    let mut lists = LISTS.get_mut();
    let lists = lists.get_or_insert_default();
    let base = known::first_list(db, name);
    let known = known::queue(db, name) || lists.is_queues(db, name, base);
    lists.note(db, (name, base), message.as_ref(), known, now);
    if let Look::Queue(queue) = lists.look(db, name, || now) {
        known::seen(db, name, Class::Queue, KeyType::List);
        with(|traffic| {
            let told = message.as_ref().filter(|m| may_be_beats(m));
            traffic.pushed(now, db_number(db), queue, told);
            let first = message.as_ref().is_some_and(is_publish);
            let lowest = || {
                message
                    .as_ref()
                    .is_some_and(Envelope::is_of_lowest_priority)
            };
            learn_lowest(traffic, db, name, queue, first, lowest);
        });
    }
}

/// Takes up queues that something else than a push made known: the memory of an
/// earlier watch, a sweep, or a look. Pops from them are told then, and a message too
/// large to be read makes no other list of them.
fn adopt(now: i64) {
    let whole = !LISTS.get().as_ref().is_some_and(|lists| lists.adopted);
    let mut queues = known::fresh_queues(whole);
    if whole {
        let remembered = with(|traffic| {
            let queues = traffic.heard_queues();
            queues
                .map(|(db, queue)| (db, queue.to_vec()))
                .collect::<Vec<_>>()
        });
        let here = |(db, queue)| Some((i32::try_from(db).ok()?, queue));
        queues.extend(remembered.into_iter().filter_map(here));
    }
    if !whole && queues.is_empty() {
        return;
    }
    let mut lists = LISTS.get_mut();
    let lists = lists.get_or_insert_default();
    lists.adopted = true;
    for (db, name) in &queues {
        let base = known::first_list(*db, name);
        if let Some(queue) = lists.adopt(*db, name, base) {
            with(|traffic| traffic.adopted(now, db_number(*db), queue));
        }
    }
}

/// A broker's routing tables showed its separator: which lists are of one queue is told
/// by it, and what was heard of each is the queue's.
pub fn separator_found(db: i32, prefix: &[u8], sep: &[u8]) {
    if !known::separator_found(db, prefix, sep) {
        return;
    }
    let mut lists = LISTS.get_mut();
    let Some(lists) = lists.as_mut() else {
        return;
    };
    let names: Vec<Vec<u8>> = lists.of(db).map(<[u8]>::to_vec).collect();
    for name in &names {
        let base = known::first_list(db, name);
        if let Some(queue) = lists.adopt(db, name, base).filter(|queue| queue != name) {
            with(|traffic| traffic.renamed(db_number(db), name, queue));
        }
    }
}

/// Whether a result of so many bytes may tell of a task that is watched, so that the
/// hook should look at it: its publish was seen, or it could name its task. What is
/// shorter than any that does is not looked at: the server would store it anew.
pub fn awaits(name: &[u8], bytes: usize) -> bool {
    wanted()
        && TRAFFIC.get().as_ref().is_some_and(|traffic| {
            let may_name = (LEAST_NAMED..=MOST_RESULT).contains(&bytes) && traffic.knows_tasks();
            may_name || traffic.awaits(task_id(name))
        })
}

/// A result that may tell of a task that is watched was written.
pub fn result_written(name: &[u8], payload: &[u8]) {
    if payload.len() > MOST_RESULT {
        return;
    }
    let seen = with(|traffic| traffic.awaits(task_id(name)));
    if !seen && memchr::memmem::find(payload, br#""name""#).is_none() {
        return;
    }
    let Ok(result) = result::read(payload) else {
        return;
    };
    let Some(status) = result.status.as_deref().filter(|_| result.finished()) else {
        return;
    };
    let now = now_ms();
    with(|traffic| {
        traffic.finished(
            now,
            name,
            result.name.as_deref().zip(result.finished_at_ms()),
            status,
            result.exc_type.as_deref(),
        );
    });
}

/// The task's id; under a name of the operator's own, the whole of it.
fn task_id(name: &[u8]) -> &[u8] {
    result_id(name).unwrap_or(name)
}

/// A key was given a TTL: RedBeat does so to its lock on each tick.
pub fn ttl_given(ctx: Ctx<'_>, what: &Written<'_>) {
    let name = what.key();
    if !name.ends_with(b":lock") || !wanted() || !is_redbeat_lock(ctx.db(), name) {
        return;
    }
    if !ctx.flags().may_write() {
        return;
    }
    let Some(ttl_ms) = what.open(ctx).and_then(|key| key.ttl()) else {
        return;
    };
    let (now, db) = (now_ms(), db_number(ctx.db()));
    with(|traffic| traffic.redbeat_ticked(now, db, name, ttl_ms));
}

/// Whether the lock is that of a schedule that is known, or of RedBeat's default
/// name (redbeat/schedulers.py, `RedBeatConfig`: key prefix `redbeat:`).
fn is_redbeat_lock(db: i32, name: &[u8]) -> bool {
    name == b"redbeat::lock"
        || name
            .strip_suffix(b"lock")
            .is_some_and(|stem| known::schedule(db, &[stem, b"schedule"].concat()))
}

/// Tasks, and then queues, copied in one step.
const AT_ONCE: usize = 32;

/// Begins to tell what was observed, of `most` tasks and queues, for judging; `None` if
/// nobody watches.
#[must_use]
pub fn hear(most: usize) -> Option<Hearing> {
    if !wanted() || events_off() {
        return None;
    }
    let traffic = TRAFFIC.get();
    traffic.as_ref().map(|traffic| traffic.hear(most))
}

/// Tells some more, of the keys that `may` answers for; `false` if there is no more.
/// `may` raises no events.
pub fn hear_on(hearing: &mut Hearing, now_ms: i64, may: impl FnMut(&[u8]) -> bool) -> bool {
    let traffic = TRAFFIC.get();
    traffic
        .as_ref()
        .is_some_and(|traffic| traffic.hear_on(hearing, now_ms, AT_ONCE, may))
}

/// A key was deleted: with the hash goes what was observed.
pub fn key_deleted(ctx: Ctx<'_>, what: &Written<'_>) {
    if state::deleted(ctx.db(), what.key()) {
        anew();
    }
}

/// The data set or this server's role is new: what was observed is taken up from
/// the hash in the next round, if it is there.
pub fn anew() {
    *TRAFFIC.get_mut() = None;
    *LISTS.get_mut() = None;
    state::anew();
}

/// Two databases have changed places; with the first one the hash is elsewhere.
pub fn swapped() {
    *LISTS.get_mut() = None;
    with(Traffic::mark_all_changed);
}

/// Stops what is armed and forgets everything, before the library goes.
pub fn stop(ctx: Ctx<'_>) {
    state::stop(ctx);
    anew();
}
