//! `HYGIENE.JOBS` and `HYGIENE.CANCEL id`

use std::ffi::{CStr, c_int};

use crate::core::args::Args;
use crate::core::reply::Reply;
use crate::core::syntax::Arg;
use crate::server::Ctx;
use crate::server::command::{Command, Outcome};
use crate::sweep::engine;

/// Lists scans and sweeps, running and finished.
pub struct Jobs;

impl Command for Jobs {
    const NAME: &'static CStr = c"hygiene.jobs";
    const FLAGS: &'static CStr = c"readonly";
    const CATEGORIES: &'static CStr = c"read slow";
    const TIPS: &'static CStr =
        c"nondeterministic_output request_policy:all_nodes response_policy:special";
    const SUMMARY: &'static CStr = c"Lists scans and sweeps, running and finished";
    const COMPLEXITY: &'static CStr = c"O(N), N being the number of jobs listed, at most 116";
    const ARITY: c_int = 1;

    fn run(ctx: Ctx<'_>, args: &[&[u8]]) -> Outcome {
        if args.is_empty() {
            Outcome::Reply(engine::list(super::user(ctx).as_deref()))
        } else {
            Outcome::WrongArity
        }
    }
}

/// Stops a scan or a sweep.
pub struct Cancel;

impl Command for Cancel {
    const NAME: &'static CStr = c"hygiene.cancel";
    const FLAGS: &'static CStr = c"readonly admin";
    const CATEGORIES: &'static CStr = c"slow admin dangerous";
    const SUMMARY: &'static CStr = c"Stops a scan or a sweep";
    const COMPLEXITY: &'static CStr = c"O(1)";
    const ARITY: c_int = 2;
    const ARGS: &'static [Arg] = &[Arg::integer(c"id")];

    fn run(_ctx: Ctx<'_>, args: &[&[u8]]) -> Outcome {
        if args.len() != 1 {
            return Outcome::WrongArity;
        }
        match Args::new(args).number("id", 1, u64::MAX) {
            Ok(id) if engine::cancel(id) => Outcome::Reply(Reply::map([
                ("job", Reply::count(id)),
                ("state", Reply::word("cancelling")),
            ])),
            Ok(id) => Outcome::Refused(format!("no job {id} is running: HYGIENE.JOBS lists them")),
            Err(why) => Outcome::Refused(why),
        }
    }
}
