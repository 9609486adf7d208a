//! How much of the main thread a sweep takes, and when.
//!
//! While nobody else is at work, nobody can be kept waiting: slices follow each
//! other as closely as the server's timers allow. While clients are at work a sweep
//! keeps to its share, in shorter slices: what a client can meet is the length of one
//! slice, far more than the share that all of them take.

use super::settings::Settings;

/// Slices over which the turns of the event loop are counted, and the turns among
/// them that are not a client's: one per slice is our own timer's, the server's
/// periodic round and a replica's word make a few more.
const COUNTED: u64 = 16;
const IDLE_TURNS: u64 = COUNTED + 3;

/// So many turns between two slices are clients', whatever the slices before say.
const BUSY_TURNS: u64 = 4;

/// How many times shorter a slice is while clients are at work.
const SHORTER: u64 = 4;

/// What a write costs on top of the slice that did it, in µs: it is sent to
/// replicas and AOF after the slice. Measured at 40 to 100 % of the write itself.
const WRITE_AFTER_US: u64 = 1;

/// What the main thread is owed between slices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Whether the server tells the turns of its event loop (7.0 and later).
    counts_turns: bool,
    /// Time that the last slices owe the main thread, in µs.
    owed_us: u64,
    slices: u64,
    turns: u64,
    idle: bool,
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
        self.owed_us = self.owed_us.saturating_sub(had_us);
        if !self.counts_turns {
            return;
        }
        self.slices += 1;
        self.turns += turns;
        if turns > BUSY_TURNS {
            self.idle = false;
        } else if self.slices >= COUNTED {
            self.idle = self.turns <= IDLE_TURNS;
        } else {
            return;
        }
        (self.slices, self.turns) = (0, 0);
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
    /// for the next, in ms.
    pub fn end(&mut self, spent_us: u64, writes: u64, settings: &Settings) -> u64 {
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
        self.owed_us += for_share.max(for_writes);
        (self.owed_us / 1_000).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(windows: impl IntoIterator<Item = u64>) -> Pace {
        let mut pace = Pace::new(true);
        for turns in windows {
            pace.begin(1_000, turns);
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
            pace.begin(1_500, 0);
        }
        assert_eq!(pace.slice_us(&settings), 500);
        // 500 µs are a quarter of 2 ms.
        assert_eq!(pace.end(500, 0, &settings), 1);
        pace.begin(1_000, 0);
        assert_eq!(pace.end(500, 0, &settings), 2, "what was still owed counts");
    }

    #[test]
    fn writes_are_spread_over_the_second_they_are_allowed_in() {
        let mut settings = Settings::default();
        settings.set(b"max-writes-per-sec", b"10000").unwrap();
        let mut pace = after(vec![1; 16]);
        // 200 writes are 20 ms of 10,000 a second, idle or not.
        assert_eq!(pace.end(1_000, 200, &settings), 19);
    }

    #[test]
    fn an_idle_server_is_given_the_shortest_rest_a_timer_has() {
        let mut settings = Settings::default();
        settings.set(b"cpu-percent", b"1").unwrap();
        let mut pace = after(vec![1; 16]);
        assert_eq!(pace.end(500, 0, &settings), 1);
        let mut pace = after(vec![40; 16]);
        assert_eq!(pace.end(125, 0, &settings), 12, "1 % while clients work");
    }
}
