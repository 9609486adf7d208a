//! How much of the main thread a sweep takes, and when.
//!
//! While nobody else is at work, nobody can be kept waiting: a few slices follow each
//! other turn by turn of the event loop, then comes the shortest rest that the server's
//! timers have, in which a client that has come shows. While clients are at work a sweep
//! keeps to its share, in shorter slices: what a client can meet is the length of one
//! slice, far more than the share that all of them take.

use super::settings::Settings;

/// Rests over which the turns of the event loop are counted, and the turns among
/// them that are not a client's: one per rest is our own timer's, the server's
/// periodic round and a replica's word make a few more.
const COUNTED: u64 = 16;
const IDLE_TURNS: u64 = COUNTED + 3;

/// So many turns in one rest are clients', whatever the rests before say.
const BUSY_TURNS: u64 = 4;

/// Slices in a row, a turn of the event loop each, before a rest. Timers rest for 1 ms
/// at least (`aeProcessEvents`, ae.c, Redis 6.2 to 8.2), twice the length of a slice.
const IN_A_ROW: u64 = 4;

/// How many times shorter a slice is while clients are at work.
const SHORTER: u64 = 4;

/// What a rest that was too long may count towards the next, in µs: timers have 1 ms
/// at least, and half of one more on the average would be lost at each rest.
const MOST_CREDIT_US: i64 = 1_000;

/// What a write costs on top of the slice that did it, in µs: it is sent to
/// replicas and AOF after the slice. Measured at 40 to 100 % of the write itself.
const WRITE_AFTER_US: u64 = 1;

/// What the main thread is owed between slices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Whether the server tells the turns of its event loop (7.0 and later).
    counts_turns: bool,
    /// Time that the last slices owe the main thread, in µs; less than nothing where a
    /// timer came late, by [`MOST_CREDIT_US`] at most.
    owed_us: i64,
    /// Slices since the last rest.
    in_a_row: u64,
    /// Turns that our own timer may make in this rest beyond the first.
    own_turns: u64,
    rests: u64,
    turns: u64,
    idle: bool,
}

/// When the next slice may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// In the next turn of the event loop, behind the clients who wait.
    Turn,
    /// After so many ms.
    Ms(u64),
}

impl Next {
    /// In how many ms a timer comes for it.
    #[must_use]
    pub const fn ms(self) -> u64 {
        match self {
            Self::Turn => 1,
            Self::Ms(ms) => ms,
        }
    }
}

impl Pace {
    /// The pace of a sweep that begins, among clients until the opposite is seen.
    #[must_use]
    pub fn new(counts_turns: bool) -> Self {
        Self {
            counts_turns,
            ..Self::default()
        }
    }

    /// A slice begins: since the last the main thread has had `had_us` µs, and its
    /// event loop has gone round `turns` times.
    pub fn begin(&mut self, had_us: u64, turns: u64) {
        let had = i64::try_from(had_us).unwrap_or(i64::MAX);
        self.owed_us = self.owed_us.saturating_sub(had).max(-MOST_CREDIT_US);
        if had_us >= 1_000 {
            // Whatever for, it was a rest.
            self.in_a_row = 0;
        }
        // The turn of a slice in a row comes in any case, and a client may share it.
        if !self.counts_turns || self.in_a_row > 0 {
            return;
        }
        let turns = turns.saturating_sub(self.own_turns).max(turns.min(1));
        self.rests += 1;
        self.turns += turns;
        if turns > BUSY_TURNS {
            self.idle = false;
        } else if self.rests >= COUNTED {
            self.idle = self.turns <= IDLE_TURNS;
        } else {
            return;
        }
        (self.rests, self.turns) = (0, 0);
    }

    /// How long the slice may take, in µs.
    #[must_use]
    pub const fn slice_us(&self, settings: &Settings) -> u64 {
        if self.counts_turns && !self.idle {
            settings.slice_us / SHORTER
        } else {
            settings.slice_us
        }
    }

    /// A slice has taken `spent_us` µs and written so many keys: how long to wait
    /// for the next.
    pub fn end(&mut self, spent_us: u64, writes: u64, settings: &Settings) -> Next {
        let share = settings.cpu_percent.clamp(1, 90);
        let busy_us = spent_us + writes * WRITE_AFTER_US;
        let for_share = if self.idle {
            0
        } else {
            busy_us * (100 - share) / share
        };
        let for_writes = (writes * 1_000_000)
            .checked_div(settings.max_writes_per_sec)
            .unwrap_or(0)
            .saturating_sub(spent_us);
        let owed = i64::try_from(for_share.max(for_writes)).unwrap_or(i64::MAX);
        self.owed_us = self.owed_us.saturating_add(owed);
        let owed_ms = u64::try_from(self.owed_us / 1_000).unwrap_or(0);
        self.in_a_row += 1;
        if self.idle && owed_ms == 0 && self.in_a_row < IN_A_ROW {
            return Next::Turn;
        }
        self.in_a_row = 0;
        // The server rounds what is left of a longer period down to ms, so its timer
        // comes once too early (`moduleTimerHandler`, module.c, Redis 7.0).
        self.own_turns = u64::from(owed_ms > 1);
        Next::Ms(owed_ms.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(windows: impl IntoIterator<Item = u64>) -> Pace {
        let mut pace = Pace::new(true);
        for turns in windows {
            pace.begin(0, turns);
        }
        pace
    }

    #[test]
    fn only_a_loop_that_goes_round_for_us_alone_is_idle() {
        let settings = Settings::default();
        for (what, windows, idle) in [
            ("just begun", vec![], false),
            ("not yet long enough to tell", vec![1; 15], false),
            ("our own timer only", vec![1; 16], true),
            (
                "and the server's rounds",
                [vec![2; 3], vec![1; 13]].concat(),
                true,
            ),
            (
                "a client now and then",
                [vec![2; 8], vec![1; 8]].concat(),
                false,
            ),
            ("a client comes", [vec![1; 16], vec![5]].concat(), false),
            (
                "a client comes and goes",
                [vec![1; 16], vec![5], vec![1; 16]].concat(),
                true,
            ),
            ("a busy client", vec![40; 40], false),
            ("more turns than fit", vec![u64::MAX / 64; 16], false),
        ] {
            let pace = after(windows);
            let expected = if idle { 500 } else { 125 };
            assert_eq!(pace.slice_us(&settings), expected, "{what}");
        }
    }

    #[test]
    fn where_turns_are_not_told_a_slice_keeps_its_length_and_its_share() {
        let settings = Settings::default();
        let mut pace = Pace::new(false);
        for _ in 0..100 {
            pace.begin(0, 0);
        }
        assert_eq!(pace.slice_us(&settings), 500);
        // 500 µs are a quarter of 2 ms.
        assert_eq!(pace.end(500, 0, &settings), Next::Ms(1));
        pace.begin(1_000, 0);
        let second = pace.end(500, 0, &settings);
        assert_eq!(second, Next::Ms(2), "what was still owed counts");
    }

    #[test]
    fn writes_are_spread_over_the_second_they_are_allowed_in() {
        let mut settings = Settings::default();
        settings.set(b"max-writes-per-sec", b"10000").unwrap();
        let mut pace = after(vec![1; 16]);
        // 200 writes are 20 ms of 10,000 a second, idle or not.
        assert_eq!(pace.end(1_000, 200, &settings), Next::Ms(19));
    }

    #[test]
    fn an_idle_server_rests_for_as_short_as_a_timer_can_after_a_few_slices() {
        let mut settings = Settings::default();
        settings.set(b"cpu-percent", b"1").unwrap();
        let mut pace = after(vec![1; 16]);
        for _ in 0..3 {
            for _ in 1..IN_A_ROW {
                assert_eq!(pace.end(500, 0, &settings), Next::Turn);
                // Whose turns these are is not to be told.
                pace.begin(10, 40);
            }
            assert_eq!(pace.end(500, 0, &settings), Next::Ms(1));
            pace.begin(1_000, 1);
        }
        assert_eq!(pace.slice_us(&settings), 500, "still idle");
        let mut pace = after(vec![40; 16]);
        let busy = pace.end(125, 0, &settings);
        assert_eq!(busy, Next::Ms(12), "1 % while clients work");
    }

    #[test]
    fn a_client_that_comes_among_slices_in_a_row_is_seen_in_the_rest_behind_them() {
        let settings = Settings::default();
        let mut pace = after(vec![1; 16]);
        while pace.end(500, 0, &settings) == Next::Turn {
            pace.begin(10, 1);
        }
        pace.begin(1_000, BUSY_TURNS + 1);
        assert_eq!(pace.slice_us(&settings), 125);
        assert_ne!(pace.end(125, 0, &settings), Next::Turn);
    }

    #[test]
    fn a_timer_that_comes_once_too_early_is_no_client() {
        let mut settings = Settings::default();
        settings.set(b"max-writes-per-sec", b"100000").unwrap();
        let mut pace = after(vec![1; 16]);
        for _ in 0..40 {
            assert_eq!(pace.end(500, 300, &settings), Next::Ms(2));
            pace.begin(2_500, 2);
            assert_eq!(pace.slice_us(&settings), 500);
        }
    }

    #[test]
    fn writes_in_a_row_keep_to_the_number_allowed_in_a_second() {
        let mut settings = Settings::default();
        settings.set(b"max-writes-per-sec", b"100000").unwrap();
        let mut pace = after(vec![1; 16]);
        let (mut writes, mut us) = (0, 0);
        while us < 1_000_000 {
            writes += 100;
            us += 400
                + match pace.end(400, 100, &settings) {
                    Next::Turn => {
                        pace.begin(20, 1);
                        20
                    }
                    Next::Ms(ms) => {
                        pace.begin(ms * 1_000, 1);
                        ms * 1_000
                    }
                };
        }
        // The last debt is paid in the next second.
        assert!((95_000..=101_000).contains(&writes), "{writes}");
    }
}
