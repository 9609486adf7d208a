//! `HYGIENE.STATS [FIELD name | RESET]`

use std::borrow::Cow;
use std::ffi::{CStr, c_int};

use super::{unknown_option, user};
use crate::core::args::{Args, quoted};
use crate::core::reply::Reply;
use crate::core::syntax::Arg;
use crate::server::acl::{Right, User};
use crate::server::command::{Command, Outcome};
use crate::server::{Ctx, Str};
use crate::{stats, verdict};

/// Tells what the module has done and what its last looks have found, as flat
/// numbers. They lie ready: it costs the same whatever the server holds.
pub struct Stats;

impl Command for Stats {
    const NAME: &'static CStr = c"hygiene.stats";
    const FLAGS: &'static CStr = c"readonly";
    const CATEGORIES: &'static CStr = c"read slow";
    // As INFO.
    const TIPS: &'static CStr =
        c"nondeterministic_output request_policy:all_shards response_policy:special";
    const SUMMARY: &'static CStr = c"Flat numbers for a monitor; nothing is looked up for them";
    const COMPLEXITY: &'static CStr = c"O(1)";
    const ARITY: c_int = -1;
    const SINCE: &'static CStr = c"0.2.0";
    const ARGS: &'static [Arg] = &[Arg::one_of(
        c"action",
        &[
            Arg::text(c"name").after(c"FIELD"),
            Arg::token(c"reset", c"RESET"),
        ],
    )
    .optional()];

    fn run(ctx: Ctx<'_>, words: &[&[u8]]) -> Outcome {
        let mut args = Args::new(words);
        let Some((word, name)) = args.option() else {
            return Outcome::Reply(all(ctx));
        };
        let wanted = match name.as_str() {
            "FIELD" => match args.value("FIELD") {
                Ok(field) => Some(field),
                Err(why) => return Outcome::Refused(why),
            },
            "RESET" => None,
            _ => return Outcome::Refused(unknown_option(word, "FIELD or RESET")),
        };
        if let Some(word) = args.peek() {
            return Outcome::Refused(unknown_option(word, "nothing behind it"));
        }
        let Some(wanted) = wanted else {
            stats::reset();
            return Outcome::Reply(Reply::Done);
        };
        field(ctx, wanted)
            .ok_or_else(|| format!("no field {}: HYGIENE.STATS lists them", quoted(wanted)))
            .into()
    }
}

fn all(ctx: Ctx<'_>) -> Reply {
    let fixed = stats::figures()
        .into_iter()
        .map(|(name, figure)| (Cow::Borrowed(name.as_bytes()), figure.into()));
    let queues = verdict::queue_figures(shown_to(ctx))
        .into_iter()
        .map(|(name, figure)| (Cow::Owned(name.into_bytes()), figure.into()));
    Reply::Map(fixed.chain(queues).collect())
}

fn field(ctx: Ctx<'_>, wanted: &[u8]) -> Option<Reply> {
    let fixed = stats::figures()
        .into_iter()
        .find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(wanted));
    if let Some((_, figure)) = fixed {
        return Some(figure.into());
    }
    let queue = verdict::queue_figures(shown_to(ctx))
        .into_iter()
        .find(|(name, _)| name.as_bytes() == wanted);
    queue.map(|(_, figure)| figure.into())
}

/// Whether the caller may look at a queue's key: its name tells what it is for.
fn shown_to(ctx: Ctx<'_>) -> impl Fn(&[u8]) -> bool {
    let user = user(ctx).map(|name| User::named(&name));
    move |key: &[u8]| match &user {
        None => true,
        Some(None) => false,
        Some(Some(user)) => Str::new(key).is_some_and(|key| user.may(Right::Access, &key)),
    }
}
