//! What became of a message, as far as Redis shows.

use super::route::Route;
use crate::core::beat::Crowd;
use crate::core::celery::outcome::Outcome;
use crate::core::reply::Reply;

/// What was seen of a message so far. Times are Unix ms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// When it was pushed.
    pub published_ms: i64,
    /// When it left its queue for a worker.
    pub taken_ms: Option<i64>,
    /// When its final result was written.
    pub finished_ms: Option<i64>,
    /// What its result says.
    pub outcome: Option<Outcome>,
    /// A result was written that the caller may not read.
    pub hidden: bool,
    /// It lies among the messages taken and not acknowledged.
    pub held: bool,
    /// Messages that are taken before it; `None` where that cannot be told.
    pub ahead: Option<u64>,
    /// Messages taken from its queue since it was pushed.
    pub pops: u64,
    /// It is gone from its queue and nobody took it.
    pub lost: Option<&'static str>,
    /// Whether runs of this task were seen to leave results here before; `None` where
    /// too few runs were seen to tell.
    pub leaves_results: Option<bool>,
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Published,
    Taken,
    Finished,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Taken => "taken",
            Self::Finished => "finished",
        }
    }
}

/// The link that did not move, and why.
struct Stuck {
    at: &'static str,
    why: String,
}

impl Progress {
    fn state(&self) -> State {
        if self.finished_ms.is_some() {
            State::Finished
        } else if self.taken_ms.is_some() {
            State::Taken
        } else {
            State::Published
        }
    }

    /// Nothing more will be seen of it.
    #[must_use]
    pub const fn over(&self) -> bool {
        self.finished_ms.is_some() || self.lost.is_some()
    }

    fn status(&self) -> Option<&str> {
        self.outcome.as_ref()?.status.as_deref()
    }

    /// The end of a wait that saw the result.
    fn told(&self, task: &str) -> String {
        let after =
            |ms: Option<i64>| ms.map_or(0, |ms| ms.saturating_sub(self.published_ms).max(0));
        let times = format!(
            "taken after {} ms, finished after {} ms",
            after(self.taken_ms),
            after(self.finished_ms)
        );
        let exc_type = self.outcome.as_ref().and_then(|o| o.exc_type.as_deref());
        match (self.status(), exc_type) {
            (Some("FAILURE"), Some("NotRegistered")) => format!(
                "the worker that took it does not know the task {task}: its code has no such task, \
                 does not import it, or the queue is another application's ({times})"
            ),
            (Some("FAILURE"), Some(exc_type)) => format!(
                "every link works and the task itself failed with {}: see the worker's log ({times})",
                exc_type.escape_debug()
            ),
            (Some("FAILURE"), None) => {
                format!(
                    "every link works and the task itself failed: see the worker's log ({times})"
                )
            }
            (Some("REVOKED"), _) => {
                format!("the task was revoked or expired before its end ({times})")
            }
            _ => format!("every link works: {times}"),
        }
    }

    /// The end of a wait that did not.
    fn stuck(&self, crowd: Option<Crowd>) -> Stuck {
        if let Some(why) = self.lost {
            return Stuck {
                at: "queue",
                why: why.to_owned(),
            };
        }
        match self.state() {
            State::Published => self.not_taken(crowd),
            State::Taken | State::Finished => self.not_finished(crowd),
        }
    }

    fn not_taken(&self, crowd: Option<Crowd>) -> Stuck {
        let ahead = match self.ahead {
            Some(0) => "no message is ahead of it".to_owned(),
            Some(1) => "1 message is ahead of it".to_owned(),
            Some(n) => format!("{n} messages are ahead of it"),
            None => "the queue is too long to tell its place".to_owned(),
        };
        if self.pops > 0 {
            return Stuck {
                at: "queue",
                why: format!(
                    "the queue is read ({} taken meanwhile), but its turn has not come: {ahead}",
                    self.pops
                ),
            };
        }
        match crowd {
            Some(crowd) if crowd.consumers == 0 => Stuck {
                at: "worker",
                why: format!("no worker is connected to this database; {ahead}"),
            },
            Some(crowd) if crowd.blocked == 0 => Stuck {
                at: "worker",
                why: format!(
                    "nothing was taken from the queue: every connected worker is busy with other \
                     messages or reads other queues; {ahead}"
                ),
            },
            Some(_) => Stuck {
                at: "queue",
                why: format!(
                    "nothing was taken from the queue: workers wait for messages, but not for those \
                     of this queue; {ahead}"
                ),
            },
            None => Stuck {
                at: "queue",
                why: format!("nothing was taken from the queue; {ahead}"),
            },
        }
    }

    fn not_finished(&self, crowd: Option<Crowd>) -> Stuck {
        let gone = crowd.is_some_and(|crowd| crowd.consumers == 0);
        let outcome = self.outcome.as_ref();
        let (at, why) = if self.hidden {
            let why = "a result was written that this user may not read".to_owned();
            ("result", why)
        } else if self.held && gone {
            let why = "a worker took it, and none is connected now: it has not acknowledged it, \
                       so another one puts it back when the visibility timeout is over";
            ("worker", why.to_owned())
        } else if self.status() == Some("RETRY") {
            ("task", "the task failed and waits for its retry".to_owned())
        } else if let Some(status) = self.status() {
            let begun = format!("a worker began the task ({})", status.escape_debug());
            if gone {
                let why = format!("{begun}, and none is connected now: it died with it");
                ("worker", why)
            } else {
                ("task", format!("{begun} and has not finished it"))
            }
        } else if let Some(format) = outcome.and_then(|outcome| outcome.unreadable) {
            let why = format!("a result was written whose state cannot be read ({format})");
            ("result", why)
        } else if self.held {
            let why = "a worker took it and has not acknowledged it: it waits for a free \
                       process, or runs with acks_late";
            ("task", why.to_owned())
        } else if self.leaves_results == Some(false) {
            let why = "a worker took and acknowledged it, and no result was written; none of its \
                       runs seen here left one, so the task most likely ignores its result \
                       (ignore_result), or keeps it on another server";
            ("result", why.to_owned())
        } else if self.leaves_results == Some(true) {
            let why = "a worker took and acknowledged it, and no result was written; results of \
                       this task were seen here before, so it most likely still runs";
            ("result", why.to_owned())
        } else {
            let why = "a worker took and acknowledged it, and no result was written: the task \
                       ignores its result (ignore_result), keeps it on another server, or still \
                       runs";
            ("result", why.to_owned())
        };
        Stuck { at, why }
    }
}

/// A message and what is known of it when its wait ends.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The task's name.
    pub task: &'a str,
    /// The task's id.
    pub task_id: &'a str,
    /// Where it was published.
    pub route: &'a Route,
    /// What was seen.
    pub progress: &'a Progress,
    /// Connections that may be workers' on the queue's database, looked for only
    /// where no end was seen.
    pub crowd: Option<Crowd>,
    /// How long its client waited, in ms.
    pub waited_ms: i64,
}

impl Report<'_> {
    /// The reply of HYGIENE.TRIGGER. Unknown times are -1, unknown text is empty.
    #[must_use]
    pub fn reply(&self) -> Reply {
        let Self {
            progress, route, ..
        } = self;
        let (at, mut reason) = if progress.state() == State::Finished {
            ("", progress.told(self.task))
        } else {
            let Stuck { at, why } = progress.stuck(self.crowd);
            (at, why)
        };
        if !route.bound {
            reason.push_str("; no routing table names this queue");
        }
        let status = progress.status().unwrap_or_default();
        let shown = progress.outcome.as_ref().map(|o| o.shown.clone());
        let time = |ms: Option<i64>| Reply::Int(ms.unwrap_or(-1));
        Reply::map([
            ("task_id", Reply::bytes(self.task_id)),
            ("queue", Reply::bytes(route.queue.as_slice())),
            ("db", Reply::Int(i64::from(route.db))),
            ("key", Reply::bytes(route.key())),
            ("bound", Reply::word(if route.bound { "yes" } else { "no" })),
            ("state", Reply::word(progress.state().word())),
            ("status", Reply::bytes(status)),
            ("result", Reply::bytes(shown.unwrap_or_default())),
            ("stuck_at", Reply::word(at)),
            ("reason", Reply::bytes(reason)),
            ("published_ms", Reply::Int(progress.published_ms)),
            ("taken_ms", time(progress.taken_ms)),
            ("finished_ms", time(progress.finished_ms)),
            ("waited_ms", Reply::Int(self.waited_ms)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::celery::outcome;

    const NOW: i64 = 1_790_000_000_000;

    fn published() -> Progress {
        Progress {
            published_ms: NOW,
            ahead: Some(0),
            ..Progress::default()
        }
    }

    fn taken() -> Progress {
        Progress {
            taken_ms: Some(NOW + 3),
            ..published()
        }
    }

    fn stored(status: &str, result: &str) -> Option<Outcome> {
        let payload = format!(r#"{{"status": "{status}", "result": {result}}}"#);
        Some(outcome::read(payload.as_bytes()))
    }

    fn finished(status: &str, result: &str) -> Progress {
        Progress {
            finished_ms: Some(NOW + 15),
            outcome: stored(status, result),
            ..taken()
        }
    }

    const NOBODY: Option<Crowd> = Some(Crowd {
        subscribers: 0,
        consumers: 0,
        blocked: 0,
        asking: 0,
        hearts: 0,
        beating: 0,
    });
    const BUSY: Option<Crowd> = Some(Crowd {
        subscribers: 1,
        consumers: 1,
        blocked: 0,
        asking: 0,
        hearts: 0,
        beating: 0,
    });
    const WAITING: Option<Crowd> = Some(Crowd {
        subscribers: 1,
        consumers: 1,
        blocked: 1,
        asking: 1,
        hearts: 0,
        beating: 0,
    });

    fn word(reply: &Reply, field: &str) -> String {
        let Reply::Map(fields) = reply else {
            panic!("no map: {reply:?}");
        };
        let value = fields
            .iter()
            .find(|(name, _)| name.as_ref() == field.as_bytes());
        match value {
            Some((_, Reply::Bulk(bytes))) => String::from_utf8_lossy(bytes).into_owned(),
            Some((_, Reply::Int(n))) => n.to_string(),
            other => panic!("{field}: {other:?}"),
        }
    }

    #[test]
    fn each_end_of_a_wait_is_told_apart() {
        let not_registered = r#"{"exc_type": "NotRegistered", "exc_message": ["app.purge"]}"#;
        let broken = r#"{"exc_type": "ValueError", "exc_message": ["no such order"]}"#;
        let rows: Vec<(Progress, Option<Crowd>, [&str; 4])> = vec![
            (
                finished("SUCCESS", "3"),
                None,
                [
                    "finished",
                    "SUCCESS",
                    "",
                    "taken after 3 ms, finished after 15 ms",
                ],
            ),
            (
                finished("FAILURE", broken),
                None,
                [
                    "finished",
                    "FAILURE",
                    "",
                    "the task itself failed with ValueError",
                ],
            ),
            (
                finished("FAILURE", not_registered),
                None,
                [
                    "finished",
                    "FAILURE",
                    "",
                    "does not know the task app.purge",
                ],
            ),
            (
                finished("REVOKED", "null"),
                None,
                ["finished", "REVOKED", "", "revoked"],
            ),
            (
                published(),
                NOBODY,
                ["published", "", "worker", "no worker is connected"],
            ),
            (
                published(),
                BUSY,
                ["published", "", "worker", "every connected worker is busy"],
            ),
            (
                published(),
                WAITING,
                ["published", "", "queue", "not for those of this queue"],
            ),
            (
                published(),
                None,
                [
                    "published",
                    "",
                    "queue",
                    "nothing was taken from the queue; no message",
                ],
            ),
            (
                Progress {
                    pops: 7,
                    ahead: Some(20),
                    ..published()
                },
                BUSY,
                [
                    "published",
                    "",
                    "queue",
                    "(7 taken meanwhile), but its turn has not come: 20 messages",
                ],
            ),
            (
                Progress {
                    lost: Some("the database was flushed"),
                    ..published()
                },
                NOBODY,
                ["published", "", "queue", "the database was flushed"],
            ),
            (
                Progress {
                    held: true,
                    ..taken()
                },
                BUSY,
                ["taken", "", "task", "has not acknowledged it"],
            ),
            (
                Progress {
                    held: true,
                    outcome: stored("STARTED", "{}"),
                    ..taken()
                },
                NOBODY,
                ["taken", "STARTED", "worker", "another one puts it back"],
            ),
            (
                Progress {
                    outcome: stored("STARTED", "{}"),
                    ..taken()
                },
                NOBODY,
                ["taken", "STARTED", "worker", "it died with it"],
            ),
            (taken(), NOBODY, ["taken", "", "result", "ignore_result"]),
            (
                Progress {
                    held: true,
                    outcome: stored("STARTED", "{}"),
                    ..taken()
                },
                BUSY,
                ["taken", "STARTED", "task", "began the task (STARTED)"],
            ),
            (
                Progress {
                    outcome: stored("RETRY", "{}"),
                    ..taken()
                },
                BUSY,
                ["taken", "RETRY", "task", "waits for its retry"],
            ),
            (taken(), WAITING, ["taken", "", "result", "ignore_result"]),
            (
                Progress {
                    leaves_results: Some(true),
                    ..taken()
                },
                WAITING,
                ["taken", "", "result", "most likely still runs"],
            ),
            (
                Progress {
                    leaves_results: Some(false),
                    ..taken()
                },
                WAITING,
                ["taken", "", "result", "most likely ignores its result"],
            ),
            (
                Progress {
                    outcome: Some(outcome::read(b"\x00celery-compressed\x00x")),
                    ..taken()
                },
                WAITING,
                ["taken", "", "result", "cannot be read (compressed)"],
            ),
            (
                Progress {
                    hidden: true,
                    ..taken()
                },
                WAITING,
                ["taken", "", "result", "may not read"],
            ),
        ];
        let route = Route {
            db: 0,
            prefix: b"app1:".to_vec(),
            queue: b"celery".to_vec(),
            bound: true,
            lowest: (Vec::new(), 0),
        };
        for (progress, crowd, [state, status, at, words]) in rows {
            let reply = Report {
                task: "app.purge",
                task_id: "id",
                route: &route,
                progress: &progress,
                crowd,
                waited_ms: 16,
            }
            .reply();
            let seen = ["state", "status", "stuck_at"].map(|field| word(&reply, field));
            assert_eq!(seen, [state, status, at], "{progress:?}");
            let reason = word(&reply, "reason");
            assert!(reason.contains(words), "{reason}: not {words}");
            assert!(!reason.contains("no routing table"), "{reason}");
        }
    }

    #[test]
    fn a_queue_that_no_table_names_is_said_to_be_so() {
        let route = Route {
            db: 4,
            prefix: Vec::new(),
            queue: b"adhoc".to_vec(),
            bound: false,
            lowest: (Vec::new(), 0),
        };
        let reply = Report {
            task: "app.purge",
            task_id: "id",
            route: &route,
            progress: &published(),
            crowd: NOBODY,
            waited_ms: 1_000,
        }
        .reply();
        assert!(word(&reply, "reason").ends_with("no routing table names this queue"));
        for (field, expected) in [
            ("bound", "no"),
            ("db", "4"),
            ("key", "adhoc"),
            ("taken_ms", "-1"),
            ("finished_ms", "-1"),
            ("waited_ms", "1000"),
        ] {
            assert_eq!(word(&reply, field), expected, "{field}");
        }
    }
}
