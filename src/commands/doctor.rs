//! `HYGIENE.DOCTOR`

use std::ffi::{CStr, c_int};

use super::{beatstatus, user};
use crate::core::beat;
use crate::core::reply::Reply;
use crate::evidence::asked::{self, Status};
use crate::server::command::{Command, Outcome};
use crate::server::{Ctx, differences};

/// BEATSTATUS as text for a person: what is wrong, worst first, what shows it, and
/// what to type next.
pub struct Doctor;

impl Command for Doctor {
    const NAME: &'static CStr = c"hygiene.doctor";
    const FLAGS: &'static CStr = beatstatus::BeatStatus::FLAGS;
    const CATEGORIES: &'static CStr = beatstatus::BeatStatus::CATEGORIES;
    const TIPS: &'static CStr = beatstatus::BeatStatus::TIPS;
    const SUMMARY: &'static CStr =
        c"Tells in words whether periodic work happens, what is wrong, and what to type next";
    const COMPLEXITY: &'static CStr = beatstatus::BeatStatus::COMPLEXITY;
    const ARITY: c_int = 1;
    const SINCE: &'static CStr = c"0.2.0";

    fn run(ctx: Ctx<'_>, args: &[&[u8]]) -> Outcome {
        if !args.is_empty() {
            return Outcome::WrongArity;
        }
        asked::ask(ctx, user(ctx), show)
    }
}

fn show(status: &Status) -> Reply {
    let mut assessment = status.assessment.clone();
    if status.skipped_noperm > 0 {
        assessment.evidence.insert(
            0,
            format!(
                "keys that this user may not read, and so not looked at: {}",
                status.skipped_noperm
            ),
        );
    }
    if !differences::here().key_rights {
        assessment.evidence.push(
            "this server lets no module check rights key by key: everything was looked at"
                .to_owned(),
        );
    }
    Reply::Text(beat::doctor(&assessment, status.now_ms))
}
