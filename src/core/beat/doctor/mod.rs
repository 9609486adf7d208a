//! The assessment as a person reads it at night: what is wrong, what shows it,
//! and what to type next.

mod page;

use std::fmt::Write as _;

use super::assessment::{
    Assessment, Certainty, Publisher, QueuePart, RedBeatPart, Source, Step, Task, Verdict,
    WorkersPart,
};
use super::evidence::Hold;
use super::words::{counted, listed, name, span};
use page::{Page, SHOWN};

/// Where the text behind a link's name begins.
const LINK_INDENT: usize = 13;

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
    next(&mut page, &assessment.next);
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
    if let (Some(came), Some(taken)) = (part.in_per_min, part.out_per_min)
        && (came > 0 || taken > 0 || part.length > 0)
    {
        let _ = write!(text, ", {came} in and {taken} out a minute");
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
    // Where nobody is, bindings tell who was.
    if live == 0 && !part.bound.is_empty() {
        let names: Vec<String> = part.bound.iter().map(|n| name(n)).collect();
        let _ = write!(
            text,
            "; known before: {}",
            listed(names.iter().map(String::as_str))
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
    if let Some(exc_type) = &part.last_exception {
        let _ = write!(text, " ({})", name(exc_type.as_bytes()));
    }
    if part.overdue == Some(true) {
        text.push_str(", OVERDUE");
    }
    text
}

fn next(page: &mut Page, steps: &[Step]) {
    page.heading("TYPE NEXT");
    for step in steps {
        page.line(2, &step.command);
        page.paragraph(6, &step.what_for);
    }
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

#[cfg(test)]
mod tests {
    use super::super::scenarios::{
        H, MIN, NOW, S, celery, entry, expect, marked, queue, redbeat, taken, with, workers,
    };
    use super::super::{Entry, Evidence, Finish, Queue, judge};
    use super::page::WIDTH;
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
      runs it now, for real (ARGS gives it arguments), and names the link that
      does not move
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
      runs it now, for real (ARGS gives it arguments), and names the link that
      does not move
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
      runs it now, for real (ARGS gives it arguments), and names the link that
      does not move
  HYGIENE.BEATSTATUS VERBOSE
      all of this as data
  HYGIENE.FIXTTL DRYRUN
      what a clean-up of results would do, where memory is short
"
        );
    }

    #[test]
    fn a_failing_task_is_told_with_its_exception_and_a_dead_worker_by_its_name() {
        let evidence = with(|e| {
            e.expected = vec![expect("purge", H)];
            e.results = vec![Finish {
                task: "purge".to_owned(),
                finished_at_ms: NOW - 4 * MIN,
                status: "FAILURE".to_owned(),
                exc_type: Some("OperationalError".to_owned()),
            }];
            e.queues = vec![queue("celery", 2)];
            e.workers = workers(Some(0), Some(0));
            e.workers.bound = vec![b"w1@lab".to_vec()];
        });
        let said = said(&evidence);
        let at = |words: &str| {
            said.find(words)
                .unwrap_or_else(|| panic!("{words}: {said}"))
        };
        assert!(at("1. workers_absent") < at("2. tasks_failing"));
        at("0 consumers wait for messages; known before:\n             w1@lab");
        at("ended 4 min ago with\n             FAILURE (OperationalError)");
        assert!(at("celery -A PROJECT worker -Q celery") < at("HYGIENE.TRIGGER purge"));
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
}
