//! What was learnt, copied some at a time: of a thousand tasks all of it takes
//! milliseconds.

use std::collections::HashMap;
use std::vec::IntoIter;

use super::heard::{Heard, Movement, Tick};
use super::series::Series;
use super::{ByHash, Traffic, line};

/// What was learnt, being copied.
pub struct Hearing {
    series: IntoIter<u64>,
    queues: IntoIter<u64>,
    heard: Heard,
    /// What was answered of queues: many tasks share one.
    answers: HashMap<Box<[u8]>, bool>,
    /// Tasks and queues beyond those that are copied.
    left_out: usize,
}

impl Hearing {
    /// How many tasks and queues are left out.
    #[must_use]
    pub const fn left_out(&self) -> usize {
        self.left_out
    }

    /// What has been copied.
    #[must_use]
    pub fn heard(self) -> Heard {
        self.heard
    }
}

impl Traffic {
    /// Begins to copy what was learnt, of `most` tasks and as many queues: first what is
    /// periodic, then what was heard last.
    #[must_use]
    pub fn hear(&self, most: usize) -> Hearing {
        let rank = |series: &Series| (series.periodic, series.last_ms);
        let series = first(&self.series, most, rank);
        let queues = first(&self.queues, most, |(.., flow)| flow.last_ms());
        Hearing {
            left_out: self.series.len() + self.queues.len() - series.len() - queues.len(),
            series: series.into_iter(),
            queues: queues.into_iter(),
            heard: Heard::default(),
            answers: HashMap::new(),
        }
    }

    /// Copies some more, of the keys that `may` answers for; `false` if those were the
    /// last. It is asked once for each queue, and of what it declines nothing is copied.
    pub fn hear_on(
        &self,
        hearing: &mut Hearing,
        now_ms: i64,
        portion: usize,
        mut may: impl FnMut(&[u8]) -> bool,
    ) -> bool {
        let (heard, answers) = (&mut hearing.heard, &mut hearing.answers);
        let mut may_hear = |queue: &[u8], may: &mut dyn FnMut(&[u8]) -> bool| {
            if let Some(answer) = answers.get(queue) {
                return *answer;
            }
            let answer = may(queue);
            answers.insert(queue.into(), answer);
            answer
        };
        heard.since_ms = self.since_ms;
        let Some(since_ms) = self.since_ms else {
            return false;
        };
        for key in hearing.series.by_ref().take(portion) {
            // What has come between may have taken its place.
            let Some(series) = self.series.get(&key) else {
                continue;
            };
            if !may_hear(&series.id.queue, &mut may) {
                continue;
            }
            let mut line = line(series, &self.senders);
            // Where the result is not known that tells of the end, he may be told of it
            // who may read any key: one without a name is in nobody's patterns.
            line.end = line
                .end
                .filter(|end| may(end.key.as_deref().unwrap_or_default().as_bytes()));
            heard.lines.push(line);
        }
        if hearing.series.len() > 0 {
            return true;
        }
        for key in hearing.queues.by_ref().take(portion) {
            let Some((db, queue, flow)) = self.queues.get(&key) else {
                continue;
            };
            if may_hear(queue, &mut may) {
                heard.flows.push(Movement {
                    db: *db,
                    queue: queue.to_vec(),
                    since_ms: flow.since_ms.unwrap_or(since_ms).max(since_ms),
                    per_minute: flow.per_minute(since_ms, now_ms),
                    last_in_ms: flow.last_in_ms,
                    last_out_ms: flow.last_out_ms,
                    waiting_since_ms: flow.waiting_since_ms,
                    lowest: flow.lowest,
                });
            }
        }
        if hearing.queues.len() > 0 {
            return true;
        }
        let ticks = self.locks.iter().filter(|lock| may(&lock.key));
        heard.ticks = ticks
            .map(|lock| Tick {
                db: lock.db,
                lock_key: lock.key.to_vec(),
                timeout_ms: lock.timeout_ms,
                last_ms: lock.last_ms,
            })
            .collect();
        false
    }

    /// What was learnt of the keys that `may` answers for, up to now.
    #[cfg(test)]
    pub fn heard_of(&self, now_ms: i64, mut may: impl FnMut(&[u8]) -> bool) -> Heard {
        let mut hearing = self.hear(usize::MAX);
        while self.hear_on(&mut hearing, now_ms, 3, &mut may) {}
        hearing.heard()
    }

    /// What was learnt, up to now.
    #[cfg(test)]
    pub fn heard(&self, now_ms: i64) -> Heard {
        self.heard_of(now_ms, |_| true)
    }
}

/// The keys of all, or of the `most` that rank highest.
fn first<T, R: Ord>(all: &ByHash<T>, most: usize, rank: impl Fn(&T) -> R) -> Vec<u64> {
    if all.len() <= most {
        return all.keys().copied().collect();
    }
    let mut ranked: Vec<(R, u64)> = all.iter().map(|(key, one)| (rank(one), *key)).collect();
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    ranked.truncate(most);
    ranked.into_iter().map(|(_, key)| key).collect()
}
