//! What is done to a key, and why.

use super::settings::{Basis, Settings};

/// A key's remaining life in ms; `None` if it has no end.
pub type Ttl = Option<i64>;

/// What the hook does to a `task_result` that was just written.
///
/// A TTL that the client gave wins, unless it is longer than `max-ttl`.
#[must_use]
pub fn enforce(ttl: Ttl, settings: &Settings) -> Option<Change> {
    let most = settings.max_ttl_ms;
    match ttl {
        None if most > 0 => Some(Change::Stamp(settings.default_ttl_ms.min(most))),
        None => Some(Change::Stamp(settings.default_ttl_ms)),
        Some(ms) if most > 0 && ms > most => Some(Change::Cut(most)),
        Some(_) => None,
    }
}

/// A change to one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It had no TTL and gets this one, in ms.
    Stamp(i64),
    /// Its TTL was longer than `max-ttl` and becomes this, in ms.
    Cut(i64),
    /// It is a finished result older than the limit.
    Delete,
}

/// What a sweep does to each `task_result`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The TTL given, in ms.
    pub ttl_ms: i64,
    /// How far below it the TTL is drawn, in percent.
    pub jitter: u64,
    /// Where the TTL is counted from.
    pub basis: Basis,
    /// Finished results older than this are deleted, in ms; 0 never.
    pub max_age_ms: i64,
    /// A longer TTL is cut to this, in ms; 0 is off.
    pub max_ttl_ms: i64,
}

impl Plan {
    /// Whether a decision needs to know when the task finished.
    #[must_use]
    pub fn reads_dates(&self, ttl: Ttl) -> bool {
        self.max_age_ms > 0 || (self.basis == Basis::Done && ttl.is_none())
    }

    /// Decides on one key. `finished_ms` is when its task finished, Unix ms, where
    /// that can be read; `draw` is any random number, it picks the TTL within the
    /// jitter.
    ///
    /// A date ahead of our clock is a young result, never an old one; without a
    /// date nothing is deleted.
    #[must_use]
    pub fn decide(
        &self,
        now_ms: i64,
        ttl: Ttl,
        finished_ms: Option<i64>,
        draw: u64,
    ) -> Option<Change> {
        if let Some(at) = finished_ms {
            let age = now_ms.saturating_sub(at);
            if self.max_age_ms > 0 && age > self.max_age_ms {
                return Some(Change::Delete);
            }
            if ttl.is_none() && self.basis == Basis::Done {
                let rest = self.drawn(draw).saturating_sub(age.max(0));
                return Some(if rest > 0 {
                    Change::Stamp(self.capped(rest))
                } else {
                    Change::Delete
                });
            }
        }
        match ttl {
            None => Some(Change::Stamp(self.capped(self.drawn(draw)))),
            Some(ms) if self.max_ttl_ms > 0 && ms > self.max_ttl_ms => {
                Some(Change::Cut(self.max_ttl_ms))
            }
            Some(_) => None,
        }
    }

    /// The TTL of a key that is no result but was asked for by its class.
    #[must_use]
    pub fn stamp(&self, ttl: Ttl, draw: u64) -> Option<Change> {
        ttl.is_none().then(|| Change::Stamp(self.drawn(draw)))
    }

    fn capped(&self, ttl_ms: i64) -> i64 {
        if self.max_ttl_ms > 0 {
            ttl_ms.min(self.max_ttl_ms)
        } else {
            ttl_ms
        }
    }

    /// From the last part of the TTL below it, never above and never nothing.
    fn drawn(&self, draw: u64) -> i64 {
        let ttl = u64::try_from(self.ttl_ms).unwrap_or(0);
        let room = u128::from(ttl) * u128::from(self.jitter.min(100)) / 100;
        let off = u128::from(draw) % (room + 1);
        let off = i64::try_from(off).unwrap_or(0);
        self.ttl_ms.saturating_sub(off).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const NOW: i64 = 1_795_000_000_000;

    fn plan() -> Plan {
        Plan {
            ttl_ms: HOUR,
            jitter: 0,
            basis: Basis::Now,
            max_age_ms: 2 * HOUR,
            max_ttl_ms: 0,
        }
    }

    #[test]
    fn a_clients_own_ttl_wins_over_the_hook_unless_it_is_over_the_maximum() {
        let mut settings = Settings::default();
        for (max, ttl, expected) in [
            (0, None, Some(Change::Stamp(HOUR))),
            (0, Some(100_000), None),
            (0, Some(0), None),
            (0, Some(99 * HOUR), None),
            (2 * HOUR, Some(2 * HOUR), None),
            (2 * HOUR, Some(2 * HOUR + 1), Some(Change::Cut(2 * HOUR))),
            (60_000, None, Some(Change::Stamp(60_000))),
        ] {
            settings.max_ttl_ms = max;
            assert_eq!(enforce(ttl, &settings), expected, "{max} {ttl:?}");
        }
    }

    #[test]
    fn a_sweep_stamps_deletes_by_age_and_leaves_the_rest() {
        for (what, ttl, finished, expected) in [
            (
                "bare and young",
                None,
                Some(NOW - HOUR),
                Some(Change::Stamp(HOUR)),
            ),
            (
                "bare and old",
                None,
                Some(NOW - 3 * HOUR),
                Some(Change::Delete),
            ),
            (
                "exactly as old as allowed",
                None,
                Some(NOW - 2 * HOUR),
                Some(Change::Stamp(HOUR)),
            ),
            ("dated and young", Some(5), Some(NOW), None),
            (
                "dated and old",
                Some(5),
                Some(NOW - 3 * HOUR),
                Some(Change::Delete),
            ),
            ("undated", None, None, Some(Change::Stamp(HOUR))),
            ("undated with TTL", Some(5), None, None),
            (
                "a date ahead",
                None,
                Some(NOW + 99 * HOUR),
                Some(Change::Stamp(HOUR)),
            ),
            (
                "the earliest date",
                None,
                Some(i64::MIN),
                Some(Change::Delete),
            ),
        ] {
            assert_eq!(plan().decide(NOW, ttl, finished, 7), expected, "{what}");
        }
    }

    #[test]
    fn counted_from_the_end_old_results_go_and_young_ones_keep_their_rest() {
        let plan = Plan {
            basis: Basis::Done,
            max_age_ms: 0,
            ..plan()
        };
        for (finished, expected) in [
            (Some(NOW - HOUR / 4), Change::Stamp(HOUR * 3 / 4)),
            (Some(NOW - HOUR), Change::Delete),
            (Some(NOW + HOUR), Change::Stamp(HOUR)),
            (None, Change::Stamp(HOUR)),
        ] {
            assert_eq!(plan.decide(NOW, None, finished, 0), Some(expected));
        }
    }

    #[test]
    fn without_a_maximum_age_nothing_is_deleted() {
        let plan = Plan {
            max_age_ms: 0,
            ..plan()
        };
        assert_eq!(
            plan.decide(NOW, None, Some(0), 0),
            Some(Change::Stamp(HOUR))
        );
        assert!(!plan.reads_dates(None));
    }

    #[test]
    fn jitter_draws_from_below_and_spreads() {
        let plan = Plan {
            jitter: 10,
            ..plan()
        };
        let mut seen = std::collections::BTreeSet::new();
        for draw in (0..10_000).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let Some(Change::Stamp(ttl)) = plan.stamp(None, draw) else {
                panic!("bare keys are stamped");
            };
            assert!((HOUR * 9 / 10..=HOUR).contains(&ttl), "{ttl}");
            seen.insert(ttl);
        }
        assert!(seen.len() > 9_000);
        assert_eq!(
            Plan {
                ttl_ms: 1,
                jitter: 50,
                ..plan
            }
            .stamp(None, 1),
            Some(Change::Stamp(1))
        );
    }

    #[test]
    fn a_sweep_cuts_what_is_over_the_maximum() {
        let plan = Plan {
            max_ttl_ms: HOUR / 2,
            ..plan()
        };
        assert_eq!(
            plan.decide(NOW, Some(HOUR), None, 0),
            Some(Change::Cut(HOUR / 2))
        );
        assert_eq!(
            plan.decide(NOW, None, None, 0),
            Some(Change::Stamp(HOUR / 2))
        );
    }
}
