//! What to type next.

use std::collections::HashSet;

use super::assessment::{Assessment, QueuePart, Source, State, Step, Task};
use super::beats::Beat;
use super::evidence::{Evidence, Hold, Refusal};
use super::finding::Code;
use super::traffic::Voice;
use crate::core::trigger::{Asked, route};

/// The longest name that a command repeats, in bytes: it cannot be cut there.
const LONGEST_TYPED: usize = 200;

/// Processes of beats that are named, of two that run at a time both.
const MOST_PROCESSES: usize = 2;

/// What to type next: what helps against each finding, worst first, then what tells
/// more.
pub fn steps(evidence: &Evidence, beats: &[Beat<'_>], assessment: &Assessment) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut add = |step: Step| {
        if !steps.iter().any(|done| done.command == step.command) {
            steps.push(step);
        }
    };
    let mut codes: Vec<Code> = assessment.findings.iter().map(|f| f.code).collect();
    codes.dedup();
    for code in codes {
        against(code, evidence, beats, assessment)
            .into_iter()
            .for_each(&mut add);
    }
    // Where the server refuses writes nothing can be published.
    let may_test = evidence.refusal.is_none();
    let test = most_telling(assessment).filter(|_| may_test);
    let test = test.and_then(|task| trigger(evidence, &task.name));
    if let Some(command) = test {
        add(Step {
            command,
            what_for: "runs it now, for real (ARGS gives it arguments), and names the link that does not move".to_owned(),
        });
    } else if may_test && assessment.publisher.state == State::Unknown {
        add(step(
            "HYGIENE.CONFIG SET expected-tasks your.task=1h",
            "tells which tasks beat must publish, and how often",
        ));
    }
    add(step("HYGIENE.BEATSTATUS VERBOSE", "all of this as data"));
    add(step(
        "HYGIENE.FIXTTL DRYRUN",
        "what a clean-up of results would do, where memory is short",
    ));
    steps
}

fn step(command: impl Into<String>, what_for: impl Into<String>) -> Step {
    Step {
        command: command.into(),
        what_for: what_for.into(),
    }
}

/// What helps against a finding beyond what its advice says.
fn against(
    code: Code,
    evidence: &Evidence,
    beats: &[Beat<'_>],
    assessment: &Assessment,
) -> Vec<Step> {
    let queues = assessment.queues.iter();
    match code {
        Code::WritesRefused => match evidence.refusal {
            Some(Refusal::Memory) => vec![
                step("CONFIG GET maxmemory", "how much it may take, in bytes"),
                step("HYGIENE.SCAN", "what takes it"),
                step(
                    "HYGIENE.FIXTTL DRYRUN",
                    "what clearing results would give back",
                ),
            ],
            Some(Refusal::Paused) => vec![step("CLIENT UNPAUSE", "ends a pause nobody wants")],
            Some(Refusal::Disk(_)) => vec![step("INFO persistence", "what failed, and when")],
            Some(Refusal::Replicas) => vec![step("INFO replication", "which replicas are there")],
            None => Vec::new(),
        },
        Code::WorkersAbsent | Code::NoWorkerSeen => vec![step(
            worker(queues.filter(|queue| queue.length > 0)),
            "starts a worker; PROJECT is the module of your Celery application",
        )],
        Code::QueueNotConsumed | Code::QueueUnread => {
            let workers = &assessment.workers;
            let none_waits = workers.blocked_consumers == Some(0);
            let mut steps = Vec::new();
            if none_waits && workers.live.is_some_and(|n| n > 0) {
                steps.push(ping());
            }
            steps.push(step(
                worker(queues.filter(|queue| queue.consumed == Some(false))),
                "starts a worker that reads it; PROJECT is the module of your application",
            ));
            steps
        }
        Code::QueueBacklog => vec![step(
            "celery -A PROJECT inspect active_queues",
            "names the workers that read it",
        )],
        Code::UnackedStuck if assessment.unacked.stuck == 0 => vec![ping()],
        Code::UnackedStuck => {
            let mut steps = unblock(evidence);
            if steps.is_empty() {
                steps.push(step(
                    "HYGIENE.CONFIG GET visibility-timeout",
                    "must be what broker_transport_options says in Celery",
                ));
            }
            steps.push(step(
                "HYGIENE.ORPHANS",
                "tells what is stuck; ORPHANS REQUEUE puts it back as workers do",
            ));
            steps
        }
        Code::MutexWithoutTtl => unblock(evidence),
        Code::LockWithoutTtl => {
            let locks = evidence.redbeat.iter().filter(|r| r.lock == Hold::NoTtl);
            locks
                .flat_map(|r| {
                    expire(
                        r.db,
                        &r.lock_key,
                        1_500,
                        "lets another beat start if this one dies; a running one renews it",
                    )
                })
                .collect()
        }
        Code::BeatSilent | Code::BeatLate => {
            let mut steps = processes(
                assessment,
                1,
                "whether the beat heard last still runs; one that is stopped (T) or hangs must be ended before another is started",
            );
            steps.push(step(
                beat(evidence, beats, assessment),
                "starts beat, where it is down; one only",
            ));
            steps
        }
        Code::ExpectedTaskMissing if assessment.publisher.state == State::Unknown => vec![step(
            beat(evidence, beats, assessment),
            "starts beat, where none runs; one only",
        )],
        Code::BeatDuplicate => processes(
            assessment,
            MOST_PROCESSES,
            "one of the beats; the one that is too many ends with `kill` and its pid",
        ),
        _ => Vec::new(),
    }
}

/// Finds the worker that hangs.
fn ping() -> Step {
    step(
        "celery -A PROJECT inspect ping",
        "a worker that does not answer is frozen: restart it",
    )
}

/// Lets workers put messages back again where a mutex never expires.
fn unblock(evidence: &Evidence) -> Vec<Step> {
    let held = evidence.unacked.iter().filter(|u| u.mutex == Hold::NoTtl);
    held.flat_map(|u| {
        expire(
            u.db,
            &u.mutex_key,
            300,
            "workers put messages back again when it is gone",
        )
    })
    .collect()
}

/// EXPIRE in the key's database.
fn expire(db: u32, key: &[u8], seconds: u32, what_for: &str) -> Vec<Step> {
    let Some(key) = typed(key) else {
        return Vec::new();
    };
    let mut steps = Vec::new();
    if db != 0 {
        steps.push(step(
            format!("SELECT {db}"),
            "the database of the next command",
        ));
    }
    steps.push(step(format!("EXPIRE {key} {seconds}"), what_for));
    steps
}

/// How the beat is started that was there, as far as its scheduler left a trace.
fn beat(evidence: &Evidence, beats: &[Beat<'_>], assessment: &Assessment) -> String {
    let lines = || beats.iter().flat_map(|beat| &beat.lines);
    let entries = || evidence.redbeat.iter().flat_map(|r| &r.entries);
    let mut sightings = evidence.sightings.iter();
    // RedBeat's messages carry the mark of Celery's own beat, which it inherits.
    let redbeat = assessment.publisher.source == Source::RedBeat
        || {
            let tasks: HashSet<&str> = lines().map(|kept| kept.line.task.as_str()).collect();
            entries().any(|entry| tasks.contains(entry.task.as_str()))
        }
        || lines().any(|kept| ticked_with(evidence, kept.line.whole.last_ms));
    // Only django-celery-beat names the entry.
    let django = lines().any(|kept| kept.line.entry.is_some())
        || sightings.any(|s| s.periodic_name.is_some());
    let scheduler = match (redbeat, django) {
        (true, _) => " -S redbeat.RedBeatScheduler",
        (_, true) => " -S django_celery_beat.schedulers:DatabaseScheduler",
        _ => "",
    };
    format!("celery -A PROJECT beat{scheduler}")
}

/// Whether RedBeat ticked when beat spoke last: its schedule may have been lost since.
fn ticked_with(evidence: &Evidence, spoke_ms: i64) -> bool {
    let mut ticks = evidence.heard.ticks.iter();
    ticks.any(|tick| tick.last_ms.abs_diff(spoke_ms) <= tick.timeout_ms.unsigned_abs())
}

/// Looks at the processes that the newest of beat's messages came from.
fn processes(assessment: &Assessment, most: usize, what_for: &str) -> Vec<Step> {
    let origins = assessment.publisher.origins.iter();
    origins
        .filter_map(|origin| process(origin))
        .take(most)
        .map(|(pid, host)| {
            step(
                format!("ps -o pid,stat,etime,args -p {pid}"),
                format!("on {host}: {what_for}"),
            )
        })
        .collect()
}

/// Pid and host of an origin: `gen<pid>@<host>` (kombu 5.7, celery/utils/nodenames.py
/// `anon_nodename`).
fn process(origin: &str) -> Option<(u32, &str)> {
    let (pid, host) = origin.strip_prefix("gen")?.split_once('@')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let sane = !host.is_empty() && host.len() <= LONGEST_TYPED && host.chars().all(plain);
    Some((pid.parse().ok()?, host)).filter(|_| sane)
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

/// The task whose test tells most: overdue, else failed, else any; failed first
/// where that is the worst.
fn most_telling(assessment: &Assessment) -> Option<&Task> {
    let tasks = &assessment.tasks;
    let failed = || {
        let mut tasks = tasks.iter();
        tasks.find(|task| task.last_status.as_deref() == Some("FAILURE"))
    };
    let overdue = || tasks.iter().find(|task| task.overdue == Some(true));
    let worst = assessment.findings.first().map(|finding| finding.code);
    match worst {
        Some(Code::TasksFailing) => failed().or_else(overdue),
        _ => overdue().or_else(failed),
    }
    .or_else(|| tasks.first())
}

/// TRIGGER for a task, to the queue that its messages were seen in, so that it works
/// from any database.
fn trigger(evidence: &Evidence, task: &str) -> Option<String> {
    let command = format!("HYGIENE.TRIGGER {}", typed(task.as_bytes())?);
    let to = |queue, db| {
        // No client's database is this one.
        let home = u32::MAX;
        route(
            evidence,
            &Asked {
                task,
                queue,
                db,
                home,
            },
        )
    };
    let plain = to(None, None).ok();
    let Some((db, key)) = place(evidence, task) else {
        return plain.map(|_| command);
    };
    if plain.is_some_and(|route| (route.db, route.first_key().as_slice()) == (db, key)) {
        return Some(command);
    }
    let mut queues = evidence.queues.iter();
    let queue = queues.find(|queue| queue.db == db && queue.name == key);
    let queue = queue.map_or(key, |queue| queue.celery_name());
    to(Some(queue), Some(db)).ok()?;
    Some(format!("{command} QUEUE {} DB {db}", typed(queue)?))
}

/// Database and list in which the task's newest message was seen or heard.
fn place<'a>(evidence: &'a Evidence, task: &str) -> Option<(u32, &'a [u8])> {
    let spoke = |voices: &[Voice]| voices.iter().map(|v| v.last_ms).max();
    let heard = evidence.heard.lines.iter().filter(|line| line.task == task);
    let heard = heard.max_by_key(|line| spoke(&line.voices));
    let seen = evidence.sightings.iter().filter(|s| s.task == task);
    let seen = seen.max_by_key(|s| (s.published_at_ms, s.count));
    heard
        .map(|line| (line.db, line.queue.as_slice()))
        .or_else(|| seen.map(|s| (s.db, s.queue.as_slice())))
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
        H, MIN, NOW, S, entry, expect, marked, queue, redbeat, taken, voice, with, workers,
    };
    use super::super::{Line, Tick, judge};
    use super::*;

    fn told(evidence: &Evidence) -> Vec<String> {
        let steps = judge(evidence, NOW).next.into_iter();
        steps.map(|step| step.command).collect()
    }

    /// A beat that spoke each minute until ten minutes ago.
    fn silent(entry: Option<&str>) -> Evidence {
        let voice = Voice {
            known_ms: NOW - 2 * H,
            first_ms: NOW - 2 * H,
            count: 110,
            marked: true,
            times_ms: Vec::new(),
            ..voice("gen20669@vm".to_owned(), 10 * MIN)
        };
        with(|e| {
            e.heard.since_ms = Some(NOW - 3 * H);
            e.heard.lines = vec![Line {
                task: "app.purge".to_owned(),
                entry: entry.map(str::to_owned),
                queue: b"celery".to_vec(),
                whole: voice.clone(),
                voices: vec![voice],
                ..Line::default()
            }];
            e.queues = vec![queue("celery", 0)];
            e.workers = workers(Some(1), Some(1));
        })
    }

    #[test]
    fn a_dead_beat_is_looked_for_and_started_with_its_own_scheduler() {
        let looks = "ps -o pid,stat,etime,args -p 20669";
        let stock = told(&silent(None));
        assert_eq!(stock[..2], [looks, "celery -A PROJECT beat"]);
        let django = "celery -A PROJECT beat -S django_celery_beat.schedulers:DatabaseScheduler";
        assert_eq!(told(&silent(Some("each minute")))[..2], [looks, django]);
        // RedBeat's messages bear the mark of Celery's own beat.
        let mut evidence = silent(None);
        evidence.redbeat = vec![redbeat(
            Hold::Absent,
            vec![entry("purge", MIN, 10 * MIN, -9 * MIN)],
        )];
        let redbeat = "celery -A PROJECT beat -S redbeat.RedBeatScheduler";
        assert_eq!(told(&evidence)[..2], [looks, redbeat]);
        // Its schedule is gone, and its lock was heard.
        evidence = silent(None);
        evidence.heard.ticks = vec![Tick {
            lock_key: b"redbeat::lock".to_vec(),
            timeout_ms: 25 * MIN,
            last_ms: NOW - 9 * MIN,
            ..Tick::default()
        }];
        assert_eq!(told(&evidence)[..2], [looks, redbeat]);
        // It was used long before another beat spoke.
        evidence.heard.ticks[0].last_ms = NOW - H;
        assert_eq!(told(&evidence)[1], "celery -A PROJECT beat");
    }

    #[test]
    fn each_kind_of_stuck_messages_has_its_own_command() {
        let stuck = |mutex| with(|e| e.unacked = vec![taken(9, 25 * H, mutex)]);
        let blocked = told(&stuck(Hold::NoTtl));
        assert_eq!(
            blocked[..2],
            ["EXPIRE unacked_mutex 300", "HYGIENE.ORPHANS"]
        );
        let mut elsewhere = stuck(Hold::NoTtl);
        elsewhere.unacked[0].db = 3;
        assert_eq!(
            told(&elsewhere)[..2],
            ["SELECT 3", "EXPIRE unacked_mutex 300"]
        );
        let old = told(&stuck(Hold::Absent));
        let timeout = "HYGIENE.CONFIG GET visibility-timeout";
        assert_eq!(old[..2], [timeout, "HYGIENE.ORPHANS"]);
    }

    #[test]
    fn a_test_goes_to_the_queue_that_the_task_was_seen_in() {
        let mut reports = queue("reports", 1);
        reports.db = 3;
        let evidence = |queues: Vec<_>| {
            with(|e| {
                e.queues = queues;
                let mut seen = marked("app.report", "reports", 1, Some(S));
                seen.db = 3;
                e.sightings = vec![seen];
            })
        };
        let plain = "HYGIENE.TRIGGER app.report";
        assert!(told(&evidence(vec![reports.clone()])).contains(&plain.to_owned()));
        // Two brokers have such a queue, or no table names it.
        let named = format!("{plain} QUEUE reports DB 3");
        let two = vec![reports.clone(), queue("reports", 0)];
        assert!(told(&evidence(two)).contains(&named));
        reports.bound = false;
        assert!(told(&evidence(vec![reports, queue("celery", 0)])).contains(&named));
        // Nobody knows where to.
        let nowhere = with(|e| e.expected = vec![expect("app.report", H)]);
        let nowhere = told(&nowhere);
        assert!(
            !nowhere.iter().any(|step| step.contains("TRIGGER")),
            "{nowhere:?}"
        );
    }

    #[test]
    fn a_server_that_takes_no_writes_is_told_before_all_else() {
        let mut evidence = with(|e| {
            e.queues = vec![queue("celery", 3)];
            e.workers = workers(Some(0), Some(0));
            e.sightings = vec![marked("app.report", "celery", 3, Some(S))];
        });
        let trigger = "HYGIENE.TRIGGER app.report".to_owned();
        assert!(told(&evidence).contains(&trigger));
        for (refusal, command) in [
            (Refusal::Paused, "CLIENT UNPAUSE"),
            (Refusal::Memory, "CONFIG GET maxmemory"),
            (Refusal::Disk("the last save failed"), "INFO persistence"),
            (Refusal::Replicas, "INFO replication"),
        ] {
            evidence.refusal = Some(refusal);
            let told = judge(&evidence, NOW);
            assert_eq!(told.next[0].command, command);
            let codes: Vec<Code> = told.findings.iter().map(|f| f.code).collect();
            assert_eq!(codes, [Code::WritesRefused, Code::WorkersAbsent]);
            let publishes = told.next.iter().any(|step| step.command == trigger);
            assert!(!publishes, "{refusal:?}");
        }
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
        for (origin, expected) in [
            ("gen20669@vm", Some((20_669, "vm"))),
            ("gen1@web-7d4f.local", Some((1, "web-7d4f.local"))),
            ("gen@vm", None),
            ("gen-1@vm", None),
            ("gen7@$(reboot)", None),
            ("gen7@", None),
            ("celery@vm", None),
        ] {
            assert_eq!(process(origin), expected, "{origin}");
        }
        assert_eq!(typed(b"\xff"), None);
        assert_eq!(typed(&[b'x'; LONGEST_TYPED + 1]), None);
    }
}
