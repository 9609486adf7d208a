//! The commands: for each its options, what it asks of the rest, and its reply.

pub mod beatstatus;
pub mod config;
pub mod doctor;
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
