//! HYGIENE.TRIGGER's decisions: where a message goes, and what became of it.

use super::beat::{Crowd, Evidence};
use super::celery::outcome::Outcome;
use super::reply::Reply;

/// Celery's default for `task_default_queue`.
const DEFAULT_QUEUE: &[u8] = b"celery";

/// Where a message is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Logical database.
    pub db: u32,
    /// The broker's `global_keyprefix`.
    pub prefix: Vec<u8>,
    /// The queue's name to Celery.
    pub queue: Vec<u8>,
    /// A routing table names the queue.
    pub bound: bool,
}

impl Route {
    /// The list that holds the queue's messages of priority 0, the priority that
    /// a message without one has.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        self.behind_prefix(&self.queue)
    }

    /// The hash in which kombu notes what a worker took, under its default name.
    #[must_use]
    pub fn unacked(&self) -> Vec<u8> {
        self.behind_prefix(b"unacked")
    }

    /// The sorted set that another transport (celery-redis-plus) keeps messages in.
    #[must_use]
    pub fn sorted_set(&self) -> Vec<u8> {
        self.behind_prefix(&[b"queue:", self.queue.as_slice()].concat())
    }

    fn behind_prefix(&self, name: &[u8]) -> Vec<u8> {
        [self.prefix.as_slice(), name].concat()
    }
}

/// What the operator asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The task's name.
    pub task: &'a str,
    /// QUEUE: a queue's name, with or without the broker's key prefix.
    pub queue: Option<&'a [u8]>,
    /// DB.
    pub db: Option<u32>,
    /// The client's own database.
    pub home: u32,
}

/// A queue that a routing table names, or the only trace of one.
struct Known<'a> {
    db: u32,
    prefix: &'a [u8],
    queue: &'a [u8],
    key: &'a [u8],
}

/// Picks the queue: the one asked for, the one in which messages of the task lie
/// or were taken from, the one RedBeat sends it to, or Celery's default; and its
/// database and key prefix by the routing tables.
///
/// # Errors
/// Nothing says where the message should go, or more than one place fits. The
/// sentence says what to add.
pub fn route(evidence: &Evidence, asked: &Asked<'_>) -> Result<Route, String> {
    let tables: Vec<Known<'_>> = evidence
        .queues
        .iter()
        .filter(|queue| queue.bound && asked.db.is_none_or(|db| db == queue.db))
        .map(|queue| Known {
            db: queue.db,
            prefix: queue.name.get(..queue.prefix).unwrap_or_default(),
            queue: queue.celery_name(),
            key: &queue.name,
        })
        .collect();
    if let Some(name) = asked.queue {
        return match one_of(&tables, asked, |known| {
            known.queue == name || known.key == name
        })? {
            Some(known) => Ok(bound(known)),
            None => Ok(unbound(&tables, asked, name)),
        };
    }
    if let Some(key) = seen_in(evidence, asked)
        && let Some(known) = one_of(&tables, asked, |known| known.key == key)?
    {
        return Ok(bound(known));
    }
    if let Some(queue) = scheduled_for(evidence, asked.task)
        && let Some(known) = one_of(&tables, asked, |known| known.queue == queue)?
    {
        return Ok(bound(known));
    }
    match one_of(&tables, asked, |known| known.queue == DEFAULT_QUEUE)? {
        Some(known) => Ok(bound(known)),
        None => Err(
            "no routing table names the queue 'celery', so no worker has declared it, and nothing \
             tells another queue of this task: name it by QUEUE, and its database by DB"
                .to_owned(),
        ),
    }
}

fn bound(known: &Known<'_>) -> Route {
    Route {
        db: known.db,
        prefix: known.prefix.to_vec(),
        queue: known.queue.to_vec(),
        bound: true,
    }
}

/// The only queue that fits; of several the only one in the client's database.
fn one_of<'a, 'b>(
    tables: &'a [Known<'b>],
    asked: &Asked<'_>,
    fits: impl Fn(&Known<'_>) -> bool,
) -> Result<Option<&'a Known<'b>>, String> {
    let fitting: Vec<&Known<'_>> = tables.iter().filter(|known| fits(known)).collect();
    let at_home: Vec<&Known<'_>> = fitting
        .iter()
        .copied()
        .filter(|known| known.db == asked.home)
        .collect();
    match (fitting.as_slice(), at_home.as_slice()) {
        ([], _) => Ok(None),
        ([one], _) | (_, [one]) => Ok(Some(one)),
        ([one, ..], _) => Err(format!(
            "{} brokers on this server have a queue '{}': say which by DB, or by QUEUE with the \
             key prefix in front",
            fitting.len(),
            one.queue.escape_ascii()
        )),
    }
}

/// A queue that no table names: in the database and behind the key prefix that
/// all tables share, where they do.
fn unbound(tables: &[Known<'_>], asked: &Asked<'_>, name: &[u8]) -> Route {
    let mut dbs: Vec<u32> = tables.iter().map(|known| known.db).collect();
    dbs.dedup();
    let db = asked.db.unwrap_or(match dbs.as_slice() {
        [one] => *one,
        _ => asked.home,
    });
    let mut prefixes: Vec<&[u8]> = tables
        .iter()
        .filter(|known| known.db == db)
        .map(|known| known.prefix)
        .collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    let prefix = match prefixes.as_slice() {
        [one] => one,
        _ => &[][..],
    };
    Route {
        db,
        prefix: prefix.to_vec(),
        // Named with its prefix, as it stands in the key.
        queue: name.strip_prefix(prefix).unwrap_or(name).to_vec(),
        bound: false,
    }
}

/// The list in which most messages of the task were seen.
fn seen_in<'a>(evidence: &'a Evidence, asked: &Asked<'_>) -> Option<&'a [u8]> {
    evidence
        .sightings
        .iter()
        .filter(|sighting| sighting.task == asked.task)
        .filter(|sighting| asked.db.is_none_or(|db| db == sighting.db))
        .max_by_key(|sighting| (sighting.published_at_ms, sighting.count))
        .map(|sighting| sighting.queue.as_slice())
}

/// The queue that a RedBeat entry sends the task to.
fn scheduled_for<'a>(evidence: &'a Evidence, task: &str) -> Option<&'a [u8]> {
    evidence
        .redbeat
        .iter()
        .flat_map(|redbeat| &redbeat.entries)
        .find(|entry| entry.task == task && entry.queue.is_some())
        .and_then(|entry| entry.queue.as_deref())
}

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
    /// Results of this task were seen here before.
    pub leaves_results: bool,
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
            State::Taken | State::Finished => self.not_finished(),
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

    fn not_finished(&self) -> Stuck {
        let unreadable = self.outcome.as_ref().and_then(|o| o.unreadable);
        if self.hidden {
            return Stuck {
                at: "result",
                why: "a result was written that this user may not read".to_owned(),
            };
        }
        if let Some(status) = self.status() {
            return Stuck {
                at: "task",
                why: match status {
                    "RETRY" => "the task failed and waits for its retry".to_owned(),
                    _ => format!(
                        "a worker began the task ({}) and has not finished it",
                        status.escape_debug()
                    ),
                },
            };
        }
        if let Some(format) = unreadable {
            return Stuck {
                at: "result",
                why: format!("a result was written whose state cannot be read ({format})"),
            };
        }
        if self.held {
            return Stuck {
                at: "task",
                why:
                    "a worker took it and has not acknowledged it: it waits for a free process, or \
                      runs with acks_late"
                        .to_owned(),
            };
        }
        Stuck {
            at: "result",
            why: if self.leaves_results {
                "a worker took and acknowledged it, and no result was written; results of this \
                 task were seen here before, so it most likely still runs"
            } else {
                "a worker took and acknowledged it, and no result was written: the task ignores \
                 its result (ignore_result), keeps it on another server, or still runs"
            }
            .to_owned(),
        }
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
    /// where the message was not taken.
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
    use super::super::beat::{Entry, Queue, RedBeat, Sighting};
    use super::super::celery::outcome;
    use super::*;

    const NOW: i64 = 1_790_000_000_000;

    /// A queue of the broker in that database behind that prefix.
    fn queue(db: u32, prefix: &str, name: &str, bound: bool) -> Queue {
        Queue {
            name: format!("{prefix}{name}").into_bytes(),
            prefix: prefix.len(),
            db,
            bound,
            ..Queue::default()
        }
    }

    fn seen(db: u32, key: &str, count: u64) -> Sighting {
        Sighting {
            task: "app.purge".to_owned(),
            db,
            queue: key.into(),
            count,
            ..Sighting::default()
        }
    }

    fn sends_to(queue: &str) -> RedBeat {
        RedBeat {
            entries: vec![Entry {
                task: "app.purge".to_owned(),
                queue: Some(queue.into()),
                ..Entry::default()
            }],
            ..RedBeat::default()
        }
    }

    struct Case {
        what: &'static str,
        queues: Vec<Queue>,
        sightings: Vec<Sighting>,
        redbeat: Vec<RedBeat>,
        queue: Option<&'static str>,
        db: Option<u32>,
        /// Database, key and whether it is bound; or words of the refusal.
        expected: Result<(u32, &'static str, bool), &'static str>,
    }

    impl Default for Case {
        fn default() -> Self {
            Self {
                what: "",
                queues: vec![queue(0, "", "celery", true), queue(0, "", "heavy", true)],
                sightings: Vec::new(),
                redbeat: Vec::new(),
                queue: None,
                db: None,
                expected: Ok((0, "celery", true)),
            }
        }
    }

    #[test]
    fn a_message_goes_where_the_tables_and_the_traffic_say() {
        let two_dbs = || vec![queue(0, "", "celery", true), queue(3, "", "celery", true)];
        let prefixed = || vec![queue(2, "app1:", "celery", true)];
        for case in [
            Case {
                what: "nothing known of the task: Celery's default queue",
                ..Case::default()
            },
            Case {
                what: "the queue its messages were seen in",
                sightings: vec![seen(0, "celery", 1), seen(0, "heavy", 5)],
                expected: Ok((0, "heavy", true)),
                ..Case::default()
            },
            Case {
                what: "the queue RedBeat sends it to",
                redbeat: vec![sends_to("heavy")],
                expected: Ok((0, "heavy", true)),
                ..Case::default()
            },
            Case {
                what: "a queue that is no longer bound is no reason to go there",
                sightings: vec![seen(0, "gone", 5)],
                redbeat: vec![sends_to("gone too")],
                ..Case::default()
            },
            Case {
                what: "QUEUE outweighs what was seen",
                sightings: vec![seen(0, "heavy", 5)],
                queue: Some("celery"),
                ..Case::default()
            },
            Case {
                what: "no table names the default queue",
                queues: vec![queue(0, "", "celery", false)],
                expected: Err("name it by QUEUE"),
                ..Case::default()
            },
            Case {
                what: "QUEUE that no table names is published to all the same",
                queue: Some("adhoc"),
                expected: Ok((0, "adhoc", false)),
                ..Case::default()
            },
            Case {
                what: "nothing of Celery at all: the client's database",
                queues: Vec::new(),
                queue: Some("adhoc"),
                expected: Ok((1, "adhoc", false)),
                ..Case::default()
            },
            Case {
                what: "the broker's database and key prefix",
                queues: prefixed(),
                expected: Ok((2, "app1:celery", true)),
                ..Case::default()
            },
            Case {
                what: "QUEUE by its whole key",
                queues: prefixed(),
                queue: Some("app1:celery"),
                expected: Ok((2, "app1:celery", true)),
                ..Case::default()
            },
            Case {
                what: "QUEUE unknown to a broker with a key prefix",
                queues: prefixed(),
                queue: Some("adhoc"),
                expected: Ok((2, "app1:adhoc", false)),
                ..Case::default()
            },
            Case {
                what: "the same queue in two databases",
                queues: two_dbs(),
                expected: Err("say which by DB"),
                ..Case::default()
            },
            Case {
                what: "the same queue in two databases, one of them the client's",
                queues: vec![queue(1, "", "celery", true), queue(3, "", "celery", true)],
                expected: Ok((1, "celery", true)),
                ..Case::default()
            },
            Case {
                what: "DB decides",
                queues: two_dbs(),
                db: Some(3),
                expected: Ok((3, "celery", true)),
                ..Case::default()
            },
            Case {
                what: "DB without a broker",
                db: Some(7),
                expected: Err("name it by QUEUE"),
                ..Case::default()
            },
            Case {
                what: "DB and QUEUE of no broker",
                queue: Some("celery"),
                db: Some(7),
                expected: Ok((7, "celery", false)),
                ..Case::default()
            },
        ] {
            let evidence = Evidence {
                queues: case.queues,
                sightings: case.sightings,
                redbeat: case.redbeat,
                ..Evidence::default()
            };
            let asked = Asked {
                task: "app.purge",
                queue: case.queue.map(str::as_bytes),
                db: case.db,
                home: 1,
            };
            match (route(&evidence, &asked), case.expected) {
                (Ok(found), Ok((db, key, bound))) => {
                    assert_eq!(
                        (found.db, found.key(), found.bound),
                        (db, key.as_bytes().to_vec(), bound),
                        "{}",
                        case.what
                    );
                }
                (Err(why), Err(words)) => assert!(why.contains(words), "{}: {why}", case.what),
                (found, expected) => panic!("{}: {found:?}, not {expected:?}", case.what),
            }
        }
    }

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
    });
    const BUSY: Option<Crowd> = Some(Crowd {
        subscribers: 1,
        consumers: 1,
        blocked: 0,
    });
    const WAITING: Option<Crowd> = Some(Crowd {
        subscribers: 1,
        consumers: 1,
        blocked: 1,
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
                    leaves_results: true,
                    ..taken()
                },
                WAITING,
                ["taken", "", "result", "most likely still runs"],
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
