//! Where a message goes.

use std::collections::HashMap;

use crate::core::beat::{Evidence, Queue};
use crate::core::celery::binding::{SEP, list_at};

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
    /// What stands between its name and a step, and the step behind which its
    /// messages of priority 0 lie.
    pub lowest: (Vec<u8>, u8),
}

impl Route {
    /// The list that holds the queue's messages of priority 0, the priority that
    /// a message without one has.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        let (sep, step) = &self.lowest;
        self.behind_prefix(&list_at(&self.queue, sep, *step))
    }

    /// The queue's first list.
    #[must_use]
    pub fn first_key(&self) -> Vec<u8> {
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
    sep: &'a [u8],
    step: u8,
}

impl Known<'_> {
    /// Whether this is the list of its messages of priority 0.
    fn is_lowest(&self, key: &[u8]) -> bool {
        self.step > 0 && key == list_at(self.key, self.sep, self.step)
    }
}

/// Picks the queue: the one asked for, the one in which messages of the task lie
/// or were taken from, the one RedBeat sends it to, or Celery's default; and its
/// database and key prefix by the routing tables.
///
/// # Errors
/// Nothing says where the message should go, or more than one place fits. The
/// sentence says what to add.
pub fn route(evidence: &Evidence, asked: &Asked<'_>) -> Result<Route, String> {
    let lowest = Lowest::of_all(evidence);
    let tables: Vec<Known<'_>> = evidence
        .queues
        .iter()
        .filter(|queue| queue.bound && asked.db.is_none_or(|db| db == queue.db))
        .map(|queue| Known {
            db: queue.db,
            prefix: queue.key_prefix(),
            queue: queue.celery_name(),
            key: &queue.name,
            sep: &queue.sep,
            step: lowest.of(queue),
        })
        .collect();
    if let Some(name) = asked.queue {
        return match one_of(&tables, asked, |known| {
            known.queue == name || known.key == name || known.is_lowest(name)
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

/// The steps behind which messages of priority 0 lie: where they were heard to be
/// published, else where they lie, else where those of another queue of its broker do,
/// whose clients have the same steps.
struct Lowest<'a> {
    heard: HashMap<(u32, &'a [u8]), u8>,
    /// Of each broker, by database and key prefix, that of its first queue that has one.
    brokers: HashMap<(u32, &'a [u8]), u8>,
}

impl<'a> Lowest<'a> {
    fn of_all(evidence: &'a Evidence) -> Self {
        let flows = evidence.heard.flows.iter();
        let heard = flows.filter_map(|flow| Some(((flow.db, flow.queue.as_slice()), flow.lowest?)));
        let mut lowest = Self {
            heard: heard.collect(),
            brokers: HashMap::new(),
        };
        for queue in &evidence.queues {
            if let Some(step) = lowest.own(queue) {
                let broker = (queue.db, queue.key_prefix());
                lowest.brokers.entry(broker).or_insert(step);
            }
        }
        lowest
    }

    fn own(&self, queue: &Queue) -> Option<u8> {
        let heard = self.heard.get(&(queue.db, queue.name.as_slice()));
        heard.copied().or(queue.lowest)
    }

    fn of(&self, queue: &Queue) -> u8 {
        let others = || self.brokers.get(&(queue.db, queue.key_prefix())).copied();
        self.own(queue).or_else(others).unwrap_or(0)
    }
}

fn bound(known: &Known<'_>) -> Route {
    Route {
        db: known.db,
        prefix: known.prefix.to_vec(),
        queue: known.queue.to_vec(),
        bound: true,
        lowest: (known.sep.to_vec(), known.step),
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
        lowest: (SEP.to_vec(), 0),
    }
}

/// The list in which most messages of the task were seen; where none lies now,
/// the one in which the task was heard last.
fn seen_in<'a>(evidence: &'a Evidence, asked: &Asked<'_>) -> Option<&'a [u8]> {
    let fits = |task: &str, db| task == asked.task && asked.db.is_none_or(|asked| asked == db);
    let seen = evidence
        .sightings
        .iter()
        .filter(|sighting| fits(&sighting.task, sighting.db))
        .max_by_key(|sighting| (sighting.published_at_ms, sighting.count))
        .map(|sighting| sighting.queue.as_slice());
    let lines = evidence.heard.lines.iter();
    let heard = lines
        .filter(|line| fits(&line.task, line.db))
        .filter_map(|line| Some((line.voices.iter().map(|v| v.last_ms).max()?, line)))
        .max_by_key(|(last_ms, _)| *last_ms);
    seen.or_else(|| heard.map(|(_, line)| line.queue.as_slice()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::beat::{Entry, Heard, Line, Movement, Queue, RedBeat, Sighting, Voice};

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

    /// A queue whose messages of priority 0 lie behind that step.
    fn steps(name: &str, lowest: Option<u8>) -> Queue {
        Queue {
            sep: SEP.to_vec(),
            lowest,
            ..queue(0, "", name, true)
        }
    }

    fn flow(name: &str, lowest: Option<u8>) -> Movement {
        Movement {
            queue: name.into(),
            lowest,
            ..Movement::default()
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

    fn heard(db: u32, key: &str, last_ms: i64) -> Line {
        Line {
            task: "app.purge".to_owned(),
            db,
            queue: key.into(),
            voices: vec![Voice {
                last_ms,
                ..Voice::default()
            }],
            ..Line::default()
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
        heard: Vec<Line>,
        flows: Vec<Movement>,
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
                heard: Vec::new(),
                flows: Vec::new(),
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
                what: "the queue it was heard in last, where none lies now",
                heard: vec![heard(0, "celery", 5), heard(0, "heavy", 9)],
                redbeat: vec![sends_to("celery")],
                expected: Ok((0, "heavy", true)),
                ..Case::default()
            },
            Case {
                what: "what lies there outweighs what was heard",
                sightings: vec![seen(0, "heavy", 1)],
                heard: vec![heard(0, "celery", 9)],
                expected: Ok((0, "heavy", true)),
                ..Case::default()
            },
            Case {
                what: "heard in another database than the one asked for",
                heard: vec![heard(3, "heavy", 9)],
                db: Some(0),
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
                what: "priority_steps without 0, heard",
                queues: vec![steps("celery", None)],
                flows: vec![flow("celery", Some(9))],
                expected: Ok((0, "celery\u{6}\u{16}9", true)),
                ..Case::default()
            },
            Case {
                what: "priority_steps without 0, by what lies there",
                queues: vec![steps("celery", Some(10))],
                flows: vec![flow("celery", None)],
                expected: Ok((0, "celery\u{6}\u{16}10", true)),
                ..Case::default()
            },
            Case {
                what: "priority_steps without 0, by another queue of the broker",
                queues: vec![steps("celery", None), steps("heavy", None), {
                    let mut other = steps("app1:celery", Some(6));
                    other.prefix = 5;
                    other
                }],
                flows: vec![flow("celery", Some(9))],
                queue: Some("heavy"),
                expected: Ok((0, "heavy\u{6}\u{16}9", true)),
                ..Case::default()
            },
            Case {
                what: "QUEUE by the whole key of its lowest list",
                queues: vec![steps("heavy", Some(9)), queue(0, "", "celery", true)],
                queue: Some("heavy\u{6}\u{16}9"),
                expected: Ok((0, "heavy\u{6}\u{16}9", true)),
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
                heard: Heard {
                    lines: case.heard,
                    flows: case.flows,
                    ..Heard::default()
                },
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
}
