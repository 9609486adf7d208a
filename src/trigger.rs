//! HYGIENE.TRIGGER: publishes one message and follows it to its result.
//!
//! Events tell when to look: a pop from the queue, a write of a result whose key
//! ends in the task's id. What is true is then looked up: whether the message
//! still lies in the queue, or among the unacknowledged, and what its result says.
//! One timer serves all that wait, and there is none while nobody does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::core::beat::Evidence;
use crate::core::celery::message::{Message, uuid};
use crate::core::celery::outcome;
use crate::core::keys::{Class, KeyType};
use crate::core::reply::Reply;
use crate::core::trigger::{Asked, Progress, Report, Route, route};
use crate::evidence::{self, look::Look};
use crate::server::acl::{Right, User};
use crate::server::call::{self, Value};
use crate::server::command::{Answers, Outcome, Waiting};
use crate::server::context::{now_ms, random_bytes};
use crate::server::events::{self, OnWrite, Written, kind};
use crate::server::guard::guard;
use crate::server::timer::{Task, Timer};
use crate::server::{Ctx, MainCell, Str};
use crate::sweep::fix::acl_checked;
use crate::{known, settings};

/// Clients that wait at once; more are refused.
const MOST_WAITING: usize = 16;

/// Messages looked through at either end of a queue: comparing one takes about
/// 20 ns, so that all that may wait take less than a slice of a sweep.
const MOST_COMPARED: u64 = 500;

/// Between two looks, at least, so that a busy queue does not have us look all the
/// time, and at most.
const SOON: Duration = Duration::from_millis(5);
const LATEST: Duration = Duration::from_millis(100);

/// What is to be published.
pub struct Order<'a> {
    /// The task's name.
    pub task: &'a str,
    /// QUEUE.
    pub queue: Option<&'a str>,
    /// Positional arguments, a JSON array.
    pub args: &'a str,
    /// Named arguments, a JSON object.
    pub kwargs: &'a str,
    /// How long to wait for the result.
    pub timeout: Duration,
    /// DB.
    pub db: Option<u32>,
    /// The calling user, where the server tells.
    pub user: Option<Vec<u8>>,
}

/// One message and the client that waits for what becomes of it.
struct Trigger {
    id: u64,
    client: Waiting,
    user: Option<Vec<u8>>,
    task: String,
    task_id: String,
    tag: String,
    message: String,
    route: Route,
    db: i32,
    /// The queue's list.
    key: Vec<u8>,
    /// Hashes that a taken message may lie in.
    unacked: Vec<Vec<u8>>,
    since: Instant,
    timeout: Duration,
    /// The client is gone.
    left: bool,
    /// When something was last taken from the queue.
    popped_ms: Option<i64>,
    /// The result's database and key, and when it was last written.
    result: Option<(i32, Vec<u8>, i64)>,
    progress: Progress,
}

#[derive(Default)]
struct Triggers {
    waiting: Vec<Trigger>,
    answers: HashMap<u64, Result<Reply, String>>,
    last_id: u64,
    timer: Option<Timer>,
    /// The timer was armed by an event.
    hurried: bool,
    looked: Option<Instant>,
}

static TRIGGERS: MainCell<Option<Triggers>> = MainCell::new(None);

/// How many wait: all that a write looks at while none does.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Whether events are subscribed to. Not before the first TRIGGER, so that who
/// never asks for one pays nothing.
static LISTENING: AtomicBool = AtomicBool::new(false);

fn with<R>(work: impl FnOnce(&mut Triggers) -> R) -> R {
    work(TRIGGERS.get_mut().get_or_insert_default())
}

/// Publishes and lets the client wait. Nothing is written where anything is refused.
pub fn start(ctx: Ctx<'_>, order: &Order<'_>) -> Outcome {
    match publish(ctx, order) {
        Ok(()) => Outcome::Waits,
        Err(why) => Outcome::Refused(why),
    }
}

fn publish(ctx: Ctx<'_>, order: &Order<'_>) -> Result<(), String> {
    may_wait(ctx)?;
    let _home = ctx.home();
    let home = u32::try_from(ctx.db()).unwrap_or(0);
    let evidence = evidence::gather(ctx, order.user.as_deref(), now_ms()).evidence;
    let asked = Asked {
        task: order.task,
        queue: order.queue.map(str::as_bytes),
        db: order.db,
        home,
    };
    let route = route(&evidence, &asked)?;
    let db = i32::try_from(route.db).unwrap_or(0);
    let key = route.key();
    may_push(ctx, order, &route)?;
    listen(ctx)?;

    let queue = String::from_utf8(route.queue.clone())
        .map_err(|_| "the queue's name is no UTF-8, so it cannot stand in a message".to_owned())?;
    let (task_id, tag) = (uuid(random_bytes()), uuid(random_bytes()));
    let message = Message {
        task: order.task,
        id: &task_id,
        tag: &tag,
        queue: &queue,
        args: order.args,
        kwargs: order.kwargs,
    }
    .to_json();

    if !ctx.select(db) {
        return Err(format!("DB {db}: this server has no such database"));
    }
    let published_ms = now_ms();
    match call::write(ctx, c"LPUSH", &[&key, message.as_bytes()]) {
        Value::Int(_) => {}
        refused => return Err(refusal(ctx, &refused)),
    }
    known::seen(db, &key, Class::Queue, KeyType::List);
    let client = Waiting::block::<Clients>(ctx)
        .ok_or("published, but the server does not let this client wait for the result")?;
    let mut unacked = vec![route.unacked()];
    unacked.extend(other_unacked(&evidence, &route));
    let progress = Progress {
        published_ms,
        leaves_results: evidence.results.iter().any(|end| end.task == order.task),
        ..Progress::default()
    };
    wait(
        ctx,
        Trigger {
            id: 0,
            client,
            user: order.user.clone(),
            task: order.task.to_owned(),
            task_id,
            tag,
            message,
            route,
            db,
            key,
            unacked,
            since: Instant::now(),
            timeout: order.timeout,
            left: false,
            popped_ms: None,
            result: None,
            progress,
        },
    );
    Ok(())
}

fn refusal(ctx: Ctx<'_>, reply: &Value) -> String {
    let why = match reply {
        Value::Error(why) => String::from_utf8_lossy(why).into_owned(),
        _ => "it says nothing".to_owned(),
    };
    let hint = if ctx.flags().cluster() {
        " (in a cluster, ask the node that holds the queue's slot)"
    } else {
        ""
    };
    format!("the server refused the push: {why}{hint}")
}

fn may_wait(ctx: Ctx<'_>) -> Result<(), String> {
    let flags = ctx.flags();
    if flags.deny_blocking() {
        return Err(
            "HYGIENE.TRIGGER waits for the result and cannot in a transaction, a script or this \
             kind of connection"
                .to_owned(),
        );
    }
    if !flags.may_write() {
        return Err("this server is a replica or is loading: ask its primary".to_owned());
    }
    if with(|triggers| triggers.waiting.len()) >= MOST_WAITING {
        return Err(format!(
            "{MOST_WAITING} clients wait for HYGIENE.TRIGGER already: try again when one is answered"
        ));
    }
    Ok(())
}

/// Whether the queue is one that a worker could read from, and the caller may
/// write to.
fn may_push(ctx: Ctx<'_>, order: &Order<'_>, route: &Route) -> Result<(), String> {
    let key = route.key();
    let db = i32::try_from(route.db).unwrap_or(0);
    if let Some(user) = &order.user {
        let name = Str::new(&key).ok_or("out of memory")?;
        let may = User::named(user).is_some_and(|user| user.may(Right::Change, &name));
        if !may {
            return Err(format!(
                "this user has no right to write the queue's key '{}'",
                key.escape_ascii()
            ));
        }
    }
    // Whatever the caller may see of it: a push would be refused all the same.
    let mut look = Look::new(ctx, None);
    if look
        .key(db, &route.sorted_set())
        .is_some_and(|other| other.kind == KeyType::Zset)
    {
        return Err(
            "this broker keeps its queues in sorted sets (celery-redis-plus), which \
             HYGIENE.TRIGGER cannot write"
                .to_owned(),
        );
    }
    match look.key(db, &key) {
        Some(other) if other.kind != KeyType::List => Err(format!(
            "the key '{}' holds a {}, no queue",
            key.escape_ascii(),
            other.kind.name()
        )),
        _ => Ok(()),
    }
}

/// Hashes of unacknowledged messages in that database under other names.
fn other_unacked<'a>(
    evidence: &'a Evidence,
    route: &'a Route,
) -> impl Iterator<Item = Vec<u8>> + 'a {
    let usual = route.unacked();
    evidence
        .unacked
        .iter()
        .filter(|unacked| unacked.db == route.db)
        .map(|unacked| unacked.key.clone())
        .filter(move |key| *key != usual)
        .take(4)
}

fn listen(ctx: Ctx<'_>) -> Result<(), String> {
    if LISTENING.load(Relaxed) {
        return Ok(());
    }
    if !events::watch_writes::<Watch>(ctx, kind::LIST | kind::STRING) {
        return Err("the server refuses keyspace events".to_owned());
    }
    LISTENING.store(true, Relaxed);
    Ok(())
}

fn wait(ctx: Ctx<'_>, mut trigger: Trigger) {
    with(|triggers| {
        triggers.last_id += 1;
        trigger.id = triggers.last_id;
        triggers.waiting.push(trigger);
        triggers.rearm(ctx);
    });
}

impl Triggers {
    /// Arms the timer if there is none and somebody waits.
    fn rearm(&mut self, ctx: Ctx<'_>) {
        WAITING.store(self.waiting.len(), Relaxed);
        let left = |trigger: &Trigger| trigger.timeout.saturating_sub(trigger.since.elapsed());
        let Some(next) = self.waiting.iter().map(left).min() else {
            return;
        };
        if self.timer.is_none() {
            self.timer = arm(ctx, next.min(LATEST));
        }
    }

    /// Looks soon.
    fn hurry(&mut self, ctx: Ctx<'_>) {
        if self.hurried {
            return;
        }
        if let Some(timer) = self.timer.take() {
            timer.stop(ctx);
        }
        let since = self.looked.map_or(SOON, |looked| looked.elapsed());
        self.timer = arm(ctx, SOON.saturating_sub(since));
        self.hurried = self.timer.is_some();
    }
}

fn arm(ctx: Ctx<'_>, wait: Duration) -> Option<Timer> {
    Timer::arm::<LookAtAll>(ctx, u64::try_from(wait.as_millis()).unwrap_or(0).max(1))
}

/// Hears of pops and of results while somebody waits.
struct Watch;

impl OnWrite for Watch {
    fn written(ctx: Ctx<'_>, what: &Written<'_>) {
        if WAITING.load(Relaxed) == 0 {
            return;
        }
        match what.kind {
            kind::LIST if matches!(what.event, b"rpop" | b"lpop") => popped(ctx, what),
            kind::STRING => stored(ctx, what),
            _ => {}
        }
    }
}

fn popped(ctx: Ctx<'_>, what: &Written<'_>) {
    let (db, key) = (ctx.db(), what.key());
    with(|triggers| {
        let mut any = false;
        for trigger in &mut triggers.waiting {
            if trigger.progress.taken_ms.is_none() && trigger.db == db && trigger.key == key {
                trigger.popped_ms = Some(now_ms());
                trigger.progress.pops += 1;
                any = true;
            }
        }
        if any {
            triggers.hurry(ctx);
        }
    });
}

/// A result is told by the id at the end of its key: it may lie in any database,
/// behind any prefix.
fn stored(ctx: Ctx<'_>, what: &Written<'_>) {
    let key = what.key();
    with(|triggers| {
        let of = triggers
            .waiting
            .iter_mut()
            .find(|trigger| key.ends_with(trigger.task_id.as_bytes()));
        if let Some(trigger) = of
            && is_result(key, &trigger.task_id)
        {
            trigger.result = Some((ctx.db(), key.to_vec(), now_ms()));
            triggers.hurry(ctx);
        }
    });
}

/// Whether a key that ends in that id is its result: Celery's own name, or one that
/// the operator has named.
fn is_result(key: &[u8], task_id: &str) -> bool {
    let head = key.len().saturating_sub(task_id.len());
    key.get(..head)
        .is_some_and(|head| head.ends_with(b"celery-task-meta-"))
        || settings::with(|current| current.names.task_result(key)) == Some(true)
}

/// The database has been emptied, or with `None` all of them.
pub fn flushed(db: Option<i32>) {
    with(|triggers| {
        for trigger in &mut triggers.waiting {
            if trigger.progress.taken_ms.is_none() && db.is_none_or(|db| db == trigger.db) {
                trigger.progress.lost =
                    Some("the database was flushed while the message waited: it is gone");
            }
        }
    });
}

/// Two databases have changed places.
pub fn swapped(a: i32, b: i32) {
    let other = |db: i32| match db {
        db if db == a => b,
        db if db == b => a,
        db => db,
    };
    with(|triggers| {
        for trigger in &mut triggers.waiting {
            trigger.db = other(trigger.db);
            trigger.route.db = u32::try_from(trigger.db).unwrap_or(0);
            if let Some((db, ..)) = &mut trigger.result {
                *db = other(*db);
            }
        }
    });
}

/// Lets go of everything, before the library goes.
///
/// # Errors
/// A client waits.
pub fn shut(ctx: Ctx<'_>) -> Result<(), String> {
    with(|triggers| {
        if !triggers.waiting.is_empty() || !triggers.answers.is_empty() {
            return Err(
                "a client waits for HYGIENE.TRIGGER: let it end or CLIENT UNBLOCK it first"
                    .to_owned(),
            );
        }
        if let Some(timer) = triggers.timer.take() {
            timer.stop(ctx);
        }
        Ok(())
    })?;
    *TRIGGERS.get_mut() = None;
    WAITING.store(0, Relaxed);
    // The server drops subscriptions with the module.
    LISTENING.store(false, Relaxed);
    Ok(())
}

/// Answers clients that wait.
struct Clients;

impl Answers for Clients {
    const LET_GO: &'static str =
        "told to stop waiting; the message stays published and may still be taken";

    fn take(id: u64) -> Option<Result<Reply, String>> {
        with(|triggers| triggers.answers.remove(&id))
    }

    fn left(client: &Waiting) {
        with(|triggers| {
            for trigger in &mut triggers.waiting {
                trigger.left |= trigger.client == *client;
            }
        });
    }
}

/// One look at every message that somebody waits for.
struct LookAtAll;

impl Task for LookAtAll {
    fn fire(ctx: Ctx<'_>) {
        // Taken out meanwhile: what is called here may raise events.
        let waiting = with(|triggers| {
            triggers.timer = None;
            triggers.hurried = false;
            std::mem::take(&mut triggers.waiting)
        });
        let mut ended = Vec::new();
        let mut still = Vec::new();
        for mut trigger in waiting {
            let end = guard(|| trigger.look(ctx))
                .unwrap_or_else(|| Some(Err("internal fault, see the log".to_owned())));
            match end {
                Some(answer) => ended.push((trigger, answer)),
                None => still.push(trigger),
            }
        }
        with(|triggers| {
            triggers.waiting.append(&mut still);
            triggers.looked = Some(Instant::now());
            triggers.rearm(ctx);
        });
        for (trigger, answer) in ended {
            with(|triggers| triggers.answers.insert(trigger.id, answer));
            trigger.client.done(trigger.id);
        }
    }
}

impl Trigger {
    /// Looks what became of the message; the answer, if the wait is over.
    fn look(&mut self, ctx: Ctx<'_>) -> Option<Result<Reply, String>> {
        if self.left {
            return Some(Err("its client left".to_owned()));
        }
        let flags = ctx.flags();
        if !flags.primary() {
            return Some(Err(format!(
                "this server is no longer a primary; the task {} was published before",
                self.task_id
            )));
        }
        if !flags.loading() {
            self.look_at_result(&mut Look::new(ctx, self.user.as_deref()));
            if !self.progress.over() {
                // The message is ours, whatever the user may see beside it.
                self.look_at_queue(&mut Look::new(ctx, None));
            }
        }
        let over = self.progress.over() || self.since.elapsed() >= self.timeout;
        over.then(|| Ok(self.report(ctx)))
    }

    fn look_at_result(&mut self, look: &mut Look<'_>) {
        let Some((db, key, written_ms)) = &self.result else {
            return;
        };
        let hidden = look.hidden();
        let shown = look.key(*db, key);
        self.progress.hidden = look.hidden() > hidden;
        if let Some(found) = shown.and_then(|shown| look.string(&shown, outcome::read)) {
            if found.finished {
                self.progress.finished_ms = Some(*written_ms);
            }
            self.progress.outcome = Some(found);
        }
        let taken_ms = self.popped_ms.unwrap_or(*written_ms);
        self.progress.taken_ms.get_or_insert(taken_ms);
    }

    fn look_at_queue(&mut self, look: &mut Look<'_>) {
        self.progress.held = self.held(look);
        if self.progress.taken_ms.is_some() {
            return;
        }
        let popped_ms = self.popped_ms;
        if self.progress.held {
            self.progress.taken_ms = Some(popped_ms.unwrap_or_else(now_ms));
            return;
        }
        self.progress.ahead = None;
        match self.place(look) {
            Place::Behind(ahead) => self.progress.ahead = Some(ahead),
            Place::Unknown => {}
            Place::Gone if popped_ms.is_some() => self.progress.taken_ms = popped_ms,
            Place::Gone => {
                self.progress.lost =
                    Some("the message was removed from its queue, and no worker took it");
            }
        }
    }

    /// Whether it lies among the messages taken and not acknowledged.
    fn held(&self, look: &mut Look<'_>) -> bool {
        self.unacked.iter().any(|key| {
            let shown = look.key(self.db, key);
            shown
                .filter(|shown| shown.kind == KeyType::Hash)
                .is_some_and(|shown| {
                    look.ask(&shown, c"HEXISTS", &[self.tag.as_bytes()]) == Value::Int(1)
                })
        })
    }

    /// Where it lies in its queue. Pushed at the head, it moves to the tail.
    fn place(&self, look: &mut Look<'_>) -> Place {
        let list = look.key(self.db, &self.key);
        let Some(list) = list.filter(|list| list.kind == KeyType::List) else {
            return Place::Gone;
        };
        let most = MOST_COMPARED.to_string();
        let most = most.as_bytes();
        let ends: [&[&[u8]]; 2] = [
            &[self.message.as_bytes(), b"MAXLEN", most],
            &[self.message.as_bytes(), b"RANK", b"-1", b"MAXLEN", most],
        ];
        for words in ends {
            let at = look.ask(&list, c"LPOS", words).int();
            if let Some(at) = at.and_then(|at| u64::try_from(at).ok()) {
                return Place::Behind(list.len.saturating_sub(at.saturating_add(1)));
            }
        }
        if list.len > 2 * MOST_COMPARED {
            Place::Unknown
        } else {
            Place::Gone
        }
    }

    fn report(&self, ctx: Ctx<'_>) -> Reply {
        let waiting = self.progress.taken_ms.is_none();
        let mut reply = Report {
            task: &self.task,
            task_id: &self.task_id,
            route: &self.route,
            progress: &self.progress,
            crowd: waiting
                .then(|| evidence::connected(ctx, self.route.db))
                .flatten(),
            waited_ms: i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX),
        }
        .reply();
        if let Reply::Map(fields) = &mut reply {
            fields.push((b"acl_checked".into(), acl_checked()));
        }
        reply
    }
}

/// Where a message lies in its queue.
enum Place {
    /// Behind that many others.
    Behind(u64),
    /// In the middle of a queue too long to look through, if it is there.
    Unknown,
    /// Nowhere.
    Gone,
}
