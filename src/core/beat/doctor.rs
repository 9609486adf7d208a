//! The assessment as a person reads it at night: what is wrong, what shows it,
//! and what to type next. Plain text of at most [`WIDTH`] columns, except for
//! commands, which are whole so that they can be copied.

use std::fmt::Write as _;

use super::assessment::{
    Assessment, Certainty, Publisher, QueuePart, RedBeatPart, Source, State, Task, Verdict,
    WorkersPart,
};
use super::evidence::Hold;
use super::finding::Code;
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
    findings(&mut page, assessment);
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

fn findings(page: &mut Page, assessment: &Assessment) {
    let findings = &assessment.findings;
    if findings.is_empty() {
        return;
    }
    page.heading("WHAT IS WRONG, worst first");
    for (number, finding) in (1..).zip(findings.iter().take(SHOWN)) {
        let head = format!("{number}. ");
        let code = finding.code;
        let text = format!("{} ({})", code.word(), code.severity().word());
        page.hanging(&format!("{head:>5}"), 5, &text);
        // The worst one is the reason, which stands above.
        if finding.detail != assessment.reason {
            page.paragraph(5, &finding.detail);
        }
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
    taken.push_str(" not acknowledged");
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
            for_what: "runs it now, for real, and names the link that does not move",
        });
    } else if assessment.publisher.state == State::Unknown {
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
    use super::super::{Entry, Evidence, Finish, Queue, judge};
    use super::*;

    fn said(evidence: &Evidence) -> String {
        doctor(&judge(evidence, NOW), NOW)
    }

    #[test]
    fn an_unread_queue_is_told_with_the_worker_that_would_read_it() {
        let evidence = with(|e| {
            e.expected = vec![expect("app.cleanup_orphaned_jobs", 10 * MIN)];
            e.queues = vec![
                Queue {
                    maintenance: true,
                    name: b"app1:maintenance".to_vec(),
                    prefix: 5,
                    ..queue("", 1_128)
                },
                queue("celery", 0),
            ];
            e.sightings = vec![marked(
                "app.cleanup_orphaned_jobs",
                "app1:maintenance",
                50,
                Some(40 * S),
            )];
            e.workers = workers(Some(1), Some(1));
        });
        assert_eq!(
            said(&evidence),
            "\
queue_not_consumed: periodic work lies in a queue that nobody reads

  maintenance queue app1:maintenance holds 1128 messages and nobody reads it: 1
  consumer waits for messages while it is not empty; those looked at are of 1
  task (app.cleanup_orphaned_jobs) from 1 origin, marked by beat

WHAT IS WRONG, worst first
  1. queue_not_consumed (critical)
     do: start a worker with -Q maintenance, or send its tasks to a queue that
         is read

LINK BY LINK
  beat       alive, proven, by beat header; last seen 40 s ago; from gen7@beat
  queues     app1:maintenance: 1128 messages, nobody reads it
             celery: 0 messages
  workers    1 worker connected, 1 consumer waits for messages
  taken      0 messages not acknowledged
  tasks      app.cleanup_orphaned_jobs every 10 min: published 40 s ago

WHAT WAS SEEN
  - 50 messages of app.cleanup_orphaned_jobs (marked by beat) in
    app1:maintenance, the newest published 40 s ago
  - 1 worker connected, 1 consumer of which 1 waits for messages

TYPE NEXT
  celery -A PROJECT worker -Q maintenance
      starts a worker that reads it; PROJECT is the module of your application
  HYGIENE.TRIGGER app.cleanup_orphaned_jobs
      runs it now, for real, and names the link that does not move
  HYGIENE.BEATSTATUS VERBOSE
      all of this as data
  HYGIENE.FIXTTL DRYRUN
      what a clean-up of results would do, where memory is short
"
        );
    }

    #[test]
    fn a_dead_redbeat_is_told_with_the_beat_to_start_and_lesser_faults_after_it() {
        let evidence = with(|e| {
            let ghost = Entry {
                key: b"redbeat:ghost".to_vec(),
                name: "ghost".to_owned(),
                enabled: true,
                ..Entry::default()
            };
            e.redbeat = vec![redbeat(
                Hold::Absent,
                vec![entry("purge", MIN, 21 * MIN, -20 * MIN), ghost],
            )];
            e.queues = vec![queue("celery", 0)];
            e.workers = workers(Some(2), Some(2));
        });
        assert_eq!(
            said(&evidence),
            "\
beat_silent: beat does not publish any more

  RedBeat seems silent: RedBeat entry purge was due 20 min ago, a running beat
  moves it within 32 s, and its lock redbeat::lock is not there (stopped, dead
  longer than the lock lives, or run without a lock)

WHAT IS WRONG, worst first
  1. beat_silent (critical)
     do: look at the beat process and restart it; if RedBeat is no longer used,
         delete redbeat::schedule
  2. entry_without_definition (warning)
     1 member of redbeat::schedule without a definition (redbeat:ghost): beat
     drops such an entry when it is due, and its task never runs
     do: save the entry again, or ZREM redbeat::schedule redbeat:ghost

LINK BY LINK
  beat       silent, likely, by RedBeat; last seen 21 min ago
  RedBeat    no lock; 2 entries, 1 overdue, 1 without definition
  queues     celery: 0 messages
  workers    2 workers connected, 2 consumers wait for messages
  taken      0 messages not acknowledged
  tasks      app.purge every 60 s: published 21 min ago, OVERDUE

WHAT WAS SEEN
  - RedBeat entry purge was due 20 min ago, a running beat moves it within 32 s,
    and its lock redbeat::lock is not there (stopped, dead longer than the lock
    lives, or run without a lock)
  - 2 workers connected, 2 consumers of which 2 wait for messages

TYPE NEXT
  celery -A PROJECT beat -S redbeat.RedBeatScheduler
      starts beat, where it is down; one only
  HYGIENE.TRIGGER app.purge
      runs it now, for real, and names the link that does not move
  HYGIENE.BEATSTATUS VERBOSE
      all of this as data
  HYGIENE.FIXTTL DRYRUN
      what a clean-up of results would do, where memory is short
"
        );
    }

    #[test]
    fn health_is_told_with_what_shows_it() {
        let evidence = with(|e| {
            e.expected = vec![expect("purge", H)];
            e.sightings = vec![marked("purge", "celery", 1, Some(10 * S))];
            e.results = vec![Finish {
                task: "purge".to_owned(),
                finished_at_ms: NOW - H,
                status: "SUCCESS".to_owned(),
                exc_type: None,
            }];
            e.queues = vec![queue("celery", 1)];
            e.workers = workers(Some(1), Some(0));
            e.unacked = vec![taken(1, 10 * S, Hold::Absent)];
        });
        assert_eq!(
            said(&evidence),
            "\
healthy: periodic work happens

  beat is alive (1 message of purge (marked by beat) in celery, the newest
  published 10 s ago) and no link after it is seen broken

LINK BY LINK
  beat       alive, proven, by beat header; last seen 10 s ago; from gen7@beat
  queues     celery: 1 message
  workers    1 worker connected, 0 consumers wait for messages
  taken      1 message not acknowledged, the oldest for 10 s
  tasks      purge every 60 min: published 10 s ago, ended 60 min ago with
             SUCCESS

WHAT WAS SEEN
  - 1 message of purge (marked by beat) in celery, the newest published 10 s ago
  - 1 worker connected, 1 consumer of which 0 wait for messages

TYPE NEXT
  HYGIENE.TRIGGER purge
      runs it now, for real, and names the link that does not move
  HYGIENE.BEATSTATUS VERBOSE
      all of this as data
  HYGIENE.FIXTTL DRYRUN
      what a clean-up of results would do, where memory is short
"
        );
    }

    #[test]
    fn without_evidence_it_says_what_would_give_some() {
        assert_eq!(
            said(&celery()),
            "\
unknown: what lies in Redis allows no answer

  Celery uses this server, but nothing that beat leaves was seen: stock beat
  stores no key, so name its tasks in hygiene.expected-tasks

LINK BY LINK
  beat       unknown
  queues     none seen
  workers    not counted
  taken      0 messages not acknowledged

TYPE NEXT
  HYGIENE.CONFIG SET expected-tasks your.task=1h
      tells which tasks beat must publish, and how often
  HYGIENE.BEATSTATUS VERBOSE
      all of this as data
  HYGIENE.FIXTTL DRYRUN
      what a clean-up of results would do, where memory is short
"
        );
    }

    /// Names with everything that could leave its place.
    fn hostile() -> Evidence {
        with(|e| {
            let long = "x".repeat(5_000);
            let tasks = ["\u{1b}[2Jgone", "a b", "it's", "new\nline", long.as_str()];
            e.expected = tasks.iter().map(|task| expect(task, H)).collect();
            e.queues = (0..30)
                .map(|n| queue(&format!("q\u{7}\r\n{n} {long}"), 100 - n))
                .chain([queue("high prio", 5), queue("o'clock", 5)])
                .collect();
            e.sightings = tasks
                .iter()
                .map(|task| marked(task, "high prio", 3, Some(9 * H)))
                .collect();
            e.workers = workers(Some(0), Some(0));
        })
    }

    #[test]
    fn no_name_leaves_its_place_and_no_list_its_bound() {
        let said = said(&hostile());
        assert!(
            said.chars().all(|c| c == '\n' || !c.is_control()),
            "{said:?}"
        );
        for line in said.lines().filter(|line| !line.contains("xxxx")) {
            assert!(line.chars().count() <= WIDTH, "{line}");
            assert_eq!(line.trim_end(), line);
        }
        assert!(said.lines().count() < 150, "{said}");
        assert!(said.contains("and 22 more: HYGIENE.BEATSTATUS VERBOSE"));
        // Blanks are quoted; what cannot be typed is left out.
        assert!(
            said.contains("celery -A PROJECT worker -Q 'high prio'\n"),
            "{said}"
        );
    }

    #[test]
    fn a_name_is_typed_whole_quoted_or_not_at_all() {
        for (name, expected) in [
            ("app.cleanup", Some("app.cleanup")),
            ("w1@host:5/x-y_z", Some("w1@host:5/x-y_z")),
            ("größe", Some("größe")),
            ("high prio", Some("'high prio'")),
            ("$(reboot)", Some("'$(reboot)'")),
            ("a'b", None),
            ("a\\b", None),
            ("a\nb", None),
            ("", None),
        ] {
            assert_eq!(typed(name.as_bytes()).as_deref(), expected, "{name}");
        }
        assert_eq!(typed(b"\xff"), None);
        assert_eq!(typed(&[b'x'; LONGEST_TYPED + 1]), None);
    }
}
