//! What to type next.

use super::page::Page;
use crate::core::beat::assessment::{Assessment, QueuePart, Source, State, Task};
use crate::core::beat::finding::Code;

/// The longest name that a command repeats, in bytes: it cannot be cut there.
const LONGEST_TYPED: usize = 200;

/// Something to type, and what for.
struct Step {
    command: String,
    for_what: &'static str,
}

/// The last part of the text.
pub fn next(page: &mut Page, assessment: &Assessment) {
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
    use super::*;

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
