//! The commands: for each its options, what it asks of the rest, and its reply.

pub mod beatstatus;
pub mod config;
pub mod doctor;
#[cfg(debug_assertions)]
pub mod fault;
pub mod fixttl;
pub mod help;
pub mod jobs;
pub mod keys;
pub mod orphans;
pub mod scan;
pub mod stats;
pub mod trigger;

use crate::core::args::Args;
use crate::core::glob::Glob;
use crate::server::{Ctx, acl, differences};
use crate::sweep::Scope;

/// Who calls, for people to read in HYGIENE.JOBS.
fn caller(ctx: Ctx<'_>, user: Option<&[u8]>) -> String {
    let id = ctx.client_id();
    match user {
        Some(user) => format!("client {id} user {}", String::from_utf8_lossy(user)),
        None => format!("client {id}"),
    }
}

/// The calling user, whose rights a pass is held to.
fn user(ctx: Ctx<'_>) -> Option<Vec<u8>> {
    let asked = differences::here().key_rights;
    asked.then(|| acl::current_user(ctx)).flatten()
}

/// The value of `DB`.
fn db(args: &mut Args<'_>) -> Result<i32, String> {
    let db = args.number("DB", 0, i32::MAX.unsigned_abs().into())?;
    Ok(i32::try_from(db).unwrap_or(i32::MAX))
}

/// Makes sure that this server has the database.
fn database(ctx: Ctx<'_>, db: i32) -> Result<i32, String> {
    let _home = ctx.home();
    if ctx.select(db) {
        Ok(db)
    } else {
        Err(format!("DB '{db}': this server has no such database"))
    }
}

/// The options that commands which walk over keys share, each with one meaning and
/// one wording.
#[derive(Debug, Default)]
struct WalkOptions {
    /// `DB n` or `ALLDBS`.
    scope: Option<Scope>,
    /// `MATCH glob`.
    pattern: Option<Glob>,
    /// `OLDERTHAN d`, in ms.
    older_than_ms: Option<i64>,
    /// `LIMIT n`.
    limit: Option<u64>,
    /// `DRYRUN`.
    dry_run: Option<()>,
    /// `ASYNC`.
    asynchronous: Option<()>,
}

impl WalkOptions {
    /// Takes the option `name` with its value, if it is one of those that the command
    /// shares: `false` if it is not.
    fn take(&mut self, shared: &[&str], name: &str, args: &mut Args<'_>) -> Result<bool, String> {
        if !shared.contains(&name) {
            return Ok(false);
        }
        match name {
            "DB" => once(&mut self.scope, Scope::One(db(args)?), "DB or ALLDBS")?,
            "ALLDBS" => once(&mut self.scope, Scope::All, "DB or ALLDBS")?,
            "MATCH" => once(&mut self.pattern, args.glob(name)?, name)?,
            "OLDERTHAN" => once(&mut self.older_than_ms, args.span(name)?, name)?,
            "LIMIT" => once(&mut self.limit, args.number(name, 1, u64::MAX)?, name)?,
            "DRYRUN" => once(&mut self.dry_run, (), name)?,
            "ASYNC" => once(&mut self.asynchronous, (), name)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The databases asked for: all unless one is named.
    ///
    /// # Errors
    /// This server has no database of that number.
    fn scope(&self, ctx: Ctx<'_>) -> Result<Scope, String> {
        match self.scope {
            Some(Scope::One(db)) => database(ctx, db).map(Scope::One),
            Some(Scope::All) | None => Ok(Scope::All),
        }
    }
}

/// The refusal of a word that is no option of the command.
fn unknown_option(word: &[u8], expected: &str) -> String {
    format!(
        "unknown option {}: expected {expected}",
        crate::core::args::quoted(word)
    )
}

/// The refusal of an option that is given twice.
fn once<T>(slot: &mut Option<T>, value: T, option: &str) -> Result<(), String> {
    if slot.replace(value).is_some() {
        return Err(format!("{option} is given twice"));
    }
    Ok(())
}

/// Reads the words behind a command's name as the command itself does, without a
/// server, and runs nothing; `None` if none of that name takes words. What it
/// would be refused with is the error.
///
/// Settings have a reader of their own, [`crate::core::settings`].
#[cfg(any(test, fuzzing))]
#[must_use]
pub fn read_words(command: &[u8], words: &[&[u8]]) -> Option<Result<(), String>> {
    let nowhere = Ctx::nowhere();
    Some(match command.to_ascii_uppercase().as_slice() {
        b"BEATSTATUS" => beatstatus::options(words).map(drop),
        b"CANCEL" => Args::new(words).number("id", 1, u64::MAX).map(drop),
        b"FIXTTL" => fixttl::Options::parse(words).map(drop),
        b"KEYS" => keys::Options::parse(words).map(drop),
        b"ORPHANS" => orphans::Options::parse(words).map(drop),
        b"SCAN" => scan::Options::parse(words).map(drop),
        b"TRIGGER" => trigger::read(nowhere, words).map(drop),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<(), String> {
        let mut words = line.split(' ').map(str::as_bytes);
        let command = words.next().unwrap();
        read_words(command, &words.collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn every_command_reads_its_own_words() {
        for line in [
            "BEATSTATUS VERBOSE",
            "CANCEL 1",
            "FIXTTL TTL 1h JITTER 5% FROMDONE MAXAGE 0 CLASS lock chord MATCH a* ALLDBS LIMIT 1 DRYRUN ASYNC",
            "KEYS 0 CLASS queue NOTTL OLDERTHAN 1h MATCH a* COUNT 5",
            "ORPHANS PURGE chord OLDERTHAN 2d LIMIT 1 DRYRUN ASYNC",
            "ORPHANS REQUEUE",
            "SCAN PREFIX p MATCH a* MEMORY EXACT TOP 3 ASYNC",
            "TRIGGER a.b QUEUE q ARGS [1] KWARGS {} TIMEOUT 5s",
        ] {
            assert_eq!(read(line), Ok(()), "{line}");
        }
        assert_eq!(
            read("TRIGGER a.b DB 0"),
            Err("DB '0': this server has no such database".to_owned()),
            "there is none"
        );
    }
}
