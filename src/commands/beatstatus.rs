//! `HYGIENE.BEATSTATUS [VERBOSE]`

use std::borrow::Cow;
use std::ffi::{CStr, c_int};

use super::{once, unknown_option, user};
use crate::core::args::Args;
use crate::core::beat;
use crate::core::reply::Reply;
use crate::core::syntax::Arg;
use crate::evidence::asked::{self, Status};
use crate::server::Ctx;
use crate::server::command::{Command, Outcome};
use crate::server::guard::events_off;
use crate::sweep::fix::acl_checked;

/// Answers whether periodic work happens, and if not, which link is broken.
///
/// Only looks, within bounds, so it runs in scripts, in transactions and on replicas
/// too.
pub struct BeatStatus;

impl Command for BeatStatus {
    const NAME: &'static CStr = c"hygiene.beatstatus";
    const FLAGS: &'static CStr = c"readonly";
    const CATEGORIES: &'static CStr = c"read slow dangerous";
    const TIPS: &'static CStr =
        c"nondeterministic_output request_policy:all_shards response_policy:special";
    const SUMMARY: &'static CStr =
        c"Whether periodic work happens, and if not, which link is broken";
    const COMPLEXITY: &'static CStr =
        c"O(N) in slices, N being queues, clients and messages looked at, each bounded";
    const ARITY: c_int = -1;
    const ARGS: &'static [Arg] = &[Arg::token(c"verbose", c"VERBOSE").optional()];

    fn run(ctx: Ctx<'_>, args: &[&[u8]]) -> Outcome {
        let verbose = match options(args) {
            Ok(verbose) => verbose,
            Err(why) => return Outcome::Refused(why),
        };
        let show = if verbose { show::<true> } else { show::<false> };
        asked::ask(ctx, user(ctx), show)
    }
}

fn show<const VERBOSE: bool>(status: &Status) -> Reply {
    let mut reply = beat::reply(&status.assessment, VERBOSE);
    if let Reply::Map(fields) = &mut reply {
        let mut add = |name: &'static str, value| {
            fields.push((Cow::Borrowed(name.as_bytes()), value));
        };
        add("skipped_noperm", Reply::count(status.skipped_noperm));
        add("acl_checked", acl_checked());
        let hook = if events_off() { "off" } else { "on" };
        add("hook", Reply::word(hook));
    }
    reply
}

/// Whether VERBOSE is asked for.
pub(super) fn options(words: &[&[u8]]) -> Result<bool, String> {
    let mut verbose = None;
    let mut args = Args::new(words);
    while let Some((word, name)) = args.option() {
        match name.as_str() {
            "VERBOSE" => once(&mut verbose, (), "VERBOSE")?,
            _ => return Err(unknown_option(word, "VERBOSE")),
        }
    }
    Ok(verbose.is_some())
}
