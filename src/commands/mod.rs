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
pub mod trigger;

use crate::core::args::Args;
use crate::server::{Ctx, acl};
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
    acl::available().then(|| acl::current_user(ctx)).flatten()
}

/// The value of `DB`: a database that this server has.
fn database(ctx: Ctx<'_>, args: &mut Args<'_>) -> Result<Scope, String> {
    let db = args.number("DB", 0, i32::MAX.unsigned_abs().into())?;
    let db = i32::try_from(db).unwrap_or(i32::MAX);
    let home = ctx.db();
    let there = ctx.select(db);
    ctx.select(home);
    if there {
        Ok(Scope::One(db))
    } else {
        Err(format!("DB '{db}': this server has no such database"))
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
        b"FIXTTL" => fixttl::Options::parse(nowhere, words).map(drop),
        b"KEYS" => keys::Options::parse(words).map(drop),
        b"ORPHANS" => orphans::Options::parse(words).map(drop),
        b"SCAN" => scan::Options::parse(nowhere, words).map(drop),
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
            read("SCAN DB 0"),
            Err("DB '0': this server has no such database".to_owned()),
            "there is none"
        );
    }
}
