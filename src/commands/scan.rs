//! `HYGIENE.SCAN [DB n | ALLDBS] [PREFIX p] [MATCH glob] [MEMORY EXACT|SAMPLE|OFF] [TOP n] [ASYNC]`

use std::ffi::{CStr, c_int};

use super::{caller, database, once, unknown_option, user};
use crate::core::args::{Args, quoted};
use crate::core::glob::Glob;
use crate::server::Ctx;
use crate::server::command::{Command, Outcome};
use crate::settings;
use crate::sweep::report::{Memory, Report, ScanOrder};
use crate::sweep::{Order, Scope, engine};

/// Keys named in `top` unless TOP says otherwise.
const TOP: u64 = 10;

/// The most keys that TOP names: finished scans are remembered with their replies.
const MOST_TOP: u64 = 100;

/// Counts what lies in the databases, by class; changes nothing.
pub struct Scan;

#[derive(Debug, Default)]
pub(super) struct Options {
    scope: Option<Scope>,
    prefix: Option<Vec<u8>>,
    pattern: Option<Glob>,
    memory: Option<Memory>,
    top: Option<u64>,
    asynchronous: Option<()>,
}

impl Options {
    pub(super) fn parse(ctx: Ctx<'_>, words: &[&[u8]]) -> Result<Self, String> {
        let mut args = Args::new(words);
        let mut options = Self::default();
        while let Some((word, name)) = args.option() {
            match name.as_str() {
                "DB" => once(
                    &mut options.scope,
                    database(ctx, &mut args)?,
                    "DB or ALLDBS",
                )?,
                "ALLDBS" => once(&mut options.scope, Scope::All, "DB or ALLDBS")?,
                "PREFIX" => once(
                    &mut options.prefix,
                    args.value("PREFIX")?.to_vec(),
                    "PREFIX",
                )?,
                "MATCH" => once(&mut options.pattern, args.glob("MATCH")?, "MATCH")?,
                "MEMORY" => once(
                    &mut options.memory,
                    memory(args.value("MEMORY")?)?,
                    "MEMORY",
                )?,
                "TOP" => once(&mut options.top, args.number("TOP", 0, MOST_TOP)?, "TOP")?,
                "ASYNC" => once(&mut options.asynchronous, (), "ASYNC")?,
                _ => {
                    return Err(unknown_option(
                        word,
                        "DB n, ALLDBS, PREFIX p, MATCH glob, MEMORY EXACT|SAMPLE|OFF, TOP n or ASYNC",
                    ));
                }
            }
        }
        Ok(options)
    }
}

fn memory(word: &[u8]) -> Result<Memory, String> {
    [
        ("EXACT", Memory::Exact),
        ("SAMPLE", Memory::Sample),
        ("OFF", Memory::Off),
    ]
    .into_iter()
    .find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()))
    .map(|(_, memory)| memory)
    .ok_or_else(|| format!("MEMORY {}: expected EXACT, SAMPLE or OFF", quoted(word)))
}

impl Command for Scan {
    const NAME: &'static CStr = c"hygiene.scan";
    const FLAGS: &'static CStr = c"readonly";
    const CATEGORIES: &'static CStr = c"read slow dangerous";
    const TIPS: &'static CStr =
        c"nondeterministic_output request_policy:all_shards response_policy:special";
    const SUMMARY: &'static CStr =
        c"Counts what lies in the databases by class, and says what is wrong";
    const COMPLEXITY: &'static CStr = c"O(N) in slices, N being the number of keys";
    const ARITY: c_int = -1;

    fn run(ctx: Ctx<'_>, args: &[&[u8]]) -> Outcome {
        let options = match Options::parse(ctx, args) {
            Ok(options) => options,
            Err(why) => return Outcome::Refused(why),
        };
        let current = settings::now();
        let user = user(ctx);
        let scope = options.scope.unwrap_or(Scope::All);
        let order = ScanOrder {
            prefix: options.prefix.unwrap_or_default(),
            pattern: options.pattern,
            memory: options.memory.unwrap_or(Memory::Sample),
            top: usize::try_from(options.top.unwrap_or(TOP)).unwrap_or(0),
            user: user.clone(),
            scope,
        };
        engine::start_for_client(
            ctx,
            Order {
                what: "HYGIENE.SCAN",
                by: caller(ctx, user.as_deref()),
                user,
                scope,
                visitor: Box::new(Report::new(order, current.names, current.settings)),
            },
            options.asynchronous.is_some(),
        )
    }
}
