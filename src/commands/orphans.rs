//! `HYGIENE.ORPHANS [REQUEUE | PURGE class] [OLDERTHAN d] [LIMIT n] [DRYRUN] [ASYNC]`

use std::ffi::{CStr, c_int};

use super::{caller, once, unknown_option, user};
use crate::core::args::Args;
use crate::core::orphans::{Action, Ages, Kind, NAMES};
use crate::keyspace;
use crate::server::Ctx;
use crate::server::command::{Command, Outcome};
use crate::settings;
use crate::sweep::orphans::{OrphanOrder, Orphans as Visitor};
use crate::sweep::{Order, Scope, engine};

/// The most names that LIMIT lets a report tell of one kind: finished passes are
/// remembered with their replies.
const MOST_NAMES: usize = 1_000;

/// Finds what Celery left behind; deletes it or puts it back only when told.
pub struct Orphans;

#[derive(Debug, Default)]
pub(super) struct Options {
    action: Option<Action>,
    older_than_ms: Option<i64>,
    limit: Option<u64>,
    dry_run: Option<()>,
    asynchronous: Option<()>,
}

impl Options {
    pub(super) fn parse(words: &[&[u8]]) -> Result<Self, String> {
        let mut args = Args::new(words);
        let mut options = Self::default();
        while let Some((word, name)) = args.option() {
            match name.as_str() {
                "REQUEUE" => once(&mut options.action, Action::Requeue, "REQUEUE or PURGE")?,
                "PURGE" => once(
                    &mut options.action,
                    Action::Purge(Kind::purgeable(args.value("PURGE")?)?),
                    "REQUEUE or PURGE",
                )?,
                "OLDERTHAN" => once(
                    &mut options.older_than_ms,
                    args.span("OLDERTHAN")?,
                    "OLDERTHAN",
                )?,
                "LIMIT" => once(
                    &mut options.limit,
                    args.number("LIMIT", 1, u64::MAX)?,
                    "LIMIT",
                )?,
                "DRYRUN" => once(&mut options.dry_run, (), "DRYRUN")?,
                "ASYNC" => once(&mut options.asynchronous, (), "ASYNC")?,
                _ => {
                    return Err(unknown_option(
                        word,
                        "REQUEUE, PURGE class, OLDERTHAN d, LIMIT n, DRYRUN or ASYNC",
                    ));
                }
            }
        }
        Ok(options)
    }
}

impl Command for Orphans {
    const NAME: &'static CStr = c"hygiene.orphans";
    const FLAGS: &'static CStr = c"write admin";
    const CATEGORIES: &'static CStr = c"keyspace write slow admin dangerous";
    const TIPS: &'static CStr =
        c"nondeterministic_output request_policy:all_shards response_policy:special";
    const SUMMARY: &'static CStr =
        c"Finds what Celery left behind, deletes it or puts stuck messages back when told";
    const COMPLEXITY: &'static CStr =
        c"O(N) in slices, N being the number of keys and of unacknowledged messages";
    const ARITY: c_int = -1;

    fn run(ctx: Ctx<'_>, args: &[&[u8]]) -> Outcome {
        let current = settings::now();
        let order = Options::parse(args).and_then(|options| {
            let action = options.action.unwrap_or(Action::Report);
            let ages = Ages::of(action, options.older_than_ms, &current.settings)?;
            // Events say by themselves when they happened, messages when they were
            // taken.
            if let Action::Purge(Kind::ReplyQueue | Kind::Binding | Kind::Chord) = action
                && !keyspace::idle_times_are_kept(ctx)
            {
                return Err(format!("PURGE: {}", keyspace::NO_IDLE_TIMES));
            }
            Ok((options, action, ages))
        });
        let (options, action, ages) = match order {
            Ok(order) => order,
            Err(why) => return Outcome::Refused(why),
        };
        let user = user(ctx);
        let by = caller(ctx, user.as_deref());
        let limit = options.limit.unwrap_or(0);
        let names = match options.limit {
            Some(limit) if action == Action::Report => {
                usize::try_from(limit).unwrap_or(MOST_NAMES).min(MOST_NAMES)
            }
            _ => NAMES,
        };
        let order = OrphanOrder {
            action,
            ages,
            limit,
            names,
            dry_run: options.dry_run.is_some(),
            by: by.clone(),
        };
        engine::start_for_client(
            ctx,
            Order {
                what: "HYGIENE.ORPHANS",
                by,
                user,
                scope: Scope::All,
                visitor: Box::new(Visitor::new(order, current.names)),
            },
            options.asynchronous.is_some(),
        )
    }
}
