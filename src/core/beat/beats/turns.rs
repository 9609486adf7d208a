//! Whether there is one of a beat, and it stays: two at a time, and one after the other.

use std::collections::BTreeMap;

use super::super::known::MAX_SLEEP_MS;
use super::super::traffic::{Voice, is_steady};
use super::super::words::{counted, listed, name, span};
use super::pace::{keeps, paced};
use super::{Beat, twice};

/// So many origins that begin within this time are a beat that keeps dying.
const FLAPPING: usize = 3;
const FLAPPING_MS: i64 = 900_000;

/// How long a beat must live not to be flapping, where no interval is known.
const SHORT_LIFE_MS: i64 = 300_000;

/// Publishes that each of two origins must have made while the other spoke.
const OVERLAPPING: usize = 2;

impl<'a> Beat<'a> {
    /// Two origins that publish the same, in turns and not once.
    pub(super) fn duplicate(&self, now_ms: i64) -> Option<String> {
        self.lines.iter().filter(|k| !k.left).find_map(|kept| {
            let pause = kept.pause_ms.or(kept.longest_ms)?;
            let speaks = |v: &&&Voice| {
                now_ms.saturating_sub(v.last_ms) <= twice(pause)
                    && (v.marked || v.rhythm.as_ref().is_some_and(is_steady))
            };
            let speaking: Vec<&Voice> = kept.voices.iter().filter(speaks).copied().collect();
            let pairs = (1..)
                .zip(&speaking)
                .flat_map(|(next, a)| speaking.iter().skip(next).map(move |b| (*a, *b)));
            let overlap = |a: &Voice, b: &Voice| {
                let from = a.first_ms.max(b.first_ms);
                let while_both = |v: &Voice| {
                    let spoke = v.times_ms.iter().filter(|at| **at >= from);
                    spoke.count() >= OVERLAPPING
                };
                // An even pace of one and of the other, not half of it each.
                let alike = match (a.rhythm, b.rhythm) {
                    (Some(a), Some(b)) => {
                        a.interval_ms.abs_diff(b.interval_ms)
                            <= a.interval_ms.max(b.interval_ms).unsigned_abs() / 4
                    }
                    _ => false,
                };
                while_both(a) && while_both(b) && alike
            };
            let (a, b) = { pairs }.find(|(a, b)| overlap(a, b))?;
            Some(format!(
                "{} is published by {} and by {}, in turns for {}",
                name(kept.line.task.as_bytes()),
                name(a.origin.as_bytes()),
                name(b.origin.as_bytes()),
                span(now_ms.saturating_sub(a.first_ms.max(b.first_ms)))
            ))
        })
    }

    /// When each origin began and when it was heard last, in order.
    fn lives(&self) -> Vec<(i64, i64, &'a str)> {
        let mut lives: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
        for voice in self.lines.iter().flat_map(|k| &k.voices) {
            let life = lives
                .entry(&voice.origin)
                .or_insert((voice.first_ms, voice.last_ms));
            life.0 = life.0.min(voice.first_ms);
            life.1 = life.1.max(voice.last_ms);
        }
        let lives = lives.into_iter().map(|(origin, (a, b))| (a, b, origin));
        let mut lives: Vec<_> = lives.collect();
        lives.sort_unstable();
        lives
    }

    /// Beats that come and go before the longest interval is over.
    pub(super) fn flapping(&self, now_ms: i64) -> Option<String> {
        let lives = self.lives();
        let timed = self.lines.iter().filter(|k| k.counted && !k.left);
        let longest = timed.filter_map(|k| k.interval_ms).max();
        let bound = longest.unwrap_or(0).max(SHORT_LIFE_MS);
        // Whoever sends once or twice may be anybody; beat is marked, or it keeps
        // the line's pace for a while.
        let is_beat = |origin: &str| {
            self.lines.iter().any(|kept| {
                let crowded = kept.crowded;
                let mut own = kept.voices.iter().filter(|v| v.origin == origin);
                own.any(|v| {
                    let pace = kept.interval_ms.filter(|_| v.count > 2);
                    let shows = |every| {
                        if crowded {
                            keeps(v, every, true)
                        } else {
                            paced(v, every)
                        }
                    };
                    v.marked || pace.is_some_and(shows)
                })
            })
        };
        let young =
            lives
                .iter()
                .rev()
                .filter(|(.., o)| is_beat(o))
                .take_while(|(first, last, _)| {
                    now_ms.saturating_sub(*first) <= FLAPPING_MS
                        && last.saturating_sub(*first) < bound
                });
        let young: Vec<_> = young.collect();
        let in_turn = young
            .iter()
            .zip(young.iter().skip(1))
            .all(|(later, earlier)| later.0 >= earlier.1);
        if young.len() < FLAPPING || !in_turn {
            return None;
        }
        let life = young.iter().map(|(a, b, _)| b.saturating_sub(*a)).max()?;
        let first = young.iter().map(|(a, ..)| *a).min()?;
        Some(format!(
            "{} ({}) came one after the other in {} and none published for longer than {}: tasks with a longer interval may never be sent",
            counted(young.len() as u64, "beat"),
            listed(young.iter().map(|(.., origin)| *origin)),
            span(now_ms.saturating_sub(first)),
            span(life)
        ))
    }

    pub(super) fn speaking(&self, now_ms: i64) -> Vec<&'a str> {
        let mut lives = self.lives();
        lives.sort_by_key(|(_, last, _)| std::cmp::Reverse(*last));
        let usual = self
            .fastest()
            .and_then(|k| k.pause_ms)
            .unwrap_or(MAX_SLEEP_MS);
        let speaks = |last: i64| now_ms.saturating_sub(last) <= twice(usual);
        let all = (0..)
            .zip(lives)
            .filter(|(at, (_, last, _))| *at == 0 || speaks(*last));
        all.map(|(_, (.., origin))| origin)
            .filter(|o| !o.is_empty())
            .collect()
    }
}
