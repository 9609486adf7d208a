//! Streams of messages as they pass, and what is said of beat while they do.

mod crontabs;
mod crowds;
mod lives;
mod queues;
mod redbeat;
mod watch;

use std::collections::BTreeMap;

use super::scenarios::{H, MIN, NOW, S, celery, entry, expect, queue, redbeat, taken, workers};
use super::*;
use crate::core::celery::envelope::Envelope;

const DAY: i64 = 24 * H;

/// Monday, midnight UTC.
const MONDAY: i64 = 1_789_948_800_000;

/// A moment at which no minute begins.
const T0: i64 = MONDAY + 9 * H + 17 * S;

/// A small generator: the same numbers each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.unsigned_abs().max(1)) as i64
    }

    /// A gap of random traffic.
    fn gap(&mut self, mean: i64) -> i64 {
        let unit = (self.below(1_000_000) + 1) as f64 / 1_000_000.0;
        (-unit.ln() * mean as f64) as i64 + 1
    }
}

#[derive(Clone, Debug)]
struct Push {
    at: i64,
    task: String,
    origin: String,
    marked: bool,
    queue: &'static str,
}

fn push(at: i64, task: &str, origin: &str) -> Push {
    Push {
        at,
        task: task.to_owned(),
        origin: origin.to_owned(),
        marked: false,
        queue: "celery",
    }
}

/// An even pace with up to a second of jitter.
fn even(task: &str, origin: &str, from: i64, to: i64, every: i64) -> Vec<Push> {
    let mut dice = Dice(from.unsigned_abs() | 1);
    let jitter = (every / 20).clamp(1, S);
    (0..)
        .map(|n| from + n * every)
        .take_while(|at| *at < to)
        .map(|at| push(at + dice.below(jitter), task, origin))
        .collect()
}

/// Minute by minute, where `due` says so of the minute since Monday.
fn crontab(task: &str, origin: &str, from: i64, to: i64, due: impl Fn(i64) -> bool) -> Vec<Push> {
    let mut dice = Dice(7);
    let first = (from - MONDAY + MIN - 1) / MIN;
    (first..)
        .take_while(|m| MONDAY + m * MIN < to)
        .filter(|m| due(m % (7 * 24 * 60)))
        .map(|m| push(MONDAY + m * MIN + dice.below(400), task, origin))
        .collect()
}

fn random(task: &str, origin: &str, from: i64, to: i64, mean: i64) -> Vec<Push> {
    let mut dice = Dice(origin.len() as u64 * 7_919 + mean.unsigned_abs());
    let mut at = from;
    let mut pushes = Vec::new();
    while at < to {
        at += dice.gap(mean);
        pushes.push(push(at, task, origin));
    }
    pushes
}

fn marked(mut pushes: Vec<Push>) -> Vec<Push> {
    pushes.iter_mut().for_each(|push| push.marked = true);
    pushes
}

/// A server that watches.
struct Server {
    traffic: Traffic,
    now: i64,
    pending: Vec<Push>,
    sent: u64,
    expected: Vec<Expected>,
    hash: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Server {
    fn new(streams: Vec<Vec<Push>>) -> Self {
        let mut server = Self {
            traffic: Traffic::default(),
            now: i64::MIN,
            pending: Vec::new(),
            sent: 0,
            expected: Vec::new(),
            hash: BTreeMap::new(),
        };
        server.add(streams);
        server.now = server.pending.last().map_or(T0, |push| push.at) - S;
        server.traffic.resumed(server.now);
        server
    }

    fn add(&mut self, streams: Vec<Vec<Push>>) {
        self.pending.extend(streams.into_iter().flatten());
        self.pending.sort_by_key(|push| std::cmp::Reverse(push.at));
    }

    fn deliver(&mut self, db: u32, push: &Push) {
        self.sent += 1;
        let id = format!("id-{}", self.sent);
        let message = Envelope {
            task: Some(push.task.as_str().into()),
            id: Some(id.as_str().into()),
            origin: Some(push.origin.as_str().into()),
            beat: push.marked,
            ..Envelope::default()
        };
        self.traffic
            .pushed(push.at, db, push.queue.as_bytes(), Some(&message));
    }

    /// Everything up to a moment passes.
    fn until(&mut self, to: i64) -> &mut Self {
        while self.pending.last().is_some_and(|push| push.at <= to) {
            let push = self.pending.pop().unwrap();
            self.deliver(0, &push);
        }
        self.now = to;
        self
    }

    fn evidence(&self) -> Evidence {
        Evidence {
            heard: self.traffic.heard(self.now),
            expected: self.expected.clone(),
            ..celery()
        }
    }

    fn told(&self) -> Assessment {
        judge(&self.evidence(), self.now)
    }

    /// State and certainty.
    fn beat(&self) -> (State, Certainty) {
        let told = self.told().publisher;
        (told.state, told.certainty)
    }

    /// The first moment from now on at which this is said, looking each `step`.
    fn first(&mut self, state: State, to: i64, step: i64) -> Option<i64> {
        while self.now < to {
            let next = self.now + step;
            self.until(next);
            if self.beat().0 == state {
                return Some(self.now);
            }
        }
        None
    }

    /// States seen up to a moment, looking each `step`.
    fn states(&mut self, to: i64, step: i64) -> Vec<State> {
        let mut states = Vec::new();
        while self.now < to {
            let next = (self.now + step).min(to);
            self.until(next);
            let state = self.beat().0;
            if !states.contains(&state) {
                states.push(state);
            }
        }
        states
    }

    fn write(&mut self) {
        while self.traffic.has_changes() {
            let changes = self.traffic.take_changes(|| false);
            for field in changes.del {
                self.hash.remove(&field);
            }
            self.hash.extend(changes.set);
        }
    }

    /// The server goes, what is sent meanwhile is lost to it, and it comes back.
    fn restart(&mut self, back: i64) {
        self.write();
        self.pending.retain(|push| push.at > back);
        let fields = self.hash.iter();
        self.traffic = Traffic::read(fields.map(|(f, v)| (f.as_slice(), v.as_slice())), back);
        self.now = back;
    }
}

/// Watched since long before NOW.
fn watched(change: impl FnOnce(&mut Evidence)) -> Evidence {
    let mut evidence = celery();
    evidence.heard.since_ms = Some(NOW - 10 * H);
    change(&mut evidence);
    evidence
}
