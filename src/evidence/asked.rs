//! Those who ask about periodic work: the first slice of a look is taken inside their
//! own command, which is enough for most brokers. Beyond it they wait, and a timer takes
//! the rest slice by slice.
//!
//! One look is under way at a time, whoever asks: it may hold a megabyte of messages.
//! Those of one user who come before it begins share it.

use std::collections::{HashMap, VecDeque};

use super::judging::Judging;
use super::{Gathered, Paused, gather_a_little};
use crate::core::beat::{self, Assessment};
use crate::core::reply::Reply;
use crate::server::command::{Answers, Outcome, Waiting};
use crate::server::context::now_ms;
use crate::server::guard::{Entry, guard};
use crate::server::timer::{Task, Timer};
use crate::server::{Ctx, MainCell};
use crate::slice::{self, Paced};

/// How long a look rests while the data set is being loaded, in ms.
const REST_MS: u64 = 50;

/// What the caller may know at this moment.
pub struct Status {
    /// What the evidence adds up to.
    pub assessment: Assessment,
    /// Keys that are there and that the caller has no right to look at.
    pub skipped_noperm: u64,
    /// The moment, Unix ms.
    pub now_ms: i64,
}

impl Status {
    fn of(found: &Gathered) -> Self {
        let now_ms = now_ms();
        Self {
            assessment: beat::judge(&found.evidence, now_ms),
            skipped_noperm: found.skipped_noperm,
            now_ms,
        }
    }
}

/// Puts it in the words of the command that was called.
pub type Show = fn(&Status) -> Reply;

/// Answers what was asked with the rights of that user, now or when the look is over.
pub fn ask(ctx: Ctx<'_>, user: Option<Vec<u8>>, show: Show) -> Outcome {
    let at_once = |ctx| {
        let found = gather_a_little(ctx, user.as_deref(), now_ms());
        Outcome::Reply(show(&Status::of(&found)))
    };
    if ctx.flags().deny_blocking() {
        return at_once(ctx);
    }
    let mut looking = Looking::Due;
    if with(|looks| looks.asked.is_empty()) {
        let slice = slice::Slice::begin();
        looking = looking.go_on(ctx, user.as_deref(), || slice.over());
        slice.end();
        if let Looking::Answers(status) = &looking {
            return Outcome::Reply(show(status));
        }
    }
    let Some(waiting) = Waiting::block::<Clients>(ctx) else {
        return at_once(ctx);
    };
    let client = Client {
        waiting,
        show,
        left: false,
    };
    with(|looks| looks.join(ctx, user, client, looking));
    Outcome::Waits
}

/// How far a look has come.
#[derive(Default)]
enum Looking {
    #[default]
    Due,
    Gathers(Box<Paused>),
    Found(Box<Gathered>),
    Judges {
        judging: Judging,
        skipped_noperm: u64,
        now_ms: i64,
    },
    Answers(Box<Status>),
    /// An internal fault ended it.
    Failed,
}

impl Looking {
    /// Goes on until it is `enough` or there is an answer.
    fn go_on(self, ctx: Ctx<'_>, user: Option<&[u8]>, mut enough: impl FnMut() -> bool) -> Self {
        let mut looking = self;
        loop {
            looking = match looking {
                Self::Due => Self::Gathers(Box::new(Paused::begin(ctx, user, now_ms()))),
                Self::Gathers(look) => match look.go_on(ctx, &mut enough) {
                    Err(rest) => Self::Gathers(rest),
                    Ok(found) => Self::Found(Box::new(found.with_limits_told(ctx))),
                },
                Self::Found(found) => {
                    let now_ms = now_ms();
                    Self::Judges {
                        judging: Judging::begin(found.evidence, now_ms),
                        skipped_noperm: found.skipped_noperm,
                        now_ms,
                    }
                }
                Self::Judges {
                    judging,
                    skipped_noperm,
                    now_ms,
                } => match judging.go_on() {
                    Judging::Done(assessment) => Self::Answers(Box::new(Status {
                        assessment: *assessment,
                        skipped_noperm,
                        now_ms,
                    })),
                    Judging::Failed => Self::Failed,
                    judging @ Judging::Beside(_) => {
                        return Self::Judges {
                            judging,
                            skipped_noperm,
                            now_ms,
                        };
                    }
                },
                end @ (Self::Answers(_) | Self::Failed) => return end,
            };
            if enough() {
                return looking;
            }
        }
    }
}

/// One who waits.
struct Client {
    waiting: Waiting,
    show: Show,
    left: bool,
}

/// Those who share a look.
struct Asked {
    user: Option<Vec<u8>>,
    /// The database that they had selected: it is looked at whatever its number.
    db: i32,
    clients: Vec<Client>,
}

#[derive(Default)]
struct Looks {
    /// In the order in which they asked; for the first the look is under way.
    asked: VecDeque<Asked>,
    looking: Looking,
    answers: HashMap<u64, Result<Reply, String>>,
    last_id: u64,
    timer: Option<Timer>,
    paced: Paced,
}

static LOOKS: MainCell<Option<Looks>> = MainCell::new(None);

fn with<R>(work: impl FnOnce(&mut Looks) -> R) -> R {
    work(LOOKS.get_mut().get_or_insert_default())
}

impl Looks {
    /// One more waits: with those who asked for the same, and whose look has not begun.
    fn join(&mut self, ctx: Ctx<'_>, user: Option<Vec<u8>>, client: Client, looking: Looking) {
        let db = ctx.db();
        if self.asked.is_empty() {
            self.looking = looking;
            self.paced = Paced::after_a_slice();
        }
        let waits = self.asked.iter_mut().skip(1);
        let mut alike = waits.filter(|asked| asked.db == db && asked.user == user);
        match alike.next() {
            Some(asked) => asked.clients.push(client),
            None => self.asked.push_back(Asked {
                user,
                db,
                clients: vec![client],
            }),
        }
        self.rearm(ctx, 1);
    }

    fn rearm(&mut self, ctx: Ctx<'_>, ms: u64) {
        if self.timer.is_none() && !self.asked.is_empty() {
            self.timer = Timer::arm::<Slice>(ctx, ms);
        }
    }

    /// Those whose turn it is, without any who have left. With the last of them goes
    /// their look.
    fn next(&mut self) -> Option<(Asked, Looking)> {
        self.timer = None;
        for asked in &mut self.asked {
            asked.clients.retain(|client| !client.left);
        }
        if self.asked.front()?.clients.is_empty() {
            self.looking = Looking::Due;
        }
        self.asked.retain(|asked| !asked.clients.is_empty());
        let asked = self.asked.pop_front()?;
        Some((asked, std::mem::take(&mut self.looking)))
    }
}

/// One slice of one look.
struct Slice;

impl Task for Slice {
    fn fire(ctx: Ctx<'_>) {
        let Some((asked, looking)) = with(Looks::next) else {
            return;
        };
        if ctx.flags().loading() {
            with(|looks| {
                looks.asked.push_front(asked);
                looks.looking = looking;
                looks.rearm(ctx, REST_MS);
            });
            return;
        }
        let slice = with(|looks| looks.paced.begin(0));
        let rest = guard(Entry::Slice, || asked.go_on(ctx, looking, || slice.over()));
        let spent_us = slice.end();
        with(|looks| {
            if let Some(Some((asked, looking))) = rest {
                looks.asked.push_front(asked);
                looks.looking = looking;
            }
            let wait = looks.paced.end(spent_us, 0).ms();
            looks.rearm(ctx, wait);
        });
    }

    /// Those who were on the stack are gone, and were told so.
    fn failed(ctx: Ctx<'_>) {
        with(|looks| {
            looks.timer = None;
            looks.rearm(ctx, REST_MS);
        });
    }
}

impl Asked {
    /// Goes on with their look, then answers them one by one, until it is `enough`: what
    /// is left of that.
    fn go_on(
        mut self,
        ctx: Ctx<'_>,
        looking: Looking,
        mut enough: impl FnMut() -> bool,
    ) -> Option<(Self, Looking)> {
        ctx.select(self.db);
        let looking = looking.go_on(ctx, self.user.as_deref(), &mut enough);
        if matches!(looking, Looking::Failed) {
            // Whoever waits is told so.
            return None;
        }
        if let Looking::Answers(status) = &looking {
            while let Some(client) = self.clients.pop() {
                let reply = (client.show)(status);
                let id = with(|looks| {
                    looks.last_id += 1;
                    looks.answers.insert(looks.last_id, Ok(reply));
                    looks.last_id
                });
                client.waiting.done(id);
                if enough() {
                    break;
                }
            }
        }
        (!self.clients.is_empty()).then_some((self, looking))
    }
}

/// Answers clients that wait.
struct Clients;

impl Answers for Clients {
    const LET_GO: &'static str = "told to stop waiting; nothing was changed";

    fn take(id: u64) -> Option<Result<Reply, String>> {
        with(|looks| looks.answers.remove(&id))
    }

    fn left(client: &Waiting) {
        with(|looks| {
            let clients = looks.asked.iter_mut().flat_map(|asked| &mut asked.clients);
            for waits in clients {
                waits.left |= waits.waiting == *client;
            }
        });
    }
}

/// Lets go of everything, before the library goes.
///
/// # Errors
/// A client waits.
pub fn shut(ctx: Ctx<'_>) -> Result<(), String> {
    with(|looks| {
        if !looks.asked.is_empty() || !looks.answers.is_empty() {
            return Err(
                "a client waits for HYGIENE.BEATSTATUS or HYGIENE.DOCTOR: let it end or CLIENT \
                 UNBLOCK it first"
                    .to_owned(),
            );
        }
        if let Some(timer) = looks.timer.take() {
            timer.stop(ctx);
        }
        Ok(())
    })?;
    *LOOKS.get_mut() = None;
    Ok(())
}
