//! `HYGIENE.SCAN [DB n | ALLDBS] [PREFIX p] [MATCH glob] [MEMORY EXACT|SAMPLE|OFF] [TOP n] [ASYNC]`

use std::ffi::{CStr, c_int};

use super::{WalkOptions, caller, once, unknown_option, user};
use crate::core::args::{Args, quoted};
use crate::core::keys::LONGEST_NAME;
use crate::core::syntax::{ASYNC, Arg, DATABASES, MATCH};
use crate::server::Ctx;
use crate::server::command::{Command, Outcome};
use crate::settings;
use crate::sweep::report::{Memory, Report, ScanOrder};
use crate::sweep::{Order, engine};

/// Keys named in `top` unless TOP says otherwise.
const TOP: u64 = 10;

/// The most keys that TOP names: finished scans are remembered with their replies.
const MOST_TOP: u64 = 100;

/// Counts what lies in the databases, by class; changes nothing.
pub struct Scan;

#[derive(Debug, Default)]
pub(super) struct Options {
    prefix: Option<Vec<u8>>,
    memory: Option<Memory>,
    top: Option<u64>,
    walk: WalkOptions,
}

/// The options that it shares with others.
const SHARED: [&str; 4] = ["DB", "ALLDBS", "MATCH", "ASYNC"];

impl Options {
    pub(super) fn parse(words: &[&[u8]]) -> Result<Self, String> {
        let mut args = Args::new(words);
        let mut options = Self::default();
        while let Some((word, name)) = args.option() {
            if options.walk.take(&SHARED, &name, &mut args)? {
                continue;
            }
            match name.as_str() {
                "PREFIX" => once(
                    &mut options.prefix,
                    prefix(args.value("PREFIX")?)?,
                    "PREFIX",
                )?,
                "MEMORY" => once(
                    &mut options.memory,
                    memory(args.value("MEMORY")?)?,
                    "MEMORY",
                )?,
                "TOP" => once(&mut options.top, args.number("TOP", 0, MOST_TOP)?, "TOP")?,
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

/// What was asked is remembered with its answer, and so is bounded.
fn prefix(word: &[u8]) -> Result<Vec<u8>, String> {
    if word.len() > LONGEST_NAME {
        return Err(format!(
            "PREFIX {}: expected at most {LONGEST_NAME} bytes",
            quoted(word)
        ));
    }
    Ok(word.to_vec())
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
    const ARGS: &'static [Arg] = &[
        DATABASES,
        Arg::text(c"prefix").after(c"PREFIX").optional(),
        MATCH,
        Arg::one_of(
            c"memory",
            &[
                Arg::token(c"exact", c"EXACT"),
                Arg::token(c"sample", c"SAMPLE"),
                Arg::token(c"off", c"OFF"),
            ],
        )
        .after(c"MEMORY")
        .optional(),
        Arg::integer(c"top").after(c"TOP").optional(),
        ASYNC,
    ];

    fn run(ctx: Ctx<'_>, args: &[&[u8]]) -> Outcome {
        let parsed = Options::parse(args).and_then(|options| {
            let scope = options.walk.scope(ctx)?;
            Ok((options, scope))
        });
        let (options, scope) = match parsed {
            Ok(parsed) => parsed,
            Err(why) => return Outcome::Refused(why),
        };
        let current = settings::now();
        let user = user(ctx);
        let order = ScanOrder {
            prefix: options.prefix.unwrap_or_default(),
            pattern: options.walk.pattern,
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
            options.walk.asynchronous.is_some(),
        )
    }
}
