//! `HYGIENE.FAULT place count`, in builds for tests only.

use std::ffi::{CStr, c_int};

use crate::core::args::{Args, quoted};
use crate::core::reply::Reply;
use crate::server::Ctx;
use crate::server::command::{Command, Outcome};
use crate::server::guard::provoked;

/// Lets the next entries at a place panic.
pub struct Fault;

impl Command for Fault {
    const NAME: &'static CStr = c"hygiene.fault";
    const FLAGS: &'static CStr = c"admin";
    const CATEGORIES: &'static CStr = c"admin dangerous";
    const SUMMARY: &'static CStr = c"Provokes panics, in builds for tests only";
    const COMPLEXITY: &'static CStr = c"O(1)";
    const ARITY: c_int = 3;

    fn run(_ctx: Ctx<'_>, args: &[&[u8]]) -> Outcome {
        let mut args = Args::new(args);
        let armed = args.value("place").and_then(|word| {
            let place = provoked::PLACES
                .into_iter()
                .find(|(name, _)| name.as_bytes() == word);
            let (_, at) = place.ok_or_else(|| format!("no place {}", quoted(word)))?;
            provoked::arm(at, args.number("count", 0, u64::MAX)?);
            Ok(Reply::Done)
        });
        armed.into()
    }
}
