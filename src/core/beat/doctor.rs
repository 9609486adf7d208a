//! The assessment as a person reads it at night: what is wrong, what shows it,
//! and what to type next. Plain text of at most [`WIDTH`] columns, except for
//! commands, which are whole so that they can be copied.

use std::fmt::Write as _;

use super::assessment::{
    Assessment, Certainty, Publisher, QueuePart, RedBeatPart, Source, Task, Verdict, WorkersPart,
};
use super::evidence::Hold;
use super::finding::{Code, Finding};
use super::words::{counted, name, span};

/// Columns of a line.
const WIDTH: usize = 80;

/// Findings, queues, tasks and sentences of evidence shown; HYGIENE.BEATSTATUS
/// VERBOSE has the rest.
const SHOWN: usize = 10;

/// Where the text behind a link's name begins.
const LINK_INDENT: usize = 13;

/// The longest name that a command repeats, in bytes: it cannot be cut there.
const LONGEST_TYPED: usize = 200;

/// What HYGIENE.DOCTOR says at `now_ms` (Unix ms, the moment of the assessment).
#[must_use]
pub fn doctor(assessment: &Assessment, now_ms: i64) -> String {
    let mut page = Page::default();
    let verdict = assessment.verdict;
    page.paragraph(0, &format!("{}: {}", verdict.word(), plainly(verdict)));
    page.blank();
    page.paragraph(2, &assessment.reason);
    findings(&mut page, &assessment.findings);
    links(&mut page, assessment, now_ms);
    evidence(&mut page, &assessment.evidence);
    next(&mut page, assessment);
    page.0
}

/// The verdict in a few words.
const fn plainly(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Healthy => "periodic work happens",
        Verdict::BeatSilent => "beat does not publish any more",
        Verdict::BeatDuplicate => "more than one beat publishes the same tasks",
        Verdict::BeatFlapping => "beats come and go, so long intervals never fire",
        Verdict::QueueNotConsumed => "periodic work lies in a queue that nobody reads",
        Verdict::WorkersAbsent => "work waits and no worker is connected",
        Verdict::TasksFailing => "the newest run of a periodic task failed",
        Verdict::UnackedStuck => "messages were taken long ago and never finished",
        Verdict::Unknown => "what lies in Redis allows no answer",
    }
}

/// Text under way.
#[derive(Default)]
struct Page(String);

impl Page {
    fn blank(&mut self) {
        self.0.push('\n');
    }

    fn heading(&mut self, text: &str) {
        self.blank();
        self.line(0, text);
    }

    /// One line as it is.
    fn line(&mut self, indent: usize, text: &str) {
        let _ = writeln!(self.0, "{:indent$}{}", "", printable(text));
    }

    /// Words broken into lines.
    fn paragraph(&mut self, indent: usize, text: &str) {
        self.hanging("", indent, text);
    }

    /// The same behind a label that stands in front of the first line.
    fn hanging(&mut self, label: &str, indent: usize, text: &str) {
        let mut line = format!("{label:indent$}");
        let mut at = line.chars().count();
        let mut fresh = true;
        for word in text.split_whitespace() {
            let word = printable(word);
            let long = word.chars().count();
            if !fresh && at + 1 + long > WIDTH {
                let _ = writeln!(self.0, "{line}");
                line = " ".repeat(indent);
                at = indent;
                fresh = true;
            }
            if !fresh {
                line.push(' ');
                at += 1;
            }
            line.push_str(&word);
            at += long;
            fresh = false;
        }
        let _ = writeln!(self.0, "{}", line.trim_end());
    }

    /// The end of a list that was cut.
    fn more(&mut self, indent: usize, all: usize) {
        if let Some(more) = all.checked_sub(SHOWN).filter(|more| *more > 0) {
            self.line(
                indent,
                &format!("and {more} more: HYGIENE.BEATSTATUS VERBOSE"),
            );
        }
    }
}

/// Control characters as escapes, so that no name can move somebody's cursor.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

fn findings(page: &mut Page, findings: &[Finding]) {
    if findings.is_empty() {
        return;
    }
    page.heading("WHAT IS WRONG, worst first");
    for (number, finding) in (1..).zip(findings.iter().take(SHOWN)) {
        let head = format!("{number}. ");
        let code = finding.code;
        let text = format!("{} ({})", code.word(), code.severity().word());
        page.hanging(&format!("{head:>5}"), 5, &text);
        page.paragraph(5, &finding.detail);
        page.hanging("     do: ", 9, &finding.advice);
    }
    page.more(5, findings.len());
}

fn links(page: &mut Page, assessment: &Assessment, now_ms: i64) {
    page.heading("LINK BY LINK");
    page.hanging("  beat", LINK_INDENT, &beat(&assessment.publisher, now_ms));
    if let Some(redbeat) = &assessment.redbeat {
        page.hanging("  RedBeat", LINK_INDENT, &schedule(redbeat));
    }
    let mut label = "  queues";
    if assessment.queues.is_empty() {
        page.hanging(label, LINK_INDENT, "none seen");
    }
    for part in assessment.queues.iter().take(SHOWN) {
        page.hanging(label, LINK_INDENT, &queue(part));
        label = "";
    }
    page.more(LINK_INDENT, assessment.queues.len());
    page.hanging("  workers", LINK_INDENT, &workers(&assessment.workers));
    let unacked = &assessment.unacked;
    let mut taken = counted(unacked.count, "message");
    taken.push_str(" taken and not acknowledged");
    if let Some(age) = unacked.oldest_ms {
        let _ = write!(taken, ", the oldest for {}", span(age));
    }
    if unacked.stuck > 0 {
        let _ = write!(taken, "; {} stuck", unacked.stuck);
    }
    page.hanging("  taken", LINK_INDENT, &taken);
    label = "  tasks";
    for part in assessment.tasks.iter().take(SHOWN) {
        page.hanging(label, LINK_INDENT, &task(part, now_ms));
        label = "";
    }
    page.more(LINK_INDENT, assessment.tasks.len());
}

fn ago(at_ms: i64, now_ms: i64) -> String {
    format!("{} ago", span(now_ms.saturating_sub(at_ms)))
}

fn beat(part: &Publisher, now_ms: i64) -> String {
    let mut text = part.state.word().to_owned();
    match part.certainty {
        Certainty::Proven => text.push_str(", proven"),
        Certainty::Inferred => text.push_str(", likely"),
        Certainty::None => {}
    }
    if part.source != Source::None {
        let _ = write!(text, ", by {}", part.source.word());
    }
    if let Some(at_ms) = part.last_seen_ms {
        let _ = write!(text, "; last seen {}", ago(at_ms, now_ms));
    }
    if let Some(first) = part.origins.first() {
        let _ = write!(text, "; from {}", name(first.as_bytes()));
        if let Some(more) = part.origins.len().checked_sub(1).filter(|more| *more > 0) {
            let _ = write!(text, " and {more} more");
        }
    }
    text
}

fn schedule(part: &RedBeatPart) -> String {
    let lock = match part.lock {
        Hold::Absent => "no lock".to_owned(),
        Hold::NoTtl => "a lock that never expires".to_owned(),
        Hold::Ttl(ms) => format!("its lock lives {} more", span(ms)),
    };
    let mut text = lock;
    if part.entries == 1 {
        text.push_str("; 1 entry");
    } else {
        let _ = write!(text, "; {} entries", part.entries);
    }
    let _ = write!(text, ", {} overdue", part.overdue);
    if part.without_definition > 0 {
        let _ = write!(text, ", {} without definition", part.without_definition);
    }
    text
}

fn queue(part: &QueuePart) -> String {
    let mut text = format!("{}: {}", name(&part.name), counted(part.length, "message"));
    if part.db != 0 {
        let _ = write!(text, " in db {}", part.db);
    }
    if let Some(age) = part.oldest_message_ms {
        let _ = write!(text, ", the oldest {} old", span(age));
    }
    text.push_str(match part.consumed {
        Some(true) => ", read",
        Some(false) => ", nobody reads it",
        None => "",
    });
    text
}

fn workers(part: &WorkersPart) -> String {
    let Some(live) = part.live else {
        return "not counted".to_owned();
    };
    let mut text = format!("{} connected", counted(live, "worker"));
    if let Some(blocked) = part.blocked_consumers {
        let wait = if blocked == 1 { "waits" } else { "wait" };
        let _ = write!(
            text,
            ", {} {wait} for messages",
            counted(blocked, "consumer")
        );
    }
    text
}

fn task(part: &Task, now_ms: i64) -> String {
    let mut text = name(part.name.as_bytes());
    if let Some(interval_ms) = part.interval_ms {
        let _ = write!(text, " every {}", span(interval_ms));
    }
    text.push_str(": ");
    match part.last_published_ms {
        Some(at_ms) => {
            let _ = write!(text, "published {}", ago(at_ms, now_ms));
        }
        None => text.push_str("publishing not seen"),
    }
    if let Some(at_ms) = part.last_finished_ms {
        let _ = write!(text, ", ended {}", ago(at_ms, now_ms));
    }
    if let Some(status) = &part.last_status {
        let _ = write!(text, " with {}", name(status.as_bytes()));
    }
    if part.overdue == Some(true) {
        text.push_str(", OVERDUE");
    }
    text
}

fn evidence(page: &mut Page, evidence: &[String]) {
    if evidence.is_empty() {
        return;
    }
    page.heading("WHAT WAS SEEN");
    for sentence in evidence.iter().take(SHOWN) {
        page.hanging("  - ", 4, sentence);
    }
    page.more(4, evidence.len());
}

/// Something to type, and what for.
struct Step {
    command: String,
    for_what: &'static str,
}

fn next(page: &mut Page, assessment: &Assessment) {
    page.heading("TYPE NEXT");
    let mut done: Vec<String> = Vec::new();
    for step in steps(assessment) {
        if done.contains(&step.command) {
            continue;
        }
        page.line(2, &step.command);
        page.paragraph(6, step.for_what);
        done.push(step.command);
    }
}

fn steps(assessment: &Assessment) -> Vec<Step> {
    let mut steps = Vec::new();
    for finding in &assessment.findings {
        steps.extend(step(finding.code, assessment));
    }
    if let Some(task) = most_telling(&assessment.tasks)
        && let Some(task) = typed(task.name.as_bytes())
    {
        steps.push(Step {
            command: format!("HYGIENE.TRIGGER {task}"),
            for_what: "publishes it now, waits for its result, and names the link that is broken",
        });
    } else {
        steps.push(Step {
            command: "HYGIENE.CONFIG SET expected-tasks your.task=1h".to_owned(),
            for_what: "tells which tasks beat must publish, and how often",
        });
    }
    steps.push(Step {
        command: "HYGIENE.BEATSTATUS VERBOSE".to_owned(),
        for_what: "all of this as data",
    });
    steps.push(Step {
        command: "HYGIENE.FIXTTL DRYRUN".to_owned(),
        for_what: "what a clean-up of results would do, where memory is short",
    });
    steps
}

/// What helps against a finding beyond what its advice says.
fn step(code: Code, assessment: &Assessment) -> Option<Step> {
    match code {
        Code::WorkersAbsent | Code::NoWorkerSeen => Some(Step {
            command: worker(assessment.queues.iter().filter(|queue| queue.length > 0)),
            for_what: "starts a worker; PROJECT is the module of your Celery application",
        }),
        Code::QueueNotConsumed | Code::QueueUnread => Some(Step {
            command: worker(
                assessment
                    .queues
                    .iter()
                    .filter(|queue| queue.consumed == Some(false)),
            ),
            for_what: "starts a worker that reads it; PROJECT is the module of your application",
        }),
        Code::QueueBacklog => Some(Step {
            command: "celery -A PROJECT inspect active_queues".to_owned(),
            for_what: "names the workers that read it",
        }),
        Code::UnackedStuck => Some(Step {
            command: "HYGIENE.CONFIG GET visibility-timeout".to_owned(),
            for_what: "must be what broker_transport_options says in Celery",
        }),
        Code::BeatSilent | Code::BeatLate => Some(Step {
            command: if assessment.publisher.source == Source::RedBeat {
                "celery -A PROJECT beat -S redbeat.RedBeatScheduler".to_owned()
            } else {
                "celery -A PROJECT beat".to_owned()
            },
            for_what: "starts beat, where it is down; one only",
        }),
        _ => None,
    }
}

/// A worker for those queues, for the default one where there are none.
fn worker<'a>(queues: impl Iterator<Item = &'a QueuePart>) -> String {
    let names: Vec<String> = queues
        .filter_map(|queue| typed(queue.celery_name()))
        .take(3)
        .collect();
    if names.is_empty() {
        "celery -A PROJECT worker".to_owned()
    } else {
        format!("celery -A PROJECT worker -Q {}", names.join(","))
    }
}

/// The task whose test tells most: overdue, else failed, else any.
fn most_telling(tasks: &[Task]) -> Option<&Task> {
    let failed = |task: &&Task| task.last_status.as_deref() == Some("FAILURE");
    tasks
        .iter()
        .find(|task| task.overdue == Some(true))
        .or_else(|| tasks.iter().find(failed))
        .or_else(|| tasks.first())
}

/// A name as it can be typed, quoted where a blank or a quote is in it; `None` for
/// one too odd or too long to be typed.
fn typed(name: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(name).ok()?;
    if text.is_empty() || text.len() > LONGEST_TYPED || text.chars().any(char::is_control) {
        return None;
    }
    let plain = |c: char| c.is_alphanumeric() || "._-:@/".contains(c);
    if text.chars().all(plain) {
        Some(text.to_owned())
    } else if text.contains(['\'', '\\']) {
        None
    } else {
        Some(format!("'{text}'"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenarios::{
        H, MIN, NOW, S, celery, entry, expect, marked, queue, redbeat, taken, with, workers,
    };
    use super::super::{Evidence, Queue, judge};
    use super::*;

    fn said(evidence: &Evidence) -> String {
        doctor(&judge(evidence, NOW), NOW)
    }

    #[test]
    fn prints() {
        for evidence in all() {
            println!("{}\n#####\n", said(&evidence));
        }
    }

    fn unread() -> Evidence {
        with(|e| {
            e.expected = vec![expect("app.cleanup_orphaned_jobs", 10 * MIN)];
            e.queues = vec![
                Queue {
                    maintenance: true,
                    ..queue("maintenance", 1_128)
                },
                queue("celery", 0),
            ];
            e.sightings = vec![marked(
                "app.cleanup_orphaned_jobs",
                "maintenance",
                50,
                Some(40 * S),
            )];
            e.workers = workers(Some(1), Some(1));
        })
    }

    fn dead_redbeat() -> Evidence {
        with(|e| {
            e.redbeat = vec![redbeat(
                Hold::Absent,
                vec![entry("purge", MIN, 21 * MIN, -20 * MIN)],
            )];
            e.queues = vec![queue("celery", 0)];
            e.workers = workers(Some(2), Some(2));
        })
    }

    fn healthy() -> Evidence {
        with(|e| {
            e.expected = vec![expect("purge", H)];
            e.sightings = vec![marked("purge", "celery", 1, Some(10 * S))];
            e.queues = vec![queue("celery", 1)];
            e.workers = workers(Some(1), Some(0));
            e.unacked = vec![taken(1, 10 * S, Hold::Absent)];
        })
    }

    fn all() -> Vec<Evidence> {
        vec![celery(), unread(), dead_redbeat(), healthy()]
    }
}
