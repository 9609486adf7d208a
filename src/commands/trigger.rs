//! `HYGIENE.TRIGGER task [QUEUE q] [ARGS json] [KWARGS json] [TIMEOUT d] [DB n]`

use std::ffi::{CStr, c_int};
use std::time::Duration;

use super::{database, db, once, unknown_option, user};
use crate::core::args::{Args, quoted};
use crate::core::celery::message::{self, MAX_ARGUMENTS};
use crate::core::syntax::{Arg, DATABASE};
use crate::server::Ctx;
use crate::server::command::{Command, Outcome};
use crate::trigger::{self, Order};

/// How long the result is waited for unless TIMEOUT says otherwise, and the least
/// and the most that it may say, in ms.
const TIMEOUT_MS: i64 = 10_000;
const LEAST_TIMEOUT_MS: i64 = 1_000;
const MOST_TIMEOUT_MS: i64 = 600_000;

/// Publishes a task and waits for its result: the manual test from inside.
pub struct Trigger;

#[derive(Debug, Default)]
pub(super) struct Options<'a> {
    queue: Option<&'a str>,
    args: Option<&'a str>,
    kwargs: Option<&'a str>,
    timeout_ms: Option<i64>,
    db: Option<u32>,
}

impl<'a> Options<'a> {
    fn parse(ctx: Ctx<'_>, words: &'a [&'a [u8]]) -> Result<Self, String> {
        let mut args = Args::new(words);
        let mut options = Self::default();
        while let Some((word, name)) = args.option() {
            match name.as_str() {
                "QUEUE" => once(
                    &mut options.queue,
                    named("QUEUE", args.value("QUEUE")?)?,
                    "QUEUE",
                )?,
                "ARGS" => once(
                    &mut options.args,
                    json("ARGS", args.value("ARGS")?, "array", message::array)?,
                    "ARGS",
                )?,
                "KWARGS" => once(
                    &mut options.kwargs,
                    json("KWARGS", args.value("KWARGS")?, "object", message::object)?,
                    "KWARGS",
                )?,
                "TIMEOUT" => once(&mut options.timeout_ms, timeout(&mut args)?, "TIMEOUT")?,
                "DB" => once(&mut options.db, one(ctx, &mut args)?, "DB")?,
                _ => {
                    return Err(unknown_option(
                        word,
                        "QUEUE q, ARGS json, KWARGS json, TIMEOUT d or DB n",
                    ));
                }
            }
        }
        let bytes = |json: Option<&str>| json.map_or(0, str::len);
        if bytes(options.args) + bytes(options.kwargs) > MAX_ARGUMENTS {
            return Err(format!(
                "ARGS and KWARGS: expected at most {MAX_ARGUMENTS} bytes together"
            ));
        }
        Ok(options)
    }
}

/// The task, and the options behind it.
pub(super) fn read<'a>(
    ctx: Ctx<'_>,
    words: &'a [&'a [u8]],
) -> Result<(&'a str, Options<'a>), String> {
    let (task, words) = words.split_first().ok_or("task needs a value")?;
    Ok((named("task", task)?, Options::parse(ctx, words)?))
}

fn named<'a>(what: &str, word: &'a [u8]) -> Result<&'a str, String> {
    message::name(word).map_err(|why| format!("{what} {}: {why}", quoted(word)))
}

fn json<'a>(
    option: &str,
    word: &'a [u8],
    expected: &str,
    read: impl FnOnce(&'a [u8]) -> Result<&'a str, String>,
) -> Result<&'a str, String> {
    read(word).map_err(|why| {
        format!(
            "{option} {}: expected a JSON {expected}, {why}",
            quoted(word)
        )
    })
}

fn timeout(args: &mut Args<'_>) -> Result<i64, String> {
    let word = args.peek().unwrap_or_default();
    let timeout_ms = args.span("TIMEOUT")?;
    if (LEAST_TIMEOUT_MS..=MOST_TIMEOUT_MS).contains(&timeout_ms) {
        Ok(timeout_ms)
    } else {
        Err(format!("TIMEOUT {}: expected 1s to 10m", quoted(word)))
    }
}

/// The value of `DB`: one database, of this server.
fn one(ctx: Ctx<'_>, args: &mut Args<'_>) -> Result<u32, String> {
    database(ctx, db(args)?).map(i32::unsigned_abs)
}

impl Command for Trigger {
    const NAME: &'static CStr = c"hygiene.trigger";
    const FLAGS: &'static CStr = c"write deny-oom admin";
    const CATEGORIES: &'static CStr = c"write slow admin dangerous blocking";
    const SUMMARY: &'static CStr =
        c"Publishes a Celery task, waits for its result, and tells which link did not move";
    const COMPLEXITY: &'static CStr =
        c"As HYGIENE.BEATSTATUS to find the queue, then O(1) bounded looks while it waits";
    const ARITY: c_int = -2;
    const SINCE: &'static CStr = c"0.2.0";
    const ARGS: &'static [Arg] = &[
        Arg::text(c"task"),
        Arg::text(c"queue").after(c"QUEUE").optional(),
        Arg::text(c"json-array").after(c"ARGS").optional(),
        Arg::text(c"json-object").after(c"KWARGS").optional(),
        Arg::text(c"timeout").after(c"TIMEOUT").optional(),
        DATABASE,
    ];

    fn run(ctx: Ctx<'_>, args: &[&[u8]]) -> Outcome {
        if args.is_empty() {
            return Outcome::WrongArity;
        }
        let (task, options) = match read(ctx, args) {
            Ok(read) => read,
            Err(why) => return Outcome::Refused(why),
        };
        let timeout_ms = options.timeout_ms.unwrap_or(TIMEOUT_MS);
        trigger::start(
            ctx,
            Order {
                task: task.to_owned(),
                queue: options.queue.map(str::to_owned),
                args: options.args.unwrap_or("[]").to_owned(),
                kwargs: options.kwargs.unwrap_or("{}").to_owned(),
                timeout: Duration::from_millis(timeout_ms.unsigned_abs()),
                db: options.db,
                user: user(ctx),
            },
        )
    }
}
