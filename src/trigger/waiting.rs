//! The clients that wait, and when to look.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::follow::Trigger;
use super::seek::{Look, Seeking, Step};
use crate::core::keys::result_id;
use crate::core::reply::Reply;
use crate::server::command::{Answers, Waiting};
use crate::server::context::{db_number, now_ms};
use crate::server::events::Written;
use crate::server::guard::{Entry, guard};
use crate::server::timer::{Task, Timer};
use crate::server::{Ctx, MainCell};
use crate::settings;
use crate::slice::Paced;

/// Clients that wait at once; more are refused.
pub const MOST_WAITING: usize = 16;

/// Between two looks, at least, so that a busy queue does not have us look all the
/// time, and at most.
const SOON: Duration = Duration::from_millis(5);
const LATEST: Duration = Duration::from_millis(100);

/// How long a search for a queue rests while the server is not to be written to, in ms.
const REST_MS: u64 = 50;

#[derive(Default)]
struct Triggers {
    waiting: Vec<Trigger>,
    answers: HashMap<u64, Result<Reply, String>>,
    last_id: u64,
    timer: Option<Timer>,
    /// The timer was armed by an event.
    hurried: bool,
    looked: Option<Instant>,
    /// Those whose queue is being found, one after the other.
    seeking: VecDeque<Seeking>,
    seeks: Option<Timer>,
    paced: Paced,
}

static TRIGGERS: MainCell<Option<Triggers>> = MainCell::new(None);

/// How many wait: all that a write looks at while none does.
static WAITING: AtomicUsize = AtomicUsize::new(0);

fn with<R>(work: impl FnOnce(&mut Triggers) -> R) -> R {
    work(TRIGGERS.get_mut().get_or_insert_default())
}

/// How many wait.
pub fn count() -> usize {
    WAITING.load(Relaxed)
}

/// Whether a queue is being found: of such looks one goes on at a time.
pub fn somebody_seeks() -> bool {
    with(|triggers| !triggers.seeking.is_empty())
}

/// Goes on to find the queue of one more.
pub fn seek(ctx: Ctx<'_>, seeking: Seeking) {
    with(|triggers| {
        if triggers.seeking.is_empty() {
            triggers.paced = Paced::after_a_slice();
        }
        triggers.seeking.push_back(seeking);
        triggers.rearm_seeks(ctx, 1);
    });
}

/// Follows one more.
pub fn add(ctx: Ctx<'_>, trigger: Trigger) {
    with(|triggers| triggers.follow(ctx, trigger));
}

impl Triggers {
    /// Arms the timer if there is none and somebody waits.
    fn rearm(&mut self, ctx: Ctx<'_>) {
        self.counted();
        let left = |trigger: &Trigger| trigger.timeout.saturating_sub(trigger.since.elapsed());
        let Some(next) = self.waiting.iter().map(left).min() else {
            return;
        };
        if self.timer.is_none() {
            self.timer = arm(ctx, next.min(LATEST));
        }
    }

    fn follow(&mut self, ctx: Ctx<'_>, mut trigger: Trigger) {
        self.last_id += 1;
        trigger.id = self.last_id;
        self.waiting.push(trigger);
        self.rearm(ctx);
    }

    fn counted(&self) {
        WAITING.store(self.waiting.len() + self.seeking.len(), Relaxed);
    }

    fn rearm_seeks(&mut self, ctx: Ctx<'_>, ms: u64) {
        self.counted();
        if self.seeks.is_none() && !self.seeking.is_empty() {
            self.seeks = Timer::arm::<Seek>(ctx, ms);
        }
    }

    /// Answers a client, when what is on the stack has returned.
    fn answer(&mut self, client: Waiting, answer: Result<Reply, String>) {
        self.last_id += 1;
        self.answers.insert(self.last_id, answer);
        client.done(self.last_id);
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

/// A list was changed: perhaps a worker took what somebody waits for.
pub fn popped(ctx: Ctx<'_>, what: &Written<'_>) {
    if count() == 0 || !matches!(what.event(), b"rpop" | b"lpop") {
        return;
    }
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

/// A string was written: perhaps the result that somebody waits for. That is told
/// by the id at the end of its key: it may lie in any database, behind any prefix.
pub fn stored(ctx: Ctx<'_>, what: &Written<'_>) {
    if count() == 0 {
        return;
    }
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
    result_id(key) == Some(task_id.as_bytes())
        || settings::with(|current| current.names.task_result(key)) == Some(true)
}

/// The database has been emptied, or with `None` all of them. Whether what waited is
/// gone is looked up: a DEBUG RELOAD empties all and brings it back.
pub fn flushed(db: Option<i32>) {
    with(|triggers| {
        begin_anew(&mut triggers.seeking);
        for trigger in &mut triggers.waiting {
            if trigger.progress.taken_ms.is_none() && db.is_none_or(|db| db == trigger.db) {
                trigger.flushed = true;
            }
        }
    });
}

/// What was seen so far lies there no longer, or elsewhere.
fn begin_anew(seeking: &mut VecDeque<Seeking>) {
    for seeking in seeking {
        seeking.look = Look::Due;
    }
}

/// Two databases have changed places.
pub fn swapped(a: i32, b: i32) {
    let other = |db: i32| match db {
        db if db == a => b,
        db if db == b => a,
        db => db,
    };
    with(|triggers| {
        begin_anew(&mut triggers.seeking);
        for trigger in &mut triggers.waiting {
            trigger.db = other(trigger.db);
            trigger.route.db = db_number(trigger.db);
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
        let nobody = triggers.waiting.is_empty() && triggers.seeking.is_empty();
        if !nobody || !triggers.answers.is_empty() {
            return Err(
                "a client waits for HYGIENE.TRIGGER: let it end or CLIENT UNBLOCK it first"
                    .to_owned(),
            );
        }
        let timers = [triggers.timer.take(), triggers.seeks.take()];
        for timer in timers.into_iter().flatten() {
            timer.stop(ctx);
        }
        Ok(())
    })?;
    *TRIGGERS.get_mut() = None;
    WAITING.store(0, Relaxed);
    Ok(())
}

/// Answers clients that wait.
pub struct Clients;

impl Answers for Clients {
    const LET_GO: &'static str =
        "told to stop waiting; once published the message stays and may still be taken";

    fn take(id: u64) -> Option<Result<Reply, String>> {
        with(|triggers| triggers.answers.remove(&id))
    }

    fn left(client: &Waiting) {
        with(|triggers| {
            for trigger in &mut triggers.waiting {
                trigger.left |= trigger.client == *client;
            }
            for seeking in &mut triggers.seeking {
                seeking.left |= seeking.client == *client;
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
            let end = guard(Entry::Slice, || trigger.look(ctx))
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

    /// Those that were on the stack are gone, and their clients told so.
    fn failed(ctx: Ctx<'_>) {
        with(|triggers| {
            triggers.timer = None;
            triggers.hurried = false;
            triggers.rearm(ctx);
        });
    }
}

/// One slice of one search for a queue.
struct Seek;

impl Task for Seek {
    fn fire(ctx: Ctx<'_>) {
        let seeking = with(|triggers| {
            triggers.seeks = None;
            triggers.seeking.retain(|seeking| !seeking.left);
            triggers.counted();
            triggers.seeking.pop_front()
        });
        let Some(seeking) = seeking else {
            return;
        };
        let slice = with(|triggers| triggers.paced.begin(0));
        let step = guard(Entry::Slice, || seeking.go_on(ctx, || slice.over()));
        let spent_us = slice.end();
        with(|triggers| {
            let mut wait_ms = triggers.paced.end(spent_us, 0).ms();
            match step {
                Some(Step::More(seeking)) => triggers.seeking.push_front(seeking),
                Some(Step::Rest(seeking)) => {
                    triggers.seeking.push_front(seeking);
                    wait_ms = REST_MS;
                }
                Some(Step::Refused(client, why)) => triggers.answer(client, Err(why)),
                Some(Step::Published(trigger)) => triggers.follow(ctx, *trigger),
                // A fault of ours, and its client is told.
                None => {}
            }
            triggers.rearm_seeks(ctx, wait_ms);
        });
    }

    /// Who was on the stack is gone, and was told so.
    fn failed(ctx: Ctx<'_>) {
        with(|triggers| {
            triggers.seeks = None;
            triggers.rearm_seeks(ctx, REST_MS);
        });
    }
}
