//! The sweep that nobody has to start: after a load, and once per interval, with
//! no beat, no worker and no client. It hangs on the server's own periodic round,
//! so that no timer of ours stands while there is nothing to do.

use std::time::Instant;

use super::engine;
use super::fix::{Fix, FixOrder};
use super::orphans::{OrphanOrder, Orphans};
use super::{Order, Scope};
use crate::core::clock::Steps;
use crate::core::keys::Class;
use crate::core::orphans::{Action, Ages, NAMES};
use crate::core::policy::Plan;
use crate::core::settings::Settings;
use crate::server::context::now_ms;
use crate::server::{Ctx, MainCell, log};
use crate::settings::{self, Current};
use crate::stats;

struct Clock {
    /// A load has ended and its sweep is owed.
    owed: Option<&'static str>,
    /// When the last one was started, Unix ms.
    last_ms: i64,
    /// When the last round was, by a clock that nobody sets.
    seen: Option<Instant>,
    steps: Steps,
}

static CLOCK: MainCell<Clock> = MainCell::new(Clock {
    owed: None,
    last_ms: 0,
    seen: None,
    steps: Steps::new(),
});

/// The module or a data set has been loaded, or this server has become a primary.
pub fn owe(why: &'static str) {
    let mut clock = CLOCK.get_mut();
    clock.owed = Some(why);
    if clock.last_ms == 0 {
        clock.last_ms = now_ms();
    }
}

const INTERVAL: &str = "sweep-interval";

impl Clock {
    /// Sees whether the wall clock was set.
    fn watch(&mut self, now_ms: i64) {
        let seen = self.seen.replace(Instant::now());
        let passed = seen.map_or(0, |seen| seen.elapsed().as_millis());
        let step = self
            .steps
            .seen(now_ms, i64::try_from(passed).unwrap_or(i64::MAX));
        if step > 0 {
            log::warning(&format!(
                "the clock was set forward by {} s: what seems that much older is left alone by \
                 sweep-orphans for as long",
                step / 1_000
            ));
        }
    }
}

/// The server's periodic round: starts what is due.
pub fn round(ctx: Ctx<'_>) {
    let current = settings::now();
    let now = now_ms();
    let what = {
        let mut clock = CLOCK.get_mut();
        clock.watch(now);
        // A clock that was set back must not silence the sweep.
        clock.last_ms = clock.last_ms.min(now);
        let owed = clock.owed.filter(|_| current.settings.sweep_on_start);
        let interval = current.settings.sweep_interval_ms;
        let due = interval > 0 && now.saturating_sub(clock.last_ms) >= interval;
        match owed.or(due.then_some(INTERVAL)) {
            Some(what) => what,
            None => {
                clock.owed = None;
                return;
            }
        }
    };
    if !ctx.flags().may_write() || engine::writing() {
        return;
    }
    {
        let mut clock = CLOCK.get_mut();
        clock.owed = None;
        clock.last_ms = now;
    }
    let order = FixOrder {
        plan: plan(&current.settings),
        classes: vec![Class::TaskResult],
        pattern: None,
        limit: 0,
        dry_run: false,
        learn: !current.settings.expected_tasks.is_empty(),
        background: true,
    };
    let seed = now.unsigned_abs();
    let visitor = Fix::new(ctx, order, current.names.clone(), seed);
    engine::start(
        ctx,
        Order {
            what: stats::SWEEP,
            by: what.to_owned(),
            user: None,
            scope: Scope::All,
            visitor: Box::new(visitor),
        },
        None,
    );
    // After a load or a failover workers first have to come back and acknowledge
    // what they did meanwhile.
    if what == INTERVAL
        && !current.settings.sweep_orphans.is_empty()
        && CLOCK.get().steps.ahead_ms() == 0
    {
        clean_orphans(ctx, &current);
    }
}

/// Does of ORPHANS' work what the operator chose; the engine lets it wait until the
/// sweep before it has written all it has to.
fn clean_orphans(ctx: Ctx<'_>, current: &Current) {
    let action = Action::Clean(current.settings.sweep_orphans);
    let Ok(ages) = Ages::of(action, None, &current.settings) else {
        return;
    };
    let order = OrphanOrder {
        action,
        ages,
        limit: 0,
        names: NAMES,
        dry_run: false,
        by: INTERVAL.to_owned(),
    };
    engine::start(
        ctx,
        Order {
            what: "SWEEP ORPHANS",
            by: INTERVAL.to_owned(),
            user: None,
            scope: Scope::All,
            visitor: Box::new(Orphans::new(order, current.names.clone())),
        },
        None,
    );
}

fn plan(settings: &Settings) -> Plan {
    Plan {
        ttl_ms: settings.default_ttl_ms,
        jitter: settings.ttl_jitter,
        basis: settings.ttl_basis,
        max_age_ms: if settings.sweep_deletes {
            settings.max_age_ms
        } else {
            0
        },
        max_ttl_ms: settings.max_ttl_ms,
    }
}

/// Forgets what is owed.
pub fn forget() {
    *CLOCK.get_mut() = Clock {
        owed: None,
        last_ms: 0,
        seen: None,
        steps: Steps::new(),
    };
}
