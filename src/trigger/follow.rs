//! What became of one message.

use std::time::{Duration, Instant};

use super::{Order, Published};
use crate::core::celery::outcome;
use crate::core::keys::KeyType;
use crate::core::reply::Reply;
use crate::core::trigger::{Progress, Report, Route};
use crate::evidence::{self, look::Look};
use crate::server::Ctx;
use crate::server::call::Value;
use crate::server::command::Waiting;
use crate::server::context::now_ms;
use crate::sweep::fix::acl_checked;

/// Messages looked through at either end of a queue: comparing one takes about
/// 20 ns, so that all that may wait take less than a slice of a sweep.
const MOST_COMPARED: u64 = 500;

/// One message and the client that waits for what becomes of it.
pub struct Trigger {
    pub id: u64,
    pub client: Waiting,
    pub user: Option<Vec<u8>>,
    pub task: String,
    pub task_id: String,
    pub tag: String,
    pub message: String,
    pub route: Route,
    pub db: i32,
    /// The queue's list.
    pub key: Vec<u8>,
    /// Hashes that a taken message may lie in.
    pub unacked: Vec<Vec<u8>>,
    pub since: Instant,
    pub timeout: Duration,
    /// The client is gone.
    pub left: bool,
    /// Its database was emptied.
    pub flushed: bool,
    /// When something was last taken from the queue.
    pub popped_ms: Option<i64>,
    /// The result's database and key, and when it was last written.
    pub result: Option<(i32, Vec<u8>, i64)>,
    pub progress: Progress,
}

impl Trigger {
    /// One that is published now, and whose client waits.
    pub fn new(client: Waiting, order: Order, published: Published) -> Self {
        Self {
            id: 0,
            client,
            user: order.user,
            task: order.task,
            task_id: published.task_id,
            tag: published.tag,
            message: published.message,
            route: published.route,
            db: published.db,
            key: published.key,
            unacked: published.unacked,
            since: Instant::now(),
            timeout: order.timeout,
            left: false,
            flushed: false,
            popped_ms: None,
            result: None,
            progress: published.progress,
        }
    }

    /// Looks what became of the message; the answer, if the wait is over.
    pub fn look(&mut self, ctx: Ctx<'_>) -> Option<Result<Reply, String>> {
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
            Place::Gone if self.flushed => {
                self.progress.lost =
                    Some("the database was flushed while the message waited: it is gone");
            }
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
        let crowd = if self.progress.over() {
            None
        } else {
            evidence::connected(ctx, self.route.db)
        };
        let mut reply = Report {
            task: &self.task,
            task_id: &self.task_id,
            route: &self.route,
            progress: &self.progress,
            crowd,
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
