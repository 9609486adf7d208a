//! When something came, and whether it came in a rhythm.

/// The newest moments that are kept.
const KEPT: usize = 16;

/// A publish this close to the one before belongs to the same tick: two entries
/// of one task due at the same moment, or a burst. A stream without a pause is
/// one long tick, for cut into pieces of this length it would look even.
const ONE_TICK_MS: i64 = 500;

/// How far from the usual gap one may lie: this share of it, but at least
/// `JITTER_MS`. Beat adds some ms to each gap, and a broker that answers late a
/// second; of random gaps about a tenth lie this close to their median.
const JITTER_PERCENT: i64 = 15;
const JITTER_MS: i64 = 200;

/// A crontab falls due as a minute begins; beat is this much late at most, and
/// its clock this much ahead of the server's.
const CLOCK_LATE_MS: i64 = 3_000;
const CLOCK_EARLY_MS: i64 = 1_000;
const MINUTE_MS: i64 = 60_000;

/// The longest pause is forgotten if none like it came for so long: a month, so
/// that the pauses of a monthly schedule's neighbours are not.
const PAUSE_LIFE_MS: i64 = 35 * 86_400_000;

/// A beat that is busy is late now and then: so many in a hundred moments of a
/// crontab's lie where a minute begins. Of random ones about 7 do.
const ON_THE_CLOCK_PERCENT: usize = 75;

/// What the moments show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rhythm {
    /// The usual gap, in ms.
    pub interval_ms: i64,
    /// The longest gap known, in ms.
    pub longest_ms: i64,
    /// Gaps this was learnt from.
    pub gaps: u32,
    /// Gaps that are about the usual one.
    pub alike: u32,
    /// All but a few gaps are about the usual one.
    pub even: bool,
    /// Nearly all moments lie where a minute begins: a crontab's, whose pauses can
    /// be far longer than its usual gap.
    pub clock: bool,
}

/// Minutes of the hour at which something came, those of today and of the day
/// before that had any: what was taken out of a schedule is soon forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Minutes {
    day: i64,
    today: u64,
    before: u64,
}

impl Minutes {
    fn note(&mut self, at_ms: i64) {
        let minute = minute_of(at_ms);
        let day = minute.div_euclid(24 * 60);
        if day != self.day {
            (self.day, self.before, self.today) = (day, self.today, 0);
        }
        self.today |= bit(minute);
    }
}

/// The minute that begins about now, counted from the epoch.
pub const fn minute_of(at_ms: i64) -> i64 {
    at_ms.saturating_add(CLOCK_EARLY_MS).div_euclid(MINUTE_MS)
}

/// The bit of a minute in a set of minutes of the hour.
pub const fn bit(minute: i64) -> u64 {
    1 << minute.rem_euclid(60)
}

/// The newest moments, Unix ms, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// The newest publish, also one within a tick.
    last_ms: Option<i64>,
    at: [i64; KEPT],
    len: usize,
    /// Bit 0 for the newest: the gap before it was not watched throughout.
    cut: u16,
    longest_ms: i64,
    longest_at_ms: i64,
    minutes: Minutes,
}

impl Times {
    /// Notes a moment; `cut` where nobody watched for a part of the gap before.
    /// Answers whether it is a tick of its own.
    pub fn push(&mut self, at_ms: i64, cut: bool) -> bool {
        let last = self.last_ms.replace(at_ms);
        if last.is_some_and(|last| at_ms.saturating_sub(last) < ONE_TICK_MS) {
            return false;
        }
        let gap = self.newest().map(|newest| at_ms.saturating_sub(newest));
        if let Some(gap) = gap.filter(|_| !cut) {
            let forgotten = at_ms.saturating_sub(self.longest_at_ms) > PAUSE_LIFE_MS;
            if gap >= self.longest_ms || forgotten {
                (self.longest_ms, self.longest_at_ms) = (gap, at_ms);
            } else if gap >= self.longest_ms - self.longest_ms / 20 {
                self.longest_at_ms = at_ms;
            }
        }
        if on_the_clock(at_ms) {
            self.minutes.note(at_ms);
        }
        self.at.rotate_left(1);
        if let Some(newest) = self.at.last_mut() {
            *newest = at_ms;
        }
        self.cut = self.cut << 1 | u16::from(cut);
        self.len = (self.len + 1).min(KEPT);
        true
    }

    fn newest(&self) -> Option<i64> {
        self.at.last().copied().filter(|_| self.len > 0)
    }

    /// The moments, each with whether the gap before it is cut.
    pub fn iter(&self) -> impl Iterator<Item = (i64, bool)> + '_ {
        let first = KEPT - self.len;
        let cut = |i: usize| self.cut >> (KEPT - 1 - i) & 1 == 1;
        let all = self.at.iter().enumerate().skip(first);
        all.map(move |(i, at)| (*at, cut(i)))
    }

    /// The longest gap and when it ended, 0 if none is known.
    pub const fn longest(&self) -> (i64, i64) {
        (self.longest_ms, self.longest_at_ms)
    }

    /// Minutes of the hour (UTC) at which something came lately, as bits.
    pub const fn minutes(&self) -> u64 {
        self.minutes.today | self.minutes.before
    }

    /// Puts stored minutes back.
    pub const fn restore_minutes(&mut self, minutes: u64) {
        self.minutes.today |= minutes;
    }

    /// Puts a stored longest gap back, unless a longer one came since.
    pub fn restore_longest(&mut self, gap_ms: i64, at_ms: i64) {
        if gap_ms > self.longest_ms {
            (self.longest_ms, self.longest_at_ms) = (gap_ms, at_ms);
        }
    }

    /// The clock went back by so much, and with it whatever came before.
    pub fn step_back(&mut self, by_ms: i64) {
        for at in &mut self.at {
            *at = at.saturating_sub(by_ms);
        }
        self.last_ms = self.last_ms.map(|last| last.saturating_sub(by_ms));
        self.longest_at_ms = self.longest_at_ms.saturating_sub(by_ms);
    }

    /// `None` before the first gap.
    pub fn rhythm(&self) -> Option<Rhythm> {
        let mut gaps = [0_i64; KEPT];
        let mut n = 0;
        let mut before = None;
        let mut punctual = 0;
        for (at, cut) in self.iter() {
            punctual += usize::from(on_the_clock(at));
            if let Some(before) = before.filter(|_| !cut)
                && let Some(slot) = gaps.get_mut(n)
            {
                *slot = at.saturating_sub(before);
                n += 1;
            }
            before = Some(at);
        }
        let gaps = gaps.get_mut(..n)?;
        gaps.sort_unstable();
        let median = *gaps.get(n.checked_sub(1)? / 2)?;
        let slack = (median / 100 * JITTER_PERCENT).max(JITTER_MS);
        let alike = || {
            gaps.iter()
                .filter(|gap| gap.abs_diff(median) <= slack.unsigned_abs())
        };
        let hits = alike().count();
        let even = n - hits <= n / 6;
        let mean = || {
            alike().map(|gap| gap - median).sum::<i64>() / i64::try_from(hits).unwrap_or(1).max(1)
        };
        let longest = gaps.last().copied().unwrap_or(median);
        let clock = punctual * 100 >= self.len * ON_THE_CLOCK_PERCENT;
        Some(Rhythm {
            interval_ms: if even {
                median.saturating_add(mean())
            } else {
                median
            },
            longest_ms: longest.max(self.longest_ms),
            gaps: u32::try_from(n).unwrap_or(u32::MAX),
            alike: u32::try_from(hits).unwrap_or(u32::MAX),
            even,
            clock: clock && median >= MINUTE_MS - CLOCK_LATE_MS,
        })
    }
}

/// Whether a minute begins about now.
pub fn on_the_clock(at_ms: i64) -> bool {
    at_ms.saturating_add(CLOCK_EARLY_MS).rem_euclid(MINUTE_MS) <= CLOCK_EARLY_MS + CLOCK_LATE_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On the hour.
    const T0: i64 = 1_789_999_200_000;

    fn of(moments: impl IntoIterator<Item = i64>) -> Rhythm {
        let mut times = Times::default();
        for at in moments {
            times.push(at, false);
        }
        times.rhythm().unwrap()
    }

    #[test]
    fn an_even_pace_is_found_through_jitter_and_one_outage() {
        let jitter = [40, 310, 5, 900, 120, 700, 60, 15, 333, 480, 20];
        let found = of((0..).zip(jitter).map(|(n, j)| T0 + 7_000 + n * 60_000 + j));
        assert!(found.even && !found.clock, "{found:?}");
        assert!((59_500..=60_500).contains(&found.interval_ms), "{found:?}");

        let outage = of((0..12).map(|n| T0 + 7_000 + n * 60_000 + i64::from(n > 5) * 3_600_000));
        assert!(outage.even, "{outage:?}");
        assert_eq!(outage.interval_ms, 60_000);
        assert_eq!(outage.longest_ms, 3_660_000);
    }

    #[test]
    fn what_people_cause_is_no_rhythm() {
        let seconds = [0, 4, 5, 61, 190, 200, 330, 331, 340, 500, 900, 910];
        let found = of(seconds.map(|s| T0 + 7_000 + s * 1_000));
        assert!(!found.even && !found.clock, "{found:?}");
    }

    #[test]
    fn a_stream_without_a_pause_is_no_rhythm() {
        let mut times = Times::default();
        for n in 0..10_000 {
            times.push(T0 + n * 97, false);
        }
        assert_eq!(times.rhythm(), None);
    }

    #[test]
    fn a_crontab_is_known_by_the_minute_it_begins_with() {
        let office = (0..3).flat_map(|day| (0..5).map(move |n| day * 86_400_000 + n * 900_000));
        let found = of(office.map(|at| T0 + at + 40));
        assert!(found.clock, "{found:?}");
        assert_eq!(found.interval_ms, 900_000);
        assert_eq!(found.longest_ms, 82_800_000);
        assert!(!of((0..7).map(|n| T0 + 20_000 + n * 60_000)).clock);
        assert!(!of((0..7).map(|n| T0 + n * 1_000)).clock);
    }

    #[test]
    fn a_crontab_is_known_through_a_busy_moment_and_by_its_minutes() {
        let late = |n: i64| if n % 5 == 3 { 8_000 } else { 30 };
        let mut times = Times::default();
        for n in 0..9 {
            times.push(T0 + n * 900_000 + late(n), false);
        }
        assert!(times.rhythm().unwrap().clock, "{times:?}");
        assert_eq!(times.minutes(), 1 | 1 << 15 | 1 << 30 | 1 << 45);
        // Two days on, what is not sent any more is forgotten.
        for hour in 48..100 {
            times.push(T0 + hour * 3_600_000 - 300, false);
        }
        assert_eq!(times.minutes(), 1);
    }

    #[test]
    fn a_gap_that_nobody_watched_is_no_gap() {
        let mut times = Times::default();
        times.push(T0, true);
        times.push(T0 + 60_000, false);
        times.push(T0 + 9_000_000, true);
        assert_eq!(times.rhythm().unwrap().gaps, 1);
        assert_eq!(times.rhythm().unwrap().longest_ms, 60_000);
        assert_eq!(Times::default().rhythm(), None);
    }

    #[test]
    fn messages_of_one_moment_are_one_tick() {
        let found = of([0, 3, 10, 60_000, 60_001, 120_000].map(|at| T0 + at));
        assert_eq!((found.gaps, found.interval_ms), (2, 60_000));
    }

    #[test]
    fn a_pause_is_remembered_beyond_the_newest_moments_but_not_for_ever() {
        let pause = 64 * 3_600_000;
        let hourly = |n: i64| T0 + pause + n * 3_600_000;
        let found = of([T0].into_iter().chain((0..100).map(hourly)));
        assert_eq!(found.longest_ms, pause);
        let found = of([T0].into_iter().chain((0..900).map(hourly)));
        assert_eq!(found.longest_ms, 3_600_000);
    }
}
