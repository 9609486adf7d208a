//! How fast a queue fills and empties, counted as it happens.

/// The window of a rate, in buckets.
const BUCKETS: usize = 12;
const BUCKET_MS: i64 = 10_000;

/// A watch younger than this gives no rate.
const YOUNG_MS: i64 = 30_000;

/// What came into and went out of one queue.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    /// Counts per bucket, newest last.
    pushed: [u32; BUCKETS],
    popped: [u32; BUCKETS],
    /// Number of the newest bucket.
    bucket: i64,
    /// Since when all that moves is told: the first event, or before.
    pub since_ms: Option<i64>,
    pub last_in_ms: Option<i64>,
    pub last_out_ms: Option<i64>,
    /// The first push that no pop followed.
    pub waiting_since_ms: Option<i64>,
    /// The step behind which messages of priority 0 lie, if it is another than 0.
    pub lowest: Option<u8>,
}

impl Flow {
    /// What is known of the queue itself, and nothing of what moved.
    pub fn at_rest(&self) -> Self {
        Self {
            lowest: self.lowest,
            ..Self::default()
        }
    }

    pub fn pushed(&mut self, at_ms: i64) {
        self.turn(at_ms);
        count(self.pushed.last_mut());
        self.since_ms.get_or_insert(at_ms);
        self.last_in_ms = Some(at_ms);
        self.waiting_since_ms.get_or_insert(at_ms);
    }

    pub fn popped(&mut self, at_ms: i64) {
        self.turn(at_ms);
        count(self.popped.last_mut());
        self.since_ms.get_or_insert(at_ms);
        self.last_out_ms = Some(at_ms);
        self.waiting_since_ms = None;
    }

    /// The newest event.
    pub fn last_ms(&self) -> i64 {
        self.last_in_ms.max(self.last_out_ms).unwrap_or(i64::MIN)
    }

    /// Moves the window so that `at_ms` is in its newest bucket.
    fn turn(&mut self, at_ms: i64) {
        let bucket = at_ms.div_euclid(BUCKET_MS);
        if bucket == self.bucket {
            return;
        }
        let by = bucket.abs_diff(self.bucket).min(BUCKETS as u64);
        let by = usize::try_from(by).unwrap_or(BUCKETS);
        if bucket < self.bucket {
            // The clock went back: what was counted is of no known time.
            (self.pushed, self.popped) = Default::default();
        } else {
            for counts in [&mut self.pushed, &mut self.popped] {
                counts.rotate_left(by % BUCKETS);
                if let Some(fresh) = counts.get_mut(BUCKETS - by..) {
                    fresh.fill(0);
                }
            }
        }
        self.bucket = bucket;
    }

    /// Messages in and out per minute, over the last two minutes or since
    /// watching began; `None` where that is too young.
    pub fn per_minute(&self, since_ms: i64, now_ms: i64) -> Option<(u64, u64)> {
        let newest = now_ms.div_euclid(BUCKET_MS);
        let oldest = newest.saturating_sub(BUCKETS as i64 - 1);
        let span = now_ms.saturating_sub(since_ms.max(oldest.saturating_mul(BUCKET_MS)));
        if span < YOUNG_MS {
            return None;
        }
        let sum = |counts: &[u32; BUCKETS]| {
            let all = counts.iter().rev().zip(0_i64..);
            let within = all
                .filter(|(_, age)| (oldest..=newest).contains(&self.bucket.saturating_sub(*age)));
            within.map(|(n, _)| u64::from(*n)).sum::<u64>()
        };
        let rate = |n: u64| {
            let span = span.unsigned_abs();
            (n.saturating_mul(60_000).saturating_add(span / 2)) / span
        };
        Some((rate(sum(&self.pushed)), rate(sum(&self.popped))))
    }
}

fn count(slot: Option<&mut u32>) {
    if let Some(n) = slot {
        *n = n.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: i64 = 1_790_000_000_000;

    #[test]
    fn a_rate_is_of_the_last_two_minutes() {
        let mut flow = Flow::default();
        for s in 0..600 {
            flow.pushed(T0 + s * 1_000);
            if s % 2 == 0 {
                flow.popped(T0 + s * 1_000 + 1);
            }
        }
        let now = T0 + 600_000;
        let (pushed, popped) = flow.per_minute(T0, now).unwrap();
        assert!((57..=63).contains(&pushed), "{pushed}");
        assert!((28..=32).contains(&popped), "{popped}");
        assert_eq!(flow.per_minute(T0, now + 300_000), Some((0, 0)));
        assert_eq!(flow.per_minute(now - 5_000, now), None);
    }

    #[test]
    fn what_waits_waits_since_the_last_pop() {
        let mut flow = Flow::default();
        flow.pushed(T0);
        flow.popped(T0 + 1);
        assert_eq!(flow.waiting_since_ms, None);
        flow.pushed(T0 + 5);
        flow.pushed(T0 + 9);
        assert_eq!(flow.waiting_since_ms, Some(T0 + 5));
    }

    #[test]
    fn a_clock_that_steps_starts_the_count_anew() {
        let mut flow = Flow::default();
        flow.pushed(T0);
        flow.pushed(T0 - 3_600_000);
        flow.pushed(i64::MAX);
        flow.pushed(i64::MIN);
        assert_eq!(flow.per_minute(T0 - 60_000, T0), Some((0, 0)));
    }
}
