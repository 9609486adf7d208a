//! What the last scans found, so that a scan can tell what has changed since: a
//! growing class from a big one, and whether a clean-up worked.

use std::collections::VecDeque;

use super::Scope;
use super::report::Memory;
use crate::core::reply::Reply;
use crate::core::tally::{Sums, changes};
use crate::server::MainCell;

/// Scans remembered: one for each way of asking.
const MOST_SCANS: usize = 16;

/// What a scan was asked, and by whom: only answers to the same question from the
/// same rights can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The user whose rights count.
    pub user: Option<Vec<u8>>,
    /// Where.
    pub scope: Scope,
    /// Only names that begin so.
    pub prefix: Vec<u8>,
    /// Only keys of this name.
    pub pattern: Option<Vec<u8>>,
    /// How memory is counted.
    pub memory: Memory,
}

struct Answer {
    question: Question,
    at_ms: i64,
    sums: Sums,
}

static LAST: MainCell<VecDeque<Answer>> = MainCell::new(VecDeque::new());

/// Tells what has changed since the same question was answered last, and
/// remembers this answer, of `now_ms` (Unix ms), in its place.
pub fn compare(question: &Question, sums: Sums, now_ms: i64) -> Reply {
    let mut last = LAST.get_mut();
    let at = last.iter().position(|answer| answer.question == *question);
    let before = at.and_then(|at| last.remove(at));
    let reply = before.map_or_else(
        || since(-1, Reply::Map(Vec::new())),
        |before| {
            let ms = now_ms.saturating_sub(before.at_ms).max(0);
            since(ms / 1_000, changes(&before.sums, &sums))
        },
    );
    if last.len() >= MOST_SCANS {
        last.pop_front();
    }
    last.push_back(Answer {
        question: question.clone(),
        at_ms: now_ms,
        sums,
    });
    reply
}

fn since(seconds: i64, classes: Reply) -> Reply {
    Reply::map([("seconds", Reply::Int(seconds)), ("classes", classes)])
}

/// Forgets them.
pub fn forget() {
    *LAST.get_mut() = VecDeque::new();
}
