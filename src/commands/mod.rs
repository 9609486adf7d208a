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
