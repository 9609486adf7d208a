//! `HYGIENE.KEYS cursor [CLASS c] [NOTTL | TTLBELOW d | TTLABOVE d] [OLDERTHAN d] [MATCH glob] [COUNT n]`

use std::ffi::{CStr, c_int};

use super::{WalkOptions, once, unknown_option, user};
use crate::core::args::{self, Args, quoted};
use crate::core::glob::Glob;
use crate::core::keys::Class;
use crate::core::policy::Ttl;
use crate::core::reply::Reply;
use crate::core::syntax::{Arg, MATCH, OLDERTHAN};
use crate::keyspace;
use crate::server::acl::{Right, User};
use crate::server::call::{self, Value};
use crate::server::command::{Command, Outcome};
use crate::server::key::Key;
use crate::server::{Ctx, Str};
use crate::settings::{self, Current};
use crate::slice::Slice;
use crate::sweep::lists;

/// Keys looked at in one call unless COUNT says otherwise.
const COUNT: u64 = 100;

/// The most that COUNT takes; the time of a slice ends a call before that.
const MOST_COUNT: u64 = 10_000;

/// Keys asked of SCAN at a time: what lies between two looks at the clock.
const STEP: u64 = 10;

/// SCAN with filters: its cursor, its guarantees, and no state in between.
pub struct Keys;

/// Which remaining life is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// No TTL.
    None,
    /// A TTL below so many ms.
    Below(i64),
    /// A TTL above so many ms.
    Above(i64),
}

impl Life {
    const fn holds(self, ttl: Ttl) -> bool {
        match (self, ttl) {
            (Self::None, None) => true,
            (Self::Below(limit), Some(ms)) => ms < limit,
            (Self::Above(limit), Some(ms)) => ms > limit,
            _ => false,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Options {
    cursor: u64,
    class: Option<Class>,
    life: Option<Life>,
    count: Option<u64>,
    walk: WalkOptions,
}

/// The options that it shares with others.
const SHARED: [&str; 2] = ["OLDERTHAN", "MATCH"];

impl Options {
    pub(super) fn parse(words: &[&[u8]]) -> Result<Self, String> {
        const LIFE: &str = "NOTTL, TTLBELOW or TTLABOVE";
        let mut args = Args::new(words);
        let cursor = args.value("cursor")?;
        let mut options = Self {
            cursor: args::number(cursor).ok_or_else(|| {
                format!(
                    "cursor {}: expected 0 or the number that the call before answered",
                    quoted(cursor)
                )
            })?,
            ..Self::default()
        };
        while let Some((word, name)) = args.option() {
            if options.walk.take(&SHARED, &name, &mut args)? {
                continue;
            }
            match name.as_str() {
                "CLASS" => once(&mut options.class, class(args.value("CLASS")?)?, "CLASS")?,
                "NOTTL" => once(&mut options.life, Life::None, LIFE)?,
                "TTLBELOW" => once(&mut options.life, Life::Below(args.span("TTLBELOW")?), LIFE)?,
                "TTLABOVE" => once(&mut options.life, Life::Above(args.span("TTLABOVE")?), LIFE)?,
                "COUNT" => once(
                    &mut options.count,
                    args.number("COUNT", 1, MOST_COUNT)?,
                    "COUNT",
                )?,
                _ => {
                    return Err(unknown_option(
                        word,
                        "CLASS c, NOTTL, TTLBELOW d, TTLABOVE d, OLDERTHAN d, MATCH glob or COUNT n",
                    ));
                }
            }
        }
        Ok(options)
    }
}

fn class(word: &[u8]) -> Result<Class, String> {
    Class::named(word).ok_or_else(|| {
        let known: Vec<&str> = Class::ALL.iter().map(|class| class.name()).collect();
        format!(
            "CLASS {}: expected one of {}",
            quoted(word),
            known.join(", ")
        )
    })
}

impl Command for Keys {
    const NAME: &'static CStr = c"hygiene.keys";
    // Two calls may answer in another order: before 7.0 a script that is sent to
    // replicas as its text must not write what it made of that.
    const FLAGS: &'static CStr = c"readonly random";
    const CATEGORIES: &'static CStr = c"keyspace read slow";
    // As SCAN: a cursor goes back to the node that gave it.
    const TIPS: &'static CStr =
        c"nondeterministic_output request_policy:special response_policy:special";
    const SUMMARY: &'static CStr = c"Iterates over keys of a class, a TTL or an idle time";
    const COMPLEXITY: &'static CStr =
        c"O(1) for each call, O(N) for a whole round, N being the number of keys";
    const ARITY: c_int = -2;
    const SINCE: &'static CStr = c"0.2.0";
    const ARGS: &'static [Arg] = &[
        Arg::integer(c"cursor"),
        Arg::text(c"class").after(c"CLASS").optional(),
        Arg::one_of(
            c"ttl",
            &[
                Arg::token(c"nottl", c"NOTTL"),
                Arg::text(c"below").after(c"TTLBELOW"),
                Arg::text(c"above").after(c"TTLABOVE"),
            ],
        )
        .optional(),
        OLDERTHAN,
        MATCH,
        Arg::integer(c"count").after(c"COUNT").optional(),
    ];

    fn run(ctx: Ctx<'_>, args: &[&[u8]]) -> Outcome {
        if args.is_empty() {
            return Outcome::WrongArity;
        }
        let options = match Options::parse(args) {
            Ok(options) => options,
            Err(why) => return Outcome::Refused(why),
        };
        if options.walk.older_than_ms.is_some() && !keyspace::idle_times_are_kept(ctx) {
            return Outcome::Refused(format!("OLDERTHAN: {}", keyspace::NO_IDLE_TIMES));
        }
        let user = match user(ctx).map(|name| User::named(&name)) {
            Some(None) => return Outcome::Refused("the calling user is gone".to_owned()),
            Some(user) => user,
            None => None,
        };
        walk(ctx, &options, &settings::now(), user.as_ref()).into()
    }
}

/// Asks SCAN for a few keys at a time until COUNT were looked at, a slice's time
/// is up or the round is over. Whatever SCAN has shown is looked at, so that its
/// guarantees are ours.
fn walk(
    ctx: Ctx<'_>,
    options: &Options,
    current: &Current,
    user: Option<&User>,
) -> Result<Reply, String> {
    let slice = Slice::begin();
    let count = options.count.unwrap_or(COUNT);
    let (mut cursor, mut asked) = (options.cursor, 0);
    let mut found = Vec::new();
    loop {
        let step = STEP.min(count - asked);
        asked += step;
        let (next, names) = scan(ctx, cursor, step, options.walk.pattern.as_ref())?;
        cursor = next;
        found.extend(
            names
                .into_iter()
                .filter(|name| wanted(ctx, name, options, current, user))
                .map(Reply::bytes),
        );
        if cursor == 0 || asked >= count || slice.over() {
            return Ok(Reply::Array(vec![
                Reply::bytes(cursor.to_string()),
                Reply::Array(found),
            ]));
        }
    }
}

/// One call of SCAN: the next cursor, and names.
fn scan(
    ctx: Ctx<'_>,
    cursor: u64,
    count: u64,
    pattern: Option<&Glob>,
) -> Result<(u64, Vec<Vec<u8>>), String> {
    let (cursor, count) = (cursor.to_string(), count.to_string());
    let mut words: Vec<&[u8]> = vec![cursor.as_bytes(), b"COUNT", count.as_bytes()];
    if let Some(pattern) = pattern {
        words.extend([b"MATCH".as_slice(), pattern.source()]);
    }
    let reply = match call::read(ctx, c"SCAN", &words) {
        Value::Error(why) => {
            let why = String::from_utf8_lossy(&why).into_owned();
            return Err(why.strip_prefix("ERR ").unwrap_or(&why).to_owned());
        }
        reply => reply,
    };
    let [next, Value::Array(names)] = reply.array() else {
        return Err("the server's SCAN answered in a way that is not known".to_owned());
    };
    let next = next
        .str()
        .and_then(args::number)
        .ok_or("the server's SCAN answered no cursor")?;
    let names = names.iter().filter_map(Value::str).map(<[u8]>::to_vec);
    Ok((next, names.collect()))
}

fn wanted(
    ctx: Ctx<'_>,
    name: &[u8],
    options: &Options,
    current: &Current,
    user: Option<&User>,
) -> bool {
    let Some(string) = Str::new(name) else {
        return false;
    };
    if user.is_some_and(|user| !user.may(Right::Access, &string)) {
        return false;
    }
    let Some(key) = Key::read(ctx, &string) else {
        return false;
    };
    if options.life.is_some_and(|life| !life.holds(key.ttl())) {
        return false;
    }
    if options
        .walk
        .older_than_ms
        .is_some_and(|ms| key.idle_ms().is_none_or(|idle| idle < ms))
    {
        return false;
    }
    let Some(wanted) = options.class else {
        return true;
    };
    let Some(kind) = key.kind() else {
        return false;
    };
    let len = key.len() as u64;
    drop(key);
    let mut class = current.names.class(name, kind);
    if class == Class::Other && lists::may_tell(kind) {
        let bytes = call::memory_usage(ctx, &string, lists::FIRST);
        class = lists::told(ctx, &current.names, ctx.db(), &string, kind, len, bytes);
    }
    class == wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_none_or_on_one_side_of_a_limit() {
        for (life, ttl, expected) in [
            (Life::None, None, true),
            (Life::None, Some(0), false),
            (Life::Below(1_000), Some(999), true),
            (Life::Below(1_000), Some(1_000), false),
            (Life::Below(1_000), None, false),
            (Life::Above(1_000), Some(1_001), true),
            (Life::Above(1_000), Some(1_000), false),
            // A key that never dies is NOTTL's.
            (Life::Above(1_000), None, false),
        ] {
            assert_eq!(life.holds(ttl), expected, "{life:?} {ttl:?}");
        }
    }

    #[test]
    fn words_are_refused_with_what_was_expected() {
        for (words, expected) in [
            (vec!["x"], "cursor 'x': expected 0 or the number"),
            (vec!["-1"], "cursor '-1': expected 0"),
            (vec!["0", "CLASS"], "CLASS needs a value"),
            (
                vec!["0", "CLASS", "results"],
                "CLASS 'results': expected one of task_result, group_result",
            ),
            (vec!["0", "NOTTL", "TTLBELOW", "1h"], "given twice"),
            (vec!["0", "COUNT", "0"], "from 1 to 10000"),
            (vec!["0", "TYPE", "list"], "unknown option 'TYPE'"),
        ] {
            let bytes: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            let why = Options::parse(&bytes).unwrap_err();
            assert!(why.contains(expected), "{words:?}: {why}");
        }
    }
}
