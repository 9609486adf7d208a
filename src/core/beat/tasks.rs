//! Periodic tasks: when each was published, how it ended, what is missing.

use std::collections::BTreeMap;

use super::assessment::Task;
use super::evidence::{Evidence, Finish};
use super::finding::{Code, Finding};
use super::known::{Known, is_scheduled};
use super::redbeat::overdue_entries;
use super::words::{name, span};

/// A failure older than this, of a task whose interval is unknown, says nothing
/// about now: newer results may have expired (Celery keeps them a day).
const RESULT_LIFE_MS: i64 = 86_400_000;

/// Each periodic task's part and the failing ones; overdue first, then by name.
pub fn tasks(evidence: &Evidence, known: &Known) -> (Vec<Task>, Vec<Finding>) {
    let newest = newest_finishes(evidence, known);
    let mut parts = Vec::new();
    let mut findings = Vec::new();
    for (task, interval) in known.tasks() {
        let finish = newest.get(task).copied();
        findings.extend(finish.and_then(|(f, at)| failing(f, at, interval, known)));
        parts.push(Task {
            name: task.to_owned(),
            interval_ms: interval,
            last_published_ms: last_published(evidence, known, task),
            last_finished_ms: finish.map(|(_, at)| at),
            last_status: finish.map(|(f, _)| f.status.clone()),
            overdue: overdue(evidence, known, task, interval, finish.map(|(_, at)| at)),
        });
    }
    parts.sort_by(|a, b| {
        let rank = |t: &Task| t.overdue != Some(true);
        rank(a).cmp(&rank(b)).then_with(|| a.name.cmp(&b.name))
    });
    (parts, findings)
}

fn newest_finishes<'a>(
    evidence: &'a Evidence,
    known: &Known,
) -> BTreeMap<&'a str, (&'a Finish, i64)> {
    let mut newest: BTreeMap<&str, (&Finish, i64)> = BTreeMap::new();
    for finish in &evidence.results {
        let Some(at) = known.past(finish.finished_at_ms) else {
            continue;
        };
        let held = newest.entry(&finish.task).or_insert((finish, at));
        if held.1 < at {
            *held = (finish, at);
        }
    }
    newest
}

fn failing(finish: &Finish, at: i64, interval: Option<i64>, known: &Known) -> Option<Finding> {
    let recent = interval.map_or_else(
        || known.age(at) <= RESULT_LIFE_MS,
        |interval| known.within_two(at, interval),
    );
    (finish.status == "FAILURE" && recent).then(|| Finding {
        code: Code::TasksFailing,
        detail: format!(
            "the periodic task {} failed {} ago with {}",
            name(finish.task.as_bytes()),
            span(known.age(at)),
            finish.exc_type.as_deref().map_or_else(
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
    finished: Option<i64>,
) -> Option<bool> {
    let late = evidence
        .redbeat
        .iter()
        .any(|r| overdue_entries(r, known).any(|late| late.entry.task == task));
    if late {
        return Some(true);
    }
    let scheduled = evidence
        .redbeat
        .iter()
        .flat_map(|r| &r.entries)
        .any(|e| e.task == task && e.due_ms.is_some() && is_scheduled(e));
    let published = last_published(evidence, known, task);
    let recent = interval.is_some_and(|interval| {
        finished
            .max(published)
            .is_some_and(|at| known.within_two(at, interval))
    });
    (scheduled || recent).then_some(false)
}
