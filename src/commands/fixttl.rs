//! `HYGIENE.FIXTTL [TTL d] [JITTER p%] [FROMDONE] [MAXAGE d] [CLASS c ...] [MATCH glob] [DB n | ALLDBS] [LIMIT n] [DRYRUN] [ASYNC]`

use std::ffi::{CStr, c_int};

use super::{WalkOptions, caller, once, unknown_option, user};
use crate::core::args::{Args, percent, quoted};
use crate::core::keys::Class;
use crate::core::policy::Plan;
use crate::core::settings::{Basis, Settings};
use crate::core::syntax::{ASYNC, Arg, DATABASES, DRYRUN, LIMIT, MATCH};
use crate::server::Ctx;
use crate::server::command::{Command, Outcome};
use crate::server::context::{now_ms, writes_denied};
use crate::settings;
use crate::sweep::fix::{Fix, FixOrder};
use crate::sweep::{Order, engine};

/// The shortest TTL that can be given, in ms.
const LEAST_TTL_MS: i64 = 1_000;

/// Gives results without TTL one and deletes finished ones that are too old.
pub struct FixTtl;

#[derive(Debug, Default)]
pub(super) struct Options {
    ttl_ms: Option<i64>,
    jitter: Option<u64>,
    from_done: Option<()>,
    max_age_ms: Option<i64>,
    classes: Option<Vec<Class>>,
    walk: WalkOptions,
}

/// The options that it shares with others.
const SHARED: [&str; 6] = ["DB", "ALLDBS", "MATCH", "LIMIT", "DRYRUN", "ASYNC"];

impl Options {
    pub(super) fn parse(words: &[&[u8]]) -> Result<Self, String> {
        let mut args = Args::new(words);
        let mut options = Self::default();
        while let Some((word, name)) = args.option() {
            if options.walk.take(&SHARED, &name, &mut args)? {
                continue;
            }
            match name.as_str() {
                "TTL" => once(&mut options.ttl_ms, ttl(&mut args)?, "TTL")?,
                "JITTER" => once(&mut options.jitter, jitter(&mut args)?, "JITTER")?,
                "FROMDONE" => once(&mut options.from_done, (), "FROMDONE")?,
                "MAXAGE" => once(&mut options.max_age_ms, args.span("MAXAGE")?, "MAXAGE")?,
                "CLASS" => once(&mut options.classes, classes(&mut args)?, "CLASS")?,
                _ => {
                    return Err(unknown_option(
                        word,
                        "TTL d, JITTER p%, FROMDONE, MAXAGE d, CLASS c ..., MATCH glob, DB n, \
                         ALLDBS, LIMIT n, DRYRUN or ASYNC",
                    ));
                }
            }
        }
        Ok(options)
    }

    fn plan(&self, settings: &Settings) -> Plan {
        Plan {
            ttl_ms: self.ttl_ms.unwrap_or(settings.default_ttl_ms),
            jitter: self.jitter.unwrap_or(settings.ttl_jitter),
            basis: if self.from_done.is_some() {
                Basis::Done
            } else {
                settings.ttl_basis
            },
            max_age_ms: self.max_age_ms.unwrap_or(settings.max_age_ms),
            max_ttl_ms: settings.max_ttl_ms,
        }
    }
}

fn ttl(args: &mut Args<'_>) -> Result<i64, String> {
    let word = args.peek().unwrap_or_default();
    let ttl_ms = args.span("TTL")?;
    if ttl_ms < LEAST_TTL_MS {
        return Err(format!("TTL {}: expected at least 1s", quoted(word)));
    }
    Ok(ttl_ms)
}

fn jitter(args: &mut Args<'_>) -> Result<u64, String> {
    let word = args.value("JITTER")?;
    percent(word, 50).ok_or_else(|| format!("JITTER {}: expected 0% to 50%", quoted(word)))
}

/// One class or more, up to the next option.
fn classes(args: &mut Args<'_>) -> Result<Vec<Class>, String> {
    let mut classes = Vec::new();
    loop {
        let word = match args.peek() {
            Some(word) if classes.is_empty() || Class::named(word).is_some() => word,
            None if classes.is_empty() => return Err("CLASS needs a value".to_owned()),
            _ => return Ok(classes),
        };
        args.option();
        let class = Class::named(word).ok_or_else(|| {
            let known: Vec<&str> = Class::ALL
                .iter()
                .filter(|class| class.protected().is_none())
                .map(|class| class.name())
                .collect();
            format!(
                "CLASS {}: expected one or more of {}",
                quoted(word),
                known.join(", ")
            )
        })?;
        if let Some(why) = class.protected() {
            return Err(format!("CLASS {} is never touched: {why}", quoted(word)));
        }
        classes.push(class);
    }
}

impl Command for FixTtl {
    const NAME: &'static CStr = c"hygiene.fixttl";
    // A dry run only reads, so that replicas answer it: the server itself would refuse
    // them a command that may write, whatever it is asked for.
    const FLAGS: &'static CStr = c"admin";
    const CATEGORIES: &'static CStr = c"keyspace write slow admin dangerous";
    const TIPS: &'static CStr =
        c"nondeterministic_output request_policy:all_shards response_policy:special";
    const SUMMARY: &'static CStr =
        c"Gives task results without TTL one and deletes finished ones that are too old";
    const COMPLEXITY: &'static CStr = c"O(N) in slices, N being the number of keys";
    const ARITY: c_int = -1;
    const ARGS: &'static [Arg] = &[
        Arg::text(c"ttl").after(c"TTL").optional(),
        Arg::text(c"percent").after(c"JITTER").optional(),
        Arg::token(c"fromdone", c"FROMDONE").optional(),
        Arg::text(c"max-age").after(c"MAXAGE").optional(),
        Arg::text(c"class").after(c"CLASS").optional().multiple(),
        MATCH,
        DATABASES,
        LIMIT,
        DRYRUN,
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
        let dry_run = options.walk.dry_run.is_some();
        if !dry_run && let Some((code, why)) = writes_denied(ctx) {
            return Outcome::Denied(code, why);
        }
        let current = settings::now();
        let plan = options.plan(&current.settings);
        let user = user(ctx);
        let order = FixOrder {
            plan,
            classes: options.classes.unwrap_or_else(|| vec![Class::TaskResult]),
            pattern: options.walk.pattern,
            limit: options.walk.limit.unwrap_or(0),
            dry_run,
            learn: !current.settings.expected_tasks.is_empty(),
            background: false,
        };
        let seed = now_ms().unsigned_abs() ^ ctx.client_id().rotate_left(32);
        engine::start_for_client(
            ctx,
            Order {
                what: "HYGIENE.FIXTTL",
                by: caller(ctx, user.as_deref()),
                user,
                scope,
                visitor: Box::new(Fix::new(ctx, order, current.names, seed)),
            },
            options.walk.asynchronous.is_some(),
        )
    }
}
