//! Periodic tasks: when each was published, how it ended, what is missing.

use std::collections::{BTreeMap, BTreeSet};

use super::assessment::{State, Task};
use super::beats::{Beat, Kept};
use super::evidence::Evidence;
use super::finding::{Code, Finding};
use super::known::{Known, is_scheduled};
use super::redbeat::overdue_entries;
use super::words::{name, span};

/// A failure older than this, of a task whose interval is unknown, says nothing
/// about now: newer results may have expired (Celery keeps them a day).
const RESULT_LIFE_MS: i64 = 86_400_000;

/// How a run ended.
#[derive(Clone, Copy)]
struct Finish<'a> {
    task: &'a str,
    at_ms: i64,
    status: &'a str,
    exc_type: Option<&'a str>,
}

/// Each periodic task's part and the failing ones; overdue first, then by name.
pub fn tasks(evidence: &Evidence, beats: &[Beat<'_>], known: &Known) -> (Vec<Task>, Vec<Finding>) {
    let newest = newest_finishes(evidence, known);
    let heard = heard(beats);
    let lies = Lies::new(evidence, known);
    let mut parts = Vec::new();
    let mut findings = Vec::new();
    for (task, interval) in known.tasks() {
        let finish = newest.get(task).copied();
        let heard = heard.get(task).map_or(&[][..], Vec::as_slice);
        findings.extend(finish.and_then(|f| failing(f, interval, known)));
        let published = lies.published.get(task).copied();
        let published = heard.iter().map(|(_, k)| k.last_ms).max().max(published);
        let finished = finish.map(|f| f.at_ms);
        let seen = published.max(finished);
        parts.push(Task {
            name: task.to_owned(),
            interval_ms: interval,
            last_published_ms: published,
            last_finished_ms: finished,
            last_status: finish.map(|f| f.status.to_owned()),
            last_exception: finish.and_then(|f| f.exc_type.map(str::to_owned)),
            overdue: heard_overdue(heard).or_else(|| lies.overdue(known, task, interval, seen)),
        });
    }
    parts.sort_by(|a, b| {
        let rank = |t: &Task| t.overdue != Some(true);
        rank(a).cmp(&rank(b)).then_with(|| a.name.cmp(&b.name))
    });
    (parts, findings)
}

fn newest_finishes<'a>(evidence: &'a Evidence, known: &Known) -> BTreeMap<&'a str, Finish<'a>> {
    let stored = evidence.results.iter().map(|result| Finish {
        task: &result.task,
        at_ms: result.finished_at_ms,
        status: &result.status,
        exc_type: result.exc_type.as_deref(),
    });
    let heard = evidence.heard.lines.iter().filter_map(|line| {
        let end = line.end.as_ref()?;
        Some(Finish {
            task: &line.task,
            at_ms: end.at_ms,
            status: &end.status,
            exc_type: end.exc_type.as_deref(),
        })
    });
    let mut newest: BTreeMap<&str, Finish<'_>> = BTreeMap::new();
    for mut finish in stored.chain(heard) {
        let Some(at_ms) = known.past(finish.at_ms) else {
            continue;
        };
        finish.at_ms = at_ms;
        let held = newest.entry(finish.task).or_insert(finish);
        if held.at_ms < at_ms {
            *held = finish;
        }
    }
    newest
}

fn heard<'a, 'b>(beats: &'b [Beat<'a>]) -> BTreeMap<&'a str, Vec<(State, &'b Kept<'a>)>> {
    let mut heard: BTreeMap<&str, Vec<(State, &Kept<'_>)>> = BTreeMap::new();
    for beat in beats {
        for kept in &beat.lines {
            let lines = heard.entry(kept.line.task.as_str()).or_default();
            lines.push((beat.state, kept));
        }
    }
    heard
}

/// Overdue is what its beat goes on without, and what a silent beat should have
/// sent by now.
fn heard_overdue(lines: &[(State, &Kept<'_>)]) -> Option<bool> {
    let late = |(state, kept): &(State, &Kept<'_>)| {
        kept.left || (matches!(state, State::Silent | State::Late) && kept.is_due)
    };
    if lines.iter().any(late) {
        return Some(true);
    }
    let fine = |(state, kept): &(State, &Kept<'_>)| *state != State::Unknown && !kept.is_due;
    lines.iter().any(fine).then_some(false)
}

fn failing(finish: Finish<'_>, interval: Option<i64>, known: &Known) -> Option<Finding> {
    let recent = interval.map_or_else(
        || known.age(finish.at_ms) <= RESULT_LIFE_MS,
        |interval| known.within_two(finish.at_ms, interval),
    );
    (finish.status == "FAILURE" && recent).then(|| Finding {
        code: Code::TasksFailing,
        detail: format!(
            "the periodic task {} failed {} ago with {}",
            name(finish.task.as_bytes()),
            span(known.age(finish.at_ms)),
            finish.exc_type.map_or_else(
                || "an unnamed exception".to_owned(),
                |exc| name(exc.as_bytes())
            )
        ),
        advice: "read the worker's log for its traceback".to_owned(),
    })
}

/// What lies there about each task.
struct Lies<'a> {
    /// When it was last published, Unix ms, as messages and RedBeat's entries tell.
    published: BTreeMap<&'a str, i64>,
    /// Tasks of entries of RedBeat's that are overdue.
    late: BTreeSet<&'a str>,
    /// Tasks of entries that will run.
    scheduled: BTreeSet<&'a str>,
}

impl<'a> Lies<'a> {
    fn new(evidence: &'a Evidence, known: &'a Known) -> Self {
        let entries = || evidence.redbeat.iter().flat_map(|r| &r.entries);
        let messages = evidence.sightings.iter();
        let messages = messages.map(|s| (s.task.as_str(), s.published_at_ms));
        let runs = entries().map(|e| (e.task.as_str(), e.last_run_at_ms));
        let mut published: BTreeMap<&str, i64> = BTreeMap::new();
        for (task, at_ms) in messages.chain(runs) {
            if let Some(at_ms) = at_ms.and_then(|at_ms| known.past(at_ms)) {
                let newest = published.entry(task).or_insert(at_ms);
                *newest = at_ms.max(*newest);
            }
        }
        let late = evidence.redbeat.iter();
        let late = late.flat_map(|r| overdue_entries(r, &evidence.heard, known));
        let scheduled = entries().filter(|e| e.due_ms.is_some() && is_scheduled(e));
        Self {
            published,
            late: late.map(|late| late.entry.task.as_str()).collect(),
            scheduled: scheduled.map(|e| e.task.as_str()).collect(),
        }
    }

    /// RedBeat's due times say yes or no. Otherwise a recent end says no, and an
    /// old one nothing: newer results may have expired or be out of the sample.
    fn overdue(
        &self,
        known: &Known,
        task: &str,
        interval: Option<i64>,
        newest: Option<i64>,
    ) -> Option<bool> {
        if self.late.contains(task) {
            return Some(true);
        }
        let recent = interval
            .is_some_and(|interval| newest.is_some_and(|at| known.within_two(at, interval)));
        (self.scheduled.contains(task) || recent).then_some(false)
    }
}
