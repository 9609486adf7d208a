//! `HYGIENE.CONFIG GET glob [glob ...]` and `HYGIENE.CONFIG SET name value [name value ...]`

use std::borrow::Cow;
use std::ffi::{CStr, c_int};

use crate::core::args::quoted;
use crate::core::glob::{Glob, LONGEST};
use crate::core::reply::Reply;
use crate::core::settings::{SETTINGS, Settings};
use crate::core::syntax::Arg;
use crate::server::Ctx;
use crate::server::command::{Command, Outcome};
use crate::settings;

/// Shows and changes settings: on 6.2 the only way, elsewhere the same as the
/// server's own CONFIG.
pub struct Config;

impl Command for Config {
    const NAME: &'static CStr = c"hygiene.config";
    const FLAGS: &'static CStr = c"admin";
    const CATEGORIES: &'static CStr = c"slow admin dangerous";
    const TIPS: &'static CStr =
        c"nondeterministic_output request_policy:all_nodes response_policy:special";
    const SUMMARY: &'static CStr = c"Shows or changes the module's settings";
    const COMPLEXITY: &'static CStr = c"O(N), N being the number of settings";
    const ARITY: c_int = -3;
    const ARGS: &'static [Arg] = &[Arg::one_of(
        c"action",
        &[
            Arg::pattern(c"glob").after(c"GET").multiple(),
            Arg::block(c"settings", &[Arg::text(c"name"), Arg::text(c"value")])
                .after(c"SET")
                .multiple(),
        ],
    )];

    fn run(_ctx: Ctx<'_>, args: &[&[u8]]) -> Outcome {
        let Some((verb, rest)) = args.split_first() else {
            return Outcome::WrongArity;
        };
        if verb.eq_ignore_ascii_case(b"GET") && !rest.is_empty() {
            get(rest).into()
        } else if verb.eq_ignore_ascii_case(b"SET") && !rest.is_empty() && rest.len() % 2 == 0 {
            set(rest).into()
        } else if verb.eq_ignore_ascii_case(b"GET") || verb.eq_ignore_ascii_case(b"SET") {
            Outcome::WrongArity
        } else {
            Outcome::Refused(format!(
                "unknown subcommand {}: expected GET glob or SET name value",
                quoted(verb)
            ))
        }
    }
}

fn get(patterns: &[&[u8]]) -> Result<Reply, String> {
    let current = settings::now();
    let patterns = patterns
        .iter()
        .map(|pattern| {
            // One byte more than a pattern may have, so that a longer one is refused.
            let short = pattern.get(..=LONGEST).unwrap_or(pattern);
            Glob::new(&short.to_ascii_lowercase())
                .map_err(|why| format!("GET {}: {why}", quoted(pattern)))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let wanted = |name: &str| {
        patterns.iter().any(|pattern| {
            pattern.matches(name.as_bytes())
                || pattern.matches(format!("hygiene.{name}").as_bytes())
        })
    };
    Ok(Reply::Map(
        SETTINGS
            .iter()
            .filter(|setting| wanted(setting.name))
            .map(|setting| {
                (
                    Cow::Borrowed(setting.name.as_bytes()),
                    Reply::bytes(setting.show(&current.settings)),
                )
            })
            .collect(),
    ))
}

/// All or nothing, as with the server's own CONFIG SET.
fn set(pairs: &[&[u8]]) -> Result<Reply, String> {
    let mut changed = Settings::clone(&settings::now().settings);
    for pair in pairs.chunks(2) {
        if let [name, value] = pair {
            changed.set(name, value)?;
        }
    }
    settings::replace(changed);
    Ok(Reply::Done)
}
