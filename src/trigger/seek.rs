//! Finding the queue: a look at the broker as BEATSTATUS takes it, and as there its
//! first slice inside the command. Beyond that the client waits, and nothing is
//! published before the look is over.

use std::time::{Duration, Instant};

use super::follow::Trigger;
use super::{Order, may_publish, publish};
use crate::core::beat::{Evidence, Refusal};
use crate::evidence::Paused;
use crate::observe;
use crate::server::Ctx;
use crate::server::command::Waiting;
use crate::server::context::{now_ms, writes_paused};

/// How far a look has come.
#[derive(Default)]
pub enum Look {
    #[default]
    Due,
    Gathers(Box<Paused>),
    Found(Box<Evidence>),
}

impl Look {
    /// Goes on until it is `enough` or all was found.
    pub fn go_on(self, ctx: Ctx<'_>, user: Option<&[u8]>, enough: impl FnMut() -> bool) -> Self {
        let look = match self {
            Self::Due => Box::new(Paused::begin(ctx, user, now_ms())),
            Self::Gathers(look) => look,
            found @ Self::Found(_) => return found,
        };
        match look.go_on(ctx, enough) {
            Err(rest) => Self::Gathers(rest),
            Ok(found) => Self::Found(Box::new(found.evidence)),
        }
    }
}

/// One whose queue is being found.
pub struct Seeking {
    pub client: Waiting,
    pub order: Order,
    /// The database that its client had selected.
    pub home: i32,
    pub look: Look,
    pub since: Instant,
    /// The client is gone.
    pub left: bool,
}

/// What a slice led to.
pub enum Step {
    /// It goes on.
    More(Seeking),
    /// It goes on in some ms: the server is not to be written to now.
    Rest(Seeking),
    /// The message is published.
    Published(Box<Trigger>),
    /// Nothing was published.
    Refused(Waiting, String),
}

impl Seeking {
    /// Goes on until it is `enough`; what was true when the client asked may have
    /// changed.
    pub fn go_on(mut self, ctx: Ctx<'_>, enough: impl FnMut() -> bool) -> Step {
        if self.since.elapsed() >= self.order.timeout {
            return Step::Refused(self.client, too_late(self.order.timeout));
        }
        let flags = ctx.flags();
        if flags.loading() && flags.primary() {
            return Step::Rest(self);
        }
        if let Err(why) = may_publish(ctx) {
            return Step::Refused(self.client, why);
        }
        let _home = ctx.home();
        if !ctx.select(self.home) {
            return Step::Refused(self.client, "its database is gone".to_owned());
        }
        self.look = self.look.go_on(ctx, self.order.user.as_deref(), enough);
        let Look::Found(evidence) = &self.look else {
            return Step::More(self);
        };
        if writes_paused() {
            return Step::Rest(self);
        }
        if let Some(why) = observe::refusal(ctx).and_then(refused) {
            return Step::Refused(self.client, why);
        }
        match publish(ctx, &self.order, evidence) {
            Ok(published) => {
                Step::Published(Box::new(Trigger::new(self.client, self.order, published)))
            }
            Err(why) => Step::Refused(self.client, why),
        }
    }
}

fn too_late(timeout: Duration) -> String {
    format!(
        "the queue was not found within {} s: nothing was published",
        timeout.as_secs()
    )
}

/// In the words of the server's own errors; a pause has none, one waits.
fn refused(refusal: Refusal) -> Option<String> {
    let why = match refusal {
        Refusal::Paused => return None,
        Refusal::Memory => "memory is at maxmemory (OOM)",
        Refusal::Disk(why) => why,
        Refusal::Replicas => "fewer replicas are in step than min-replicas-to-write (NOREPLICAS)",
    };
    Some(format!(
        "the server refuses writes: {why}; nothing was published"
    ))
}
