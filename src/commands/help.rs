//! `HYGIENE.HELP`

use std::ffi::{CStr, c_int};

use crate::core::reply::Reply;
use crate::server::Ctx;
use crate::server::command::{Command, Outcome};

/// Lists the commands.
pub struct Help;

const LINES: &[&str] = &[
    "HYGIENE.BEATSTATUS [VERBOSE]",
    "    Whether periodic work happens, and if not, which link is broken.",
    "HYGIENE.CANCEL id",
    "    Stops a scan or a sweep.",
    "HYGIENE.CONFIG GET glob [glob ...] | SET name value [name value ...]",
    "    Shows or changes settings; the same as CONFIG GET hygiene.* where the server has it.",
    "HYGIENE.DOCTOR",
    "    The same as text for a person, worst first, with what to type next.",
    "HYGIENE.FIXTTL [TTL d] [JITTER p%] [FROMDONE] [MAXAGE d] [CLASS c ...] [MATCH glob]",
    "               [DB n | ALLDBS] [LIMIT n] [DRYRUN] [ASYNC]",
    "    Gives every task result without TTL one and deletes finished ones older than MAXAGE.",
    "HYGIENE.JOBS",
    "    Lists scans and sweeps, running and finished.",
    "HYGIENE.KEYS cursor [CLASS c] [NOTTL | TTLBELOW d | TTLABOVE d] [OLDERTHAN d] [MATCH glob]",
    "             [COUNT n]",
    "    SCAN with filters: iterates over keys of a class, a TTL or an idle time.",
    "HYGIENE.ORPHANS [REQUEUE | PURGE class] [OLDERTHAN d] [DB n | ALLDBS] [LIMIT n] [DRYRUN] [ASYNC]",
    "    Finds what Celery left behind; REQUEUE puts stuck messages back, PURGE deletes",
    "    reply_queue, event_queue, binding or chord remains.",
    "HYGIENE.SCAN [DB n | ALLDBS] [PREFIX p] [MATCH glob] [MEMORY EXACT|SAMPLE|OFF] [TOP n] [ASYNC]",
    "    Counts what lies in the databases, by class; changes nothing.",
    "HYGIENE.STATS [FIELD name | RESET]",
    "    Flat numbers for a monitor, or one of them; RESET sets the counters back.",
    "HYGIENE.TRIGGER task [QUEUE q] [ARGS json] [KWARGS json] [TIMEOUT d] [DB n]",
    "    Publishes a task, waits for its result, and tells which link did not move.",
    "HYGIENE.HELP",
    "    Prints this help.",
    "Durations are seconds, or a number with s, m, h or d.",
];

impl Command for Help {
    const NAME: &'static CStr = c"hygiene.help";
    const FLAGS: &'static CStr = c"readonly";
    const CATEGORIES: &'static CStr = c"slow";
    const SUMMARY: &'static CStr = c"Lists the module's commands";
    const COMPLEXITY: &'static CStr = c"O(1)";
    const ARITY: c_int = 1;

    fn run(_ctx: Ctx<'_>, args: &[&[u8]]) -> Outcome {
        if !args.is_empty() {
            return Outcome::WrongArity;
        }
        Outcome::Reply(Reply::Array(
            LINES.iter().map(|line| Reply::word(line)).collect(),
        ))
    }
}
