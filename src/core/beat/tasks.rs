//! Periodic tasks: when each was published, how it ended, what is missing.

use std::collections::BTreeMap;

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
    let mut parts = Vec::new();
    let mut findings = Vec::new();
    for (task, interval) in known.tasks() {
        let finish = newest.get(task).copied();
        let heard = heard.get(task).map_or(&[][..], Vec::as_slice);
        findings.extend(finish.and_then(|f| failing(f, interval, known)));
        let published = last_published(evidence, known, task);
        let published = heard.iter().map(|(_, k)| k.last_ms).max().max(published);
        let finished = finish.map(|f| f.at_ms);
        let lies = || overdue(evidence, known, task, interval, published.max(finished));
        parts.push(Task {
            name: task.to_owned(),
            interval_ms: interval,
            last_published_ms: published,
            last_finished_ms: finished,
            last_status: finish.map(|f| f.status.to_owned()),
            last_exception: finish.and_then(|f| f.exc_type.map(str::to_owned)),
            overdue: heard_overdue(heard).or_else(lies),
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

fn last_published(evidence: &Evidence, known: &Known, task: &str) -> Option<i64> {
    let messages = evidence
        .sightings
        .iter()
        .filter(|s| s.task == task)
        .filter_map(|s| s.published_at_ms);
    let runs = evidence
        .redbeat
        .iter()
        .flat_map(|r| &r.entries)
        .filter(|e| e.task == task)
        .filter_map(|e| e.last_run_at_ms);
    messages.chain(runs).filter_map(|t| known.past(t)).max()
}

/// RedBeat's due times say yes or no. Otherwise a recent end says no, and an
/// old one nothing: newer results may have expired or be out of the sample.
fn overdue(
    evidence: &Evidence,
    known: &Known,
    task: &str,
    interval: Option<i64>,
    newest: Option<i64>,
) -> Option<bool> {
    let late = evidence
        .redbeat
        .iter()
        .any(|r| overdue_entries(r, &evidence.heard, known).any(|late| late.entry.task == task));
    if late {
        return Some(true);
    }
    let scheduled = evidence
        .redbeat
        .iter()
        .flat_map(|r| &r.entries)
        .any(|e| e.task == task && e.due_ms.is_some() && is_scheduled(e));
    let recent =
        interval.is_some_and(|interval| newest.is_some_and(|at| known.within_two(at, interval)));
    (scheduled || recent).then_some(false)
}
