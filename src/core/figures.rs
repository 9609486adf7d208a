//! Numbers that a monitor reads: counters, gauges, times by sample, a histogram.
//!
//! Atomic so that the server's crash report can read them at any moment. Only the
//! main thread changes them, so a change is a plain load and store: the hook counts
//! every event, and a locked addition would be most of its cost.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::reply::Reply;

/// A number that only grows until it is reset.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// At 0.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds.
    pub fn add(&self, n: u64) {
        self.0.store(self.value().wrapping_add(n), Relaxed);
    }

    /// Its value.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Back to 0.
    pub fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

/// A number that comes and goes; -1 while it is not known.
#[derive(Debug)]
pub struct Gauge(AtomicI64);

impl Default for Gauge {
    fn default() -> Self {
        Self::new()
    }
}

impl Gauge {
    /// What is not known.
    pub const UNKNOWN: i64 = -1;

    /// Not known.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicI64::new(Self::UNKNOWN))
    }

    /// Gives it a value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// Its value.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// What is told under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// A number; -1 is what is not known.
    Number(i64),
    /// A word.
    Word(&'static str),
}

impl From<Figure> for Reply {
    fn from(figure: Figure) -> Self {
        match figure {
            Figure::Number(n) => Self::Int(n),
            Figure::Word(word) => Self::word(word),
        }
    }
}

/// Calls that are counted and timed, however often one is.
pub trait Calls {
    /// Calls.
    fn calls(&self) -> u64;
    /// Their time in µs, by those that were timed.
    fn time_us(&self) -> u64;
    /// Back to none.
    fn reset(&self);
}

/// Counts calls, and times one in `EVERY` of them: two looks at the clock cost as
/// much as a short call. A prime, so that calls which come in turns are met alike.
#[derive(Debug)]
pub struct Sampled<const EVERY: u64> {
    /// Calls until the next one is timed, that one among them.
    left: AtomicU64,
    rounds: Counter,
    time_ns: Counter,
}

impl<const EVERY: u64> Default for Sampled<EVERY> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const EVERY: u64> Sampled<EVERY> {
    /// None so far.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            left: AtomicU64::new(EVERY),
            rounds: Counter::new(),
            time_ns: Counter::new(),
        }
    }

    /// Counts a call; `true` if it is to be timed.
    #[inline]
    pub fn counted(&self) -> bool {
        let left = self.left.load(Relaxed);
        if left > 1 {
            self.left.store(left - 1, Relaxed);
            return false;
        }
        self.left.store(EVERY, Relaxed);
        self.rounds.add(1);
        true
    }

    /// Notes how long the call that was to be timed took.
    pub fn took(&self, time: Duration) {
        self.time_ns
            .add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl<const EVERY: u64> Calls for Sampled<EVERY> {
    fn calls(&self) -> u64 {
        let left = self.left.load(Relaxed);
        let rounds = self.rounds.value().saturating_mul(EVERY);
        rounds.saturating_add(EVERY.saturating_sub(left))
    }

    fn time_us(&self) -> u64 {
        self.time_ns.value().saturating_mul(EVERY) / 1_000
    }

    fn reset(&self) {
        self.left.store(EVERY, Relaxed);
        self.rounds.reset();
        self.time_ns.reset();
    }
}

/// Buckets: four for each doubling, up to 2^30.
const BUCKETS: usize = 120;

/// How often values of a size came, in a fixed number of buckets, each a quarter of
/// the power of two it begins in: a percentile read from it is at most a quarter too
/// high.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    highest: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            buckets: [const { Counter::new() }; BUCKETS],
            highest: Counter::new(),
        }
    }

    /// Adds a value.
    pub fn add(&self, value: u64) {
        let at = bucket(value).min(BUCKETS - 1);
        if let Some(count) = self.buckets.get(at) {
            count.add(1);
        }
        if value > self.highest.value() {
            self.highest.reset();
            self.highest.add(value);
        }
    }

    /// The highest value.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.highest.value()
    }

    /// The value that so many in a thousand do not exceed, rounded up to the end of its
    /// bucket; `None` if there is none.
    #[must_use]
    pub fn of_thousand(&self, thousandths: u64) -> Option<u64> {
        let total: u64 = self.buckets.iter().map(Counter::value).sum();
        let wanted = total.saturating_mul(thousandths).div_ceil(1_000);
        let mut seen = 0;
        let at = self.buckets.iter().position(|count| {
            seen += count.value();
            seen > 0 && seen >= wanted
        })?;
        Some(last_of(at).min(self.highest()))
    }

    /// Back to empty.
    pub fn reset(&self) {
        self.buckets.iter().for_each(Counter::reset);
        self.highest.reset();
    }
}

/// The bucket of a value: up to 7 one for each, then four for each doubling.
fn bucket(value: u64) -> usize {
    let doublings = value.max(1).ilog2() as usize;
    if doublings < 2 {
        return usize::try_from(value).unwrap_or(0);
    }
    let quarter = usize::try_from(value >> (doublings - 2)).unwrap_or(0) & 3;
    4 * (doublings - 1) + quarter
}

/// The highest value of a bucket.
const fn last_of(bucket: usize) -> u64 {
    if bucket < 4 {
        return bucket as u64;
    }
    let (doublings, quarter) = (bucket / 4 + 1, bucket as u64 % 4);
    ((quarter + 5) << (doublings - 2)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_the_bucket_that_ends_at_or_a_quarter_above_it() {
        for value in (0..5_000).chain((13..30).flat_map(|n| [(1 << n) - 1, 1 << n, (1 << n) + 1])) {
            let last = last_of(bucket(value));
            assert!(last >= value && last <= value + value / 4, "{value} {last}");
            assert!(bucket(value) == 0 || last_of(bucket(value) - 1) < value);
        }
        assert_eq!(last_of(BUCKETS - 1), (1 << 31) - 1);
    }

    #[test]
    fn a_percentile_is_that_of_the_sorted_values_or_a_little_above() {
        let histogram = Histogram::new();
        assert_eq!(histogram.of_thousand(990), None);
        histogram.add(0);
        assert_eq!(histogram.of_thousand(990), Some(0));
        histogram.reset();
        // 1 to 1000 in an order that is none.
        for n in 0..1_000_u64 {
            histogram.add(n * 7 % 1_000 + 1);
        }
        assert_eq!(histogram.highest(), 1_000);
        assert_eq!(histogram.of_thousand(1_000), Some(1_000));
        for exact in [10, 500, 900, 990, 999] {
            let told = histogram.of_thousand(exact).unwrap();
            assert!(
                (exact..=exact + exact / 4).contains(&told),
                "{exact} {told}"
            );
        }
        histogram.add(u64::MAX);
        assert_eq!(histogram.highest(), u64::MAX);
        assert_eq!(histogram.of_thousand(1_000), Some((1 << 31) - 1));
    }

    #[test]
    fn one_call_in_so_many_is_timed_and_stands_for_the_others() {
        let sampled: Sampled<7> = Sampled::new();
        let mut timed = 0;
        for n in 1..=70_u64 {
            if sampled.counted() {
                timed += 1;
                sampled.took(Duration::from_micros(3));
            }
            assert_eq!(sampled.calls(), n);
        }
        assert_eq!(timed, 10);
        assert_eq!(sampled.time_us(), 3 * 70);
        sampled.reset();
        assert_eq!((sampled.calls(), sampled.time_us()), (0, 0));
    }
}
