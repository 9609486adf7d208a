//! `HYGIENE.HELP`

use std::ffi::CStr;

use crate::core::reply::Reply;
use crate::server::Ctx;
use crate::server::command::{Command, Outcome};

/// Lists the commands.
pub struct Help;

const LINES: &[&str] = &[
    "HYGIENE.<COMMAND> [options]. Commands are:",
    "BEATSTATUS [VERBOSE]",
    "    Whether periodic work happens, and if not, which link is broken.",
    "CANCEL id",
    "    Stops a scan or a sweep.",
    "CONFIG GET glob [glob ...] | SET name value [name value ...]",
    "    Shows or changes settings; the same as CONFIG GET hygiene.* where the server has it.",
    "FIXTTL [TTL d] [JITTER p%] [FROMDONE] [MAXAGE d] [CLASS c ...] [MATCH glob]",
    "       [DB n | ALLDBS] [LIMIT n] [DRYRUN] [ASYNC]",
    "    Gives every task result without TTL one and deletes finished ones older than MAXAGE.",
    "JOBS",
    "    Lists scans and sweeps, running and finished.",
    "SCAN [DB n | ALLDBS] [PREFIX p] [MATCH glob] [MEMORY EXACT|SAMPLE|OFF] [TOP n] [ASYNC]",
    "    Counts what lies in the databases, by class; changes nothing.",
    "HELP",
    "    Prints this help.",
    "Durations are seconds, or a number with s, m, h or d.",
];

impl Command for Help {
    const NAME: &'static CStr = c"hygiene.help";
    const FLAGS: &'static CStr = c"readonly";
    const CATEGORIES: &'static CStr = c"slow";

    fn run(_ctx: Ctx<'_>, args: &[&[u8]]) -> Outcome {
        if !args.is_empty() {
            return Outcome::WrongArity;
        }
        Outcome::Reply(Reply::Array(
            LINES.iter().map(|line| Reply::word(line)).collect(),
        ))
    }
}
