//! From what was found to a verdict: at once, or beside the main thread where there is
//! much of it.

use std::sync::Arc;

use crate::core::beat::{Assessment, Evidence, judge};
use crate::server::beside::{Beside, Found};

/// A verdict that may take a while.
pub enum Judging {
    /// It is being found.
    Beside(Beside<Assessment>),
    /// It was found.
    Done(Box<Assessment>),
    /// An internal fault ended it, which is in the log and counted.
    Failed,
}

impl Judging {
    /// Judges what is little, and begins to judge what is much, as of `now_ms` (Unix ms).
    pub fn begin(evidence: Evidence, now_ms: i64) -> Self {
        if !evidence.is_much() {
            return Self::Done(Box::new(judge(&evidence, now_ms)));
        }
        let evidence = Arc::new(evidence);
        let theirs = Arc::clone(&evidence);
        Beside::begin(move || judge(&theirs, now_ms)).map_or_else(
            // No thread is to be had.
            |_| Self::Done(Box::new(judge(&evidence, now_ms))),
            Self::Beside,
        )
    }

    /// Looks whether it was found meanwhile.
    pub fn go_on(self) -> Self {
        match self {
            Self::Beside(verdict) => match verdict.found() {
                Found::NotYet(verdict) => Self::Beside(verdict),
                Found::Value(assessment) => Self::Done(Box::new(assessment)),
                Found::Failed => Self::Failed,
            },
            end => end,
        }
    }
}
