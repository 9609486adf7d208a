//! `HYGIENE.ORPHANS [REQUEUE | PURGE class] [OLDERTHAN d] [DB n | ALLDBS] [LIMIT n] [DRYRUN] [ASYNC]`

use std::ffi::{CStr, c_int};

use super::{WalkOptions, caller, once, unknown_option, user};
use crate::core::args::Args;
use crate::core::orphans::{Action, Ages, Kind, Kinds, NAMES};
use crate::core::syntax::{ASYNC, Arg, DATABASES, DRYRUN, LIMIT, OLDERTHAN};
use crate::keyspace;
use crate::server::Ctx;
use crate::server::command::{Command, Outcome};
use crate::server::context::writes_denied;
use crate::settings;
use crate::sweep::orphans::{OrphanOrder, Orphans as Visitor};
use crate::sweep::{Order, engine};

/// The most names that LIMIT lets a report tell of one kind: finished passes are
/// remembered with their replies.
const MOST_NAMES: usize = 1_000;

/// Finds what Celery left behind; deletes it or puts it back only when told.
pub struct Orphans;

#[derive(Debug, Default)]
pub(super) struct Options {
    action: Option<Action>,
    walk: WalkOptions,
}

/// The options that it shares with others.
const SHARED: [&str; 6] = ["OLDERTHAN", "DB", "ALLDBS", "LIMIT", "DRYRUN", "ASYNC"];

impl Options {
    pub(super) fn parse(words: &[&[u8]]) -> Result<Self, String> {
        let mut args = Args::new(words);
        let mut options = Self::default();
        while let Some((word, name)) = args.option() {
            if options.walk.take(&SHARED, &name, &mut args)? {
                continue;
            }
            let kind = match name.as_str() {
                "REQUEUE" => Kind::Unacked,
                "PURGE" => Kind::purgeable(args.value("PURGE")?)?,
                _ => {
                    return Err(unknown_option(
                        word,
                        "REQUEUE, PURGE class, OLDERTHAN d, DB n, ALLDBS, LIMIT n, DRYRUN or ASYNC",
                    ));
                }
            };
            let action = Action::Clean(Kinds::of([kind]));
            once(&mut options.action, action, "REQUEUE or PURGE")?;
        }
        Ok(options)
    }
}

impl Command for Orphans {
    const NAME: &'static CStr = c"hygiene.orphans";
    // A report only reads, so that replicas give it: the server itself would refuse
    // them a command that may write, whatever it is asked for.
    const FLAGS: &'static CStr = c"admin";
    const CATEGORIES: &'static CStr = c"keyspace write slow admin dangerous";
    const TIPS: &'static CStr =
        c"nondeterministic_output request_policy:all_shards response_policy:special";
    const SUMMARY: &'static CStr =
        c"Finds what Celery left behind, deletes it or puts stuck messages back when told";
    const COMPLEXITY: &'static CStr =
        c"O(N) in slices, N being the number of keys and of unacknowledged messages";
    const ARITY: c_int = -1;
    const SINCE: &'static CStr = c"0.2.0";
    const ARGS: &'static [Arg] = &[
        Arg::one_of(
            c"action",
            &[
                Arg::token(c"requeue", c"REQUEUE"),
                Arg::text(c"class").after(c"PURGE"),
            ],
        )
        .optional(),
        OLDERTHAN,
        DATABASES,
        LIMIT,
        DRYRUN,
        ASYNC,
    ];

    fn run(ctx: Ctx<'_>, args: &[&[u8]]) -> Outcome {
        let current = settings::now();
        let order = Options::parse(args).and_then(|options| {
            let action = options.action.unwrap_or(Action::Report);
            let ages = Ages::of(action, options.walk.older_than_ms, &current.settings)?;
            let scope = options.walk.scope(ctx)?;
            if action.needs_idle_times() && !keyspace::idle_times_are_kept(ctx) {
                return Err(format!("PURGE: {}", keyspace::NO_IDLE_TIMES));
            }
            Ok((options, action, ages, scope))
        });
        let (options, action, ages, scope) = match order {
            Ok(order) => order,
            Err(why) => return Outcome::Refused(why),
        };
        let options = options.walk;
        let order = OrphanOrder {
            action,
            ages,
            limit: options.limit.unwrap_or(0),
            names: names(action, options.limit),
            dry_run: options.dry_run.is_some(),
            by: String::new(),
        };
        if order.writes()
            && let Some((code, why)) = writes_denied(ctx)
        {
            return Outcome::Denied(code, why);
        }
        let user = user(ctx);
        let by = caller(ctx, user.as_deref());
        let order = OrphanOrder {
            by: by.clone(),
            ..order
        };
        engine::start_for_client(
            ctx,
            Order {
                what: "HYGIENE.ORPHANS",
                by,
                user,
                scope,
                visitor: Box::new(Visitor::new(order, current.names)),
            },
            options.asynchronous.is_some(),
        )
    }
}

/// How many names of each kind are told: in a report LIMIT says it.
fn names(action: Action, limit: Option<u64>) -> usize {
    match limit {
        Some(limit) if action == Action::Report => {
            usize::try_from(limit).unwrap_or(MOST_NAMES).min(MOST_NAMES)
        }
        _ => NAMES,
    }
}
