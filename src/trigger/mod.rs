//! HYGIENE.TRIGGER: publishes one message and follows it to its result.
//!
//! Events tell when to look: a pop from the queue, a write of a result whose key
//! ends in the task's id. What is true is then looked up: whether the message
//! still lies in the queue, or among the unacknowledged, and what its result says.
//! One timer serves all that wait, and there is none while nobody does.

mod follow;
mod seek;
mod waiting;

use std::time::{Duration, Instant};

use crate::core::beat::Evidence;
use crate::core::celery::message::{Message, uuid};
use crate::core::keys::{Class, KeyType};
use crate::core::trigger::{Asked, Progress, Route, route};
use crate::evidence::look::Look;
use crate::known;
use crate::server::acl::{Right, User};
use crate::server::call::{self, Value};
use crate::server::command::{Outcome, Waiting};
use crate::server::context::{db_number, now_ms, random_bytes};
use crate::server::{Ctx, Str};
use crate::slice::Slice;
use follow::Trigger;
use seek::Seeking;
use waiting::{Clients, MOST_WAITING};
pub use waiting::{flushed, popped, shut, stored, swapped};

/// What is to be published.
pub struct Order {
    /// The task's name.
    pub task: String,
    /// QUEUE.
    pub queue: Option<String>,
    /// Positional arguments, a JSON array.
    pub args: String,
    /// Named arguments, a JSON object.
    pub kwargs: String,
    /// How long to wait for the result.
    pub timeout: Duration,
    /// DB.
    pub db: Option<u32>,
    /// The calling user, where the server tells.
    pub user: Option<Vec<u8>>,
}

/// A message that was pushed to its queue.
struct Published {
    task_id: String,
    tag: String,
    message: String,
    route: Route,
    db: i32,
    /// The queue's list.
    key: Vec<u8>,
    /// Hashes that a taken message may lie in.
    unacked: Vec<Vec<u8>>,
    progress: Progress,
}

/// Publishes and lets the client wait. Nothing is written where anything is refused.
pub fn start(ctx: Ctx<'_>, order: Order) -> Outcome {
    match begin(ctx, order) {
        Ok(()) => Outcome::Waits,
        Err(why) => Outcome::Refused(why),
    }
}

fn begin(ctx: Ctx<'_>, order: Order) -> Result<(), String> {
    may_wait(ctx)?;
    let home = ctx.db();
    let mut look = seek::Look::Due;
    if !waiting::somebody_seeks() {
        let slice = Slice::begin();
        look = look.go_on(ctx, order.user.as_deref(), || slice.over());
        slice.end();
    }
    if let seek::Look::Found(evidence) = &look {
        let published = {
            let _home = ctx.home();
            publish(ctx, &order, evidence)?
        };
        let client = Waiting::block::<Clients>(ctx)
            .ok_or("published, but the server does not let this client wait for the result")?;
        waiting::add(ctx, Trigger::new(client, order, published));
        return Ok(());
    }
    let client = Waiting::block::<Clients>(ctx)
        .ok_or("the server does not let this client wait; nothing was published")?;
    let seeking = Seeking {
        client,
        order,
        home,
        look,
        since: Instant::now(),
        left: false,
    };
    waiting::seek(ctx, seeking);
    Ok(())
}

/// Pushes the message to the queue that the evidence points to, seen from the client's
/// own database, which is selected.
fn publish(ctx: Ctx<'_>, order: &Order, evidence: &Evidence) -> Result<Published, String> {
    let asked = Asked {
        task: &order.task,
        queue: order.queue.as_deref().map(str::as_bytes),
        db: order.db,
        home: db_number(ctx.db()),
    };
    let route = route(evidence, &asked)?;
    let db = i32::try_from(route.db).unwrap_or(0);
    let key = route.key();
    may_push(ctx, order, &route)?;

    let queue = String::from_utf8(route.queue.clone())
        .map_err(|_| "the queue's name is no UTF-8, so it cannot stand in a message".to_owned())?;
    let (task_id, tag) = (uuid(random_bytes()), uuid(random_bytes()));
    let message = Message {
        task: &order.task,
        id: &task_id,
        tag: &tag,
        queue: &queue,
        args: &order.args,
        kwargs: &order.kwargs,
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
    let mut unacked = vec![route.unacked()];
    unacked.extend(other_unacked(evidence, &route));
    Ok(Published {
        task_id,
        tag,
        message,
        route,
        db,
        key,
        unacked,
        progress: Progress {
            published_ms,
            leaves_results: leaves_results(evidence, &order.task),
            ..Progress::default()
        },
    })
}

/// Whether runs of the task were seen to leave results: in a sweep, or as its messages
/// and results passed. So many messages whose results never came tell that it leaves
/// none.
fn leaves_results(evidence: &Evidence, task: &str) -> Option<bool> {
    const ENOUGH: u64 = 3;
    let lines = || evidence.heard.lines.iter().filter(|line| line.task == task);
    if evidence.results.iter().any(|end| end.task == task) || lines().any(|line| line.end.is_some())
    {
        return Some(true);
    }
    let sent = lines()
        .flat_map(|line| &line.voices)
        .map(|voice| voice.count);
    (sent.sum::<u64>() >= ENOUGH).then_some(false)
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
    may_publish(ctx)?;
    if waiting::count() >= MOST_WAITING {
        return Err(format!(
            "{MOST_WAITING} clients wait for HYGIENE.TRIGGER already: try again when one is answered"
        ));
    }
    Ok(())
}

fn may_publish(ctx: Ctx<'_>) -> Result<(), String> {
    if ctx.flags().may_write() {
        Ok(())
    } else {
        Err("this server is a replica or is loading: ask its primary".to_owned())
    }
}

/// Whether the queue is one that a worker could read from, and the caller may
/// write to.
fn may_push(ctx: Ctx<'_>, order: &Order, route: &Route) -> Result<(), String> {
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
